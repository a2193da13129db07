"""Smoothness over consecutive frames: velocity and acceleration error against the labels, jitter of the predictions.

Acceleration error is the norm of the difference of second differences (Kanazawa et al., 2019, HMMR); velocity error
that of first differences (MPJVE; Pavllo et al., 2019); jitter the norm of the third difference of the predictions
alone (Flash and Hogan, 1985; as in Yi et al., 2021). A joint enters where it is labelled in every frame that the
difference reads, and frames count as consecutive by their numbers. Each term stands at the row that the difference is
centred on (velocity: the later row; jitter: the later of the two middle rows).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ORDERS = {"velocity_error": 1, "accel_error": 2, "jitter": 3, "label_jitter": 3}
"""Measures and the order of their difference: units are px / frame^order."""

_TAPS: dict[int, dict[int, float]] = {
    1: {-1: -1.0, 0: 1.0},
    2: {-1: 1.0, 0: -2.0, 1: 1.0},
    3: {-2: -1.0, -1: 3.0, 0: -3.0, 1: 1.0},
}


@dataclass(frozen=True)
class Differences:
    """One order of difference at every row.

    Attributes:
        values: (N, K) norms in px / frame^order, 0 where not defined.
        defined: (N, K) all frames that the difference reads exist and label the joint.
    """

    values: Floats
    defined: Bools


def neighbours(clip: NDArray[np.int64], frame: NDArray[np.int64], offset: int) -> NDArray[np.int64]:
    """(N,) the row that holds the same clip `offset` frames later (earlier if negative), -1 where there is none.

    Rows may be in any order; (clip, frame) must be unique.
    """
    if not len(clip):
        return np.zeros(0, np.int64)
    low = int(frame.min())
    span = int(frame.max()) - low + 1
    key = clip.astype(np.int64) * span + (frame - low)
    order = np.argsort(key)
    wanted = frame - low + offset
    target = clip.astype(np.int64) * span + wanted
    at = order[np.clip(np.searchsorted(key[order], target), 0, len(key) - 1)]
    return np.where((key[at] == target) & (wanted >= 0) & (wanted < span), at, -1)


def differences(predictions: Predictions, measure: str) -> Differences:
    """Terms of one of `ORDERS`.

    Raises:
        KeyError: no such measure.
    """
    tracks = {
        "velocity_error": lambda: np.asarray(predictions.pred, np.float64) - np.asarray(predictions.joints, np.float64),
        "jitter": lambda: np.asarray(predictions.pred, np.float64),
        "label_jitter": lambda: np.asarray(predictions.joints, np.float64),
    }
    order = ORDERS[measure]
    # Differences are linear: the error of a difference is the difference of the error.
    signal = tracks["velocity_error" if measure.endswith("error") else measure]()
    defined = np.asarray(predictions.visible != ABSENT)
    total = np.zeros_like(signal)
    for offset, weight in _TAPS[order].items():
        rows = neighbours(predictions.clip, predictions.frame, offset)
        defined = defined & (rows >= 0)[:, None] & (predictions.visible[rows] != ABSENT)
        total += weight * signal[rows]
    return Differences(np.where(defined, np.linalg.norm(total, axis=-1), 0.0), defined)


def per_second(values: Floats, fps: NDArray[np.float32], order: int) -> Floats:
    """Values per frame^order as values per second^order; NaN where the frame rate is unknown (0).

    Args:
        values: (N, K).
        fps: (N,) frames per second.
        order: of the difference.
    """
    rate = np.where(fps > 0, fps, np.nan).astype(np.float64)
    return np.asarray(values * rate[:, None] ** order)
