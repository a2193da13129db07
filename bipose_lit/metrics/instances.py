"""Persons in images as plain arrays: what measures that match detections to labels take. No files, no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

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

    def fingerprint(self) -> str:
        """Changes with every number."""
        return digest(*(getattr(self, f.name) for f in fields(self)))


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


def digest(*parts: NDArray[Any] | str) -> str:
    """A hash of arrays, with their types and shapes, and of texts, in their order."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            found.update(f"{len(part)}:{part}".encode())
        else:
            found.update(repr((part.dtype.str, part.shape)).encode())
            found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()
