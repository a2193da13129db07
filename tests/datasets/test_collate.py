"""Samples to batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_index import make_index

from bipose_lit.datasets.clips import ClipDataset
from bipose_lit.datasets.collate import Collate, supervised

SET = ClipDataset(make_index((5, 3, 1)), size=(32, 24))


def test_padding_is_at_the_end_and_holds_nothing() -> None:
    samples = [SET[i] for i in range(3)]
    batch = Collate(length=6)(samples)
    assert len(batch) == 3
    assert batch.valid.sum(1).tolist() == [5, 3, 1]
    assert batch.images is not None
    assert batch.images.shape == (3, 6, 3, 24, 32)
    assert batch.images.dtype == torch.uint8
    for name in ("images", "joints", "visible", "to_image", "norms", "box_score", "frame"):
        assert not getattr(batch, name)[~batch.valid].any(), name
    assert (batch.uid[~batch.valid] == -1).all()
    for b, sample in enumerate(samples):
        for name in ("images", "joints", "visible", "to_image", "norms", "box_score", "uid", "frame"):
            np.testing.assert_array_equal(getattr(batch, name)[b, : len(sample)].numpy(), getattr(sample, name))
    assert batch.clip.tolist() == [0, 1, 2]
    assert batch.supervise is None
    assert Collate()(samples).valid.shape == (3, 5)
    assert Collate(length=2)(samples).valid.shape == (3, 5)


@given(st.integers(1, 50), st.floats(0.01, 1), st.integers(0, 2**31))
def test_supervised_frames(valid: int, fraction: float, seed: int) -> None:
    mask = supervised(valid, fraction, np.random.default_rng(seed))
    assert mask.sum() == max(1, round(fraction * valid))


def test_supervision_is_a_function_of_seed_epoch_and_item() -> None:
    samples = [SET[i] for i in range(3)]
    first = Collate(supervise=0.4, seed=1)(samples)
    assert first.supervise is not None
    assert not (first.supervise & ~first.valid).any()
    assert first.supervise.sum(1).tolist() == [2, 1, 1]
    # The batch around a clip and its order change nothing.
    alone = Collate(supervise=0.4, seed=1)(samples[:1])
    assert alone.supervise is not None
    assert torch.equal(first.supervise[0], alone.supervise[0])
    masks = set()
    for epoch in range(30):
        batch = Collate(supervise=0.4, seed=1)([replace(samples[0], key=(epoch, 0))])
        assert batch.supervise is not None
        masks.add(tuple(batch.supervise[0].tolist()))
    assert len(masks) == 10  # all pairs of five frames


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        Collate(supervise=0.0)


def test_frames_without_labels_are_not_supervised() -> None:
    labelled = np.array([False, False, True, False, True, True])
    for seed in range(20):
        mask = supervised(6, 0.34, np.random.default_rng(seed), labelled)
        assert mask.sum() == 2
        assert not (mask & ~labelled).any()
        assert supervised(6, 0.34, np.random.default_rng(seed), ~labelled & False).sum() == 2
    assert (supervised(6, 1.0, np.random.default_rng(0), labelled) == labelled).all()
