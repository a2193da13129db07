"""Where things stand in front of a person, and when: paths that tell nothing of how the person moves.

A thing aims at one labelled joint in one frame, and that place is all that its path knows of the person. It stands still in the
picture or drifts slowly along a straight line; drift, stay, arrival and departure are drawn before, independently of the
labels. Of a few things at a few places, all with the same motion, the one is taken under which joints stay hidden longest, as
a share of its stay. (Things that followed the person would show through their own motion what they hide.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from bipose_lit.datasets.boxes import frame_boxes
from bipose_lit.datasets.cutouts import BASE, LEVELS, Things
from bipose_lit.datasets.index import Track
from bipose_lit.datasets.pasting import Piece, alpha_at, into_sprite
from bipose_lit.datasets.synthetic.occluders import OccluderTrack
from bipose_lit.types import NORMS, VISIBLE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

REGIMES = ("any", "P", "F", "B", "N")

MEDIAN_STAY, P90_STAY = 20.0, 80.0
"""Median and 90th percentile of a thing's stay in frames at `FPS`; a joint also walks out from under it."""

FPS = 27.5
"""Frames per second where a track does not say."""

_CHOICES = 24  # things tried for a stay; one in a still, where nothing lasts longer than anything else
_LARGER = (1.0, 1.5, 2.0, 3.0)  # factors on the size that are tried where there is motion
_STEADY = 0.75  # share of the stay that joints under a thing should be hidden for; the first tries insist on it
_CUT = 0.3  # what a joint counts that is hidden at an end of the clip where the stay does not say so, or the reverse
_OVERSHOOT, _COSTLY = (
    1.5,
    0.15,
)  # joints that a thing may hide, as a multiple of those still to be hidden; cost of twice as many
_DRIFT = 0.06  # persons per second and axis, of the half of the things that do not stand still
_SMOOTH = 0.07  # seconds; with `follow`, the person's way, not the limbs'
_LONGEST = 1000.0  # frames of a stay
_PERSON = (4.0, 1536.0)  # pixels that a person's longer side is held between


@dataclass(frozen=True)
class _Motion:
    """What the candidates of one stay share; `along` is (T, 2) pixels besides drift and following."""

    start: float
    stop: float
    along: Floats
    drift: Floats
    turn: float


class Planner:
    """Places things in one clip.

    Args:
        track: of the clip.
        things: of the split.
        asked: (T, K) joints that can be hidden.
        regime: one of `REGIMES`.
        size: smallest and largest longer side of a thing, in units of the person's box's longer side.
        follow: things move with the person.
    """

    def __init__(
        self, track: Track, things: Things, asked: Bools, regime: str, size: tuple[float, float], follow: bool = False
    ) -> None:
        self.things, self.asked, self.regime, self.size = things, asked, regime, np.log(size)
        self.joints = np.where(asked[..., None], track.joints, 0).astype(np.float64)
        self.at = np.where(asked[..., None], pixel(self.joints), -1).astype(np.int64)
        self.picture, self.total = np.array(track.image_size), int((track.visible == VISIBLE).sum())
        self.rate = track.fps if 1 <= track.fps <= 1000 else FPS
        self.time: Floats = np.arange(len(asked), dtype=np.float64)
        self.fitting, self.measures = things.fitting(track.cluster), things.measures()
        self.way = self._way() if follow else None
        own = track.norms[:, NORMS.index("bbox")].astype(np.float64)
        own = own[np.isfinite(own) & (own > 0)]
        if not len(own):
            own = frame_boxes(track.joints, asked.astype(np.uint8))[asked.any(axis=1), 2:].max(axis=1)
        self.person = min(max(float(np.median(own)), _PERSON[0]), _PERSON[1])

    def plan(self, rng: np.random.Generator, target: float) -> tuple[list[Piece], Bools]:
        """Pieces, and the (T, K) joints that they hide; `target` is the share of the track's visible joints."""
        pieces: list[Piece] = []
        clear, share = np.ones(self.asked.shape), 0.0
        tries = 12 + len(self.asked) // 16
        for number in range(tries):
            room = target - share
            best = self._best(rng, clear, _OVERSHOOT * room * self.total, _STEADY if number < tries // 2 else 0.0)
            if best is None:
                continue
            piece, after, count = best
            reached = share + count / self.total
            if reached - share > room and rng.random() >= room / (reached - share):
                break  # the mean over clips stays on the target
            pieces.append(piece)
            clear, share = after, reached
            if share >= target:
                break
        return pieces, self.asked & (clear <= 0.5)

    def _way(self) -> Floats:
        """(T, 2) where the person is: the mean of the joints, smoothed."""
        known = self.asked.any(axis=1)
        weight = self.asked[known] / self.asked[known].sum(axis=1, keepdims=True)
        centre = (self.joints[known] * weight[..., None]).sum(axis=1)
        path = np.stack([np.interp(self.time, np.flatnonzero(known), c) for c in centre.T], axis=1)
        return np.asarray(gaussian_filter1d(path, _SMOOTH * self.rate, axis=0, mode="nearest"))

    def _best(
        self, rng: np.random.Generator, clear: Floats, most: float, steady: float
    ) -> tuple[Piece, Floats, int] | None:
        """Of some pieces that hide something, the steadiest; what it leaves clear at the joints, how many it hides newly."""
        seen = self.asked & (clear > 0.5)
        motion = self._motion(rng)
        within = (self.time > motion.start - 1) & (self.time < motion.stop)
        there = np.argwhere(seen & within[:, None])
        if not len(there):
            return None
        tried = self._candidates(rng, motion, there)
        chosen = 0
        if len(tried.thing) > 1:
            scores = self._scores(tried, motion, seen, within, most)
            chosen = int(np.argmax(scores))
            if scores[chosen] < steady:
                return None
        piece = tried.piece(chosen)
        after = clear * (1 - alpha_at(self.things, piece, self.at) / 255.0)
        hidden = int(np.count_nonzero(seen & (after <= 0.5)))
        return (piece, after, hidden) if hidden else None

    def _scores(self, tried: _Candidates, motion: _Motion, seen: Bools, within: Bools, most: float) -> Floats:
        """(C,) how steadily each hides its joints, from 0 to 1, less what it hides too many; -inf where it hides none."""
        T = len(self.time)
        mask = seen & self._roughly(tried)
        each = mask.sum(axis=1)
        runs = mask[:, 0] + (mask[:, 1:] & ~mask[:, :-1]).sum(axis=1)
        stays = np.maximum((seen & within[:, None]).sum(axis=0), 1)
        good = np.minimum(each / stays, 1) / np.maximum(runs, 1)
        as_long = (mask[:, 0] == (motion.start <= 0)) | ~seen[0]
        as_long &= (mask[:, -1] == (motion.stop >= T)) | ~seen[-1]
        good = np.where(as_long, good, _CUT * good)
        hidden = np.maximum(each.sum(axis=1), 1)
        score = (each * good).sum(axis=1) / hidden - _COSTLY * np.maximum(np.log2(hidden / most), 0)
        return np.where(each.any(axis=1), score, -np.inf)

    def _roughly(self, tried: _Candidates) -> Bools:
        """(C, T, K) what candidates hide, as their smallest outlines tell: many times faster than their alpha."""
        outlines, sizes = self.things.outlines()
        scale = tried.longer[:, None] / (BASE * 2.0 ** LEVELS[0])
        sides = sizes[tried.thing].T[..., None]
        a, b, c, d, e, f = (
            v[..., None]
            for v in into_sprite(tried.centre, scale, tried.angle, tried.mirrored[:, None], (sides[0], sides[1]))
        )
        X, Y = self.at[..., 0], self.at[..., 1]
        column, row = (
            np.clip(np.rint(v), 0, outlines.shape[1] - 1).astype(np.int64)  # the rim hides nothing
            for v in (a * X + (b * Y + c), d * X + (e * Y + f))
        )
        return np.asarray(outlines[tried.thing[:, None, None], row, column] & tried.present[..., None])

    def _motion(self, rng: np.random.Generator) -> _Motion:
        T, unit = len(self.time), self.person
        if T == 1:
            return _Motion(-math.inf, math.inf, np.zeros((1, 2)), np.zeros(2), 0.0)
        start, stop = stay(rng, self.regime, T, self.rate)
        drift = rng.normal(0, _DRIFT * unit, 2) * (rng.random() < 0.5)
        come, leave = _heading(rng), _heading(rng)
        if rng.random() < 0.5:
            leave = -come  # it passes through
        speed = unit / (self.rate * math.exp(rng.uniform(math.log(0.16), math.log(0.7))))
        along = come * _away(start - self.time, speed, unit)[:, None]
        along = along + leave * _away(self.time - stop, speed, unit)[:, None]
        return _Motion(start, stop, along, drift, float(rng.normal(0, 0.1)))

    def _candidates(self, rng: np.random.Generator, motion: _Motion, there: NDArray[np.int64]) -> _Candidates:
        """Things at places, with one motion; `there` (M, 2): frames and joints to aim at."""
        still = len(self.time) == 1
        count = 1 if still else _CHOICES
        aimed, joint = there[rng.integers(len(there), size=count)].T
        thing = self.fitting[rng.integers(len(self.fitting), size=count)]
        draws = rng.random((10, count))
        extents, stature, tilt = self.measures
        larger = 1.0 if still else np.array(_LARGER)[(draws[0] * len(_LARGER)).astype(np.int64)]
        size = np.exp(self.size[0] + draws[1] * (self.size[1] - self.size[0]))
        longer = self.person * size * stature[thing] * larger
        extent = longer[:, None] * extents[thing]
        seconds = (self.time - aimed[:, None]) / self.rate
        angle = ((2 * draws[2] - 1) * tilt[thing])[:, None] + motion.turn * np.minimum(tilt[thing], 1)[
            :, None
        ] * seconds
        spot = self.joints[aimed, joint] + (0.7 * draws[3:5].T - 0.35) * extent
        centre = spot[:, None] + seconds[..., None] * motion.drift + motion.along
        if self.way is not None:
            centre = centre + self.way - self.way[aimed][:, None]
        reach = np.hypot(extent[:, 0], extent[:, 1])[:, None, None] / 2 + 8
        present = np.all((centre > -reach) & (centre < self.picture + reach), axis=-1)
        centre = np.where(present[..., None], centre, 0.0)
        tint = np.minimum((0.7 + 0.3 * draws[5]) * (0.9 + 0.2 * draws[6:9]), 1.0).T
        return _Candidates(thing, longer, draws[9] < 0.5, tint, centre, angle, present)


@dataclass(frozen=True)
class _Candidates:
    """C things at places: thing (C,), longer side in pixels (C,), mirrored (C,), tint (C, 3), centre (C, T, 2), angle and present
    (C, T).
    """

    thing: NDArray[np.int64]
    longer: Floats
    mirrored: Bools
    tint: Floats
    centre: Floats
    angle: Floats
    present: Bools

    def piece(self, number: int) -> Piece:
        """One of them."""
        longer, tint = float(self.longer[number]), self.tint[number].tolist()
        level = min(max(math.ceil(math.log2(longer / BASE)), LEVELS[0]), LEVELS[-1])
        scale = np.full(len(self.present[number]), longer / (BASE * 2.0**level))
        path = OccluderTrack(self.centre[number], scale, self.angle[number], self.present[number])
        return Piece(int(self.thing[number]), level, bool(self.mirrored[number]), (tint[0], tint[1], tint[2]), path)


def pixel(joints: NDArray[np.floating]) -> Floats:
    """The nearest pixel of each place."""
    return np.floor(joints.astype(np.float64) + 0.5)


def _heading(rng: np.random.Generator) -> Floats:
    """Unit direction that a thing comes from: rather from a side."""
    angle = rng.normal(0, 0.15) + np.pi * rng.integers(2) if rng.random() < 0.75 else rng.uniform(0, 2 * np.pi)
    return np.array([math.cos(angle), math.sin(angle)])


def _away(ahead: Floats, speed: float, unit: float) -> Floats:
    """(T,) pixels from the hold point, `ahead` frames before arrival or after departure: a constant speed that fades out."""
    soft = 0.05 * unit / speed
    return np.where(np.isfinite(ahead), speed * soft * np.logaddexp(0, np.clip(ahead, -1e6, 1e6) / soft), 0.0)


def stay(rng: np.random.Generator, regime: str, frames: int, fps: float = FPS) -> tuple[float, float]:
    """Start and stop (frames) of one stay that meets a clip, from the stationary law given the regime.

    Stays that meet a window of T frames have lengths with density proportional to (length + T) x log-normal, and a uniform
    start. An end of the clip that the regime hides is infinitely far away.

    Args:
        rng: source of randomness.
        regime: one of `REGIMES`.
        frames: T; at least 2 for P and F, 3 for B.
        fps: scales the lengths.
    """
    if regime == "N":
        return -math.inf, math.inf
    spread = math.log(P90_STAY / MEDIAN_STAY) / 1.2815515655  # the normal law's 90th percentile
    mean, count = math.log(MEDIAN_STAY * fps / FPS), 1 if regime == "any" else 256
    expected = math.exp(mean + spread**2 / 2)
    biased = rng.random(count) < expected / (expected + frames)  # length x log-normal is a log-normal again
    lengths = np.exp(mean + biased * spread**2 + spread * rng.standard_normal(count))
    lengths = np.minimum(lengths, _LONGEST * fps / FPS)
    starts = rng.uniform(-lengths, frames)
    stops = starts + lengths
    if regime == "any":
        return float(starts[0]), float(stops[0])
    part = max(1, min(4, frames // 3))  # frames that the seen and the hidden part have at least
    began = (starts >= part) & (starts <= frames - part)
    ended = (stops >= part) & (stops <= frames - part)
    found = np.flatnonzero({"P": began & (stops >= frames), "F": (starts <= 0) & ended, "B": began & ended}[regime])
    # A clip far shorter than the stays may have met none: then any place that fits.
    start, stop = (starts[found[0]], stops[found[0]]) if len(found) else np.sort(rng.uniform(part, frames - part, 2))
    return float(-math.inf if regime == "F" else start), float(math.inf if regime == "P" else stop)


__all__ = ["FPS", "MEDIAN_STAY", "P90_STAY", "REGIMES", "Planner", "pixel", "stay"]
