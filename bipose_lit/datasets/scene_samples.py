"""From whole images to samples and batches: one view, one warp, labels by the same matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bipose_lit import geometry
from bipose_lit.datasets.pixel import Pixels
from bipose_lit.datasets.scenes import Scene
from bipose_lit.datasets.transforms import PLAIN, VIEW, Augmentation, View, crop_labels, generator, warp
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, SceneBatch


@dataclass(frozen=True, slots=True)
class SceneSample:
    """One image: a `SceneBatch` of one, in numpy, without padding (see there for shapes and units)."""

    images: NDArray[np.uint8]
    joints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    ignore: NDArray[np.bool_]
    to_image: NDArray[np.float32]
    image: int


class SceneDataset(Dataset[SceneSample]):
    """Images with their people. Items are addressed by (epoch, item); a bare item means epoch 0.

    The whole image is fitted into the frame, black around it, and in training scaled, turned, shifted and mirrored by the same
    matrix: one warp.

    Args:
        scenes: the images.
        skeleton: of the labels.
        size: width and height of the frame in pixels.
        stride: of the maps.
        augmentation: None for none; half bodies play no part.
        pixels: pixel augmentation; None for none.
        seed: of the run.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        skeleton: Skeleton,
        size: tuple[int, int],
        stride: int,
        augmentation: Augmentation | None = None,
        pixels: Pixels | None = None,
        seed: int = 0,
    ) -> None:
        self.scenes, self.skeleton, self.size, self.stride = tuple(scenes), skeleton, (size[0], size[1]), stride
        self.augmentation, self.pixels, self.seed = augmentation, pixels, seed

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: tuple[int, int] | int) -> SceneSample:
        epoch, item = key if isinstance(key, tuple) else (0, int(key))
        rng = generator(self.seed, VIEW, epoch, item)
        if self.augmentation is not None:
            view = self.augmentation.draw(rng)
        else:
            view = PLAIN if self.pixels is None else View(pixels=int(rng.integers(2**63)))
        return self.sample(item, view)

    def sample(self, item: int, view: View = PLAIN) -> SceneSample:
        """One view of an image.

        Raises:
            BiposeError: a picture that cannot be read.
        """
        scene, (width, height) = self.scenes[item], self.size
        matrix = geometry.crop_matrix(
            (0, 0, *scene.size), self.size, 1.0, view.rotation, view.scale, view.shift, view.flip
        )
        crop = np.empty((1, height, width, 3), np.uint8)
        warp(scene.frames.read([0])[0], matrix, crop[0])
        if self.pixels is not None and view.pixels is not None:
            crop = self.pixels(crop, view.pixels)
        people = np.repeat(matrix[None], len(scene.joints), axis=0)
        joints, visible = crop_labels(scene.joints, scene.visible, people, self.skeleton.flip if view.flip else None)
        inverse = geometry.invert(matrix)
        return SceneSample(
            images=np.ascontiguousarray(crop.transpose(0, 3, 1, 2)),
            joints=joints[None],
            visible=visible[None],
            ignore=unknown_mask(scene, inverse, (width // self.stride, height // self.stride), self.stride)[None],
            to_image=inverse.astype(np.float32)[None],
            image=scene.image,
        )


def unknown_mask(scene: Scene, to_image: geometry.Matrix, size: tuple[int, int], stride: int) -> NDArray[np.bool_]:
    """(h, w) True where nobody says who is there: in boxes of crowds and unlabelled people, outside those of labelled ones.

    The paper takes such people's segments, which the reader leaves out. Their boxes are larger, so those of labelled people are
    taken out of them; what is beside a segment in its box is known to be nobody, but not learnt.

    Args:
        scene: the image.
        to_image: from pixels of the frame to original pixels.
        size: width and height of the maps.
        stride: of the maps against the frame.
    """
    if not len(scene.unknown):
        return np.zeros(size[::-1], np.bool_)
    x, y = ((np.arange(n) + 0.5) * stride - 0.5 for n in size)
    places = geometry.apply(to_image, np.stack(np.meshgrid(x, y), axis=-1))
    return _inside(places, scene.unknown) & ~_inside(places, scene.boxes)


def _inside(places: NDArray[np.floating], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(h, w) which places (h, w, 2) lie in one of the boxes (R, 4); a pixel's centre lies half a pixel from its edges."""
    found = np.zeros(places.shape[:2], np.bool_)
    for x, y, w, h in boxes.tolist():
        found |= ((places >= (x - 0.5, y - 0.5)) & (places <= (x + w - 0.5, y + h - 0.5))).all(axis=-1)
    return found


def blank(sample: SceneSample) -> SceneSample:
    """The sample without people, known nowhere: the loss reads nothing of it."""
    return replace(sample, visible=np.full_like(sample.visible, ABSENT), ignore=np.ones_like(sample.ignore))


def collate_scenes(samples: Sequence[SceneSample]) -> SceneBatch:
    """Makes a batch, with room for as many people as the fullest image has."""
    B, most = len(samples), max(s.joints.shape[1] for s in samples)
    people = np.zeros((B, 1, most), np.bool_)
    joints = np.zeros((B, 1, most, *samples[0].joints.shape[2:]), np.float32)
    visible = np.full(joints.shape[:-1], ABSENT, np.uint8)
    for b, sample in enumerate(samples):
        count = sample.joints.shape[1]
        people[b, :, :count] = True
        joints[b, :, :count], visible[b, :, :count] = sample.joints, sample.visible
    return SceneBatch(
        images=torch.from_numpy(np.stack([s.images for s in samples])),
        valid=torch.ones(B, 1, dtype=torch.bool),
        joints=torch.from_numpy(joints),
        visible=torch.from_numpy(visible),
        people=torch.from_numpy(people),
        ignore=torch.from_numpy(np.stack([s.ignore for s in samples])),
        to_image=torch.from_numpy(np.stack([s.to_image for s in samples])),
        image=torch.tensor([[s.image] for s in samples]),
    )


__all__ = ["SceneDataset", "SceneSample", "blank", "collate_scenes", "unknown_mask"]
