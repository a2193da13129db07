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
from bipose_lit.store import Predictions


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
class Camera:
    """A pinhole camera: pixel = distort(K (R X + t)), X in the world's millimetres.

    Attributes:
        name: the data set's name for it.
        intrinsics: (3, 3) K, or (T, 3, 3) where it moves.
        rotation: (3, 3) R, or (T, 3, 3).
        translation: (3,) t in millimetres, or (T, 3).
        distortion: k1, k2, k3, p1, p2 (radial, then tangential, in normalised coordinates); empty for none.
    """

    name: str
    intrinsics: NDArray[np.float64]
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    distortion: tuple[float, ...] = ()


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
        joints_3d: (T, K, 3) float32 in millimetres, in the camera's coordinates (x right, y down, z away from it) where
            `camera` is set, else in the world's; the root is not subtracted. None for sets without 3D.
        camera: that `joints` are seen by.
        detected: (T, K, 2) float32, joints as a 2D detector found them, original pixels; what a lifting model is fed.
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
    joints_3d: NDArray[np.float32] | None = None
    camera: Camera | None = None
    detected: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.uid)


class Scoring(Protocol):
    """A data set's own measure. The reader makes it, as it knows what tracks do not tell: crowds, images without persons."""

    def score(self, predictions: Predictions) -> dict[str, float]:
        """Numbers by name, without prefix and box rule: {"ap": 0.7, "pckh@0.5/head": 0.9}; fractions of 1, pixels or mm.

        Args:
            predictions: one row per uid of the index. Persons without a row count as missed, so a part of a split scores low;
                the callback therefore asks for whole splits alone.
        """
        ...

    def fingerprint(self) -> str:
        """A string that changes when a number of `score` may change for the same predictions: labels, boxes, options."""
        ...


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
        scoring: the data set's own measure, where PCK by box and torso (which all sets get) is not it.
    """

    name: str
    skeleton: Skeleton
    box_rule: str
    split: str
    tracks: tuple[Track, ...]
    skipped: dict[str, list[str]] = field(default_factory=dict)
    scoring: Scoring | None = None

    @property
    def clusters(self) -> tuple[str, ...]:
        """Names of the independent sources, sorted."""
        return tuple(sorted({t.cluster for t in self.tracks}))


@dataclass(frozen=True)
class Entry:
    """A kind of file in a data set's folder.

    Attributes:
        path: relative to the root, words in capitals standing for anything, e.g. "labels/NNNN.mat".
        about: what it holds, in a few words.
        needed: the reader cannot do without it.
    """

    path: str
    about: str
    needed: bool = True


class Reader(Protocol):
    """One official format; constructor arguments say where it is and which variant (root, split number, box rule).

    The readers of this package also have `layout`, a class attribute: the `Entry`s of their tree (from which the data cards'
    trees are made and which `bipose data check` looks for), and the argument `strict`: False leaves damaged label files out
    and tells them in `PoseIndex.skipped`, True ends at the first with a BiposeError.
    """

    skeleton: Skeleton

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: the folder is missing, is not this format, or the split is empty.
        """
        ...
