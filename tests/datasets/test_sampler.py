"""Order, ranks and resumption."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from bipose_lit.datasets.sampler import EpochSampler, EvaluationSampler, Filler
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


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5), st.integers(1, 3))
def test_training_deals_every_item_once_in_the_same_steps(items: int, world: int, batch: int, accumulate: int) -> None:
    multiple = batch * accumulate if accumulate > 1 else 1
    if items < world:
        with pytest.raises(BiposeError, match="fewer devices"):
            EpochSampler(items, 0, 0, world, multiple)
        return
    samplers = [EpochSampler(items, 0, r, world, multiple) for r in range(world)]
    parts = [list(s) for s in samplers]
    assert {len(p) for p in parts} == {len(s) for s in samplers}
    real = [key for part in parts for key in part if not isinstance(key, Filler)]
    single = list(EpochSampler(items, 0))
    assert sorted(real) == sorted(single)
    # A step of all ranks together reads what one process with the whole batch reads, and there are as many.
    step = batch * accumulate
    steps = -(-len(parts[0]) // step)
    assert steps == -(-items // (step * world))
    for number in range(steps):
        read = [k for part in parts for k in part[number * step : (number + 1) * step] if not isinstance(k, Filler)]
        assert sorted(read) == sorted(single[number * step * world : (number + 1) * step * world])
    if accumulate > 1:
        assert len(parts[0]) % step == 0, "every step has all its batches"


def test_fillers_are_keys_that_say_so_also_across_processes() -> None:
    *_, last = EpochSampler(5, 0, 1, 2)
    assert isinstance(last, Filler)
    epoch, item = last
    assert (epoch, item) == next(iter(EpochSampler(5, 0, 1, 2)))
    assert isinstance(pickle.loads(pickle.dumps(last)), Filler)


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
