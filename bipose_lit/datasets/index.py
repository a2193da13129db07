"""The one interface of all readers: an index of persons in time, without pixels.

A reader knows one official format. It turns the files on disk into a `PoseIndex`: a list of `Track`s (one person, consecutive
frames), each with its own lazy `FrameSource`. Everything above (sampling, cropping, caching, metrics) sees tracks only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bipose_lit.skeletons import Skeleton


class FrameSource(Protocol):
    """Where a track's pixels are."""

    def __len__(self) -> int: ...

    def read(self, frames: Sequence[int]) -> list[NDArray[np.uint8]]:
        """RGB images (H, W, 3) of the given frame numbers of the track.

        Raises:
            BiposeError: a missing or truncated file (says which).
        """
        ...

    def fingerprint(self) -> str:
        """A string that changes when the files change (paths relative to the data set's root, sizes, times)."""
        ...


@dataclass(frozen=True)
class Track:
    """One person through T consecutive frames of one source; a still has T = 1.

    Attributes:
        clip: unique, readable id within the data set, e.g. "walk/scene0012_0"; used in reports and file names.
        cluster: the independent source (see `science`: the unit of resampling and of splitting).
        frames: the pixels.
        joints: (T, K, 2) float32, original pixels, 0-based; 0 where absent.
        visible: (T, K) uint8, ABSENT, OCCLUDED or VISIBLE.
        boxes: (T, 4) float32 x, y, w, h by the index's box rule, before any padding.
        norms: (T, M) float32, see `types.NORMS`.
        uid: (T,) int64 annotation ids, unique over the whole data set and stable between runs.
        image_size: width and height of the frames in pixels.
        fps: frames per second, 0 where unknown.
        action: the data set's class, "" where there is none.
        box_score: detector score, 1 for ground truth.
    """

    clip: str
    cluster: str
    frames: FrameSource
    joints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    norms: NDArray[np.float32]
    uid: NDArray[np.int64]
    image_size: tuple[int, int]
    fps: float = 0.0
    action: str = ""
    box_score: float = 1.0

    def __len__(self) -> int:
        return len(self.uid)


@dataclass(frozen=True)
class PoseIndex:
    """What a reader found.

    Attributes:
        name: the data's name with split and box rule, e.g. "jhmdb/split1/test[clip-box]"; part of every metric's name.
        skeleton: joint order of the labels.
        box_rule: how `Track.boxes` came about: "clip-box" (one box around all labelled joints of the clip),
            "frame-box" (per frame around its labelled joints), "gt-box" (the data set's own), "det-box", "puppet-box".
        split: "train", "val" or "test".
        tracks: in a fixed order.
        skipped: what was left out and why: {"reason": ["clip or file", ...]}; reported, never silent.
    """

    name: str
    skeleton: Skeleton
    box_rule: str
    split: str
    tracks: tuple[Track, ...]
    skipped: dict[str, list[str]] = field(default_factory=dict)

    @property
    def clusters(self) -> tuple[str, ...]:
        """Names of the independent sources, sorted."""
        return tuple(sorted({t.cluster for t in self.tracks}))


class Reader(Protocol):
    """One official format; constructor arguments say where it is and which variant (root, split number, box rule)."""

    skeleton: Skeleton

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: the folder is missing, is not this format, or the split is empty.
        """
        ...
