"""Persons in images as plain arrays: what measures that match detections to labels take. No files, no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Truth:
    """Labelled persons; G persons, K joints, I images.

    Attributes:
        images: (I,) ids of all images of the split, those without a person too.
        id: (G,) annotation ids.
        image: (G,) image ids.
        category: (G,) category ids (COCO: 1 is person).
        joints: (G, K, 2) original pixels as the file has them.
        visible: (G, K) ABSENT, OCCLUDED, VISIBLE (COCO's v).
        boxes: (G, 4) x, y, w, h as the file has them.
        area: (G,) of the segment, as the file has it.
        crowd: (G,) `iscrowd`.
        ignore: (G,) neither a hit nor a miss: crowds and persons without a labelled joint.
    """

    images: NDArray[np.int64]
    id: NDArray[np.int64]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    joints: NDArray[np.float64]
    visible: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    ignore: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Detected:
    """Detected persons; D persons, K joints.

    Attributes:
        image: (D,) image ids.
        category: (D,) category ids.
        joints: (D, K, 2) original pixels, in the labels' coordinates.
        confidence: (D, K) of each joint (the third number of a COCO result).
        score: (D,) of the person.
    """

    image: NDArray[np.int64]
    category: NDArray[np.int64]
    joints: NDArray[np.float64]
    confidence: NDArray[np.float64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image)
