"""What data modules share: order, batches, processes and resumption as pure functions of (seed, epoch, item)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import lightning.pytorch as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import Dataset

from bipose_lit.datasets.frames import share_cache
from bipose_lit.datasets.loader import ClipLoader
from bipose_lit.datasets.sampler import EpochSampler, EvaluationSampler, Filler, Key
from bipose_lit.lifeline import leave_process_group_at_exit
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import BiposeError

SPLITS = ("train", "val", "test")
_log = logging.getLogger(__name__)


class HasSkeleton(Protocol):
    """A reader, as far as all data modules know it."""

    @property
    def skeleton(self) -> Skeleton: ...


class SeededData(L.LightningDataModule):
    """Training, validation and test batches whose content does not depend on workers, processes and resumptions.

    Args:
        batch_size: samples of one optimiser step, over all processes and accumulated batches together.
        eval_batch_size: samples per process and evaluation step; None for those of one training batch.
        num_workers: loader processes; 0 reads in the training process.
        seed: of the order.
        pin_memory: page-locked batches, for a GPU.

    Attributes:
        reader: the data set.
        size: width and height of what the network is shown in training, in pixels.
    """

    unit = "clips"
    """What a batch is made of, for messages."""
    reader: HasSkeleton
    size: tuple[int, int]

    def __init__(
        self, batch_size: int, eval_batch_size: int | None, num_workers: int, seed: int, pin_memory: bool
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.seed, self.pin_memory = seed, pin_memory
        self._resume: tuple[int, int] | None = None

    @property
    def skeleton(self) -> Skeleton:
        """Joints of the labels."""
        return self.reader.skeleton

    @property
    def num_joints(self) -> int:
        """K."""
        return len(self.skeleton)

    def index(self, split: str) -> Any:
        """What the reader finds for "train", "val" or "test"; read once."""
        raise NotImplementedError

    def dataset(self, split: str) -> Dataset[Any]:
        """The samples of a split, addressed by (epoch, item)."""
        raise NotImplementedError

    def collate(self, train: bool) -> Callable[[Sequence[Any]], Any]:
        """What makes a batch of samples."""
        raise NotImplementedError

    @staticmethod
    def blanked(sample: Any) -> Any:
        """A sample of which the loss reads nothing: it only evens out the processes."""
        raise NotImplementedError

    def workers(self, dataset: Dataset[Any]) -> int:
        """Loader processes for a data set."""
        return self.num_workers

    def setup(self, stage: str) -> None:
        """Reads the indexes that a stage needs, so that mistakes show before the first step."""
        if self.trainer is not None and self.trainer.world_size > 1:
            leave_process_group_at_exit()
        ranks = self.trainer.num_devices if self.trainer is not None else 1
        share_cache(ranks * max(1, 2 * self.num_workers))  # the loaders of training and of validation both stay
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
        return self._loader(dataset, sampler, clips, train=True, filled=world * accumulate > 1)

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
                f"{w} process(es) with accumulate_grad_batches {a}, {c} {self.unit} a batch"
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
        return self._loader(dataset, sampler, clips)

    def _loader(
        self,
        dataset: Dataset[Any],
        sampler: EpochSampler | EvaluationSampler,
        batch_size: int,
        train: bool = False,
        filled: bool = False,
    ) -> ClipLoader:
        workers = self.workers(dataset)
        return ClipLoader(
            Dealt(dataset, self.blanked) if filled else dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=self.collate(train),
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
                f"data.batch_size is the {self.unit} of one optimiser step, and {self.batch_size} cannot be dealt equally to "
                f"{words if world > 1 else f'{accumulate} accumulated batches'}; set it to "
                f"{' or '.join(str(n) for n in (lower, upper) if n)}"
                + (f", or make processes x accumulate_grad_batches one of 1, {', '.join(divisors)}" if divisors else "")
            )
        return self.batch_size // parts

    def _accumulate(self) -> int:
        return 1 if self.trainer is None else int(self.trainer.accumulate_grad_batches)

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


class Dealt(Dataset[Any]):
    """A training set in which the samples of `Filler`s count for nothing.

    Args:
        dataset: whose samples.
        blanked: makes such a sample of one.
    """

    def __init__(self, dataset: Dataset[Any], blanked: Callable[[Any], Any]) -> None:
        self.dataset, self.blanked = dataset, blanked

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Key) -> Any:
        sample = self.dataset[key]
        return self.blanked(sample) if isinstance(key, Filler) else sample


class Split(Protocol):
    """What `check_leak` asks of an index."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def clusters(self) -> tuple[str, ...]: ...


def check_leak(index: Split, other: Split, official: bool = False) -> None:
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
        _log.warning("%s and %s share sources, as their owners drew them: %s", index.name, other.name, listed(shared))
    elif shared:
        raise BiposeError(
            f"{index.name} and {other.name} share {listed(shared)}: a cluster (one source) belongs to one split; "
            "mend the split lists"
        )


def listed(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


__all__ = ["SPLITS", "Dealt", "SeededData", "Split", "check_leak", "listed"]
