"""Rows of every table that need no training: what a mean pose, the labels' own lines, and classical filters achieve.

A temporal network that does not clear the filters on its own per-frame arm has learned no more than smoothing. All
functions take and give `Predictions`. Filters run over consecutive frames of each clip, and their parameters do not
depend on the person's size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

from bipose_lit.metrics.pck import normaliser
from bipose_lit.metrics.summary import ENDPOINT, mean_of
from bipose_lit.metrics.terms import parse
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, VISIBLE, BiposeError

Floats = NDArray[np.float64]
Filter = Callable[..., Predictions]
Params = Mapping[str, float]

DEFAULT_FPS = 25.0
"""Assumed by One-Euro where the frame rate is unknown: its parameters are in hertz."""


class LabelledTrack(Protocol):
    """What is read of `datasets.index.Track`."""

    @property
    def joints(self) -> NDArray[np.float32]: ...
    @property
    def visible(self) -> NDArray[np.uint8]: ...
    @property
    def boxes(self) -> NDArray[np.float32]: ...
    @property
    def uid(self) -> NDArray[np.int64]: ...


def fit_mean_pose(tracks: Iterable[LabelledTrack]) -> Floats:
    """Mean joint position in box coordinates over the labelled joints of training tracks.

    Returns:
        (K, 2): 0 is the box's left or top edge, 1 its right or bottom edge; 0.5 for a joint that is never labelled.

    Raises:
        BiposeError: no track.
    """
    total: Floats | None = None
    count = np.zeros(0)
    for track in tracks:
        boxes = np.asarray(track.boxes, np.float64)[:, None]
        usable = (track.visible != ABSENT) & np.isfinite(boxes).all(axis=-1) & (boxes[..., 2:] > 0).all(axis=-1)
        size = np.where(usable[..., None], boxes[..., 2:], 1.0)
        # Boxes are in edge coordinates, joints at pixel centres: half a pixel between them.
        relative = np.where(
            usable[..., None], (np.asarray(track.joints, np.float64) + 0.5 - boxes[..., :2]) / size, 0.0
        )
        if total is None:
            total, count = np.zeros(relative.shape[1:]), np.zeros(relative.shape[1])
        total += relative.sum(axis=0)
        count += usable.sum(axis=0)
    if total is None:
        raise BiposeError("mean pose: the training index has no track; check the split")
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], 0.5)


def mean_pose(predictions: Predictions, pose: Floats, tracks: Iterable[LabelledTrack]) -> Predictions:
    """The mean pose placed in each person's box; no picture is looked at.

    Args:
        predictions: which persons and frames.
        pose: what `fit_mean_pose` gave for the training tracks.
        tracks: of the scored split; their boxes are read, by uid.

    Raises:
        BiposeError: a scored person is not in the tracks.
    """
    listed = list(tracks)
    uid = np.concatenate([t.uid for t in listed]) if listed else np.zeros(0, np.int64)
    boxes = np.concatenate([t.boxes for t in listed]) if listed else np.zeros((0, 4), np.float32)
    order = np.argsort(uid)
    at = np.searchsorted(uid[order], predictions.uid)
    if len(uid) == 0 or (at >= len(uid)).any() or (uid[order[at]] != predictions.uid).any():
        raise BiposeError(f"mean pose: persons of {predictions.data} are not in the index given; give the same split")
    box = np.asarray(boxes[order[at]], np.float64)[:, None]
    return _with(predictions, box[..., :2] - 0.5 + pose * box[..., 2:], np.ones_like(predictions.score))


def labels_line(predictions: Predictions) -> Predictions:
    """ORACLE, reads labels: a straight line in time between the visible labels of each joint, constant beyond them.

    Joints that the clip never shows keep the given prediction.
    """
    return _from_labels(predictions, lambda t, known, xy: np.stack([np.interp(t, known, xy[:, i]) for i in (0, 1)], -1))


def labels_hold(predictions: Predictions) -> Predictions:
    """ORACLE, reads labels: each joint stays where it was last visible (causal).

    Before a joint is first visible, and if it never is, the given prediction is kept.
    """

    def hold(t: Floats, known: Floats, xy: Floats) -> Floats:
        at = np.searchsorted(known, t, side="right") - 1
        return np.where((at >= 0)[:, None], xy[np.clip(at, 0, None)], np.nan)

    return _from_labels(predictions, hold)


def _from_labels(predictions: Predictions, line: Callable[[Floats, Floats, Floats], Floats]) -> Predictions:
    pred = np.asarray(predictions.pred, np.float64).copy()
    order = np.lexsort((predictions.frame, predictions.clip))
    cuts = np.flatnonzero(np.diff(predictions.clip[order])) + 1
    for rows in np.split(order, cuts):
        time = predictions.frame[rows].astype(np.float64)
        for k in range(pred.shape[1]):
            seen = predictions.visible[rows, k] == VISIBLE
            if seen.any():
                xy = np.asarray(predictions.joints[rows[seen], k], np.float64)
                found = line(time, time[seen], xy)
                pred[rows, k] = np.where(np.isfinite(found), found, pred[rows, k])
    return _with(predictions, pred)


@dataclass(frozen=True)
class _Runs:
    """Consecutive frames packed side by side: R runs padded to L frames."""

    rows: NDArray[np.int64]  # (R, L), -1 in padding
    length: NDArray[np.int64]  # (R,)
    scale: Floats  # (R,) pixels per unit
    fps: Floats  # (R,)

    def pack(self, values: NDArray[np.floating]) -> Floats:
        """(N, ...) to (R, L, ...); padding repeats some row and is never read back."""
        return np.asarray(values, np.float64)[self.rows]

    def unpack(self, packed: Floats) -> Floats:
        """The inverse of `pack`."""
        inside = self.rows >= 0
        out = np.empty((int(inside.sum()), *packed.shape[2:]))
        out[self.rows[inside]] = packed[inside]
        return out


def _runs(p: Predictions) -> _Runs:
    order = np.lexsort((p.frame, p.clip))
    breaks = (np.diff(p.clip[order]) != 0) | (np.diff(p.frame[order]) != 1)
    parts = np.split(order, np.flatnonzero(breaks) + 1)
    length = np.array([len(part) for part in parts], np.int64)
    rows = np.full((len(parts), int(length.max())), -1, np.int64)
    for r, part in enumerate(parts):
        rows[r, : len(part)] = part
    first = rows[:, 0]
    clip, box = normaliser(p.norms, "clip")[first], normaliser(p.norms, "bbox")[first]
    scale = np.where(np.isfinite(clip), clip, np.where(np.isfinite(box), box, 1.0))
    fps = np.where(p.fps[first] > 0, p.fps[first], DEFAULT_FPS).astype(np.float64)
    return _Runs(rows, length, scale, fps)


def one_euro(
    predictions: Predictions, min_cutoff: float = 4.0, beta: float = 4.0, d_cutoff: float = 1.0
) -> Predictions:
    """One-Euro filter, causal (Casiez, Roussel and Vogel, 2012).

    Args:
        predictions: of a per-frame arm.
        min_cutoff: cut-off at rest, Hz.
        beta: rise of the cut-off with speed, Hz per (clip box / s).
        d_cutoff: cut-off of the speed, Hz.
    """
    runs = _runs(predictions)
    x = runs.pack(predictions.pred) / runs.scale[:, None, None, None]
    rate = runs.fps[:, None, None]

    def blend(cutoff: Floats | float) -> Floats:
        return np.asarray(1.0 / (1.0 + rate / (2.0 * np.pi * cutoff)))

    out = np.empty_like(x)
    smooth, speed = x[:, 0], np.zeros_like(x[:, 0])
    out[:, 0] = smooth
    for t in range(1, x.shape[1]):
        weight = blend(d_cutoff)
        # The speed is taken between the raw sample and the last filtered one, as in the authors' code.
        speed = weight * (x[:, t] - smooth) * rate + (1 - weight) * speed
        weight = blend(min_cutoff + beta * np.abs(speed))
        smooth = weight * x[:, t] + (1 - weight) * smooth
        out[:, t] = smooth
    return _with(predictions, runs.unpack(out * runs.scale[:, None, None, None]))


def savitzky_golay(predictions: Predictions, window: float = 5, order: float = 2) -> Predictions:
    """Savitzky-Golay filter, symmetric (Savitzky and Golay, 1964).

    Args:
        predictions: of a per-frame arm.
        window: odd number of frames; a shorter run takes the longest odd window that fits.
        order: of the polynomial; runs that are too short for it stay as they are.
    """
    runs = _runs(predictions)
    x = runs.pack(predictions.pred)
    for length in map(int, np.unique(runs.length)):
        width = min(int(window), length - (1 - length % 2))
        if width > int(order):
            alike = runs.length == length
            x[alike, :length] = savgol_filter(x[alike, :length], width, int(order), axis=1, mode="interp")
    return _with(predictions, runs.unpack(x))


def kalman(predictions: Predictions, process: float = 0.3, power: float = 1.0) -> Predictions:
    """Kalman filter with constant velocity, causal, trusting each joint by its confidence.

    Args:
        predictions: of a per-frame arm.
        process: standard deviation of the acceleration per frame^2 over that of a measurement of confidence 1.
        power: the variance of a measurement is confidence^-power; 0 ignores the confidence.
    """
    runs = _runs(predictions)
    return _with(predictions, runs.unpack(_filter(predictions, runs, process, power).x))


def rts(predictions: Predictions, process: float = 0.3, power: float = 1.0) -> Predictions:
    """Rauch-Tung-Striebel smoother of the model of `kalman`: it reads the whole run (bidirectional)."""
    runs = _runs(predictions)
    f = _filter(predictions, runs, process, power)
    x, v = f.x.copy(), f.v.copy()
    for t in range(x.shape[1] - 2, -1, -1):
        a, b, d = f.next_xx[:, t + 1], f.next_xv[:, t + 1], f.next_vv[:, t + 1]
        det = np.where(t + 1 < runs.length[:, None], a * d - b * b, 1.0)
        # gain = P F' inv(P_next), written out for two states.
        p, q, r = f.xx[:, t] + f.xv[:, t], f.xv[:, t], f.xv[:, t] + f.vv[:, t]
        g = [
            (p * d - q * b) / det,
            (q * a - p * b) / det,
            (r * d - f.vv[:, t] * b) / det,
            (f.vv[:, t] * a - r * b) / det,
        ]
        dx, dv = x[:, t + 1] - f.next_x[:, t + 1], v[:, t + 1] - f.v[:, t]
        inside = (t + 1 < runs.length)[:, None, None]
        x[:, t] += np.where(inside, g[0][..., None] * dx + g[1][..., None] * dv, 0.0)
        v[:, t] += np.where(inside, g[2][..., None] * dx + g[3][..., None] * dv, 0.0)
    return _with(predictions, runs.unpack(x))


@dataclass(frozen=True)
class _Filtered:
    """Filtered positions and velocities (R, L, K, 2), their covariances (R, L, K), and the same predicted from before."""

    x: Floats
    v: Floats
    xx: Floats
    xv: Floats
    vv: Floats
    next_x: Floats
    next_xx: Floats
    next_xv: Floats
    next_vv: Floats


def _filter(p: Predictions, runs: _Runs, process: float, power: float) -> _Filtered:
    """Only the ratio of the two noises matters for the means, so measurements have variance 1; positions are in pixels."""
    z = runs.pack(p.pred)
    noise = np.maximum(runs.pack(p.score), 1e-3) ** -power
    x, v, ahead = z.copy(), np.zeros_like(z), z.copy()
    xx, xv, vv = noise.copy(), np.zeros_like(noise), np.full_like(noise, 1e4)  # the first velocity is not known
    next_xx, next_xv, next_vv = np.ones_like(noise), np.zeros_like(noise), np.ones_like(noise)
    q = process**2
    for t in range(1, z.shape[1]):
        ahead[:, t] = x[:, t - 1] + v[:, t - 1]
        a = xx[:, t - 1] + 2 * xv[:, t - 1] + vv[:, t - 1] + q / 4
        b = xv[:, t - 1] + vv[:, t - 1] + q / 2
        d = vv[:, t - 1] + q
        next_xx[:, t], next_xv[:, t], next_vv[:, t] = a, b, d
        gain_x, gain_v = a / (a + noise[:, t]), b / (a + noise[:, t])
        surprise = z[:, t] - ahead[:, t]
        x[:, t] = ahead[:, t] + gain_x[..., None] * surprise
        v[:, t] = v[:, t - 1] + gain_v[..., None] * surprise
        xx[:, t], xv[:, t], vv[:, t] = noise[:, t] * gain_x, noise[:, t] * gain_v, d - gain_v * b
    return _Filtered(x, v, xx, xv, vv, ahead, next_xx, next_xv, next_vv)


def _with(p: Predictions, pred: Floats, score: NDArray[Any] | None = None) -> Predictions:
    return replace(p, pred=pred.astype(np.float32), score=p.score if score is None else score.astype(np.float32))


def _grid(**axes: Sequence[float]) -> tuple[dict[str, float], ...]:
    return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


_NOISE = _grid(process=(1000.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01), power=(0.0, 1.0, 3.0))

FILTERS: dict[str, tuple[Filter, tuple[dict[str, float], ...]]] = {
    "one_euro": (one_euro, _grid(min_cutoff=(1e3, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5), beta=(0.0, 4.0, 16.0, 64.0))),
    "savitzky_golay": (
        savitzky_golay,
        (
            {"window": 3, "order": 2},
            *_grid(window=(5, 7, 9, 13, 17, 25, 33), order=(1, 2, 3)),
            {"window": 3, "order": 1},
        ),
    ),
    "kalman": (kalman, _NOISE),
    "rts": (rts, _NOISE),
}
"""Filters with the fixed grid each is tuned on (23 to 28 points); the first leaves the predictions nearly alone."""


def tune(
    smoother: Filter, predictions: Predictions | Sequence[Predictions], grid: Iterable[Params], metric: str = ENDPOINT
) -> dict[str, float]:
    """The parameters with the best metric on validation predictions; the first of equals.

    Args:
        smoother: one of `FILTERS`, or alike.
        predictions: of one seed or of several, whose metrics are averaged.
        grid: parameters to try.
        metric: to optimise, in the direction that is its better one.

    Raises:
        BiposeError: an empty grid, or a metric without any term in these predictions.
    """
    seeds = [predictions] if isinstance(predictions, Predictions) else list(predictions)
    sign = 1.0 if parse(metric).higher_is_better else -1.0
    best: dict[str, float] | None = None
    best_value = -np.inf
    for params in grid:
        value = sign * float(np.mean([mean_of(smoother(p, **params), metric) for p in seeds]))
        if value > best_value:
            best, best_value = dict(params), value
    if best is None:
        raise BiposeError(f"cannot tune a filter: the grid is empty or no validation prediction has a term of {metric}")
    return best


def tuned(
    name: str, val: Predictions | Sequence[Predictions], test: Sequence[Predictions], metric: str = ENDPOINT
) -> tuple[dict[str, float], list[Predictions]]:
    """A filter by name, tuned on validation predictions and applied to each of the test predictions.

    Raises:
        BiposeError: no such filter, or see `tune`.
    """
    if name not in FILTERS:
        raise BiposeError(f"filter {name!r} is unknown; use one of {', '.join(FILTERS)}")
    smoother, grid = FILTERS[name]
    params = tune(smoother, val, grid, metric)
    return params, [smoother(p, **params) for p in test]
