"""Percentage of correct keypoints (PCK) by any normaliser, and the area under its curve.

A joint is correct when its distance is at most threshold x normaliser (Yang and Ramanan, 2013). The boundary counts,
as in MPII's evaluation and its port in the HRNet code (`less_equal`); mmpose compares strictly, which differs only for
distances that hit the threshold exactly. All arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bipose_lit.types import NORMS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLDS = (0.05, 0.1, 0.2)
AUC_LIMIT = 0.2


@dataclass(frozen=True)
class Average:
    """Sums and counts per joint, from which every mean follows.

    Attributes:
        total: (K,) sum of the terms of each joint.
        count: (K,) number of terms of each joint.
        excluded: persons-in-frames with labelled joints that were left out since their normaliser is undefined.
    """

    total: Floats
    count: NDArray[np.int64]
    excluded: int = 0

    @property
    def mean(self) -> float:
        """Mean over all terms, so joints weigh by how often they are labelled; NaN if there is none."""
        return _ratio(float(self.total.sum()), int(self.count.sum()))

    @property
    def joint_mean(self) -> float:
        """Plain mean of the joints that have terms; NaN if none has."""
        values = self.per_joint[self.count > 0]
        return float(values.mean()) if len(values) else float("nan")

    @property
    def per_joint(self) -> Floats:
        """(K,) mean of each joint, NaN where it has no term."""
        return np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)

    def group(self, joints: Sequence[int]) -> float:
        """Mean over the terms of some joints together (left and right); NaN if they have none."""
        chosen = list(joints)
        return _ratio(float(self.total[chosen].sum()), int(self.count[chosen].sum()))


def distances(pred: NDArray[np.floating], joints: NDArray[np.floating]) -> Floats:
    """(N, K) Euclidean distances in pixels between (N, K, 2) predictions and labels."""
    return np.asarray(np.linalg.norm(np.asarray(pred, np.float64) - np.asarray(joints, np.float64), axis=-1))


def normaliser(norms: NDArray[np.floating], name: str) -> Floats:
    """(N,) one column of (N, M) normalisers in pixels; NaN where it is undefined, zero or negative.

    Raises:
        ValueError: no such normaliser.
    """
    values = np.asarray(norms[:, NORMS.index(name)], np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def correct(distance: Floats, norm: Floats, threshold: float) -> Bools:
    """(N, K) whether a joint lies within threshold x normaliser, the boundary included; False where it is NaN.

    Args:
        distance: (N, K) pixels.
        norm: (N,) pixels.
        threshold: fraction of the normaliser.
    """
    return np.asarray(distance / norm[:, None] <= threshold)


def under_curve(distance: Floats, norm: Floats, limit: float = AUC_LIMIT) -> Floats:
    """(N, K) each joint's share in the exact area under PCK(t), t from 0 to `limit`, divided by `limit`.

    A joint at normalised distance e is correct for all t >= e, so the area is max(0, 1 - e / limit). A mean of PCK over
    a grid of thresholds (mmpose; steps of 0.01 in MPII's tables) tends to this as the grid gets finer. NaN where the
    normaliser is.
    """
    return np.clip(1.0 - distance / norm[:, None] / limit, 0.0, None)


def average(terms: NDArray[np.floating] | Bools, mask: Bools, excluded: int = 0) -> Average:
    """Sums (N, K) terms over the persons under an (N, K) mask."""
    total = np.where(mask, terms, 0.0).sum(axis=0, dtype=np.float64)
    return Average(total, mask.sum(axis=0, dtype=np.int64), excluded)


def pck(distance: Floats, norm: Floats, mask: Bools, threshold: float) -> Average:
    """PCK over the joints under a mask.

    Args:
        distance: (N, K) pixels.
        norm: (N,) pixels; a person with NaN is excluded and counted in the result.
        mask: (N, K) joints to score, e.g. `visible != ABSENT`.
        threshold: fraction of the normaliser.
    """
    defined = np.isfinite(norm)
    return average(correct(distance, norm, threshold), mask & defined[:, None], _excluded(mask, defined))


def auc(distance: Floats, norm: Floats, mask: Bools, limit: float = AUC_LIMIT) -> Average:
    """Area under the PCK curve from 0 to `limit`, as a fraction; arguments as in `pck`, definition in `under_curve`."""
    defined = np.isfinite(norm)
    return average(under_curve(distance, norm, limit), mask & defined[:, None], _excluded(mask, defined))


def _excluded(mask: Bools, defined: Bools) -> int:
    return int((mask.any(axis=1) & ~defined).sum())


def _ratio(total: float, count: int) -> float:
    return total / count if count else float("nan")
