"""PoseDataModule: a reader's splits as loaders of `ClipBatch`es.

Batches are a pure function of (seed, epoch, item): the number of workers, processes and resumptions changes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset

from bipose_lit.datamodule_base import SPLITS, SeededData, check_leak, listed
from bipose_lit.datasets.clips import ClipCropper, ClipDataset, ClipSampling, check_index, fingerprint
from bipose_lit.datasets.collate import Collate, Sample
from bipose_lit.datasets.index import PoseIndex, Reader
from bipose_lit.datasets.pixel import Occluders, Pixels
from bipose_lit.datasets.transforms import Augmentation
from bipose_lit.feature_cache import CachedClips, Extractor, FeatureCache
from bipose_lit.types import ABSENT, BiposeError

_log = logging.getLogger(__name__)


class PoseDataModule(SeededData):
    """Training, validation and test batches.

    Args:
        reader: the data set; any class with a `skeleton` and `index(split)`.
        train_reader: another data set to train on, with the same skeleton; null for `reader`.
        size: width and height of the crops in pixels.
        padding: factor on the boxes.
        clips: which frames make a sample.
        augmentation: of training, drawn once per clip; null for none.
        pixels: pixel augmentation of training; null for none.
        occluders: occluders pasted into training clips; null for none.
        supervise: share of each training clip's frames that the loss reads, drawn per step, equal for all models; null for all.
        batch_size: clips of one optimiser step, over all processes and accumulated batches together, so that a recipe means the
            same on one device and on eight: each process takes batch_size / (processes x accumulate_grad_batches) at a time.
        eval_batch_size: clips per process and evaluation step; null for those of one training batch.
        num_workers: loader processes; 0 reads in the training process, as the feature cache always does.
        seed: of order, windows, views and supervision; the command line sets it to `seed_everything`.
        view_seed: of the views that are kept in the cache, so that runs of several seeds share it.
        cache: keep the frozen backbone's features on disk; null to compute them from pixels in every step.
        pin_memory: page-locked batches, for a GPU.

    Attributes:
        extractor: the network whose features are cached; the trainer's model's `network` where not set.
        flip_test: keep the mirrored view of evaluation splits in the cache; as the trainer's model says where not set.
    """

    reader: Reader

    def __init__(
        self,
        reader: Reader,
        train_reader: Reader | None = None,
        size: tuple[int, int] = (128, 128),
        padding: float = 1.25,
        clips: ClipSampling | None = None,
        augmentation: Augmentation | None = None,
        pixels: Pixels | None = None,
        occluders: Occluders | None = None,
        supervise: float | None = None,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        view_seed: int = 0,
        cache: FeatureCache | None = None,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, pin_memory)
        if batch_size < 1 or (eval_batch_size or 1) < 1 or num_workers < 0 or seed < 0 or padding <= 0 or min(size) < 1:
            raise BiposeError("data: batch sizes, size and padding are positive, num_workers and seed not negative")
        self.reader, self.train_reader = reader, train_reader or reader
        if self.train_reader.skeleton.joints != reader.skeleton.joints:
            raise BiposeError(
                f"data: train_reader has the joints of {self.train_reader.skeleton.name}, reader those of "
                f"{reader.skeleton.name}; training and evaluation need one skeleton"
            )
        if self.train_reader.skeleton.flip.tolist() != reader.skeleton.flip.tolist():
            raise BiposeError(
                f"data: {self.train_reader.skeleton.name} of train_reader and {reader.skeleton.name} of reader have the same "
                "joints, but a flip exchanges others; training and evaluation need one skeleton: give both the same swaps"
            )
        self.size, self.padding, self.clips = (size[0], size[1]), padding, clips or ClipSampling()
        self.augmentation, self.pixels, self.occluders = augmentation, pixels, occluders
        self.supervise, self.cache, self.view_seed = supervise, cache, view_seed
        self.extractor: Extractor | None = None
        self.flip_test: bool | None = None
        self._collate = Collate(self.clips.length, supervise, seed)
        self._indexes: dict[str, PoseIndex] = {}

    def index(self, split: str) -> PoseIndex:
        """Persons and tracks of "train", "val" or "test"; read once. What the reader left out is logged, a line a reason.

        Raises:
            BiposeError: the reader's own, an index that cannot be used, or a cluster that another split holds too.
        """
        if split not in SPLITS:
            raise BiposeError(f"data: there is no split {split!r}; it is one of {', '.join(SPLITS)}")
        if split not in self._indexes:
            index = (self.train_reader if split == "train" else self.reader).index(split)
            check_index(index)
            for reason, names in index.skipped.items():
                _log.warning("%s: %s: %s", index.name, reason, listed(names))
            for other in self._indexes.values():
                check_leak(index, other, bool(getattr(self.reader, "official", False)))
            self._indexes[split] = index
        return self._indexes[split]

    def fingerprint(self, split: str) -> str:
        """SHA-256 of a split's labels, boxes and files."""
        return fingerprint(self.index(split))

    def dataset(self, split: str) -> Dataset[Sample]:
        """The samples of a split: from the feature cache where there is one and it has room, else from pixels."""
        index, train = self.index(split), split == "train"
        augmentation = self.augmentation if train else None
        pixels, occluders = (self.pixels, self.occluders) if train else (None, None)
        views = None
        if self.cache is not None:
            if train:
                views = self.cache.views if augmentation is not None else 1
            extractor = self.extractor or self._network()
            entry = self.cache.open(
                ClipCropper(index, self.size, self.padding, pixels, occluders),
                extractor,
                augmentation,
                self.view_seed,
                views if views is not None else 2 if self._flip_test() else 1,
            )
            if entry is not None:
                return CachedClips(index, entry, self.clips, train, self.seed)
        return ClipDataset(
            index,
            self.size,
            self.padding,
            self.clips,
            train,
            augmentation,
            pixels,
            occluders,
            self.seed,
            views,
            self.view_seed,
        )

    def collate(self, train: bool) -> Collate:
        """Training pads to the clips' length and draws the frames that the loss reads."""
        return self._collate if train else Collate()

    @staticmethod
    def blanked(sample: Sample) -> Sample:
        """The sample without labels."""
        return replace(sample, visible=np.full_like(sample.visible, ABSENT))

    def workers(self, dataset: Dataset[Sample]) -> int:
        """None for the cache: reading from it takes about a millisecond, handing over from a worker takes longer."""
        return 0 if isinstance(dataset, CachedClips) else self.num_workers

    def _network(self) -> Extractor:
        network = getattr(getattr(self.trainer, "lightning_module", None), "network", None)
        if network is None:
            raise BiposeError(
                "data.cache needs a network: fit a PoseModule, or set datamodule.extractor to a PoseNetwork"
            )
        return network  # type: ignore[no-any-return]

    def _flip_test(self) -> bool:
        if self.flip_test is not None:
            return self.flip_test
        return bool(getattr(getattr(self.trainer, "lightning_module", None), "flip_test", self.extractor is not None))


__all__ = ["SPLITS", "PoseDataModule", "check_leak"]
