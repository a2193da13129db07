"""Real clips with things pasted in front of the person, and visibility that says which joints they hide.

`Occluded` wraps any reader: labels, boxes, norms and ids stay, the pixels get opaque things, and a joint labelled VISIBLE whose
pixel is covered by half or more becomes OCCLUDED. A joint's pixel is the nearest one, (floor(x + 0.5), floor(y + 0.5)), as
pixel centres sit at integers; a joint outside the picture keeps its flag.

Things come and go as in video: their stays are a stationary process that the clip cuts a window out of, so they may begin before
the clip or outlast it. A thing aims at one labelled joint in one frame, then follows the person's path (the mean of the joints,
smoothed) with a drift and a sway of its own. It does not follow a limb; but of a few things that are tried the one under which
joints stay longest is taken. Without that choice joints that graze an edge make nearly all hidden runs 2 to 4 frames long.

Hidden runs of joints in real video at 25 to 30 frames per second have a median of about 14 frames, and 90% are under 56; cut
to clips of 30 frames that is a median of 11, 90% up to 30 and 73% that touch an end. What the constants below come to on 24
JHMDB clips of 30 frames: 9, 25 and 51% (`occlusion_statistics`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from bipose_lit.datasets.boxes import frame_boxes
from bipose_lit.datasets.cutouts import BASE, LEVELS, Cutouts, Drawn, Patches, Things
from bipose_lit.datasets.index import PoseIndex, Reader, Track
from bipose_lit.datasets.pasting import OccludedFrames, Piece, cover
from bipose_lit.datasets.synthetic.assay import run_statistics
from bipose_lit.datasets.synthetic.occluders import OccluderTrack
from bipose_lit.datasets.transforms import OCCLUDERS, generator
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, VISIBLE, BiposeError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

REGIMES = ("any", "P", "F", "B", "N")
TEXTURES = ("drawn", "patches")

MEDIAN_STAY, P90_STAY = 20.0, 80.0
"""Median and 90th percentile of a thing's stay in frames at `FPS`; a joint also walks out from under it."""

FPS = 27.5
"""Frames per second where a track does not say."""

_CHOICES = 6  # things tried for a place; 2 in a still, where nothing lasts longer than anything else
_OVERSHOOT = 2.0  # joints that a thing may hide, as a multiple of those still to be hidden, if another is at hand
_SMOOTH = 0.07  # seconds; the person's way, not the limbs'
_LONGEST = 1000.0  # frames of a stay
_PERSON = (4.0, 1536.0)  # pixels that a person's longer side is held between


class Occluded:
    """A reader's clips with things pasted in, in all splits. Stills are clips of one frame.

    What a clip gets is a function of its name, its labels, its split and `seed`, whichever frames are read in whatever order.

    Args:
        reader: any reader.
        hidden: share of the joints labelled VISIBLE that is hidden in an occluded clip, on average over clips. Clips vary, as
            a thing that would overshoot is kept with the odds that make the mean right. Values above about 0.6 are not
            reached; `occlusion_statistics` says what it came to.
        probability: share of clips with things in them at all.
        regime: "any": stays as they fall; "P": all begin in the clip and outlast it (seen, then hidden); "F": hidden, then
            seen; "B": inside the clip; "N": the whole clip. A clip too short for its regime is left as it is, and counted in
            `skipped`. The regimes are the things'; single joints move in and out, so about three quarters of them follow.
        size: smallest and largest longer side of a thing, in units of the person's box's longer side (poles, doors and
            passers-by are up to 2.2 times as large).
        texture: "drawn", painted surfaces; or "patches", parts of other clips' frames of the same split, far from the
            labelled person.
        cutouts: folder of PNG files with an alpha channel to paste instead (see `cutouts.Cutouts`).
        seed: another seed gives other things at other places.

    Attributes:
        skeleton: the reader's.
        official: the reader's split lists are their owners' own.

    Raises:
        BiposeError: an argument out of range.
    """

    def __init__(
        self,
        reader: Reader,
        hidden: float = 0.25,
        probability: float = 1.0,
        regime: str = "any",
        size: tuple[float, float] = (0.5, 1.0),
        texture: str = "drawn",
        cutouts: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 < hidden < 1 or not 0 <= probability <= 1:
            raise BiposeError(f"occluded: hidden {hidden} lies between 0 and 1, probability {probability} in 0 to 1")
        if regime not in REGIMES or texture not in TEXTURES:
            raise BiposeError(
                f"occluded: regime {regime!r} is one of {', '.join(REGIMES)}; texture {texture!r} one of {', '.join(TEXTURES)}"
            )
        if not 0.02 <= size[0] <= size[1] <= 2 or seed < 0:
            raise BiposeError(
                f"occluded: size {tuple(size)} is smallest and largest, within 0.02 to 2; seed {seed} is 0 or more"
            )
        self.reader, self.skeleton = reader, reader.skeleton
        self.official = bool(getattr(reader, "official", False))
        self.layout: Any = getattr(reader, "layout", ())
        self.hidden, self.probability, self.regime = float(hidden), float(probability), regime
        self.size, self.texture, self.seed = (float(size[0]), float(size[1])), texture, int(seed)
        self.cutouts = None if cutouts is None else Path(cutouts)

    def index(self, split: str) -> PoseIndex:
        """The reader's index with other pixels and flags, named "jhmdb/split1/test+occluded0.25[clip-box]".

        The data set's own measure, where it has one, stays: it reads the labels' places, which are the same.

        Raises:
            BiposeError: the reader's own, or cut-outs that cannot be used.
        """
        index = self.reader.index(split)
        things: Things
        if self.cutouts is not None:
            things = Cutouts(self.cutouts, split)
        elif self.texture == "patches" and index.tracks:
            things = Patches(split, self.seed, index.tracks)
        else:
            things = Drawn(split, self.seed)
        least = {"P": 2, "F": 2, "B": 3}.get(self.regime, 1)
        skipped = dict(index.skipped)
        short = [track.clip for track in index.tracks if len(track) < least]
        if short:
            skipped[f"too short for regime {self.regime}, left without things in front"] = short
        tracks = tuple(self._track(track, things) if len(track) >= least else track for track in index.tracks)
        blank = [track.clip for track in index.tracks if not _hideable(track).any()]
        if blank:
            skipped["no joint that is seen and inside the picture, left without things in front"] = blank
        head, bracket, rule = index.name.partition("[")
        mark = f"+occluded{self.hidden:g}{'' if self.regime == 'any' else self.regime}"
        return replace(index, name=f"{head}{mark}{bracket}{rule}", tracks=tracks, skipped=skipped)

    def _track(self, track: Track, things: Things) -> Track:
        digest = hashlib.blake2b(track.clip.encode(), digest_size=8).digest()
        rng = generator(self.seed, OCCLUDERS, int.from_bytes(digest, "big"))
        asked = _hideable(track)
        pieces: list[Piece] = []
        visible = track.visible
        if rng.random() < self.probability and asked.any():
            pieces, hidden = _Planner(track, things, asked, self.regime, self.size).plan(rng, self.hidden)
            visible = np.where(hidden, OCCLUDED, visible).astype(np.uint8)
        options = repr((self.hidden, self.probability, self.regime, self.size, self.texture, self.seed))
        return replace(track, frames=OccludedFrames(track.frames, things, pieces, options), visible=visible)


def _pixel(joints: NDArray[np.floating]) -> Floats:
    return np.floor(joints.astype(np.float64) + 0.5)


def _hideable(track: Track) -> Bools:
    """(T, K) joints that are labelled VISIBLE and whose pixel is in the picture."""
    pixel = _pixel(track.joints)
    inside = ((pixel >= 0) & (pixel < np.array(track.image_size))).all(axis=-1)
    return np.asarray(inside & (track.visible == VISIBLE))


class _Planner:
    """Places things in one clip. `asked` (T, K): joints that can be hidden (`_hideable`)."""

    def __init__(self, track: Track, things: Things, asked: Bools, regime: str, size: tuple[float, float]) -> None:
        self.things, self.asked, self.regime, self.size = things, asked, regime, size
        self.joints = np.where(asked[..., None], track.joints, 0).astype(np.float64)
        self.at = np.where(asked[..., None], _pixel(self.joints), -1).astype(np.int64)
        self.picture, self.total = track.image_size, int((track.visible == VISIBLE).sum())
        self.rate = track.fps if 1 <= track.fps <= 1000 else FPS
        self.fitting = things.fitting(track.cluster)
        known = asked.any(axis=1)
        weight = asked[known] / asked[known].sum(axis=1, keepdims=True)
        centre = (self.joints[known] * weight[..., None]).sum(axis=1)
        path = np.stack([np.interp(np.arange(len(asked)), np.flatnonzero(known), c) for c in centre.T], axis=1)
        self.path = gaussian_filter1d(path, _SMOOTH * self.rate, axis=0, mode="nearest")
        own = track.norms[:, NORMS.index("bbox")].astype(np.float64)
        own = own[np.isfinite(own) & (own > 0)]
        if not len(own):
            own = frame_boxes(track.joints, asked.astype(np.uint8))[known, 2:].max(axis=1)
        self.person = float(np.clip(np.median(own), *_PERSON))

    def plan(self, rng: np.random.Generator, target: float) -> tuple[list[Piece], Bools]:
        """Pieces, and the (T, K) joints that they hide."""
        pieces: list[Piece] = []
        clear, share = np.ones(self.asked.shape), 0.0
        for _ in range(12 + len(self.asked) // 16):
            room = target - share
            best = self._best(rng, clear, _OVERSHOOT * room * self.total)
            if best is None:
                continue
            piece, after = best
            reached = float((self.asked & (after <= 0.5)).sum()) / self.total
            if reached - share > room and rng.random() >= room / (reached - share):
                break  # the mean over clips stays on the target
            pieces.append(piece)
            clear, share = after, reached
            if share >= target:
                break
        return pieces, self.asked & (clear <= 0.5)

    def _best(self, rng: np.random.Generator, clear: Floats, most: float) -> tuple[Piece, Floats] | None:
        """Of some pieces that hide something, the one whose hidden runs last longest, and what it leaves clear at the joints."""
        seen = self.asked & (clear > 0.5)
        found: list[tuple[float, Piece]] = []
        for _ in range(_CHOICES if len(seen) > 1 else 2):
            piece = self._draw(rng, seen)
            if piece is None:
                continue
            mask = seen & self._roughly(piece)
            hidden = int(mask.sum())
            if hidden:
                runs = int(mask[0].sum() + (mask[1:] & ~mask[:-1]).sum())
                found.append((hidden / runs - (1e6 if hidden > most else 0), piece))
        if not found:
            return None
        piece = max(found, key=lambda f: f[0])[1]
        return piece, clear * self._clear_at_joints(piece)

    def _roughly(self, piece: Piece) -> Bools:
        """(T, K) what a piece hides, but for the last bit at its edges: many times faster than warping its alpha."""
        path, sprite = piece.track, self.things.alpha(piece.thing, piece.level)
        dx, dy = np.moveaxis(self.at - path.centre[:, None], -1, 0) / path.scale[:, None]
        cos, sin = np.cos(path.angle)[:, None], np.sin(path.angle)[:, None]
        x = (cos * dx + sin * dy) * (-1 if piece.mirrored else 1) + (sprite.shape[1] - 1) / 2
        y = (cos * dy - sin * dx) + (sprite.shape[0] - 1) / 2
        column, row = (
            np.clip(np.floor(v + 0.5), -1, n).astype(int) for v, n in ((x, sprite.shape[1]), (y, sprite.shape[0]))
        )
        over = (column >= 0) & (row >= 0) & (column < sprite.shape[1]) & (row < sprite.shape[0]) & path.present[:, None]
        return np.asarray(
            over & (sprite[np.clip(row, 0, sprite.shape[0] - 1), np.clip(column, 0, sprite.shape[1] - 1)] > 127)
        )

    def _clear_at_joints(self, piece: Piece) -> Floats:
        clear = np.ones(self.asked.shape)
        path = piece.track
        reach = path.scale * math.hypot(*self.things.alpha(piece.thing, piece.level).shape) / 2 + 2
        near = np.linalg.norm(self.at - path.centre[:, None], axis=-1) <= reach[:, None]
        for t in np.flatnonzero(path.present & (near & self.asked).any(axis=1)):
            met = cover(self.things, piece, int(t), self.picture)
            if met is None:
                continue
            x, y = self.at[t, :, 0] - met.columns.start, self.at[t, :, 1] - met.rows.start
            over = self.asked[t] & (x >= 0) & (y >= 0) & (x < met.alpha.shape[1]) & (y < met.alpha.shape[0])
            clear[t, over] = met.clear[y[over], x[over]]
        return clear

    def _draw(self, rng: np.random.Generator, seen: Bools) -> Piece | None:
        T, unit = len(seen), self.person
        start, stop = stay(rng, self.regime, T, self.rate)
        time: Floats = np.arange(T, dtype=np.float64)
        there = np.argwhere(seen & ((time > start - 1) & (time < stop))[:, None])
        if not len(there):
            return None
        aimed, joint = (int(v) for v in there[rng.integers(len(there))])
        thing = int(self.fitting[rng.integers(len(self.fitting))])
        longer = unit * math.exp(rng.uniform(*np.log(self.size))) * self.things.stature[thing]
        level = int(np.clip(math.ceil(math.log2(longer / BASE)), LEVELS[0], LEVELS[-1]))
        tint = np.minimum(rng.uniform(0.7, 1.0) * rng.uniform(0.9, 1.1, 3), 1.0)
        mirrored, tilt = bool(rng.random() < 0.5), math.radians(self.things.tilt[thing])
        width, height = (longer * share for share in self.things.extents[thing])
        seconds = (time - aimed) / self.rate
        angle = rng.uniform(-tilt, tilt) + rng.normal(0, 0.1 * min(tilt, 1.0)) * seconds
        spot = self.joints[aimed, joint] + rng.uniform(-0.35, 0.35, 2) * (width, height)
        centre: Floats = self.path + (spot - self.path[aimed]) + seconds[:, None] * rng.normal(0, 0.08 * unit, 2)
        waves = 2 * np.pi * (seconds[:, None] * rng.uniform(0.2, 0.9, 2) + rng.random(2))
        centre = centre + rng.uniform(0, 0.02, 2) * unit * (np.sin(waves) - np.sin(waves[aimed]))
        come, leave = (_heading(rng, width / height) for _ in range(2))
        if rng.random() < 0.5:
            leave = -come  # it passes through
        speed = unit / (self.rate * math.exp(rng.uniform(math.log(0.16), math.log(0.7))))
        centre = centre + come * _away(start - time, speed, unit)[:, None]
        centre = centre + leave * _away(time - stop, speed, unit)[:, None]
        reach = math.hypot(width, height) / 2 + 8
        present = np.all((centre > -reach) & (centre < np.array(self.picture) + reach), axis=1)
        scale = np.full(T, longer / (BASE * 2.0**level))
        path = OccluderTrack(np.where(present[:, None], centre, 0.0), scale, angle, present)
        return Piece(thing, level, mirrored, (float(tint[0]), float(tint[1]), float(tint[2])), path)


def _heading(rng: np.random.Generator, ratio: float) -> Floats:
    """Unit direction that a thing comes from: tall ones from a side, others from anywhere, rather from a side."""
    sideways = ratio < 0.6 or rng.random() < 0.6
    angle = rng.normal(0, 0.15) + np.pi * rng.integers(2) if sideways else rng.uniform(0, 2 * np.pi)
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


def occlusion_statistics(*indexes: PoseIndex) -> dict[str, float]:
    """What the flags of an index, or of several together, come to.

    Returns:
        clips, frames; labelled: joints; hidden: share of labelled joints that are OCCLUDED; runs: of hidden frames of a
        joint, as cut by the clip; median, p90: their lengths in frames; touching: share of runs that touch a clip's end;
        share_P, share_F, share_B, share_N: of hidden joints, by what time can tell (`synthetic.assay.frame_regimes`).
    """
    tracks: Iterable[Track] = [track for index in indexes for track in index.tracks]
    found = run_statistics(track.visible == OCCLUDED for track in tracks)
    labelled = sum(int((track.visible != ABSENT).sum()) for track in tracks)
    dark = sum(int((track.visible == OCCLUDED).sum()) for track in tracks)
    return {**found, "labelled": labelled, "hidden": dark / labelled if labelled else math.nan}


__all__ = ["Occluded", "occlusion_statistics", "stay"]
