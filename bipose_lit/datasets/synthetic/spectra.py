"""How fast people move: speeds, accelerations and spectra of motions, ours beside captured ones (torch-free).

Lengths are in statures, so that tall and short people and every capture's unit compare. "Local" is relative to the pelvis and
its heading, as a camera that follows the person would see it; "pelvis" is the way of the pelvis itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.signal import detrend, welch

from bipose_lit.datasets.synthetic.body import INDEX, Array, Motion
from bipose_lit.types import BiposeError

FPS: Final = 25.0
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "pelvis": ("pelvis",),
    "torso": ("spine", "chest", "neck", "left_shoulder", "right_shoulder"),
    "head": ("head", "head_top"),
    "arms": ("left_elbow", "left_wrist", "right_elbow", "right_wrist"),
    "legs": ("left_knee", "left_ankle", "right_knee", "right_ankle"),
}
BANDS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 12.5)  # Hz; the last is half the frame rate
_SHORTEST: Final = 50  # frames: bands as narrow as 0.5 Hz need two seconds at the least
_SEGMENT: Final = 128  # frames; a shorter clip is one segment


@dataclass(frozen=True)
class Spectrum:
    """Figures of one joint group.

    Attributes:
        median: Of speed, statures per second, over all joints and frames.
        p90: 90th percentile of speed.
        p99: 99th percentile of speed.
        acceleration: Root mean square, statures per second squared.
        bands: Share of the position signal's power, its mean aside, between the ``BANDS``; sums to 1, or to 0
            where nothing moves.
    """

    median: float
    p90: float
    p99: float
    acceleration: float
    bands: tuple[float, ...]


def band_names() -> list[str]:
    """Names of the bands, e.g. "0.5-1 Hz"."""
    return [f"{low:g}-{high:g} Hz" if high < BANDS[-1] else f">{low:g} Hz" for low, high in pairwise(BANDS)]


def _at_25(motion: Motion) -> tuple[Array, Array]:
    """Positions in statures and the heading's two axes' angle, at 25 frames per second."""
    positions = motion.positions / motion.proportions.stature
    ahead = motion.frames[:, 0, :, 2]
    heading = np.unwrap(np.arctan2(ahead[:, 0], ahead[:, 2]))
    if abs(motion.fps - FPS) > 1e-6:
        old = np.arange(len(motion)) / motion.fps
        new = np.arange(0.0, old[-1] + 1e-9, 1.0 / FPS)
        positions = make_interp_spline(old, positions, k=1, axis=0)(new)
        heading = np.interp(new, old, heading)
    return positions, heading


def _signals(motion: Motion) -> dict[str, Array]:
    """(T, J, 3) signals of each group: the pelvis in the world, the others in the frame that follows it."""
    positions, heading = _at_25(motion)
    local = positions - positions[:, :1]
    c, s = np.cos(heading)[:, None], np.sin(heading)[:, None]
    local = np.stack(
        [c * local[..., 0] - s * local[..., 2], local[..., 1], s * local[..., 0] + c * local[..., 2]], axis=-1
    )
    return {
        group: (positions if group == "pelvis" else local)[:, [INDEX[name] for name in names]]
        for group, names in GROUPS.items()
    }


def _power(signal: Array) -> Array:
    """(len(BANDS) - 1,) power of a (T, ...) signal in each band, by Welch's method."""
    flat = np.asarray(detrend(signal.reshape(len(signal), -1), axis=0), dtype=np.float64)
    frequency, density = welch(flat, FPS, "hann", min(_SEGMENT, len(signal)), nfft=1024, detrend=False, axis=0)
    total = density.sum(axis=1)
    total[0] = 0.0
    which = np.clip(np.searchsorted(BANDS, frequency, side="left") - 1, 0, len(BANDS) - 2)
    return np.bincount(which, weights=total, minlength=len(BANDS) - 1).astype(np.float64)


def speed_spectrum(motions: Iterable[Motion]) -> dict[str, Spectrum]:
    """Figures of a set of motions by joint group.

    Args:
        motions: Motions of at least two seconds, so that the lowest band can be told; any frame rate. Sets to be compared
            should have clips of one length, since short clips smear the bands.

    Returns:
        One ``Spectrum`` for each of ``GROUPS``.

    Raises:
        BiposeError: No motions, or one that is too short.
    """
    speed: dict[str, list[Array]] = {group: [] for group in GROUPS}
    square: dict[str, list[Array]] = {group: [] for group in GROUPS}
    power = {group: np.zeros(len(BANDS) - 1) for group in GROUPS}
    for motion in motions:
        if len(motion) / motion.fps < _SHORTEST / FPS - 1e-6:
            raise BiposeError(
                f"motion {motion.kind!r} lasts {len(motion) / motion.fps:.2f} s: a spectrum needs {_SHORTEST / FPS:g} s; "
                "make or cut longer clips"
            )
        for group, signal in _signals(motion).items():
            speed[group].append((np.linalg.norm(np.diff(signal, axis=0), axis=-1) * FPS).ravel())
            square[group].append(((np.diff(signal, n=2, axis=0) * FPS**2) ** 2).sum(axis=-1).ravel())
            power[group] += _power(signal)
    if not speed["pelvis"]:
        raise BiposeError("no motions to measure; give at least one")
    out = {}
    for group in GROUPS:
        values = np.concatenate(speed[group])
        median, p90, p99 = np.percentile(values, (50, 90, 99))
        total = power[group].sum()
        share = power[group] / total if total > 1e-12 else np.zeros(len(BANDS) - 1)  # rounding is no motion
        acceleration = float(np.sqrt(np.concatenate(square[group]).mean()))
        out[group] = Spectrum(float(median), float(p90), float(p99), acceleration, tuple(float(x) for x in share))
    return out


@dataclass(frozen=True)
class Row:
    """One figure of both sets; ``ratio`` is ours over captured, NaN where that is 0."""

    group: str
    figure: str
    ours: float
    captured: float

    @property
    def ratio(self) -> float:
        """Ours over captured."""
        return self.ours / self.captured if self.captured else float("nan")


def compare(ours: dict[str, Spectrum], captured: dict[str, Spectrum]) -> list[Row]:
    """Two sets' figures side by side, group by group."""
    rows = []
    for group in GROUPS:
        a, b = ours[group], captured[group]
        for figure in ("median", "p90", "p99", "acceleration"):
            rows.append(Row(group, figure, getattr(a, figure), getattr(b, figure)))
        rows += [Row(group, name, x, y) for name, x, y in zip(band_names(), a.bands, b.bands, strict=True)]
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """The comparison as text, one line a figure, with units and the ratio."""
    units = {"median": "statures/s", "p90": "statures/s", "p99": "statures/s", "acceleration": "statures/s2"}
    lines = [f"{'group':8} {'figure':13} {'ours':>9} {'captured':>9} {'ratio':>7}  unit"]
    for row in rows:
        unit = units.get(row.figure, "share of power")
        lines.append(f"{row.group:8} {row.figure:13} {row.ours:9.4f} {row.captured:9.4f} {row.ratio:7.2f}  {unit}")
    return "\n".join(lines)
