"""Order, ranks and resumption."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from bipose_lit.datasets.sampler import EpochSampler, EvaluationSampler
from bipose_lit.types import BiposeError


def order(items: int, epoch: int, seed: int = 0, rank: int = 0, world: int = 1) -> list[tuple[int, int]]:
    sampler = EpochSampler(items, seed, rank, world)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert order(20, 3) == order(20, 3)
    assert sorted(i for _, i in order(20, 3)) == list(range(20))
    assert {e for e, _ in order(20, 3)} == {3}
    assert [i for _, i in order(20, 3)] != [i for _, i in order(20, 4)]
    assert order(20, 3) != order(20, 3, seed=1)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5))
def test_training_deals_equally_and_never_twice(items: int, world: int, batch: int) -> None:
    if items < world:
        with pytest.raises(BiposeError, match="fewer devices"):
            EpochSampler(items, 0, 0, world)
        return
    parts = [order(items, 2, rank=r, world=world) for r in range(world)]
    assert {len(p) for p in parts} == {items // world}
    dealt = [key for part in parts for key in part]
    assert len(set(dealt)) == len(dealt) == items // world * world
    # A step of all ranks together reads what one process with the whole batch reads.
    single = order(items, 2)
    step = {key for part in parts for key in part[:batch]}
    assert step == set(single[: min(batch, items // world) * world])


def test_the_left_out_items_change_with_the_epoch() -> None:
    left = {tuple(set(range(5)) - {i for r in range(2) for _, i in order(5, e, rank=r, world=2)}) for e in range(20)}
    assert len(left) == 5


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5))
def test_evaluation_covers_everything_with_equal_numbers_of_batches(items: int, world: int, batch: int) -> None:
    samplers = [EvaluationSampler(items, batch, r, world) for r in range(world)]
    seen = [i for s in samplers for _, i in s]
    assert set(seen) == set(range(items))
    batches = {len(DataLoader(range(items), batch_size=batch, sampler=s)) for s in samplers}
    assert len(batches) == 1
    repeats = len(seen) - items
    # Items repeat only where an uneven deal would cost a rank its last batch.
    full, rest = divmod(items, world)
    assert repeats == (world - rest if rest and full % batch == 0 else 0)


def test_resume_drops_what_was_seen_and_the_next_epoch_is_whole() -> None:
    sampler = EpochSampler(10, 5)
    sampler.resume(2, 4)
    assert list(sampler) == order(10, 2, seed=5)[4:]
    assert len(sampler) == 10  # Lightning counts the batches of the whole epoch
    sampler.set_epoch(2)  # as Lightning does before the epoch it resumes
    assert list(sampler) == order(10, 2, seed=5)[4:]
    sampler.set_epoch(3)
    assert list(sampler) == order(10, 3, seed=5)
