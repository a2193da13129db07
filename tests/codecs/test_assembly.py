"""Assembly: exact on clean maps, brute force on noisy ones, and what it makes of joints that are missing or too many."""

from itertools import permutations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from scene_people import STAND, components, crowd, encode, found_sets

from bipose_lit.codecs.assembly import Peaks, Rules, connect, find_peaks, find_people, line_integrals
from bipose_lit.codecs.scene import SceneCodec
from bipose_lit.skeletons import COCO
from bipose_lit.types import BiposeError

SEEDS = st.integers(0, 100_000)
SKELETON = SceneCodec()
"""With 21 limbs, some of them redundant."""
TREE = SceneCodec(limbs=[list(p) for p in COCO.limbs if p != ("left_hip", "right_hip")] + [["nose", "left_shoulder"]])
"""With a tree of 16 limbs."""


def gaussians(places, size=(24, 20), sigma=0.9, height=1.0):
    x, y = np.arange(size[0]), np.arange(size[1])
    maps = [
        height * np.exp(-((x - px) ** 2)[None] / (2 * sigma**2) - ((y - py) ** 2)[:, None] / (2 * sigma**2))
        for px, py in places
    ]
    return np.max(maps, axis=0, initial=0.0)[None].astype(np.float32)


# --- peaks -----------------------------------------------------------------------------------------------------------


@given(SEEDS, st.floats(0.85, 3.0), st.floats(0.1, 1.0))
def test_peaks_of_clean_gaussians_are_exact(seed, sigma, height):
    rng = np.random.default_rng(seed)
    place = rng.uniform((-0.49, -0.49), (23.49, 19.49))
    peaks = find_peaks(gaussians([place], sigma=sigma, height=height), 0.05)
    assert len(peaks) == 1
    # Beyond the outermost pixel the vertex is held within half a pixel of it, as everywhere.
    np.testing.assert_allclose(peaks.place[0], place, atol=2e-3)
    np.testing.assert_allclose(peaks.height[0], height, rtol=5e-3)


@given(SEEDS)
def test_peaks_are_the_local_maxima(seed):
    """Against a plain loop; few distinct values, so that ties happen: of equal neighbours one remains."""
    maps = np.random.default_rng(seed).integers(0, 4, (2, 7, 6)).astype(np.float32) / 3
    peaks = find_peaks(maps, 0.3)
    expected = []
    for k, y, x in np.ndindex(maps.shape):
        around = [
            (maps[k, v, u], (v, u) < (y, x))
            for v in range(max(0, y - 1), min(7, y + 2))
            for u in range(max(0, x - 1), min(6, x + 2))
            if (v, u) != (y, x)
        ]
        if maps[k, y, x] > 0.3 and all(maps[k, y, x] > a if first else maps[k, y, x] >= a for a, first in around):
            expected.append((k, x, y))
    found = {(int(k), *np.rint(p).astype(int).tolist()) for k, p in zip(peaks.joint, peaks.place, strict=True)}
    near = {(k, x + dx, y + dy) for k, x, y in expected for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
    assert len(peaks) == len(expected)
    assert found <= near
    assert (np.diff(peaks.joint) >= 0).all()


def test_peaks_between_two_pixels_are_one():
    peaks = find_peaks(gaussians([(10.5, 7.5)]), 0.05)
    assert len(peaks) == 1
    np.testing.assert_allclose(peaks.place[0], (10.5, 7.5), atol=1e-5)


def test_only_the_highest_peaks_are_looked_at():
    maps = np.concatenate(
        [gaussians([(3 * i + 2, 3 * j + 2)], height=0.1 + 0.01 * (i + 6 * j)) for j in range(5) for i in range(6)]
    )
    maps = maps.max(axis=0, keepdims=True)
    assert len(find_peaks(maps, 0.05)) == 30
    peaks = find_peaks(maps, 0.05, most=4)
    np.testing.assert_allclose(peaks.height, [0.39, 0.38, 0.37, 0.36], rtol=1e-3)


def test_values_that_are_not_finite_make_nobody():
    maps, pafs = np.full((17, 12, 12), np.nan, np.float32), np.full((42, 12, 12), np.nan, np.float32)
    assert len(find_people(maps, pafs, SKELETON.limbs)) == 0
    maps[:] = np.inf
    assert len(find_people(maps, pafs, SKELETON.limbs)) == 0
    clean, _ = encode(SceneCodec(), crowd(0))
    assert len(find_people(clean, np.full((42, 96, 120), np.nan, np.float32), SKELETON.limbs)) == 0


# --- limbs -----------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_line_integrals_are_those_of_a_loop_in_float64(seed):
    rng = np.random.default_rng(seed)
    pafs = rng.normal(0.4, 0.4, (6, 9, 11))
    start, end = rng.uniform(-0.5, 8.5, (2, 20, 2))
    end[0] = start[0]
    limb = rng.integers(0, 3, 20)
    rules = Rules(line=0.05, share=float(rng.choice([0.0, 0.5, 0.8])), samples=int(rng.integers(2, 14)))
    found = line_integrals(start, end, limb, pafs, rules)
    for i in range(20):
        length = np.hypot(*(end[i] - start[i]))
        if length < 1e-6:
            assert found[i] == 0
            continue
        unit, dots = (end[i] - start[i]) / length, []
        for t in np.linspace(0, 1, rules.samples):
            x, y = np.clip(np.floor(start[i] + t * (end[i] - start[i]) + 0.5), 0, (10, 8)).astype(int)
            dots.append(pafs[2 * limb[i], y, x] * unit[0] + pafs[2 * limb[i] + 1, y, x] * unit[1])
        enough = sum(d > rules.line for d in dots) >= rules.share * rules.samples
        np.testing.assert_allclose(found[i], np.mean(dots) if enough else 0.0, atol=1e-12)


@given(SEEDS)
def test_matching_is_the_best_of_all(seed):
    """Sum of scores over each limb, against every way of pairing up to four peaks with up to four."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, 3)
    joint = np.repeat(np.arange(3), counts)
    peaks = Peaks(joint, rng.uniform(0, 8, (len(joint), 2)), rng.uniform(0.1, 1, len(joint)))
    pafs = rng.normal(0.3, 0.5, (4, 9, 9))
    limbs, rules = np.array([[0, 1], [2, 1]]), Rules(share=0.5)
    found = connect(peaks, pafs, limbs, rules)
    assert (np.diff(found.score) <= 0).all()
    for number, (a, b) in enumerate(limbs):
        firsts, seconds = np.flatnonzero(joint == a), np.flatnonzero(joint == b)
        table = np.zeros((4, 4))
        for r, i in enumerate(firsts):
            for c, j in enumerate(seconds):
                pair = peaks.place[[i]], peaks.place[[j]], np.array([number])
                table[r, c] = max(line_integrals(*pair, pafs, rules)[0], 0)
        best = max(sum(table[r, c] for r, c in enumerate(order)) for order in permutations(range(4)))
        own = np.isin(found.first, firsts) & np.isin(found.second, seconds)
        assert len(set(found.first[own])) == len(set(found.second[own])) == own.sum()
        np.testing.assert_allclose(found.score[own].sum(), best, atol=1e-9)


def test_a_bad_limb_is_worse_than_none():
    """Totals may be below 0 where a share of the samples may miss: the one good limb alone is then the best matching."""
    pafs = np.zeros((2, 9, 9))
    pafs[0] = -1.0  # against every line but the first row's
    pafs[0, 0] = 0.3
    peaks = Peaks(np.array([0, 0, 1, 1]), np.array([[0.0, 0], [0, 4], [8, 0], [8, 4]]), np.ones(4))
    found = connect(peaks, pafs, np.array([[0, 1]]), Rules(share=0.05))
    assert list(zip(found.first, found.second, strict=True)) == [(0, 2)]
    assert found.score == pytest.approx(0.3)


@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan])
def test_a_field_that_is_not_finite_is_none(broken):
    pafs = np.full((2, 9, 9), 0.8)
    pafs[1] = 0.0
    pafs[:, 0, 4] = broken
    start, end, limb = np.array([[0.0, 0]]), np.array([[8.0, 0]]), np.array([0])
    hit = line_integrals(start, end, limb, pafs, Rules(share=0.5))[0]
    assert 0 < hit < 0.8
    assert line_integrals(start, end, limb, pafs, Rules(share=1.0))[0] == 0
    peaks = Peaks(np.array([0, 1]), np.concatenate([start, end]), np.ones(2))
    assert len(connect(peaks, pafs, np.array([[0, 1]]), Rules(share=0.5)).score) == 1


def test_noise_about_zero_beside_a_peak_does_not_move_it():
    maps = np.full((1, 5, 5), 0.2, np.float32)
    maps[0, 2, 1:4] = -0.01, 0.30, 0.05
    maps[0, [1, 3], 2] = 0.1
    peaks = find_peaks(maps, 0.25)
    assert len(peaks) == 1
    assert 2.0 < peaks.place[0, 0] < 2.35, "towards the larger neighbour, which is small"
    assert peaks.height[0] < 0.36


# --- people ----------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(SEEDS)
@example(71)
def test_up_to_twenty_people_come_back_exactly(seed):
    truth = crowd(seed)
    for codec in (SKELETON, TREE):
        people = find_people(*encode(codec, truth), codec.limbs)
        assert sorted(found_sets(people, truth, 0.01), key=sorted) == [
            frozenset((p, k) for k in range(17)) for p in range(len(truth))
        ]
        assert (np.diff(people.score) <= 0).all()
        # A clean whole person's score is 1, where nobody else's limbs cross.
        assert 0.7 < people.score.min() <= people.score.max() < 1.001


def test_the_crowds_are_crowds():
    """Twenty people do stand among one another: boxes overlap, limbs of other kinds cross."""
    truth = crowd(71)
    low, high = truth.min(1), truth.max(1)
    overlap = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(-1).sum() - len(truth)
    assert len(truth) == 20
    assert overlap > 2 * len(truth)
    clean = find_people(*encode(SKELETON, crowd(3, most=1)), SKELETON.limbs)
    assert clean.score[0] == pytest.approx(1, abs=1e-3)
    assert (clean.confidence > 0.999).all()


@settings(max_examples=12)
@given(SEEDS, st.floats(0.0, 0.5))
@example(71, 0.2)
def test_missing_joints_leave_what_limbs_still_hold_together(seed, share):
    """People fall into the components of the limbs between joints that are there; those of fewer than three joints are lost."""
    truth = crowd(seed)
    visible = np.where(np.random.default_rng(seed).random(truth.shape[:2]) < share, 0, 2).astype(np.uint8)
    for codec in (SKELETON, TREE):
        people = find_people(*encode(codec, truth, visible), codec.limbs)
        expected = components(visible, codec.limbs)
        assert sorted(found_sets(people, truth, 0.01), key=sorted) == sorted(expected, key=sorted)


@pytest.mark.parametrize("joint", COCO.joints)
def test_one_missing_joint(joint):
    """With redundant limbs nobody is split; beyond a shoulder, elbow, hip or knee the rest of the limb is lost with it."""
    truth = crowd(3, most=1)
    visible = np.full((1, 17), 2, np.uint8)
    visible[0, COCO.index(joint)] = 0
    people = find_people(*encode(SKELETON, truth, visible), SKELETON.limbs)
    assert len(people) == 1
    beyond = {"shoulder": ("elbow", "wrist"), "elbow": ("wrist",), "hip": ("knee", "ankle"), "knee": ("ankle",)}
    side, _, part = joint.partition("_")
    lost = {joint, *(f"{side}_{name}" for name in beyond.get(part, ()))}
    assert {COCO.joints[k] for k in np.flatnonzero(people.confidence[0] == 0)} == lost


def test_a_tree_splits_at_a_missing_joint():
    """Without redundant limbs a shoulder holds head, arm and both sides together: without it there are three people, no arm."""
    truth = crowd(3, most=1)
    visible = np.full((1, 17), 2, np.uint8)
    visible[0, COCO.index("left_shoulder")] = 0
    people = find_people(*encode(TREE, truth, visible), TREE.limbs)
    sizes = sorted(np.count_nonzero(people.confidence, axis=1).tolist())
    assert sizes == [3, 5, 6], "left leg; head; right side"
    assert people.score.sum() < find_people(*encode(TREE, truth), TREE.limbs).score[0]


def test_what_was_not_found_lies_among_the_rest():
    truth = crowd(3, most=1)
    visible = np.full((1, 17), 2, np.uint8)
    visible[0, COCO.index("left_ankle")] = 0
    people = find_people(*encode(SKELETON, truth, visible), SKELETON.limbs)
    missing = COCO.index("left_ankle")
    assert people.confidence[0, missing] == 0
    np.testing.assert_allclose(people.joints[0, missing], np.delete(truth[0], missing, axis=0).mean(axis=0), atol=0.01)


@settings(max_examples=8)
@given(SEEDS)
def test_spurious_peaks_make_nobody_and_change_nobody(seed):
    """Blobs without a field, and a limb of two joints on its own: below three joints there is no person."""
    rng = np.random.default_rng(seed)
    truth = crowd(seed, most=8)
    maps, pafs = encode(SKELETON, truth)
    before = find_people(maps, pafs, SKELETON.limbs)
    strange = maps.copy()
    for _ in range(40):
        k, place = int(rng.integers(17)), rng.uniform((1, 1), (118, 94))
        if np.linalg.norm(truth[:, k] - place, axis=1).min() > 4:
            strange[k] = np.maximum(strange[k], gaussians([place], (120, 96))[0])
    noise = np.zeros((1, 17, 2))
    noise[0, [7, 9]] = rng.uniform((1, 1), (118, 94), (2, 2))
    if min(np.linalg.norm(truth[:, k] - noise[0, k], axis=1).min() for k in (7, 9)) > 4:
        seen = np.zeros((1, 17), np.uint8)
        seen[0, [7, 9]] = 2
        more, _ = encode(SKELETON, noise, seen)
        strange = np.maximum(strange, more)
    after = find_people(strange, pafs, SKELETON.limbs)
    assert len(after) == len(before)
    np.testing.assert_allclose(after.joints, before.joints, atol=1e-9)
    assert len(find_people(strange, np.zeros_like(pafs), SKELETON.limbs)) == 0


def test_two_joints_are_no_person_and_three_are():
    truth = crowd(3, most=1)
    for parts, people in ((("left_shoulder", "left_elbow"), 0), (("left_shoulder", "left_elbow", "left_wrist"), 1)):
        visible = np.zeros((1, 17), np.uint8)
        visible[0, [COCO.index(p) for p in parts]] = 2
        maps, pafs = encode(SKELETON, truth, visible)
        assert len(find_people(maps, pafs, SKELETON.limbs)) == people
        assert len(find_people(maps, pafs, SKELETON.limbs, Rules(parts=2))) == 1
        assert len(find_people(0.2 * maps, 0.2 * pafs, SKELETON.limbs)) == 0, "a score of 0.2 + 0.2 x 2/3 per joint"
        assert len(find_people(0.2 * maps, 0.2 * pafs, SKELETON.limbs, Rules(score=0.3))) == people


def test_a_contradiction_goes_to_the_better_limb():
    """Two noses claim one pair of shoulders; the one with the stronger field has them, and nobody has two noses."""
    truth = np.repeat(crowd(3, most=1), 2, axis=0)
    nose, eyes = COCO.index("nose"), [1, 2, 3, 4]
    truth[1, nose] += (7, -2)
    visible = np.full((2, 17), 2, np.uint8)
    visible[:, eyes] = 0
    maps, _ = encode(SKELETON, truth, visible)
    pafs = np.zeros((42, 96, 120), np.float32)
    for person, strength in ((0, 0.6), (1, 0.9)):
        one = np.maximum(visible[[person]], 0)
        field = encode(SKELETON, truth[[person]], one)[1]
        body = [i for i, limb in enumerate(SKELETON.limbs) if nose not in limb]
        heads = [i for i, limb in enumerate(SKELETON.limbs) if nose in limb]
        for i in body:
            pafs[2 * i : 2 * i + 2] = field[2 * i : 2 * i + 2]
        for i in heads:
            part = strength * field[2 * i : 2 * i + 2]
            pafs[2 * i : 2 * i + 2] = np.where(np.abs(part) > 0, part, pafs[2 * i : 2 * i + 2])
    (person,) = find_people(maps, pafs, SKELETON.limbs).joints
    np.testing.assert_allclose(person[nose], truth[1, nose], atol=0.01)


def test_nobody_is_nobody():
    maps, pafs = np.zeros((17, 12, 12), np.float32), np.zeros((42, 12, 12), np.float32)
    people = find_people(maps, pafs, SKELETON.limbs)
    assert (people.joints.shape, people.confidence.shape, people.score.shape) == ((0, 17, 2), (0, 17), (0,))


def test_people_s_order_does_not_depend_on_torch():
    assert isinstance(find_people(*encode(SKELETON, crowd(1)), SKELETON.limbs).joints, np.ndarray)
    assert not isinstance(SKELETON.limbs, torch.Tensor)
    assert STAND.shape == (17, 2)


@pytest.mark.parametrize(
    "wrong", [{"peak": -0.1}, {"share": 1.5}, {"samples": 1}, {"parts": 0}, {"score": -1.0}, {"line": 2.0}]
)
def test_rules_that_make_no_sense(wrong):
    with pytest.raises(BiposeError, match="peak, line and share lie in"):
        Rules(**wrong).check()
    with pytest.raises(BiposeError, match="peak, line and share lie in"):
        SceneCodec(**wrong)
