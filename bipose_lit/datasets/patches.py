"""Things to paste that are parts of other clips' frames, as far from the people in them as they go."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.cutouts import BASE, COUNT, SPLITS, Drawn, Image, Sprite, name_hash, premultiplied
from bipose_lit.datasets.findings import pictures
from bipose_lit.datasets.frames import FolderFrames, NoFrames, VideoFrames
from bipose_lit.datasets.index import FrameSource, Track
from bipose_lit.datasets.transforms import OCCLUDERS, generator
from bipose_lit.datasets.video_json import VideoPiece
from bipose_lit.geometry import bounding_box
from bipose_lit.types import ABSENT

_LOOKS = 24  # tracks looked at for a filling
_TRIES = 24  # places looked at in a frame, for each of these shares of the usual size
_SHRINKING = (1.0, 0.7, 0.5)


@dataclass(frozen=True)
class _Patch:
    """Part of a frame of a track: x, y, w, h in whole pixels."""

    frames: FrameSource
    frame: int
    area: tuple[int, int, int, int]
    clip: str
    cluster: str


class Patches(Drawn):
    """The outlines of `Drawn`, filled with parts of frames of the same split, as far from all its labelled persons as they go.

    Which clip fills an outline is told by hashes of the clips' names (rendezvous hashing): another clip of the split changes a
    filling only where it wins one. A clip gets none from its own source, unless the split has no other: each outline has two
    fillings, of two sources, numbered n and n + count.

    Args:
        split: of the data set.
        seed: another seed gives other outlines and other parts.
        tracks: all of the split.
        count: outlines.
        boxes: the tracks' boxes hold the person in their frame (and are not those of whole clips).
    """

    def __init__(self, split: str, seed: int, tracks: Sequence[Track], count: int = COUNT, boxes: bool = False) -> None:
        super().__init__(split, seed, count)
        self._count = count
        chooser = _Chooser(tracks, seed, SPLITS.index(split), boxes)
        fillings = [chooser.choose(number, self.extents[number]) for number in range(count)]
        self._patches = [f[0] for f in fillings] + [f[1] for f in fillings]
        self._kinds, self._seeds = self._kinds * 2, self._seeds * 2
        self.extents, self.stature, self.tilt = self.extents * 2, self.stature * 2, self.tilt * 2
        self._identity = name_hash(
            repr(("patches", self._identity, [(p.clip, p.frame, p.area) for p in self._patches]))
        )

    def alpha(self, number: int, level: int) -> Image:
        return super()._make(number, level).alpha

    def fitting(self, cluster: str) -> NDArray[np.int64]:
        own = np.array([patch.cluster == cluster for patch in self._patches[: self._count]])
        return np.asarray(np.arange(self._count) + self._count * own, np.int64)

    def _make(self, number: int, level: int) -> Sprite:
        alpha, patch = self.alpha(number, level), self._patches[number]
        (image,) = patch.frames.read([patch.frame])
        x, y, w, h = patch.area
        part = image[y : y + h, x : x + w]
        part = part if part.size else image  # a picture smaller than its labels say
        size = alpha.shape[1], alpha.shape[0]
        smaller = size[0] < part.shape[1]
        filled = cv2.resize(part, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        return Sprite(premultiplied(np.asarray(filled, np.uint8), alpha), alpha)


class _Chooser:
    """Looks for fillings among tracks; see `Patches`."""

    def __init__(self, tracks: Sequence[Track], seed: int, split: int, boxes: bool) -> None:
        self.tracks, self.seed, self.split, self.boxes = tracks, seed, split, boxes
        self.names = np.array([_number(track.clip) for track in tracks], np.uint64)
        self.clusters = np.array([track.cluster for track in tracks])
        self.shown: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self.pictures = [_pictures(track) for track in tracks]
        for number, found in enumerate(self.pictures):
            for frame, picture in enumerate(found):
                self.shown.setdefault(picture, []).append((number, frame))

    def choose(self, thing: int, extents: tuple[float, float]) -> tuple[_Patch, _Patch]:
        """Two fillings, of two sources where there are two."""
        with np.errstate(over="ignore"):
            rank = _mixed(self.names ^ np.uint64(_number(repr((self.seed, self.split, thing)))))
        first = self._best(np.arange(len(rank)), rank, thing, extents)
        others = np.flatnonzero(self.clusters != first.cluster)
        return first, self._best(others, rank, thing, extents) if len(others) else first

    def _best(
        self, among: NDArray[np.int64], rank: NDArray[np.uint64], thing: int, extents: tuple[float, float]
    ) -> _Patch:
        """The highest in rank that shows nobody; else, of some, the one that shows least of anybody."""
        few = min(_LOOKS, len(among))
        top = among[np.argpartition(rank[among], len(among) - few)[len(among) - few :]]
        found: list[tuple[float, _Patch]] = []
        for number in top[np.argsort(rank[top])[::-1]]:
            over, patch = self._look(int(number), thing, extents)
            found.append((over, patch))
            if over == 0:
                break
        return min(found, key=lambda f: f[0])[1]

    def _look(self, number: int, thing: int, extents: tuple[float, float]) -> tuple[float, _Patch]:
        """A place in one frame of a track, and how much of it shows labelled persons (above 1: the picture is missing)."""
        track = self.tracks[number]
        rng = generator(self.seed, OCCLUDERS, self.split, 1, thing, int(self.names[number]))
        frame = int(rng.integers(len(track)))
        size = np.array(track.image_size)
        longest = min(BASE * 1.5, 0.5 * size.min()) * np.repeat(_SHRINKING, _TRIES)
        w, h = (np.clip(np.round(longest * share), 1, side).astype(np.int64)
                for share, side in zip(extents, size, strict=True))  # fmt: skip
        x, y = ((rng.random(len(longest)) * (side - extent + 1)).astype(np.int64)
                for side, extent in zip(size, (w, h), strict=True))  # fmt: skip
        pictures = self.pictures[number]
        over, away = np.zeros(len(x)), np.full(len(x), np.inf)
        for one, at in self.shown[pictures[frame]] if pictures else [(number, frame)]:
            low, high = self._person(self.tracks[one], at)
            wide = np.clip(np.minimum(x + w, high[0]) - np.maximum(x, low[0]), 0, None)
            tall = np.clip(np.minimum(y + h, high[1]) - np.maximum(y, low[1]), 0, None)
            over += wide * tall / (w * h)
            away = np.minimum(away, np.hypot(x + w / 2 - (low[0] + high[0]) / 2, y + h / 2 - (low[1] + high[1]) / 2))
        best = int(np.lexsort((-away, -w, np.round(over, 2)))[0])
        area = (int(x[best]), int(y[best]), int(w[best]), int(h[best]))
        patch = _Patch(track.frames, frame, area, track.clip, track.cluster)
        return float(over[best]) + (1e6 if _missing(track, frame) else 0), patch

    def _person(self, track: Track, frame: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        box = bounding_box(track.joints[frame].astype(np.float64), track.visible[frame] != ABSENT)
        if not np.isfinite(box).all():
            box = np.array([-1e9, -1e9, 0.0, 0.0])
        # Outlines of people reach further than their joints.
        low, high = box[:2] - 0.15 * box[2:].max(), box[:2] + box[2:] + 0.15 * box[2:].max()
        if self.boxes and np.isfinite(track.boxes[frame]).all():
            own = track.boxes[frame].astype(np.float64)
            low, high = np.minimum(low, own[:2]), np.maximum(high, own[:2] + own[2:])
        return low, high


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _source(track: Track) -> Track:
    """The track with the frames that a wrapper reads."""
    while (inner := getattr(track.frames, "source", None)) is not None:
        track = replace(track, frames=inner)
    return track


def _pictures(track: Track) -> list[tuple[str, int]]:
    return list(pictures(_source(track)))


def _missing(track: Track, frame: int) -> bool:
    match _source(track).frames:
        case FolderFrames(root, names):
            return not (root / names[frame]).is_file()
        case VideoFrames(root, name, _) | VideoPiece(VideoFrames(root, name, _), _, _, _):
            return not (root / name).is_file()
        case NoFrames():
            return True
    return False


__all__ = ["Patches"]
