"""What `bipose data make | check | spectra` do; plain functions that print."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bipose_lit.types import BiposeError

SHOWN = 10
"""Places told per reason."""
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


def check(
    name: str,
    root: Path,
    pixels: str = "exist",
    counts: bool = True,
    limit: int | None = None,
    skeleton: str | None = None,
    every: bool = False,
    json: Path | None = None,
) -> int:
    """Prints what `check.check` finds: a table of the splits, then what is wrong, then what is good to know.

    Args:
        name: as there, like the arguments up to skeleton.
        root: as there.
        pixels: as there.
        counts: as there.
        limit: as there.
        skeleton: as there.
        every: all lines of a reason instead of the first SHOWN.
        json: where to write all of it.

    Returns:
        1 if something is wrong, else 0.

    Raises:
        BiposeError: as there.
    """
    from bipose_lit.datasets.check import check as look

    if json is not None and json.is_dir():
        raise BiposeError(f"--json {json}: is a folder; name a file")
    report = look(name, root, pixels, counts, limit, skeleton)
    head = ("split", "clips", "persons", "pictures", "sources", "joints", "hidden")
    rows = [
        (r.split, *(f"{n:,}" for n in (r.clips, r.persons, r.pictures, r.sources, r.labelled)), f"{r.hidden:.0%}")
        for r in report.rows
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        cells = [c.ljust(w) if not i else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    for title, findings in (("wrong", report.wrong), ("note", report.notes)):
        for reason, places in findings.items():
            print(f"{title}: {reason} ({len(places):,})")
            shown = places if every else places[:SHOWN]
            print("".join(f"  {place}\n" for place in shown), end="")
            if len(places) > len(shown):
                print(f"  ... and {len(places) - len(shown):,} more (--all)")
    faults = sum(len(places) for places in report.wrong.values())
    print(f"{root}: {f'{faults:,} faults' if faults != 1 else '1 fault'}" if faults else f"{root}: nothing wrong")
    if json is not None:
        report.save(json)
    return 1 if faults else 0


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
