"""Which items, in which order, on which rank: pure functions of (seed, epoch), resumable in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data.distributed import DistributedSampler

from bipose_lit.datasets.transforms import ORDER, generator
from bipose_lit.types import BiposeError

Key = tuple[int, int]
"""Epoch and item: all that a sample depends on besides the seed, so workers need no notice of a new epoch."""


class Filler(tuple[int, int]):
    """The key of an item that only evens out the ranks: whatever it holds, the loss must not read it."""

    __slots__ = ()


class EpochSampler(DistributedSampler[Key]):
    """Training order: a permutation of all items drawn from (seed, epoch), dealt to the ranks in turn.

    Step i of W ranks with B items each therefore reads the same items as step i of one process with W x B. Every item is shown
    once an epoch. All ranks make the same number of batches: where the deal does not come out even, the last ones are `Filler`s,
    which count for nothing, so that an epoch has the same steps at any number of ranks.

    It is a DistributedSampler so that Lightning leaves it alone whatever `use_distributed_sampler` says.

    Args:
        items: number of items of the data set.
        seed: of the run.
        rank: of this process.
        world_size: number of processes.
        multiple: the number of items per rank is filled up to a multiple of this.

    Raises:
        BiposeError: fewer items than ranks.
    """

    def __init__(self, items: int, seed: int, rank: int = 0, world_size: int = 1, multiple: int = 1) -> None:
        super().__init__(range(items), num_replicas=world_size, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        if items < world_size:
            raise BiposeError(f"{items} training clips for {world_size} processes; use fewer devices or more clips")
        self.items = items
        self.count = -(-items // (world_size * multiple)) * multiple
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch; another epoch begins at its start."""
        if epoch != self.epoch:
            self.start = 0
        self.epoch = epoch

    def resume(self, epoch: int, start: int) -> None:
        """The next pass is through `epoch`, without this rank's first `start` items."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Key]:
        order = generator(self.seed, ORDER, self.epoch).permutation(self.items)
        mine: list[Key] = [(self.epoch, int(i)) for i in order[self.rank :: self.num_replicas]]
        mine += [Filler(mine[0])] * (self.count - len(mine))
        return iter(mine[self.start :])


class EvaluationSampler(DistributedSampler[Key]):
    """Every item once over all ranks, in order, dealt in turn; ranks may hold one item more or less.

    DDP synchronises buffers in every forward pass, so ranks must make the same number of batches. Only where an uneven deal would
    give a rank one batch less than another does that rank repeat one item, which the metrics count once (by uid).

    Args:
        items: number of items of the data set.
        batch_size: of the loader, per rank.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, items: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        # The base class deals nothing here; with one replica Lightning does not warn of repeated samples.
        super().__init__(range(items), num_replicas=1, rank=0, shuffle=False)  # type: ignore[arg-type]
        self.mine = list(range(rank, items, world_size))
        most = -(-items // world_size)
        if items and -(-len(self.mine) // batch_size) < -(-most // batch_size):
            self.mine.append(self.mine[-1] if self.mine else 0)

    def set_epoch(self, epoch: int) -> None:
        """Evaluation does not depend on the epoch."""

    def __len__(self) -> int:
        return len(self.mine)

    def __iter__(self) -> Iterator[Key]:
        return iter([(0, i) for i in self.mine])


__all__ = ["EpochSampler", "EvaluationSampler", "Filler", "Key"]
