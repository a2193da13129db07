"""The end of making a set: lists, indices of stills, statistics, manifest; and where the records of clips lie until then."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bipose_lit.datasets.synthetic.assay import REGIMES, ClipPlan, run_statistics
from bipose_lit.types import OCCLUDED

MANIFEST = "manifest.json"
RECORDS = ".records"
"""Folder in the unfinished set: parameters and, per clip, labels and the record that says it is complete."""

SUBSETS = ("all", *REGIMES)
_VERSIONS = ("numpy", "opencv-python-headless", "scipy", "av")


def record_path(part: Path, clip: str) -> Path:
    """The record of a clip; it exists once the clip is complete."""
    return part / RECORDS / f"{clip}.json"


def labels_path(part: Path, clip: str) -> Path:
    """All labels of a clip, until the formats are written."""
    return part / RECORDS / f"{clip}.npz"


def finish(part: Path, plans: Sequence[ClipPlan], parameters: dict[str, Any]) -> dict[str, Any]:
    """Writes what needs all clips, then removes the records; returns the manifest."""
    from bipose_lit.datasets.synthetic.write import JHMDB_POINTS, ClipLabels, put, write_jhmdb_splits
    from bipose_lit.datasets.synthetic.write_stills import write_coco, write_h36m, write_mpii

    records = [json.loads(record_path(part, plan.name).read_text()) for plan in plans]

    def every() -> Iterator[ClipLabels]:
        return (ClipLabels.load(labels_path(part, plan.name)) for plan in plans)

    write_jhmdb_splits(part, [(plan.name, plan.split) for plan in plans])
    writers = {"coco": write_coco, "mpii": write_mpii, "h36m": write_h36m}
    for name, write in writers.items():
        if name in parameters["formats"]:
            write(part / name, every())
    dark = {plan.name: labels.visible(JHMDB_POINTS) == OCCLUDED for plan, labels in zip(plans, every(), strict=True)}
    statistics = {
        split: {
            subset: run_statistics(dark[p.name] for p in plans if p.split == split and subset in ("all", p.regime))
            for subset in SUBSETS
            if any(p.split == split and subset in ("all", p.regime) for p in plans)
        }
        for split in parameters["clips"]
    }
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    put(part / "clips.csv", table.getvalue().encode())
    fingerprint = hashlib.blake2b("\n".join(r["digest"] for r in records).encode(), digest_size=16).hexdigest()
    manifest = {
        "what": "bipose synthetic video set in JHMDB's layout; clips.csv lists the clips",
        "parameters": parameters,
        "fingerprint": fingerprint,
        "statistics": _rounded(statistics),
        "versions": {name: version(name) for name in _VERSIONS},
    }
    put(part / MANIFEST, json.dumps(manifest, indent=1).encode())
    shutil.rmtree(part / RECORDS)
    return manifest


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, float):
        return round(value, 4) if value == value else None
    return value
