"""Samples of single clips to a `ClipBatch`, padded at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bipose_lit.datasets.transforms import SUPERVISE, generator
from bipose_lit.types import ABSENT, ClipBatch


@dataclass(frozen=True, slots=True)
class Sample:
    """T frames of one person: a `ClipBatch` of one clip without padding, in numpy (see there for shapes and units).

    Attributes:
        key: (epoch, item) that the sample was drawn for.
    """

    joints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    to_image: NDArray[np.float32]
    norms: NDArray[np.float32]
    box_score: NDArray[np.float32]
    uid: NDArray[np.int64]
    frame: NDArray[np.int64]
    clip: int
    fps: float
    key: tuple[int, int] = (0, 0)
    images: NDArray[np.uint8] | None = None
    features: NDArray[np.floating] | None = None
    mirrored: NDArray[np.floating] | None = None

    def __len__(self) -> int:
        return len(self.uid)


def supervised(
    valid: int, fraction: float, rng: np.random.Generator, labelled: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """A mask (valid,) with round(fraction x valid) frames, one at least, drawn without replacement.

    Args:
        valid: frames of the sample.
        fraction: share of them.
        rng: random numbers.
        labelled: (valid,) frames that carry a label; where some do and some do not, only those are drawn, all if they are fewer.
    """
    mask = np.zeros(valid, dtype=bool)
    wanted = max(1, round(fraction * valid))
    if labelled is None or labelled.all() or not labelled.any():
        mask[rng.permutation(valid)[:wanted]] = True
    else:
        mask[rng.permutation(np.flatnonzero(labelled))[:wanted]] = True
    return mask


class Collate:
    """Makes batches.

    Args:
        length: pad every batch to this many frames; None for the longest clip of the batch.
        supervise: share of each clip's frames that the training loss reads; None for all (no mask). The frames are a
            pure function of (seed, epoch, item), so every model that trains on the same data meets the same ones.
        seed: of the run.

    Raises:
        ValueError: a share outside (0, 1].
    """

    def __init__(self, length: int | None = None, supervise: float | None = None, seed: int = 0) -> None:
        if supervise is not None and not 0 < supervise <= 1:
            raise ValueError(f"supervise is a share of frames in (0, 1], not {supervise}")
        self.length, self.supervise, self.seed = length, supervise, seed

    def __call__(self, samples: Sequence[Sample]) -> ClipBatch:
        frames = max(max(len(s) for s in samples), self.length or 0)
        valid = np.zeros((len(samples), frames), dtype=bool)
        for b, sample in enumerate(samples):
            valid[b, : len(sample)] = True
        supervise = None
        if self.supervise is not None:
            supervise = np.zeros_like(valid)
            for b, sample in enumerate(samples):
                rng = generator(self.seed, SUPERVISE, *sample.key)
                labelled = (sample.visible != ABSENT).any(axis=1)
                supervise[b, : len(sample)] = supervised(len(sample), self.supervise, rng, labelled)

        def pad(name: str, fill: float = 0) -> Tensor:
            parts = [getattr(s, name) for s in samples]
            if all(len(p) == frames for p in parts):
                return torch.from_numpy(np.stack(parts))
            whole = np.full((len(parts), frames, *parts[0].shape[1:]), fill, dtype=parts[0].dtype)
            for row, part in zip(whole, parts, strict=True):
                row[: len(part)] = part
            return torch.from_numpy(whole)

        def given(name: str) -> Tensor | None:
            return None if getattr(samples[0], name) is None else pad(name)

        return ClipBatch(
            images=given("images"),
            features=given("features"),
            mirrored=given("mirrored"),
            valid=torch.from_numpy(valid),
            supervise=None if supervise is None else torch.from_numpy(supervise),
            joints=pad("joints"),
            visible=pad("visible"),
            to_image=pad("to_image"),
            norms=pad("norms"),
            box_score=pad("box_score"),
            uid=pad("uid", -1),
            frame=pad("frame"),
            clip=torch.tensor([s.clip for s in samples]),
            fps=torch.tensor([s.fps for s in samples], dtype=torch.float32),
        )


__all__ = ["Collate", "Sample", "supervised"]
