"""The arguments of `bipose ablate`, and of submitting to a cluster; imports nothing heavy, as every help text needs them."""

from __future__ import annotations

import argparse
from pathlib import Path

from bipose_lit.datasets.arguments import names, positive


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """Defines the arguments of `bipose ablate`."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="YAML file that asks the question")
    add_start(parser, "runs", "ablations", "arm, e.g. model.recipe.lr=1e-3", "the queue")
    parser.add_argument(
        "--seeds", type=_seeds, metavar="K|A,B,..", help="number of seeds, or a list, instead of the manifest's"
    )
    parser.add_argument("--arms", type=names, metavar="A,B,..", help="only these arms")
    parser.add_argument(
        "--fresh", action="store_true", help="repeat finished runs whose configuration has changed since"
    )


def add_start(parser: argparse.ArgumentParser, runs: str, plans: str, each: str, kept: str) -> None:
    """Defines what every start of a plan takes.

    Args:
        parser: of the command.
        runs: what the plan's runs are called.
        plans: what plans are called.
        each: what `--set` goes over, with an example.
        kept: what lies in the storage.
    """
    parser.add_argument(
        "--workers", type=positive, metavar="N", help=f"{runs} side by side (default: what cores or GPUs carry)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help=f"folder of all {plans} (default: runs)"
    )
    parser.add_argument(
        "--plan", action="store_true", help="print what would run, states, time and disk space, and end"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="options",
        help=f"an option over every {each}; may repeat",
    )
    parser.add_argument("--no-wandb", action="store_true", help="do not mirror the results to W&B")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help=f"of {kept}: a journal file, sqlite:///... or postgresql://... (default: a journal file in DIR); workers on "
        "several machines join by the same command",
    )
    parser.add_argument(
        "--devices", metavar="D", help="GPUs to share out: auto (default), cpu, a number, or a list such as 0,1"
    )
    add_submit(parser)


def add_submit(parser: argparse.ArgumentParser) -> None:
    """Defines --submit and --slurm."""
    parser.add_argument(
        "--submit", choices=("slurm",), help="do not run here: hand this command to the cluster as an array of workers"
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of sbatch, e.g. array=0-3 (four machines), partition=gpu, gres=gpu:8, time=4:00:00; may repeat",
    )


def _seeds(text: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError:
        numbers = []
    if not numbers:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number of seeds (5) nor a list (0,1,2)")
    return numbers if "," in text else numbers[0]
