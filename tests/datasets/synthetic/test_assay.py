"""The plan: balance, disjoint splits, independent seeds, the occluders' law, measured runs."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bipose_lit.datasets.synthetic import assay
from bipose_lit.datasets.synthetic.motions import MOTION_SPLITS
from bipose_lit.types import BiposeError

CLIPS = {"stage1": 40, "train": 60, "val": 20, "test": 40}


def plans(**changes):
    return assay.plan_clips({**CLIPS, **changes}, MOTION_SPLITS, 7)


def test_past_and_future_are_equally_frequent_in_every_split():
    for split in CLIPS:
        count = Counter(p.regime for p in plans() if p.split == split)
        assert count["P"] == count["F"] == max(count.values()), split
        assert set(count) == set(assay.REGIMES)


def test_splits_share_no_scene_and_use_their_own_motions():
    clusters = {split: {p.cluster for p in plans() if p.split == split} for split in CLIPS}
    for a in CLIPS:
        assert all(not clusters[a] & clusters[b] for b in CLIPS if b != a)
        assert {p.kind for p in plans() if p.split == a} <= set(MOTION_SPLITS[a])
    assert all(len(found) == CLIPS[split] // 2 for split, found in clusters.items())


def test_names_are_unique_and_fit_the_reader():
    names = [p.name for p in plans()]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_/") for name in names)


def test_a_larger_set_begins_with_the_smaller_one():
    small = [p for p in plans() if p.split == "train"]
    large = [p for p in plans(train=100) if p.split == "train"]
    assert large[:60] == small


def test_seeds_of_a_cluster_are_shared_for_scene_and_person_alone():
    a, b, c = (p for p in plans() if p.split == "train" and p.key[1] < 2 and (p.key[1], p.number) != (1, 1))
    for purpose in ("scene", "look", "body"):
        assert a.rng(0, purpose).random() == b.rng(0, purpose).random() != c.rng(0, purpose).random()
    for purpose in ("motion", "camera", "occluders", "imaging", "render"):
        assert a.rng(0, purpose).random() != b.rng(0, purpose).random()
    drawn = {
        (p.name, purpose, s): p.rng(s, purpose).random() for p in (a, c) for purpose in assay._PURPOSES for s in (0, 1)
    }
    assert len(set(drawn.values())) == len(drawn)


def test_captured_motions_take_every_second_clip():
    captured = {"test": [("captured", "a.bvh"), ("captured", "b.bvh")]}
    found = [p for p in assay.plan_clips(CLIPS, MOTION_SPLITS, 7, captured=captured) if p.source]
    assert {p.split for p in found} == {"test"}
    assert Counter(p.source for p in found) == {"a.bvh": 10, "b.bvh": 10}


def test_unknown_splits_are_refused():
    with pytest.raises(BiposeError, match="dev"):
        assay.plan_clips({"dev": 1}, MOTION_SPLITS, 0)
    with pytest.raises(BiposeError, match="too short"):
        assay.sample_occluders(np.random.default_rng(0), "P", 8)


def covers(track: assay.CoverTrack, points: np.ndarray) -> np.ndarray:
    """(T, N) whether points (N, 2) of the box are covered."""
    return (np.abs(points[None] - track.centre[:, None]) < np.array(track.size) / 2).all(-1)


GRID = np.stack(np.meshgrid(*[np.linspace(0.05, 0.95, 10)] * 2), -1).reshape(-1, 2)


@pytest.mark.parametrize("regime", ["P", "F", "B"])
def test_tracks_keep_their_regime(regime):
    for seed in range(60):
        for track in assay.sample_occluders(np.random.default_rng(seed), regime, 32):
            assert track.regime == regime
            hidden = covers(track, GRID)
            share = hidden.mean(axis=1)
            assert share.max() > 0.15, "it covers something"
            found = set(np.unique(assay.frame_regimes(hidden)[hidden]))
            if regime == "P":
                assert share[0] < 0.5 * share.max()
                assert share[-1] > 0.5 * share.max()
                assert "F" not in found
            elif regime == "F":
                assert share[-1] < 0.5 * share.max()
                assert "P" not in found
            else:
                assert max(share[0], share[-1]) < share.max()


def test_the_future_is_the_past_reversed():
    """The same seed gives a P track and its mirror in time, so both regimes have one law."""
    for seed in range(20):
        past = assay._track(np.random.default_rng(seed), "P", 32, 25.0)
        future = assay._track(np.random.default_rng(seed), "F", 32, 25.0)
        np.testing.assert_array_equal(past.centre[::-1], future.centre)
        assert past.size == future.size


def test_what_stays_leaves_part_of_the_person_in_view():
    for seed in range(80):
        for track in assay.sample_occluders(np.random.default_rng(seed), "N", 32):
            assert 0.1 < covers(track, GRID).mean() < 0.95


def test_onsets_cover_the_clip_and_speeds_differ():
    starts, speeds = [], []
    for seed in range(300):
        track = assay._track(np.random.default_rng(seed), "P", 32, 25.0)
        hidden = covers(track, GRID).mean(axis=1)
        starts.append(int((hidden > 0.5 * hidden[-1]).argmax()))
        speeds.append(np.abs(np.diff(track.centre, axis=0)).max())
    assert np.percentile(starts, 5) < 10
    assert np.percentile(starts, 95) > 22
    assert max(speeds) > 4 * min(speeds)


def brute_runs(column):
    runs, start = [], None
    for t, dark in enumerate([*column, False]):
        if dark and start is None:
            start = t
        if not dark and start is not None:
            runs.append((start, t))
            start = None
    return runs


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 3))))
def test_runs_and_regimes_against_a_plain_loop(hidden):
    expected = [(k, a, b) for k in range(hidden.shape[1]) for a, b in brute_runs(hidden[:, k])]
    assert assay.hidden_runs(hidden) == expected
    regimes = assay.frame_regimes(hidden)
    for t in range(hidden.shape[0]):
        for k in range(hidden.shape[1]):
            if not hidden[t, k]:
                assert regimes[t, k] == ""
                continue
            before, after = not hidden[:t, k].all(), not hidden[t + 1 :, k].all()
            assert regimes[t, k] == {(1, 1): "B", (1, 0): "P", (0, 1): "F", (0, 0): "N"}[before, after]


@given(hnp.arrays(bool, (9, 4)))
def test_reversing_time_exchanges_past_and_future(hidden):
    forward, backward = assay.run_statistics([hidden]), assay.run_statistics([hidden[::-1]])
    np.testing.assert_equal(forward["share_P"], backward["share_F"])
    np.testing.assert_equal(forward["share_F"], backward["share_P"])
    for name in ("hidden", "runs", "median", "p90", "touching", "share_B", "share_N"):
        np.testing.assert_equal(forward[name], backward[name])


def test_statistics_by_hand():
    hidden = np.zeros((10, 3), bool)
    hidden[6:, 0] = hidden[2:4, 1] = True
    found = assay.run_statistics([hidden, np.zeros((5, 3), bool)])
    assert (found["clips"], found["frames"], found["runs"], found["median"], found["touching"]) == (2, 15, 2, 3.0, 0.5)
    assert found["hidden"] == pytest.approx(6 / 45)
    assert (found["share_P"], found["share_B"]) == (pytest.approx(4 / 6), pytest.approx(2 / 6))
    assert np.isnan(assay.run_statistics([np.zeros((4, 2), bool)])["median"])


def test_the_stated_reference_is_what_the_law_gives():
    """REFERENCE quotes a simulation; here it is."""
    rng = np.random.default_rng(0)
    length = rng.lognormal(np.log(14), np.log(56 / 14) / 1.2815515655, 400_000)
    start = rng.uniform(-2000, 32, len(length))
    kept = start + length > 0
    begin, end = np.maximum(start, 0)[kept], np.minimum(start + length, 32)[kept]
    run = end - begin
    touching = ((begin == 0) | (end == 32)).mean()
    assert abs(np.median(run) - 11) < 0.6
    assert np.percentile(run, 90) > 31.9
    assert abs(touching - 0.73) < 0.02
