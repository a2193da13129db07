"""PCKh, the measure of MPII Human Pose (Andriluka et al. 2014): the share of joints within t x head size of their label.

Definitions, from the data set's evaluation toolkit (evalMPII: `evaluatePCKh.m`, `annolist2matrix.m`, `computePCK.m`,
`genTablePCK.m`) and its port in the SimpleBaselines and HRNet code (`MPIIDataset.evaluate`): the head size is 0.6 x the diagonal
of the head box; missing joints are left out; the boundary counts. The mean ("pckh@0.5") weighs joints by how often they are
labelled and leaves out pelvis and thorax.

"Head" means two things in print. The owners' toolkit, and so MPII's leaderboard, prints the plain mean of upper neck and head
top: "/head[neck+top]". The port takes the head top alone, and so do papers whose numbers come from it: "/head". For the stacked
hourglass on the 2,958 validation people they are 96.71 and 95.94.

A group of two sides is the plain mean of the left and the right joint, as published tables have it. Taken together the sides
would weigh by their labels, which differs in the third decimal: for the stacked hourglass on the 2,958 validation people the
knee is 83.094 by the mean of sides and 83.095 by all knees together, and 83.094 is what is published.

"pckh@0.1" is at threshold 0.1. What the reference code prints as "Mean@0.1" reads entry 11 of a grid that starts at 0, so it is
"pckh@0.11" here.

Where a head size is not from a head box but estimated, all these names carry "[estimated_head]" (see `MpiiScoring`): it is
another measure, and no published number is of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.metrics import pck
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT

THRESHOLDS: Final = (0.5, 0.1, 0.11)
LIMIT: Final = 0.5
"""Where the curve ends under which the area is taken."""

GRID: Final = tuple(i / 100 for i in range(51))
"""Thresholds of the evaluation toolkit's curve: 0 to 0.5 in steps of 0.01."""

HEAD_FACTOR: Final = 0.6
"""Head size over the diagonal of the head box."""

SMALLEST_HEAD: Final = 1e-3
"""Head sizes below this, in pixels, are no head sizes."""

UNSCORED: Final = ("pelvis", "thorax")

GROUPS: Final = {
    "head": ("head_top",),
    "head[neck+top]": ("upper_neck", "head_top"),
    **{
        part: (f"left_{part}", f"right_{part}") for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    },
}  # fmt: skip

_JOINTS: Final = skeletons.MPII.joints
_SCORED: Final = [i for i, joint in enumerate(_JOINTS) if joint not in UNSCORED]


@dataclass(frozen=True)
class Pckh:
    """PCKh, or the area under its curve, with the meanings that "mean" has in print; fractions, NaN where nothing was labelled.

    Attributes:
        per_joint: (16,) in the order of `skeletons.MPII`.
        labels: (16,) scored labels of each joint.
        groups: by name of part, the plain mean of its joints: left and right, or as `GROUPS` has it.
        mean: over the labels of all joints but pelvis and thorax: the headline.
        plain_mean_16: plain mean of the 16 joints.
        all_weighted_16: over the labels of all 16 joints.
        excluded: persons with labelled joints left out for want of a head size.
    """

    per_joint: NDArray[np.float64]
    labels: NDArray[np.int64]
    groups: dict[str, float]
    mean: float
    plain_mean_16: float
    all_weighted_16: float
    excluded: int


def pckh(
    pred: NDArray[np.floating],
    joints: NDArray[np.floating],
    missing: NDArray[np.bool_],
    head: NDArray[np.floating],
    threshold: float = 0.5,
) -> Pckh:
    """PCKh at one threshold.

    Args:
        pred: (N, 16, 2) predicted joints in pixels, in the labels' coordinates; a joint with NaN counts as wrong.
        joints: (N, 16, 2) labels.
        missing: (N, 16) joints without a label.
        head: (N,) head sizes in pixels, 0.6 x the head box's diagonal; a person whose size is NaN, infinite or below
            `SMALLEST_HEAD` is left out and counted.
        threshold: fraction of the head size.

    Raises:
        ValueError: shapes that do not fit.
    """
    distance, norm, mask = _terms(pred, joints, missing, head)
    return _summary(pck.pck(distance, norm, mask, threshold))


def area(
    pred: NDArray[np.floating],
    joints: NDArray[np.floating],
    missing: NDArray[np.bool_],
    head: NDArray[np.floating],
    grid: bool = False,
) -> Pckh:
    """Area under PCKh(t) for t from 0 to 0.5, divided by 0.5; arguments as in `pckh`.

    Args:
        pred: (N, 16, 2).
        joints: (N, 16, 2).
        missing: (N, 16).
        head: (N,).
        grid: by the trapezoids of the evaluation toolkit's curve (thresholds 0, 0.01, ... 0.5 joined by straight lines), as
            MPII's tables have it; else exact, as PCKh is a staircase.
    """
    distance, norm, mask = _terms(pred, joints, missing, head)
    if not grid:
        return _summary(pck.auc(distance, norm, mask, LIMIT))
    curve = [pck.pck(distance, norm, mask, threshold) for threshold in GRID]
    weights = np.ones(len(GRID))
    weights[[0, -1]] = 0.5
    total = weights @ np.stack([point.total for point in curve])  # whole and half numbers: exact
    return _summary(pck.Average(total / weights.sum(), curve[0].count, curve[0].excluded))


def scores(
    pred: NDArray[np.floating],
    joints: NDArray[np.floating],
    missing: NDArray[np.bool_],
    head: NDArray[np.floating],
) -> dict[str, float]:
    """All numbers by name: "pckh@T" and "pckh@T/PART" for T of 0.5, 0.1 and 0.11, areas, and the other two means.

    "pckh@0.5[plain_mean_16]" and "pckh@0.5[all_weighted_16]" see `Pckh`; "auc@0.5" and "auc@0.5[grid_0.01]" see `area`.
    Arguments as in `pckh`.
    """
    found: dict[str, float] = {}
    for threshold in THRESHOLDS:
        result = pckh(pred, joints, missing, head, threshold)
        found[f"pckh@{threshold:g}"] = result.mean
        found |= {f"pckh@{threshold:g}/{part}": value for part, value in result.groups.items()}
        if threshold == LIMIT:
            found["pckh@0.5[plain_mean_16]"] = result.plain_mean_16
            found["pckh@0.5[all_weighted_16]"] = result.all_weighted_16
    for name, grid in ((f"auc@{LIMIT:g}", False), (f"auc@{LIMIT:g}[grid_0.01]", True)):
        result = area(pred, joints, missing, head, grid)
        found[name] = result.mean
        found |= {f"{name}/{part}": value for part, value in result.groups.items()}
    return found


@dataclass(frozen=True)
class MpiiScoring:
    """MPII's own measure for an index's predictions: `scores` with the head sizes in their norms.

    Predictions are float32, so a distance that hits a threshold exactly may fall on either side; `bipose evaluate mpii` is exact.

    Attributes:
        estimated_head: the head size of a person of the index is not from a head box but estimated. All names then say so:
            "pckh@0.5[estimated_head]/knee", "pckh@0.5[plain_mean_16,estimated_head]".
    """

    estimated_head: bool = False

    def fingerprint(self) -> str:
        """Of the names; labels and head sizes are in the index."""
        return f"pckh, estimated_head {self.estimated_head}"

    def score(self, predictions: Predictions) -> dict[str, float]:
        """Numbers by name, fractions; NaN where no scored person has a head size. Frames without a label do not count."""
        head = pck.normaliser(predictions.norms, "head")
        found = scores(predictions.pred, predictions.joints, predictions.visible == ABSENT, head)
        return {_estimated(name): value for name, value in found.items()} if self.estimated_head else found


def _estimated(name: str) -> str:
    measure, slash, part = name.partition("/")
    measure = f"{measure[:-1]},estimated_head]" if measure.endswith("]") else f"{measure}[estimated_head]"
    return f"{measure}{slash}{part}"


def _terms(
    pred: NDArray[np.floating], joints: NDArray[np.floating], missing: NDArray[np.bool_], head: NDArray[np.floating]
) -> tuple[pck.Floats, pck.Floats, pck.Bools]:
    N, K = len(head), len(_JOINTS)
    shapes = np.shape(pred), np.shape(joints), np.shape(missing), np.shape(head)
    if shapes != ((N, K, 2), (N, K, 2), (N, K), (N,)):
        raise ValueError(
            f"pred, joints, missing, head have shapes {shapes}, expected (N, {K}, 2) twice, (N, {K}), (N,)"
        )
    sizes = np.asarray(head, np.float64)
    norm = np.where(np.isfinite(sizes) & (sizes >= SMALLEST_HEAD), sizes, np.nan)
    mask = ~np.asarray(missing, bool)
    labels = np.where(mask[..., None], np.asarray(joints, np.float64), 0.0)
    found = np.asarray(pred, np.float64)
    found = np.where(np.isnan(found), np.inf, found)
    return pck.distances(found, labels), norm, mask


def _summary(average: pck.Average) -> Pckh:
    per_joint = average.per_joint
    groups = {}
    for part, names in GROUPS.items():
        values = per_joint[[_JOINTS.index(name) for name in names]]
        known = values[np.isfinite(values)]
        groups[part] = float(known.mean()) if len(known) else float("nan")
    return Pckh(
        per_joint=per_joint,
        labels=average.count,
        groups=groups,
        mean=average.group(_SCORED),
        plain_mean_16=average.joint_mean,
        all_weighted_16=average.mean,
        excluded=average.excluded,
    )
