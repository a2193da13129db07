"""What `bipose data make | show | spectra` do; plain functions that print."""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bipose_lit.types import BiposeError

SHOWN = ("jhmdb", "synthetic", "penn")
SHORTEST = 2.0
"""Seconds of motion that a spectrum needs."""


def make(
    root: Path,
    clips: Mapping[str, int] | None = None,
    frames: int = 32,
    seed: int = 0,
    workers: int | None = None,
    motion: Sequence[Path] = (),
    formats: Sequence[str] | None = None,
    **further: Any,
) -> None:
    """Writes the synthetic set and prints what it holds; `further` as `synthetic.make.make_dataset` takes it.

    Raises:
        BiposeError: as there.
    """
    from bipose_lit.datasets.synthetic.make import make_dataset

    options: dict[str, Any] = further if formats is None else {**further, "formats": tuple(formats)}
    count = (
        workers if workers is not None else len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    )
    manifest = make_dataset(
        root,
        clips,
        frames=frames,
        seed=seed,
        workers=count or 1,
        motion_files=motion,
        progress=sys.stderr.isatty(),
        **options,
    )
    print(describe(manifest))
    print(
        f"{root}: fingerprint {manifest['fingerprint']}; see it with 'bipose data show synthetic {root} --out sheet.png'"
    )


def describe(manifest: Mapping[str, Any]) -> str:
    """The measured hidden runs of a set as a table, by split and regime."""
    from bipose_lit.datasets.synthetic.assay import REFERENCE

    head = ("split", "regime", "clips", "hidden", "runs", "median", "90%", "touch an end", "P", "F", "B", "N")
    rows = [head]
    for split, parts in manifest["statistics"].items():
        for regime, row in parts.items():
            shares = [_percent(row[f"share_{name}"]) for name in "PFBN"]
            length = [f"{row[key]:g}" if row[key] is not None else "-" for key in ("median", "p90")]
            rows.append(
                (split, regime, str(row["clips"]), _percent(row["hidden"]), str(row["runs"]), *length,
                 _percent(row["touching"]), *shares)
            )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, f"hidden runs of joints in frames, as cut by the clip; {REFERENCE}"])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def show(name: str, root: Path, out: Path, clips: int = 12) -> None:
    """Writes a contact sheet of some clips of a data set.

    Args:
        name: of SHOWN.
        root: the data set's folder.
        out: PNG to be written.
        clips: how many, from as many sources as possible.

    Raises:
        BiposeError: an unknown format, or what the reader says.
    """
    from bipose_lit.datasets.index import Reader
    from bipose_lit.datasets.jhmdb import JHMDB
    from bipose_lit.datasets.penn import PennAction
    from bipose_lit.datasets.sheet import contact_sheet, sample_tracks

    if name not in SHOWN:
        near = difflib.get_close_matches(name, SHOWN, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise BiposeError(f"data format {name!r} is none of {', '.join(SHOWN)}{hint}")
    if not root.is_dir():
        raise BiposeError(f"{root}: no such folder; give the folder of the data set ('bipose data make' writes one)")
    if (other := _layout(root)) and other != ("penn" if name == "penn" else "jhmdb"):
        there = f"{name} {root / name}" if (root / name).is_dir() else f"{other} {root}"
        raise BiposeError(f"{root}: this is the layout of {other}, not of {name}; say 'bipose data show {there}'")
    reader: Reader = PennAction(root) if name == "penn" else JHMDB(root)
    problem = None
    for split in ("test", "train"):
        try:
            index = reader.index(split)
        except BiposeError as error:
            problem = problem or error
            continue
        tracks = sample_tracks(index, clips)
        contact_sheet(tracks, index.skeleton, out, frames_per_clip=6, columns=2, height=168, title=index.name)
        print(f"{out}: {len(tracks)} of {len(index.tracks)} clips of {index.name}, {len(index.clusters)} sources")
        for line in left_out(index.skipped):
            print(f"  {line}")
        return
    raise problem or BiposeError(f"{root}: no clips")


def left_out(skipped: Mapping[str, Sequence[str]]) -> list[str]:
    """What a reader left out or mended, a line per reason with the first five places."""
    return [f"{why}: {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}" for why, found in skipped.items()]


def _layout(root: Path) -> str:
    """Whose layout a folder has, by the folder that holds the labels; "" if it is neither's or both's."""
    found = [name for name, labels in (("jhmdb", "joint_positions"), ("penn", "labels")) if (root / labels).is_dir()]
    return found[0] if len(found) == 1 else ""


def spectra(motion: Sequence[Path], seconds: float = 4.0) -> None:
    """Prints speed, acceleration and spectrum of the made motions beside captured ones.

    Args:
        motion: BVH files.
        seconds: length of the pieces, at least SHORTEST.

    Raises:
        BiposeError: a file that cannot be read, none long enough, or pieces too short.
    """
    import numpy as np

    from bipose_lit.datasets.synthetic.bvh import clips_in, motion_from_bvh
    from bipose_lit.datasets.synthetic.motions import MOTION_SPLITS, make_motion
    from bipose_lit.datasets.synthetic.spectra import compare, format_table, speed_spectrum

    fps = 25.0
    if not SHORTEST <= seconds < math.inf:
        raise BiposeError(f"--seconds {seconds:g}: a spectrum with bands of half a hertz needs {SHORTEST:g} or more")
    frames = round(seconds * fps)
    captured = [motion_from_bvh(path, fps, frames, start) for path in motion for start in clips_in(path, frames, fps)]
    if not captured:
        raise BiposeError(
            f"none of the {len(motion)} motion files lasts {seconds:g} s; give longer ones or less --seconds"
        )
    kinds = [kind for kinds in MOTION_SPLITS.values() for kind in kinds]
    made = [make_motion(kind, frames, fps, np.random.default_rng([0, i])) for i, kind in enumerate(kinds)]
    print(format_table(compare(speed_spectrum(made), speed_spectrum(captured))))
    print(f"ours: {len(made)} pieces of {seconds:g} s; captured: {len(captured)} from {len(motion)} files")
