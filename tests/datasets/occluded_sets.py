"""Clips in memory, and cut-outs on disk, to put things in front of."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.skeletons import JHMDB as BODY
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE

SIZE = (96, 80)


class Plain:
    """Frames that are all alike: of one grey level, or of noise about it."""

    def __init__(self, level: int, frames: int, noise: int = 0) -> None:
        shape = (SIZE[1], SIZE[0], 3)
        self.image = (level + np.random.default_rng(noise).integers(0, 2 * noise + 1, shape) - noise).astype(np.uint8)
        self.image.flags.writeable = False
        self.frames = frames

    def __len__(self) -> int:
        return self.frames

    def read(self, frames):
        return [self.image for _ in frames]

    def fingerprint(self) -> str:
        return f"plain {self.image[0, 0, 0]}"


class Figures:
    """Persons that wander; joints at the very edges and outside too."""

    skeleton = BODY

    def __init__(self, clips: int = 6, frames: int = 20, level: int = 0, noise: int = 0) -> None:
        self.clips, self.frames, self.level, self.noise = clips, frames, level, noise

    def index(self, split: str) -> PoseIndex:
        first = {"train": 0, "val": 1000, "test": 2000}[split]
        return PoseIndex(
            f"figures/{split}[clip-box]", BODY, "clip-box", split,
            tuple(self._track(number) for number in range(first, first + self.clips)),
        )  # fmt: skip

    def _track(self, number: int) -> Track:
        rng, T, K = np.random.default_rng(number), self.frames, len(BODY)
        shape = rng.uniform(-1, 1, (K, 2)) * (14, 28)
        way = np.cumsum(rng.normal(0, 0.6, (T, 2)), axis=0) + np.array(SIZE) / 2
        joints = way[:, None] + shape + np.cumsum(rng.normal(0, 0.5, (T, K, 2)), axis=0)
        joints[:, 0] = rng.choice([-0.5, -0.49, 0.5, SIZE[0] - 0.5, SIZE[0] - 0.51, SIZE[0] - 1], (T, 2))
        joints[:, 1] = rng.integers(5, 70, (T, 2)) + 0.5
        visible = rng.choice([ABSENT, OCCLUDED, VISIBLE], (T, K), p=[0.05, 0.1, 0.85]).astype(np.uint8)
        joints[visible == ABSENT] = 0
        return Track(
            clip=f"walk/{number:04d}", cluster=f"source{number}", frames=Plain(self.level, T, self.noise),
            joints=joints.astype(np.float32), visible=visible,
            boxes=np.tile(np.array([10, 5, 70, 70], np.float32), (T, 1)),
            norms=np.tile(np.array([60, 70, 25, np.nan, 50], np.float32), (T, 1)),
            uid=number * 100 + np.arange(T), image_size=SIZE, fps=25.0,
        )  # fmt: skip


def write_cutouts(folder: Path, count: int = 1) -> Path:
    """Soft discs, and beside each a faint half whose alpha is below one half."""
    folder.mkdir(exist_ok=True)
    y, x = np.mgrid[:60, :100]
    for number in range(count):
        alpha = np.clip(255 * (28 - np.hypot(x - 32, y - 30)), 0, 255)
        alpha[:, 66:96] = 100
        picture = np.dstack([np.full((60, 100, 3), 40 + 50 * number % 200), alpha]).astype(np.uint8)
        cv2.imwrite(str(folder / f"disc{number}.png"), picture)
    return folder


def matte(black: NDArray[np.uint8], white: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Coverage from the pixels alone: the same things over black and over white."""
    return 1 - (white.astype(np.float64) - black).mean(axis=-1) / 255
