"""The arguments of `bipose sweep`; imports nothing heavy, as every help text needs them."""

from __future__ import annotations

import argparse
from pathlib import Path

from bipose_lit.ablation.arguments import add_start
from bipose_lit.datasets.arguments import positive


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Defines the arguments of `bipose sweep`."""
    parser.add_argument("manifest", type=Path, metavar="SWEEP", help="YAML file with the search space")
    add_start(parser, "trials", "sweeps", "run, e.g. trainer.max_steps=100", "the study")
    parser.add_argument(
        "--trials",
        type=positive,
        metavar="N",
        help="budget in trials, instead of the file's; more goes on with a search",
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was searched under this name and begin anew")
    parser.add_argument("--retry", action="store_true", help="run failed trials again; without it they count as tried")
