"""PoseDataModule: a reader's splits as loaders of `ClipBatch`es.

Batches are a pure function of (seed, epoch, item): the number of workers, processes and resumptions changes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import Dataset

from bipose_lit.datasets.clips import ClipCropper, ClipDataset, ClipSampling, check_index, fingerprint
from bipose_lit.datasets.collate import Collate, Sample
from bipose_lit.datasets.index import PoseIndex, Reader
from bipose_lit.datasets.loader import ClipLoader
from bipose_lit.datasets.pixel import Occluders, Pixels
from bipose_lit.datasets.sampler import EpochSampler, EvaluationSampler, Filler, Key
from bipose_lit.datasets.transforms import Augmentation
from bipose_lit.feature_cache import CachedClips, Extractor, FeatureCache
from bipose_lit.lifeline import leave_process_group_at_exit
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, BiposeError

SPLITS = ("train", "val", "test")
_log = logging.getLogger(__name__)


class PoseDataModule(L.LightningDataModule):
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
        super().__init__()
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
        self.supervise, self.cache, self.num_workers = supervise, cache, num_workers
        self.seed, self.view_seed = seed, view_seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.pin_memory = pin_memory
        self.extractor: Extractor | None = None
        self.flip_test: bool | None = None
        self._collate = Collate(self.clips.length, supervise, seed)
        self._indexes: dict[str, PoseIndex] = {}
        self._resume: tuple[int, int] | None = None

    @property
    def skeleton(self) -> Skeleton:
        """Joints of the labels."""
        return self.reader.skeleton

    @property
    def num_joints(self) -> int:
        """K."""
        return len(self.skeleton)

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
                _log.warning("%s: %s: %s", index.name, reason, _listed(names))
            for other in self._indexes.values():
                check_leak(index, other, bool(getattr(self.reader, "official", False)))
            self._indexes[split] = index
        return self._indexes[split]

    def fingerprint(self, split: str) -> str:
        """SHA-256 of a split's labels, boxes and files."""
        return fingerprint(self.index(split))

    def setup(self, stage: str) -> None:
        """Reads the indexes that a stage needs, so that mistakes show before the first step."""
        if self.trainer is not None and self.trainer.world_size > 1:
            leave_process_group_at_exit()
        if stage == "fit":
            self._check_accumulation()
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            self.index(split)

    def _check_accumulation(self) -> None:
        """The batch rule, before anything is read."""
        scheduled: list[Any] = getattr(self.trainer, "callbacks", [])
        if any(isinstance(callback, GradientAccumulationScheduler) for callback in scheduled):
            raise BiposeError(
                "trainer.callbacks: GradientAccumulationScheduler changes the size of a step in the middle of training, but "
                "data.batch_size fixes it; set trainer.accumulate_grad_batches instead"
            )
        _ = self.clips_per_batch

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

    def train_dataloader(self) -> ClipLoader:
        """Order drawn from (seed, epoch); continues where a checkpoint stopped, in the middle of an epoch too."""
        dataset = self.dataset("train")
        rank, world = self._place()
        clips, accumulate = self.clips_per_batch, self._accumulate()
        multiple = clips * accumulate if accumulate > 1 else 1
        sampler = EpochSampler(len(dataset), self.seed, rank, world, multiple)  # type: ignore[arg-type]
        if self._resume is not None:
            (epoch, batch), self._resume = self._resume, None
            sampler.resume(epoch, batch * clips)
        elif self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
        return self._loader(dataset, sampler, clips, self._collate, filled=world * accumulate > 1)

    def val_dataloader(self) -> ClipLoader:
        """Every frame of the validation split."""
        return self._evaluation("val")

    def test_dataloader(self) -> ClipLoader:
        """Every frame of the test split."""
        return self._evaluation("test")

    def predict_dataloader(self) -> ClipLoader:
        """As the test loader."""
        return self._evaluation("test")

    def state_dict(self) -> dict[str, Any]:
        """The epoch and batch that training would go on with.

        Lightning (2.6) starts a resumed run's first epoch in the order of epoch 0, and from its start; so the position
        is kept here and set before the loader is made.
        """
        if self.trainer is None:
            return {}
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        batch: Any = loop.epoch_loop.batch_progress.current
        batches = int(batch.processed)
        # Counts of what is done alone: a checkpoint may be taken when the next batch or epoch has begun already.
        if epochs.started <= epochs.processed and not 0 < batches < self.trainer.num_training_batches:
            position = {"epoch": int(epochs.processed), "batch": 0}
        elif batches >= self.trainer.num_training_batches:
            position = {"epoch": int(epochs.started), "batch": 0}
        else:
            position = {"epoch": int(epochs.started) - 1, "batch": batches}
        return position | {"parts": self._parts()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning before the training loader is made.

        Raises:
            BiposeError: the checkpoint is from the middle of an epoch that was dealt to another number of processes or batches.
        """
        if not state_dict or (self.trainer is not None and self.trainer.state.fn != "fit"):
            return  # what only scores begins nowhere: any number of processes may score any checkpoint
        parts = list(state_dict.get("parts", self._parts()))
        if state_dict["batch"] and parts != self._parts():
            words = [
                f"{w} process(es) with accumulate_grad_batches {a}, {c} clips a batch"
                for w, a, c in (parts, self._parts())
            ]
            raise BiposeError(
                f"the checkpoint is from the middle of an epoch of {words[0]}, this training has {words[1]}; go on with the same "
                "numbers, or from a checkpoint of an epoch's end"
            )
        self._resume = (int(state_dict["epoch"]), int(state_dict["batch"]))

    def _parts(self) -> list[int]:
        """Processes, accumulated batches, clips a batch: how an epoch is dealt."""
        return [self._place()[1], self._accumulate(), self.clips_per_batch]

    def _evaluation(self, split: str) -> ClipLoader:
        dataset = self.dataset(split)
        rank, world = self._place()
        clips = self.eval_batch_size or max(1, self.batch_size // (world * self._accumulate()))
        sampler = EvaluationSampler(len(dataset), clips, rank, world)  # type: ignore[arg-type]
        return self._loader(dataset, sampler, clips, Collate())

    def _loader(
        self,
        dataset: Dataset[Sample],
        sampler: EpochSampler | EvaluationSampler,
        batch_size: int,
        collate: Collate,
        filled: bool = False,
    ) -> ClipLoader:
        # Reading from the cache takes about a millisecond; handing it over from a worker takes longer.
        workers = 0 if isinstance(dataset, CachedClips) else self.num_workers
        return ClipLoader(
            Dealt(dataset) if filled else dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.pin_memory,
            persistent_workers=workers > 0,
        )

    @property
    def clips_per_batch(self) -> int:
        """Clips that one process takes at a time in training.

        Raises:
            BiposeError: `batch_size` cannot be dealt equally to the processes and accumulated batches.
        """
        world, accumulate = self._place()[1], self._accumulate()
        parts = world * accumulate
        if self.batch_size % parts:
            lower, upper = self.batch_size // parts * parts, -(-self.batch_size // parts) * parts
            words = f"{world} processes" + (f" x {accumulate} accumulated batches" if accumulate > 1 else "")
            divisors = [str(n) for n in range(2, self.batch_size + 1) if self.batch_size % n == 0 and n <= 16]
            raise BiposeError(
                f"data.batch_size is the clips of one optimiser step, and {self.batch_size} cannot be dealt equally to "
                f"{words if world > 1 else f'{accumulate} accumulated batches'}; set it to "
                f"{' or '.join(str(n) for n in (lower, upper) if n)}"
                + (f", or make processes x accumulate_grad_batches one of 1, {', '.join(divisors)}" if divisors else "")
            )
        return self.batch_size // parts

    def _accumulate(self) -> int:
        return 1 if self.trainer is None else int(self.trainer.accumulate_grad_batches)

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

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


class Dealt(Dataset[Sample]):
    """A training set in which the samples of `Filler`s carry no label.

    Args:
        dataset: whose samples.
    """

    def __init__(self, dataset: Dataset[Sample]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Key) -> Sample:
        sample = self.dataset[key]
        return replace(sample, visible=np.full_like(sample.visible, ABSENT)) if isinstance(key, Filler) else sample


def check_leak(index: PoseIndex, other: PoseIndex, official: bool = False) -> None:
    """Splits are made of whole clusters.

    Args:
        index: of one split.
        other: of another.
        official: the data set's owners drew the test split; a source that it shares is then logged, since a protocol is not
            ours to mend (JHMDB's lists are drawn class by class, and one film can give clips of several classes).

    Raises:
        BiposeError: two splits of one data set share a cluster (names them).
    """
    if index.name.split("/")[0] != other.name.split("/")[0]:
        return  # two data sets; equal names mean nothing
    shared = sorted(set(index.clusters) & set(other.clusters))
    if shared and official and "test" in (index.split, other.split):
        _log.warning("%s and %s share sources, as their owners drew them: %s", index.name, other.name, _listed(shared))
    elif shared:
        raise BiposeError(
            f"{index.name} and {other.name} share {_listed(shared)}: a cluster (one source) belongs to one split; "
            "mend the split lists"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


__all__ = ["PoseDataModule", "check_leak"]
