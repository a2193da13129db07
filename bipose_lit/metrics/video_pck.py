"""PCK of single persons in video, as Penn Action and sub-JHMDB are scored: person sizes and the table of metrics.

Source: the benchmarks in LSTM Pose Machines (Luo et al. 2018, https://github.com/lawy623/LSTM_Pose_Machines,
`run_benchmark_GPU_PENN.m` and `run_benchmark_GPU_JHMDB.m`): a visible joint is a hit when its distance is at most 0.2 x
max(x2 - x1, y2 - y1) of the frame's own box; the number is all hits over all visible joints of all frames. All arithmetic is
float64, the comparison that of `pck`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics import pck
from bipose_lit.skeletons import Skeleton

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAIN = 0.2
"""The published threshold; other means than the one over all joints are given at it alone."""

BY_PART = ("pck@0.2[bbox]", "pck@0.1[bbox]", "pck@0.05[bbox]", "pck@0.2[torso]")
"""Metrics that are given for parts (and splits) as well: as many as a table of 80 columns holds."""


def corner_size(corners: Floats) -> Floats:
    """(N,) max(x2 - x1, y2 - y1) of (N, 4) corners in pixels, whatever the other side is; NaN where it is not positive."""
    with np.errstate(invalid="ignore"):
        size = (corners[:, 2:] - corners[:, :2]).max(axis=1)
    return np.where(np.isfinite(corners).all(axis=1) & (size > 0), size, np.nan)


def joint_size(joints: Floats, labelled: Bools) -> Floats:
    """(N,) the longer side of the tight box around the labelled of (N, K, 2) joints; NaN where there is none.

    The box reaches from the edge of the first pixel to the edge of the last (see `types.NORMS`), so a pixel more than the
    coordinates' range.
    """
    low = np.where(labelled[..., None], joints, np.inf).min(axis=1)
    high = np.where(labelled[..., None], joints, -np.inf).max(axis=1)
    return np.where(labelled.any(axis=1), (high - low + 1).max(axis=1), np.nan)


def torso_size(joints: Floats, labelled: Bools, skeleton: Skeleton) -> Floats:
    """(N,) pixels between the torso's two joints; NaN where one is not labelled or they are in one place."""
    a, b = (skeleton.index(name) for name in skeleton.torso)
    length = pck.distances(joints[:, a], joints[:, b])
    return np.where(labelled[:, a] & labelled[:, b] & (length > 0), length, np.nan)


def scores(
    pred: Floats,
    joints: Floats,
    labelled: Bools,
    sizes: Mapping[str, Floats],
    skeleton: Skeleton,
    parts: Sequence[str] = (),
) -> dict[str, float]:
    """Metrics by name, in the order of the table; N frames of persons, K joints.

    "pck@0.2[bbox]" is all hits over all labelled joints, "auc@0.2[bbox]" the area under PCK up to 0.2, "/wrist" behind one of
    `BY_PART` the same of both wrists; "pck@0.2[bbox,joint_mean]" is the plain mean of the K joints' own values, and
    "pck@0.2[bbox,part_mean]" that of the parts' (left and right as the mean of two) where `parts` are given; "mpjpe_px" is the
    mean distance of all labelled joints in pixels.

    Args:
        pred: (N, K, 2) pixels.
        joints: (N, K, 2) in the same pixels.
        labelled: (N, K) joints to score.
        sizes: (N,) normalisers in pixels by name; frames with NaN do not count under that name.
        skeleton: names the joints; parts are its groups.
        parts: groups of "part_mean".
    """
    # One layout in memory, since that decides the order of sums, and so their last bit.
    distance = pck.distances(np.ascontiguousarray(pred), np.ascontiguousarray(joints))
    labelled = np.ascontiguousarray(labelled)
    found: dict[str, float] = {}
    by_part: dict[str, float] = {}
    for name, size in sizes.items():
        for threshold in sorted(pck.THRESHOLDS, reverse=True):
            result = pck.pck(distance, size, labelled, threshold)
            metric = f"pck@{threshold:g}[{name}]"
            found[metric] = result.mean
            if metric in BY_PART:
                by_part |= {f"{metric}/{group}": result.group(chosen) for group, chosen in skeleton.groups.items()}
            if threshold == MAIN:
                found[f"pck@{threshold:g}[{name},joint_mean]"] = result.joint_mean
                if parts:
                    values = [result.per_joint[list(skeleton.groups[part])].mean() for part in parts]
                    found[f"pck@{threshold:g}[{name},part_mean]"] = float(np.mean(values))
        found[f"auc@{pck.AUC_LIMIT:g}[{name}]"] = pck.auc(distance, size, labelled).mean
    # The paper's table has an MPJPE of 2D poses without a unit: in pixels, over all labelled joints, it can only be this.
    found["mpjpe_px"] = pck.average(distance, labelled).mean
    return found | by_part
