"""Metric names and the terms they average: every metric of the suite is a mean of per-joint terms over a stratum.

Grammar: [PREFIX/]MEASURE[@THRESHOLD][[NORM[,BOX]]][/STRATUM], for example "pck@0.1[clip]", "error_px/occluded",
"test/accel_error_per_s[clip,clip-box]/left_wrist". A stratum is one of `occlusion.STRATA`, a joint or a joint group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics import pck, smooth
from bipose_lit.metrics.occlusion import STRATA, timeline_of
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, NORMS, BiposeError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ENDPOINT = "pck@0.1[clip]"

_NAME = re.compile(
    r"(?:(?P<prefix>train|val|test)/)?(?P<measure>[a-z_]+?)(?:@(?P<threshold>\d*\.?\d+))?"
    r"(?P<unit>_px|_per_s)?(?:\[(?P<norm>[a-z]+)(?:,(?P<box>[^\]]*))?\])?(?:/(?P<stratum>\w+))?"
)


@dataclass(frozen=True)
class Metric:
    """A parsed metric name.

    Attributes:
        measure: "pck", "auc", "error", or one of `smooth.ORDERS`.
        norm: a normaliser, or "" for pixels.
        threshold: of PCK, or the limit of the area under its curve.
        per_s: per second instead of per frame.
        stratum: "all", another of `STRATA`, a joint or a group.
    """

    measure: str
    norm: str = ""
    threshold: float = 0.0
    per_s: bool = False
    stratum: str = "all"

    @property
    def higher_is_better(self) -> bool:
        return self.measure in ("pck", "auc")


@dataclass(frozen=True)
class Terms:
    """What is averaged.

    Attributes:
        values: (N, K), meaningless where not defined.
        defined: (N, K) labelled joints for which the metric exists.
    """

    values: Floats
    defined: Bools


def parse(name: str) -> Metric:
    """A metric's name taken apart.

    Raises:
        BiposeError: no such metric.
    """
    match = _NAME.fullmatch(name)
    if match:
        measure, norm, unit = match["measure"], match["norm"] or "", match["unit"] or ""
        threshold = match["threshold"]
        fits = norm in NORMS or (norm == "" and unit == "_px")
        if measure in ("pck", "auc"):
            fits = norm in NORMS and not unit and threshold is not None and float(threshold) > 0
        else:
            known = measure in ("error", *smooth.ORDERS) and threshold is None
            fits = fits and known and not (unit == "_px" and norm) and not (unit == "_per_s" and measure == "error")
        if fits:
            return Metric(measure, norm, float(threshold or 0), unit == "_per_s", match["stratum"] or "all")
    raise BiposeError(
        f"metric {name!r} is unknown; use pck@T[NORM], auc@T[NORM], error_px, error[NORM], accel_error_px, "
        f"accel_error[NORM], velocity_error..., jitter..., with NORM one of {', '.join(NORMS)} and an optional /STRATUM"
    )


def terms(predictions: Predictions, metric: Metric | str) -> Terms:
    """The terms of a metric, its stratum not applied.

    Raises:
        BiposeError: no such metric.
    """
    m = parse(metric) if isinstance(metric, str) else metric
    defined = np.asarray(predictions.visible != ABSENT)
    norm = pck.normaliser(predictions.norms, m.norm) if m.norm else np.ones(len(predictions.uid))
    if m.measure in smooth.ORDERS:
        found = smooth.differences(predictions, m.measure)
        values, defined = found.values / norm[:, None], found.defined
        if m.per_s:
            values = smooth.per_second(values, predictions.fps, smooth.ORDERS[m.measure])
            defined = defined & (predictions.fps > 0)[:, None]
    else:
        distance = pck.distances(predictions.pred, predictions.joints)
        if m.measure == "pck":
            values = pck.correct(distance, norm, m.threshold).astype(np.float64)
        elif m.measure == "auc":
            values = pck.under_curve(distance, norm, m.threshold)
        else:
            values = distance / norm[:, None]
    return Terms(values, defined & np.isfinite(norm)[:, None])


def joint_sets(joint_names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Positions by joint name and, left and right together, by group name."""
    found: dict[str, list[int]] = {}
    for i, joint in enumerate(joint_names):
        found.setdefault(joint.removeprefix("left_").removeprefix("right_"), []).append(i)
    joints = {joint: (i,) for i, joint in enumerate(joint_names)}
    return {**joints, **{name: tuple(ids) for name, ids in found.items() if name not in joints}}


def stratum_mask(predictions: Predictions, stratum: str, strata: Mapping[str, Bools] | None = None) -> Bools:
    """(N, K) labelled joints of a stratum.

    Args:
        predictions: holds whole clips.
        stratum: one of `STRATA`, a joint or a group.
        strata: masks that `Timeline.strata` gave, to save the time or to use whole clips' labels.

    Raises:
        BiposeError: no such stratum.
    """
    if stratum == "all":
        return np.asarray(predictions.visible != ABSENT)
    if stratum in STRATA:
        return (strata or timeline_of(predictions).strata())[stratum]
    sets = joint_sets(predictions.joint_names)
    if stratum not in sets:
        raise BiposeError(f"stratum {stratum!r} is unknown; use one of {', '.join((*STRATA, *sets))}")
    chosen = np.zeros(len(predictions.joint_names), bool)
    chosen[list(sets[stratum])] = True
    return np.asarray((predictions.visible != ABSENT) & chosen)
