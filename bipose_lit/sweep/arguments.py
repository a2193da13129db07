"""The arguments of `bipose sweep`; imports nothing heavy, as every help text needs them."""

from __future__ import annotations

import argparse
from pathlib import Path

from bipose_lit.ablation.arguments import add_submit
from bipose_lit.datasets.arguments import positive


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Defines the arguments of `bipose sweep`."""
    parser.add_argument("manifest", type=Path, metavar="SWEEP", help="YAML file with the search space")
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="trials side by side (default: what cores or GPUs carry)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of all sweeps (default: runs)"
    )
    parser.add_argument("--plan", action="store_true", help="print the space, states, time and disk space, and end")
    parser.add_argument(
        "--trials",
        type=positive,
        metavar="N",
        help="budget in trials, instead of the file's; more goes on with a search",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="options",
        help="an option over every run, e.g. trainer.max_steps=100; may repeat",
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was searched under this name and begin anew")
    parser.add_argument("--retry", action="store_true", help="run failed trials again; without it they count as tried")
    parser.add_argument("--no-wandb", action="store_true", help="do not mirror the results to W&B")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="of the study: a journal file, sqlite:///... or postgresql://... (default: a journal file in DIR); workers on "
        "several machines join by the same command",
    )
    parser.add_argument(
        "--devices", metavar="D", help="GPUs to share out: auto (default), cpu, a number, or a list such as 0,1"
    )
    add_submit(parser)
