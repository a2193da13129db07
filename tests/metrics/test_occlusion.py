"""Timelines against loops over frames, and drawn by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit.metrics.occlusion import STRATA, curve, timeline, timeline_of
from bipose_lit.types import ABSENT, BiposeError


def _regime(flags: str) -> list[str]:
    """Flags of one joint, one letter per frame: v visible, h hidden, . absent; the regime of each frame."""
    visible = np.array([{"v": 2, "h": 1, ".": 0}[c] for c in flags], np.uint8)[:, None]
    n = len(flags)
    strata = timeline(np.zeros(n, np.int64), np.arange(n), visible).strata()
    names = ("visible", "N_hidden", "P", "F", "B")
    found = [[name for name in names if strata[name][i, 0]] for i in range(n)]
    assert all(len(f) <= 1 for f in found)
    return [f[0] if f else "" for f in found]


def test_regimes_by_hand():
    assert _regime("vvhh") == ["visible", "visible", "P", "P"]
    assert _regime("hhv") == ["F", "F", "visible"]
    assert _regime("hvhv.h") == ["F", "visible", "B", "visible", "", "P"]
    assert _regime("hh.h") == ["N_hidden", "N_hidden", "", "N_hidden"]
    assert _regime("..") == ["", ""]


@given(st.integers(0, 10_000))
def test_timeline_equals_loops(seed):
    rng = np.random.default_rng(seed)
    n, k = 30, 3
    clip = rng.integers(0, 3, n)
    frame = rng.permutation(100)[:n]
    visible = rng.integers(0, 3, (n, k)).astype(np.uint8)
    found = timeline(clip, frame, visible)
    for i in range(n):
        for j in range(k):
            seen = [frame[m] for m in range(n) if clip[m] == clip[i] and visible[m, j] == 2]
            past = [frame[i] - f for f in seen if f <= frame[i]]
            future = [f - frame[i] for f in seen if f >= frame[i]]
            flags = {visible[m, j] for m in range(n) if clip[m] == clip[i]} - {0}
            assert found.since[i, j] == min(past, default=np.inf)
            assert found.until[i, j] == min(future, default=np.inf)
            assert found.constant[i, j] == (len(flags) < 2)


def test_strata_partition_the_labels(predictions):
    strata = timeline_of(predictions).strata()
    assert tuple(strata) == STRATA
    parts = sum(strata[s].astype(int) for s in ("visible", "N_hidden", "P", "F", "B"))
    assert np.array_equal(parts, (predictions.visible != ABSENT).astype(int))
    assert np.array_equal(strata["occluded"], predictions.visible == 1)
    assert strata["N"][:, 0].all()


def test_a_scored_window_uses_the_whole_clip(predictions):
    whole = timeline_of(predictions)
    keep = np.flatnonzero(predictions.frame % 3 == 1)
    fields = ("uid", "clip", "frame", "pred", "score", "joints", "visible", "norms", "fps")
    part = replace(predictions, **{f: getattr(predictions, f)[keep] for f in fields})
    found = timeline_of(part, predictions)
    assert np.array_equal(found.since, whole.since[keep])
    assert np.array_equal(found.until, whole.until[keep])
    assert np.array_equal(found.constant, whole.constant[keep])
    assert not np.array_equal(timeline_of(part).since, found.since)
    with pytest.raises(BiposeError, match="lack rows"):
        timeline_of(predictions, part)


def test_curve_equals_loops(predictions):
    t = timeline_of(predictions)
    values = np.random.default_rng(1).random(t.since.shape)
    hidden = t.strata()["occluded"]
    found = curve(values, t.since, hidden, bins=(1, 2, 4))
    assert found.low.tolist() == [1, 2, 4, np.inf]
    assert found.high.tolist() == [1, 3, np.inf, np.inf]
    for b, (low, high) in enumerate(((1, 1), (2, 3), (4, 1e9), (np.inf, np.inf))):
        inside = hidden & (t.since >= low) & (t.since <= high)
        assert found.count[b] == inside.sum()
        if inside.any():
            assert found.mean[b] == pytest.approx(values[inside].mean())
    assert found.count.sum() == hidden.sum()


def test_empty_split():
    empty = timeline(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4), np.uint8))
    assert empty.since.shape == (0, 4)
