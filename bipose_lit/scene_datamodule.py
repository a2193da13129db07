"""SceneDataModule: whole images with all their people as loaders of `SceneBatch`es."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from bipose_lit.codecs.scene import check_size
from bipose_lit.datamodule_base import SPLITS, SeededData, check_leak, listed
from bipose_lit.datasets.pixel import Pixels
from bipose_lit.datasets.scene_samples import SceneDataset, SceneSample, blank, collate_scenes
from bipose_lit.datasets.scenes import SceneIndex, SceneReader
from bipose_lit.datasets.transforms import Augmentation
from bipose_lit.types import BiposeError, SceneBatch

_log = logging.getLogger(__name__)


class SceneDataModule(SeededData):
    """Training, validation and test batches of whole images.

    Images without a labelled person are left out of training, as in the authors' code, and scored as all others.

    Args:
        reader: the data set; any class with a `skeleton` and `scenes(split)`.
        size: width and height in pixels of the frame that a whole image is fitted into.
        eval_size: of the frame in evaluation; null for `size`. The network sees people as large as the frame shows them.
        stride: of the model's maps.
        augmentation: of training, about the whole image; null for none. `scale` and `shift` are in units of the image, and
            `half_body` has no effect.
        pixels: pixel augmentation of training; null for none.
        batch_size: images of one optimiser step, over all processes and accumulated batches together (see `PoseDataModule`).
        eval_batch_size: images per process and evaluation step; null for those of one training batch.
        num_workers: loader processes; 0 reads in the training process.
        seed: of order and views; the command line sets it to `seed_everything`.
        pin_memory: page-locked batches, for a GPU.

    Raises:
        BiposeError: sizes that are no multiple of the stride, or a number out of range.
    """

    unit = "images"
    reader: SceneReader

    def __init__(
        self,
        reader: SceneReader,
        size: tuple[int, int] = (368, 368),
        eval_size: tuple[int, int] | None = None,
        stride: int = 8,
        augmentation: Augmentation | None = None,
        pixels: Pixels | None = None,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, pin_memory)
        if min(batch_size, eval_batch_size or 1, stride) < 1 or num_workers < 0 or seed < 0:
            raise BiposeError("data: batch sizes and stride are 1 or more, num_workers and seed not negative")
        self.reader, self.stride = reader, stride
        self.size = (size[0], size[1])
        self.eval_size = self.size if eval_size is None else (eval_size[0], eval_size[1])
        check_size("data.size: images", self.size, stride)
        check_size("data.eval_size: images", self.eval_size, stride)
        self.augmentation, self.pixels = augmentation, pixels
        self._indexes: dict[str, SceneIndex] = {}

    def index(self, split: str) -> SceneIndex:
        """Images of "train", "val" or "test"; read once. What the reader left out is logged, a line a reason.

        Raises:
            BiposeError: the reader's own, nobody to learn from, or a cluster that another split holds too.
        """
        if split not in SPLITS:
            raise BiposeError(f"data: there is no split {split!r}; it is one of {', '.join(SPLITS)}")
        if split not in self._indexes:
            index = self.reader.scenes(split)
            for reason, names in index.skipped.items():
                _log.warning("%s: %s: %s", index.name, reason, listed(names))
            for other in self._indexes.values():
                check_leak(index, other, bool(getattr(self.reader, "official", False)))
            if split == "train" and not any(len(scene.joints) for scene in index.scenes):
                raise BiposeError(
                    f"{index.name}: nobody has a labelled joint: there is nothing to learn; check the labels"
                )
            if not len(index.skeleton.sigmas):
                raise BiposeError(
                    f"{index.name}: skeleton {index.skeleton.name} has no sigmas, so people have no OKS and no AP; "
                    "give it one for each joint"
                )
            self._indexes[split] = index
        return self._indexes[split]

    def dataset(self, split: str) -> SceneDataset:
        """The images of a split."""
        index = self.index(split)
        if split != "train":
            return SceneDataset(index.scenes, self.skeleton, self.eval_size, self.stride)
        scenes = [scene for scene in index.scenes if len(scene.joints)]
        return SceneDataset(scenes, self.skeleton, self.size, self.stride, self.augmentation, self.pixels, self.seed)

    def collate(self, train: bool) -> Callable[[Sequence[SceneSample]], SceneBatch]:
        return collate_scenes

    @staticmethod
    def blanked(sample: Any) -> SceneSample:
        return blank(sample)


__all__ = ["SceneDataModule"]
