"""People found in whole images: kept by image, gathered over ranks, scored by COCO's measure without boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bipose_lit.codecs.assembly import People
from bipose_lit.metrics.coco import average_precision
from bipose_lit.metrics.instances import Detected, Truth


class SceneCollector:
    """Metric state of one split: the people of each image, in original pixels. An image that comes again counts once."""

    def __init__(self) -> None:
        self.found: dict[int, People] = {}

    def update(self, image: int, people: People) -> None:
        """Adds an image."""
        self.found.setdefault(int(image), people)

    def gather(self) -> dict[int, People]:
        """The people of all ranks by image id, sorted by it, the same on every rank. Every rank must call it."""
        parts: list[dict[int, People]] = [self.found]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [{} for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(parts, self.found)
        whole: dict[int, People] = {}
        for part in parts:
            for image, people in part.items():
                whole.setdefault(image, people)
        return dict(sorted(whole.items()))


def scene_scores(
    truth: Truth, found: dict[int, People], category: int, sigmas: Sequence[float] | NDArray[np.float64]
) -> dict[str, float]:
    """COCO's ten numbers (`metrics.coco.NAMES`) of the people found, ranked by their own score.

    An unmatched person's area is that of the box around its joints, as pycocotools has it for results without boxes.

    Args:
        truth: the split's labels.
        found: people by image id; images without an entry count as those in which nobody was found.
        category: of the people.
        sigmas: (K,) fall-off per joint.

    Raises:
        BiposeError: images that the labels lack, another number of joints, numbers that are not finite.
    """
    K = len(sigmas)
    images = np.repeat(np.array(list(found), np.int64), [len(p) for p in found.values()])
    return average_precision(
        truth,
        Detected(
            image=images,
            category=np.full(len(images), category, np.int64),
            joints=_joined((p.joints for p in found.values()), (K, 2)),
            confidence=_joined((p.confidence for p in found.values()), (K,)),
            score=_joined((p.score for p in found.values()), ()),
        ),
        sigmas,
    )


def _joined(parts: Iterable[NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros((0, *shape)), *(p for p in parts if len(p))])


__all__ = ["SceneCollector", "scene_scores"]
