"""Errors of 3D poses: the terms of MPJPE, P-MPJPE, N-MPJPE, MPJVE, acceleration error and jitter; each measure is their mean.

Definitions after VideoPose3D (Pavllo et al. 2019, `common/loss.py`):

- MPJPE (protocol 1): mean Euclidean distance over joints and frames. It is meant root-relative, and the root's 0 stays in the
  mean (17 joints, not 16). Most papers subtract the root from both prediction and label, or predict no root: pass `root` for
  that. VideoPose3D's own `run.py` subtracts it from the label alone, so that the network's error at the root counts: pass no
  `root`, and labels that are `relative`.
- P-MPJPE (protocol 2): after the similarity transform of each frame's prediction (rotation, translation, one positive scale)
  that is closest to the label in squared error; without reflections.
- N-MPJPE (protocol 3; Rhodin et al. 2018): after the scale about the origin, hence about the root, that is closest in squared
  error.
- MPJVE: mean distance between first differences over consecutive frames of one clip.
- Acceleration error (Kanazawa et al. 2019, HMMR): the same of second differences. Jitter: third differences of the prediction.

In the root of the mean square N <= MPJPE, and P <= N where N's scale is not negative (P allows none that is); in these means
of distances that is usual, not certain. All functions take (..., K, 3), compute in float64 and keep the input's unit; those
without alignment also take (..., K, 2), e.g. pixels, and give what `smooth` does. A NaN in a frame makes that frame's terms NaN
(those of all its joints where they are aligned together).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def relative(points: ArrayLike, root: int | None) -> Floats:
    """(..., K, D) with the root joint at the origin of every frame; None leaves the points as they are."""
    moved = np.asarray(points, np.float64)
    return moved if root is None else moved - moved[..., root : root + 1, :]


def position_errors(pred: ArrayLike, truth: ArrayLike, root: int | None = None) -> Floats:
    """(..., K) distances; the terms of MPJPE."""
    a, b = _pair(pred, truth, root)
    return np.asarray(np.linalg.norm(a - b, axis=-1))


def procrustes_errors(pred: ArrayLike, truth: ArrayLike) -> Floats:
    """(..., K) distances after `procrustes`; the terms of P-MPJPE."""
    a, b = _pair(pred, truth, None)
    return np.asarray(np.linalg.norm(procrustes(a, b) - b, axis=-1))


def scaled_errors(pred: ArrayLike, truth: ArrayLike, root: int | None = None) -> Floats:
    """(..., K) distances after `rescale`; the terms of N-MPJPE."""
    a, b = _pair(pred, truth, root)
    return np.asarray(np.linalg.norm(rescale(a, b) - b, axis=-1))


def difference_errors(pred: ArrayLike, truth: ArrayLike, order: int, root: int | None = None) -> Floats:
    """(T - order, K) norms of the difference of `order`-th differences of one clip (T, K, D); no row where T is too small.

    The terms of MPJVE (order 1) and of the acceleration error (order 2), in the unit per frame to the power of the order.
    """
    a, b = _pair(pred, truth, root)
    return np.asarray(np.linalg.norm(np.diff(a - b, n=order, axis=0), axis=-1))


def difference_sizes(points: ArrayLike, order: int, root: int | None = None) -> Floats:
    """(T - order, K) norms of the `order`-th differences of one clip (T, K, D); of order 3 the terms of jitter."""
    return np.asarray(np.linalg.norm(np.diff(relative(points, root), n=order, axis=0), axis=-1))


def procrustes(pred: ArrayLike, truth: ArrayLike) -> Floats:
    """Each frame's prediction (..., K, 3), moved onto its label by the closest similarity transform without reflection.

    The solution is Umeyama's (1991). A prediction whose joints are all in one place goes to the label's centroid; where the
    rotation is not determined (points on a line), any of the best is taken.
    """
    a, b = _pair(pred, truth, None)
    shape = a.shape
    a, b = a.reshape(-1, *shape[-2:]), b.reshape(-1, *shape[-2:])
    good = np.asarray(np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2)))
    a, b = np.where(good[:, None, None], a, 0.0), np.where(good[:, None, None], b, 0.0)
    mean_a, mean_b = a.mean(axis=1, keepdims=True), b.mean(axis=1, keepdims=True)
    a, b = a - mean_a, b - mean_b
    # Each to the size of 1, so that squares neither overflow nor vanish. Spread below rounding is one place.
    size_a, size_b = (np.abs(c).max(axis=(1, 2), keepdims=True, initial=0.0) for c in (a, b))
    size_a = np.where(size_a > 1e-14 * np.abs(mean_a).max(axis=2, keepdims=True), size_a, 0.0)
    a, b = a / np.where(size_a > 0, size_a, 1.0), b / np.where(size_b > 0, size_b, 1.0)
    u, s, vt = np.linalg.svd(a.transpose(0, 2, 1) @ b)
    s[:, -1] *= np.sign(np.linalg.det(u @ vt))
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]
    spread = (a * a).sum(axis=(1, 2))
    scale = np.where(size_a[:, 0, 0] > 0, s.sum(axis=1) / np.where(spread > 0, spread, 1.0), 0.0)
    moved = scale[:, None, None] * size_b * (a @ (u @ vt)) + mean_b
    return np.asarray(np.where(good[:, None, None], moved, np.nan).reshape(shape))


def rescale(pred: ArrayLike, truth: ArrayLike) -> Floats:
    """Each frame's prediction (..., K, 3) times the scale about the origin that is closest to its label.

    The scale may be negative, as in VideoPose3D; a prediction at the origin stays there.
    """
    a, b = _pair(pred, truth, None)
    size = np.abs(a).max(axis=(-1, -2), keepdims=True, initial=0.0)
    unit = a / np.where(size > 0, size, 1.0)
    spread = (unit * unit).sum(axis=(-1, -2), keepdims=True)
    return np.asarray((unit * b).sum(axis=(-1, -2), keepdims=True) / np.where(size > 0, spread, 1.0) * unit)


def mean(terms: Floats) -> float:
    """The measure that these are the terms of; NaN where there is none, as of differences of too short a clip."""
    return float(terms.mean()) if terms.size else float("nan")


def _pair(pred: ArrayLike, truth: ArrayLike, root: int | None) -> tuple[Floats, Floats]:
    a, b = relative(pred, root), relative(truth, root)
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"predictions {a.shape} and labels {b.shape} must have one shape (..., K, D)")
    return a, b
