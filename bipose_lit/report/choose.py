"""The report that a folder asks for: of a sweep, of an ablation, or of runs that only a data set's own measure scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bipose_lit.report.build import Report, build_report
from bipose_lit.report.own import OwnReport, build_own_report, is_own
from bipose_lit.report.pictures import Lookup
from bipose_lit.report.sweep import SweepReport, build_sweep_report, is_sweep


def build_any_report(
    folder: Path,
    manifest: Mapping[str, Any] | None = None,
    frames: Lookup | None = None,
    train: Iterable[Any] | None = None,
) -> Report | SweepReport | OwnReport:
    """Computes and writes it; arguments and errors are those of `build_report`."""
    if is_sweep(folder):
        return build_sweep_report(folder, frames, train)
    return (
        build_own_report(folder, manifest)
        if is_own(folder, manifest)
        else build_report(folder, manifest, frames, train)
    )
