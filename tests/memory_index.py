"""A small data set in memory: persons drawn as Gaussian blobs, one per joint, at known sub-pixel places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import BiposeError

BODY = Skeleton(
    name="five",
    joints=("head", "left_shoulder", "right_shoulder", "left_ankle", "right_hip"),
    swaps=(("left_shoulder", "right_shoulder"),),
    limbs=(("head", "left_shoulder"),),
)
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]], np.float32)


def draw_blobs(joints: NDArray[np.floating], size: tuple[int, int], sigma: float = 3.0) -> NDArray[np.uint8]:
    """One RGB image with a coloured Gaussian at each joint (K, 2)."""
    x, y = np.arange(size[0]), np.arange(size[1])
    image = np.zeros((size[1], size[0], 3), np.float32)
    for (jx, jy), colour in zip(joints, COLOURS, strict=False):
        blob = np.exp(-((x - jx) ** 2)[None] / (2 * sigma**2) - ((y - jy) ** 2)[:, None] / (2 * sigma**2))
        image = np.maximum(image, blob[..., None] * colour)
    return np.round(image).astype(np.uint8)


class MemoryFrames:
    """Frames drawn when they are asked for; `broken` numbers raise as a truncated file would."""

    def __init__(self, joints: NDArray[np.float32], size: tuple[int, int], broken: Sequence[int] = ()) -> None:
        self.joints, self.size, self.broken = joints, size, tuple(broken)

    def __len__(self) -> int:
        return len(self.joints)

    def read(self, frames: Sequence[int]) -> list[NDArray[np.uint8]]:
        for frame in frames:
            if frame in self.broken:
                raise BiposeError(f"memory/{frame}.png: truncated PNG; copy the file again")
        return [draw_blobs(self.joints[f], self.size) for f in frames]

    def fingerprint(self) -> str:
        return f"{self.size}{float(self.joints.sum())}{self.broken}"


def make_track(number: int, frames: int, size: tuple[int, int] = (160, 120), rule: str = "clip-box") -> Track:
    """A track whose joints drift smoothly."""
    rng = np.random.default_rng(number)
    start = rng.uniform(0.3, 0.7, (1, 5, 2)) * size
    drift = rng.uniform(-0.8, 0.8, (1, 5, 2)) * np.arange(frames)[:, None, None]
    joints = np.clip(start + drift, 12, np.array(size) - 13).astype(np.float32)
    visible = np.full((frames, 5), 2, np.uint8)
    visible[:, 4] = 1
    low, high = joints.min(axis=1) - 8, joints.max(axis=1) + 8
    if rule == "clip-box":
        low[:], high[:] = low.min(axis=0), high.max(axis=0)
    return Track(
        clip=f"clip{number:03d}",
        cluster=f"cluster{number:03d}",
        frames=MemoryFrames(joints, size),
        joints=joints,
        visible=visible,
        boxes=np.concatenate([low, high - low], axis=1).astype(np.float32),
        norms=np.tile(np.array([50, 60, 20, 9, 40], np.float32), (frames, 1)),
        uid=(number * 1000 + np.arange(frames)).astype(np.int64),
        image_size=size,
        fps=25.0,
    )


def make_index(
    lengths: Sequence[int] = (6, 9, 4), split: str = "train", first: int = 0, rule: str = "clip-box"
) -> PoseIndex:
    tracks = tuple(make_track(first + i, n, rule=rule) for i, n in enumerate(lengths))
    return PoseIndex(name=f"memory/{split}[{rule}]", skeleton=BODY, box_rule=rule, split=split, tracks=tracks)


class MemoryReader:
    """A reader that needs no files.

    Args:
        clips: clips per split.
        frames: of each clip.
        leak: give the validation split the training split's clusters.
        empty: a split without clips.
        broken: frame number that cannot be read in the training split; -1 for none.
    """

    skeleton = BODY

    def __init__(self, clips: int = 6, frames: int = 8, leak: bool = False, empty: str = "", broken: int = -1) -> None:
        self.clips, self.frames, self.leak, self.empty, self.broken = clips, frames, leak, empty, broken

    def index(self, split: str) -> PoseIndex:
        first = {"train": 0, "val": 0 if self.leak else 100, "test": 200}[split]
        count = 0 if split == self.empty else self.clips
        index = make_index([self.frames + i % 3 for i in range(count)], split, first)
        if split == "train" and self.broken >= 0:
            for track in index.tracks:
                track.frames.broken = (self.broken,)  # type: ignore[attr-defined]
        return index
