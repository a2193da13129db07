"""Whole images with all their people: what readers give to bottom-up models. No pixels, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.coco_json import CocoFile, take
from bipose_lit.datasets.frames import FolderFrames
from bipose_lit.datasets.index import FrameSource
from bipose_lit.datasets.json_labels import Skipped, in_file, told
from bipose_lit.metrics.instances import Truth
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, BiposeError

RULE = "whole-image"
"""Stands in metrics' names where those of persons in boxes have the box rule."""


@dataclass(frozen=True)
class Scene:
    """One image; P people whose joints are labelled.

    Attributes:
        image: the data set's id.
        cluster: the independent source.
        frames: the pixels, of one frame.
        size: width and height in pixels.
        joints: (P, K, 2) original pixels; 0 where absent.
        visible: (P, K) ABSENT, OCCLUDED, VISIBLE.
        boxes: (P, 4) x, y, w, h of these people.
        unknown: (R, 4) boxes of crowds and of people without a labelled joint.
    """

    image: int
    cluster: str
    frames: FrameSource
    size: tuple[int, int]
    joints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    unknown: NDArray[np.float64]


@dataclass(frozen=True)
class SceneIndex:
    """The images of a split.

    Attributes:
        name: the data's name with split and `RULE`, e.g. "coco/val2017[whole-image]"; part of every metric's name.
        skeleton: joint order of the labels.
        split: "train", "val" or "test".
        scenes: in a fixed order.
        truth: all labels of the split, for its measure, images that are no scenes included.
        category: of the people.
        skipped: what was left out and why, as in `PoseIndex`.
    """

    name: str
    skeleton: Skeleton
    split: str
    scenes: tuple[Scene, ...]
    truth: Truth
    category: int
    skipped: Skipped

    @property
    def clusters(self) -> tuple[str, ...]:
        """Names of the independent sources, sorted."""
        return tuple(sorted({scene.cluster for scene in self.scenes}))


class SceneReader(Protocol):
    """A data set with whole images; COCO's reader is one."""

    skeleton: Skeleton

    def scenes(self, split: str) -> SceneIndex:
        """Images of "train", "val" or "test".

        Raises:
            BiposeError: the folder is missing, is not this format, or the split is empty.
        """
        ...


def make_scenes(
    file: CocoFile,
    chosen: NDArray[np.bool_],
    skeleton: Skeleton,
    split: str,
    name: str,
    path: Path,
    root: Path,
    folder: str,
    clusters: Sequence[str],
) -> SceneIndex:
    """Scenes of a label file in COCO's layout.

    Args:
        file: the labels.
        chosen: (I,) images of the split.
        skeleton: of the labels.
        split: "train", "val" or "test".
        name: of data and split.
        path: of the label file, for messages.
        root: of the data set.
        folder: of the images, relative to it.
        clusters: (I,) sources.

    Raises:
        BiposeError: no image that can be used.
    """
    truth = take(file.truth, None, file.categories)
    labelled = ~truth.ignore & (truth.visible != ABSENT).any(axis=1)
    order = np.argsort(truth.image, kind="stable")
    ids, sizes = truth.image[order], file.sizes.tolist()
    scenes, skipped = [], {reason: list(places) for reason, places in file.skipped.items()}
    for i in np.flatnonzero(chosen).tolist():
        image, (width, height) = int(truth.images[i]), sizes[i]
        if not file.names[i] or not (width and height):
            skipped.setdefault("images without file_name, width or height", []).append(f"id {image}")
            continue
        rows = order[slice(*np.searchsorted(ids, (image, image + 1)))]
        here, other = rows[labelled[rows]], rows[~labelled[rows]]
        visible = truth.visible[here]
        frames = FolderFrames(root, (f"{folder}/{file.names[i]}" if folder else file.names[i],))
        joints = np.where(visible[..., None] != ABSENT, truth.joints[here], 0).astype(np.float32)
        scenes.append(
            Scene(image, clusters[i], frames, (width, height), joints, visible, truth.boxes[here], truth.boxes[other])
        )
    if not scenes:
        raise BiposeError(f"{path}: no image in the split {split}{told(skipped)}")
    return SceneIndex(
        name=f"{name}[{RULE}]", skeleton=skeleton, split=split, scenes=tuple(scenes),
        truth=take(file.truth, chosen, file.categories), category=file.categories[0], skipped=in_file(skipped, path.name),
    )  # fmt: skip


__all__ = ["RULE", "Scene", "SceneIndex", "SceneReader", "make_scenes"]
