"""The parsers of `bipose data ...`, and the kinds of arguments that other commands have too; imports nothing heavy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def positive(text: str) -> int:
    """A whole number above 0."""
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def names(text: str) -> list[str]:
    """A,B,.."""
    return [part.strip() for part in text.split(",") if part.strip()]


def counts(text: str) -> dict[str, int]:
    """train=96,val=24"""
    found = re.fullmatch(r"(stage1|train|val|test)=\d+(,(stage1|train|val|test)=\d+)*", text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is not like stage1=96,train=96,val=24,test=48")
    return {part.split("=")[0]: int(part.split("=")[1]) for part in text.split(",")}


def add_data_commands(group: Any, leaf: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds make, show, check, fetch and spectra; `leaf(group, name, run, about)` makes a parser."""
    make = leaf(group, "make", _data_make, "write the synthetic data set in the official formats")
    make.add_argument("--root", type=Path, required=True, metavar="DIR", help="where to")
    make.add_argument(
        "--clips", type=counts, metavar="SPLIT=N,..", help="clips of stage1, train, val, test, e.g. train=96,val=24"
    )
    make.add_argument("--frames", type=positive, metavar="T", help="frames per clip")
    make.add_argument("--fps", type=float, metavar="F", help="frames per second")
    make.add_argument("--clips-per-cluster", type=positive, metavar="N", help="clips that share a scene and a person")
    make.add_argument("--pixels", choices=("video", "png"), help="motion JPEG, or lossless and seven times as large")
    make.add_argument("--seed", type=int, metavar="K", help="the set is a function of its options and this number")
    make.add_argument("--workers", type=positive, metavar="N", help="processes (default: as many as cores)")
    make.add_argument("--motion", type=Path, nargs="+", metavar="FILE.bvh", help="captured motion to draw from as well")
    make.add_argument("--formats", type=names, metavar="A,B,..", help="official formats to write")
    show = leaf(group, "show", _data_show, "a picture or page of clips with their labels")
    check = leaf(group, "check", _data_check, "look through a data set: files, labels, counts, splits")
    for command in (show, check):
        command.add_argument("name", metavar="NAME", help="a data set; 'bipose data fetch' lists them")
        command.add_argument("root", type=Path, metavar="ROOT", help="its folder")
    show.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the picture (.png) or page (.html) to write"
    )
    show.add_argument(
        "--split", choices=("train", "val", "test"), help="default: the first of test, val, train there is"
    )
    show.add_argument("--clips", type=positive, default=12, metavar="N", help="how many (default: 12)")
    show.add_argument("--crop", action="store_true", help="the boxes as a network gets them, not whole frames")
    check.add_argument(
        "--pixels", choices=("exist", "decode"), default="exist", help="that pictures exist, or also read them all"
    )
    check.add_argument("--limit", type=positive, metavar="N", help="with --pixels decode: at most so many")
    check.add_argument("--no-counts", action="store_true", help="do not compare with the published counts")
    check.add_argument("--all", action="store_true", help="every place of a fault, not the first ten")
    check.add_argument("--json", type=Path, metavar="OUT", help="write everything here as well")
    for command in (show, check):
        command.add_argument("--skeleton", metavar="NAME|YAML", help="of video_json")
    fetch = leaf(group, "fetch", _data_fetch, "download a data set, or say how it is had; without NAME: what there is")
    fetch.add_argument("name", nargs="?", metavar="NAME", help="a data set")
    fetch.add_argument("--root", type=Path, metavar="DIR", help="where to (default: where the recipes look for it)")
    fetch.add_argument("--only", type=names, default=[], metavar="FILE,..", help="only these of its files")
    fetch.add_argument("--list", action="store_true", help="print its files and end")
    fetch.add_argument("--yes", action="store_true", help="do not ask; you accept the set's terms")
    spectra = leaf(group, "spectra", _data_spectra, "speeds of the synthetic motion beside captured motion")
    spectra.add_argument("--motion", type=Path, nargs="+", required=True, metavar="FILE.bvh", help="captured motion")
    spectra.add_argument(
        "--seconds", type=float, default=4.0, metavar="S", help="length of the pieces compared (default: 4)"
    )


def _data_make(args: argparse.Namespace) -> int:
    from bipose_lit.datasets.commands import make

    given = {
        k: getattr(args, k)
        for k in ("clips", "frames", "fps", "clips_per_cluster", "pixels", "seed", "workers", "motion", "formats")
    }
    make(args.root, **{k: v for k, v in given.items() if v is not None})
    return 0


def _data_show(args: argparse.Namespace) -> int:
    from bipose_lit.datasets.show import show

    show(args.name, args.root, args.out, args.split, args.clips, args.crop, args.skeleton)
    return 0


def _data_check(args: argparse.Namespace) -> int:
    from bipose_lit.datasets.commands import check

    return check(args.name, args.root, args.pixels, not args.no_counts, args.limit, args.skeleton, args.all, args.json)


def _data_fetch(args: argparse.Namespace) -> int:
    from bipose_lit.datasets.fetch import fetch, overview

    if args.name is None:
        print(overview())
    else:
        fetch(args.name, args.root, args.only, args.list, args.yes)
    return 0


def _data_spectra(args: argparse.Namespace) -> int:
    from bipose_lit.datasets.commands import spectra

    spectra(args.motion, args.seconds)
    return 0
