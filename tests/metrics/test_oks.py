"""OKS and the suppression by it against plain loops."""

import numpy as np
import pytest
from coco_persons import SIGMAS, judge, make_detected, make_truth, nms_loop

from bipose_lit.metrics.oks import extent, oks, oks_nms


def oks_loop(detected, joints, visible, box, area, sigmas):
    """One pair, as COCOeval.computeOks has it."""
    e = []
    for k in range(len(sigmas)):
        x, y = detected[k]
        if (visible > 0).any():
            if not visible[k]:
                continue
            dx, dy = x - joints[k, 0], y - joints[k, 1]
        else:
            left, right = box[0] - box[2], box[0] + box[2] * 2
            top, bottom = box[1] - box[3], box[1] + box[3] * 2
            dx = max(0, left - x) + max(0, x - right)
            dy = max(0, top - y) + max(0, y - bottom)
        e.append((dx**2 + dy**2) / (2 * sigmas[k]) ** 2 / (area + np.spacing(1)) / 2)
    return np.sum(np.exp(-np.array(e))) / len(e)


@pytest.mark.parametrize("K", [1, 2, 8, 17, 23])
def test_every_pair_is_the_loops(K):
    rng = np.random.default_rng(K)
    sigmas = rng.uniform(0.02, 0.12, K)
    truth = make_truth(rng, 8, K, unlabelled=0.3)
    detected = make_detected(rng, truth, sigmas).joints
    found = oks(detected, truth.joints, truth.visible, truth.boxes, truth.area, sigmas)
    expected = [
        [
            oks_loop(d, truth.joints[g], truth.visible[g], truth.boxes[g], truth.area[g], sigmas)
            for g in range(len(truth))
        ]
        for d in detected
    ]
    assert found.shape == (len(detected), len(truth))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert ((found > 0.01) & (found < 0.99)).any()


@pytest.mark.parametrize("seed", range(6))
def test_oks_is_that_of_pycocotools_to_the_last_bit(seed):
    """Last bits decide which of two labels with equal OKS is taken, and at the thresholds."""
    rng = np.random.default_rng(seed)
    K = 17 if seed % 2 else int(rng.integers(1, 40))
    sigmas = SIGMAS if seed % 2 else rng.uniform(0.02, 0.12, K)
    truth = make_truth(rng, 8, K, unlabelled=0.2, few=seed < 2)
    detected = make_detected(rng, truth, sigmas)
    found = oks(detected.joints, truth.joints, truth.visible, truth.boxes, truth.area, sigmas)
    ious, pairs = judge(truth, detected, sigmas).ious, 0
    for (image, category), expected in ious.items():
        rows = np.flatnonzero((detected.image == image) & (detected.category == category))
        columns = np.flatnonzero((truth.image == image) & (truth.category == category))
        if not len(rows) or not len(columns):
            continue
        rows = rows[np.argsort(-detected.score[rows], kind="stable")[:20]]
        np.testing.assert_array_equal(found[np.ix_(rows, columns)], expected)
        pairs += expected.size
    assert pairs > 20


def test_chosen_pairs_are_those_of_the_table():
    rng = np.random.default_rng(0)
    truth = make_truth(rng, 60, most=8)
    detected = make_detected(rng, truth).joints
    pairs = rng.integers(0, len(detected), 9000), rng.integers(0, len(truth), 9000)
    labels = truth.joints, truth.visible, truth.boxes, truth.area
    table = oks(detected, *labels, SIGMAS)
    np.testing.assert_array_equal(oks(detected, *labels, SIGMAS, pairs), table[pairs])


def test_oks_by_hand():
    joints = np.array([[[10.0, 10.0], [20.0, 20.0]]])
    moved = joints + np.array([[[3.0, 4.0], [0.0, 0.0]]])
    arguments = np.array([[10.0, 10, 10, 10]]), np.array([100.0]), [0.05, 0.1]
    both = oks(moved, joints, np.array([[2, 1]]), *arguments)
    assert both[0, 0] == pytest.approx((np.exp(-25 / (2 * 0.1**2 * 100)) + 1) / 2)
    assert oks(moved, joints, np.array([[0, 1]]), *arguments)[0, 0] == 1.0
    # No labelled joint: anywhere in the enlarged box is as good as on the spot.
    inside = np.array([[[0.5, 29.5], [29.5, 0.5]]])
    assert oks(inside, joints, np.zeros((1, 2)), *arguments)[0, 0] == 1.0
    assert oks(inside - 5, joints, np.zeros((1, 2)), *arguments)[0, 0] < 1.0


def test_no_persons():
    none = np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)), np.zeros(0)
    assert oks(np.zeros((3, 17, 2)), *none, SIGMAS).shape == (3, 0)
    assert extent(np.zeros((0, 17, 2))).shape == (0,)
    assert oks_nms(np.zeros((0, 17, 2)), np.zeros(0), np.zeros(0, int), SIGMAS).shape == (0,)


@pytest.mark.filterwarnings("error")
def test_huge_coordinates_are_far_away():
    far = np.full((2, 17, 2), 1e300)
    far[1] *= -1
    label = np.zeros((1, 17, 2)), np.full((1, 17), 2), np.ones((1, 4)), np.ones(1)
    assert (oks(far, *label, SIGMAS) == 0).all()
    assert oks_nms(far, np.ones(2), np.zeros(2, int), SIGMAS).tolist() == [0, 1]


def test_extent():
    joints = np.array([[[1.0, 2.0], [4.0, 12.0], [2.0, 0.0]]])
    assert extent(joints).tolist() == [36.0]


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(8))
def test_suppression_is_the_loops(seed, threshold):
    rng = np.random.default_rng(seed)
    K = 17 if seed % 2 else int(rng.integers(1, 30))
    sigmas = SIGMAS if K == 17 else rng.uniform(0.02, 0.12, K)
    people, copies = rng.uniform(0, 300, (12, 1, 1, 2)) + rng.uniform(0, 80, (12, 1, K, 2)), 8
    joints = (people + rng.normal(0, 1, (12, copies, K, 2)) * rng.uniform(0, 9, (12, copies, 1, 1))).reshape(-1, K, 2)
    image = rng.integers(-2, 4, len(joints))
    score = rng.permutation(len(joints)) / 7 if seed % 4 else rng.choice([0.2, 0.4], len(joints))
    area = rng.uniform(1000, 9000, len(joints)) if seed % 3 == 0 else None
    kept = oks_nms(joints, score, image, sigmas, threshold, area)
    expected = nms_loop(joints, score, image, sigmas, threshold, extent(joints) if area is None else area)
    assert kept.tolist() == expected
    assert 6 < len(kept) < len(joints)
    shuffle = rng.permutation(len(joints))
    if seed % 4:  # distinct scores
        again = oks_nms(
            joints[shuffle], score[shuffle], image[shuffle], sigmas, threshold, None if area is None else area[shuffle]
        )
        assert sorted(shuffle[again].tolist()) == expected


def test_equals_are_suppressed_and_the_first_remains():
    joints = np.tile(np.random.default_rng(0).uniform(0, 90, (1, 17, 2)), (3, 1, 1))
    assert oks_nms(joints, np.ones(3), np.zeros(3, int), SIGMAS).tolist() == [0]
    assert oks_nms(joints, np.array([0.1, 0.3, 0.2]), np.zeros(3, int), SIGMAS).tolist() == [1]
    assert oks_nms(joints, np.ones(3), np.array([5, 7, 5]), SIGMAS).tolist() == [0, 1]
