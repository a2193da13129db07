"""PoseTrack's AP: cases worked out by hand, and a transcription of the definition in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit.metrics.posetrack import (
    GROUPS,
    JOINTS,
    SCORED,
    Frame,
    average_precision,
    head_size,
    inside,
    joint_ap,
    match,
)
from bipose_lit.skeletons import POSETRACK18

K = len(JOINTS)
NOSE, NECK = 0, 1


def frame(truth, found, regions=()):
    """A frame from persons {joint: (x, y)} with "head", and {joint: (x, y, score)}."""
    joints, pred = np.zeros((len(truth), K, 2)), np.zeros((len(found), K, 2))
    labelled, predicted = np.zeros((len(truth), K), bool), np.zeros((len(found), K), bool)
    score = np.zeros((len(found), K))
    for g, person in enumerate(truth):
        for k, xy in person.items():
            if k != "head":
                joints[g, k], labelled[g, k] = xy, True
    for p, person in enumerate(found):
        for k, (x, y, s) in person.items():
            pred[p, k], predicted[p, k], score[p, k] = (x, y), True, s
    head = np.array([float(person.get("head", 10)) for person in truth])
    return Frame(joints, labelled, head, pred, predicted, score, tuple(np.array(r, float) for r in regions))


def everywhere(x, y, score=None):
    return {k: (x + k, y + 3 * k) if score is None else (x + k, y + 3 * k, score) for k in range(K)}


# --- an independent transcription: one joint of one person at a time ---


def plain_inside(x, y, polygon):
    """Winding by angles is no exact test of the boundary, so: on an edge is outside, else the parity of crossings."""
    if len(polygon) < 3:
        return False
    odd = False
    for (ax, ay), (bx, by) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        if cross == 0 and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
            return False
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            odd = not odd
    return odd


def plain_ap(frames):
    ranked = {k: [] for k in range(K)}
    positives = dict.fromkeys(range(K), 0)
    for f in frames:
        if len(f.joints) == 0:
            continue
        regions = [[tuple(map(float, c)) for c in r] for r in f.regions]

        def kept(xy, regions=regions):
            return not any(plain_inside(float(xy[0]), float(xy[1]), r) for r in regions)

        truth = [{k: f.joints[g, k] for k in range(K) if f.labelled[g, k] and kept(f.joints[g, k])}
                 for g in range(len(f.joints))]  # fmt: skip
        found = [{k: f.pred[p, k] for k in range(K) if f.predicted[p, k] and kept(f.pred[p, k])}
                 for p in range(len(f.pred))]  # fmt: skip
        for person in truth:
            for k in person:
                positives[k] += 1

        def fit(p, g, k, f=f, truth=truth, found=found):
            if k not in truth[g] or k not in found[p] or not f.head[g] > 0:
                return False
            dx, dy = truth[g][k] - found[p][k]
            return math.sqrt(dx * dx + dy * dy) / f.head[g] <= 0.5

        pckh = {}
        for p in range(len(found)):
            for g in range(len(truth)):
                hits = sum(fit(p, g, k) for k in range(K))
                pckh[p, g] = hits / len(truth[g]) if truth[g] else 0.0
        partner = {}
        for g in range(len(truth)):
            best, value = None, 0.0
            for p in range(len(found)):
                chosen = max(range(len(truth)), key=lambda h: (pckh[p, h], -h))
                if chosen == g and pckh[p, g] > value:
                    best, value = p, pckh[p, g]
            if best is not None:
                partner[best] = g
        for p, person in enumerate(found):
            for k in person:
                ranked[k].append((float(f.score[p, k]), len(ranked[k]), p in partner and fit(p, partner[p], k)))
    ap = []
    for k in range(K):
        if not ranked[k]:
            ap.append(0.0)
            continue
        if not positives[k]:
            ap.append(float("nan"))
            continue
        hits, curve = 0, []
        for n, (_, _, right) in enumerate(sorted(ranked[k], reverse=True), 1):
            hits += right
            curve.append((hits / positives[k], hits / n))
        area, before = 0.0, 0.0
        for i, (recall, _) in enumerate(curve):
            area += (recall - before) * max(precision for _, precision in curve[i:])
            before = recall
        ap.append(area)
    return ap


def random_frames(seed, frames=6, ties=False):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(frames):
        G, P = rng.integers(0, 5), rng.integers(0, 6)
        joints = rng.uniform(0, 200, (G, 1, 2)) + rng.uniform(-40, 40, (G, K, 2))
        labelled = rng.random((G, K)) < rng.choice([0.0, 0.6, 1.0], p=[0.1, 0.6, 0.3], size=(G, 1))
        head = rng.uniform(8, 40, G) * (rng.random(G) > 0.05)
        head[rng.random(G) < 0.05] = np.nan
        pred = np.zeros((P, K, 2))
        for p in range(P):
            near = G and rng.random() < 0.8
            pred[p] = (joints[rng.integers(G)] if near else rng.uniform(0, 200, (K, 2))) + rng.normal(0, 7, (K, 2))
        score = rng.integers(0, 4, (P, K)) / 4 if ties else rng.random((P, K))
        regions = [rng.uniform(-20, 220, (rng.integers(0, 7), 2)) for _ in range(rng.integers(0, 3))]
        whole = rng.random() < 0.5
        if whole:  # coordinates that meet thresholds, edges and corners
            joints, pred, head = joints.round(), pred.round(), np.maximum(head.round(), 0)
            regions = [r.round(-1) for r in regions]
        made.append(Frame(joints, labelled, head, pred, rng.random((P, K)) < 0.9, score, tuple(regions)))
    return made


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_equals_the_definition_in_plain_loops(seed, ties):
    frames = random_frames(seed, ties=ties)
    np.testing.assert_allclose(joint_ap(frames).ap, plain_ap(frames), rtol=0, atol=1e-12)


def test_joints_and_groups():
    assert K == 15
    assert "left_ear" not in JOINTS
    assert (0, 1, 2, *range(5, 17)) == SCORED
    assert sorted(j for joints in GROUPS.values() for j in joints) == sorted(JOINTS)
    assert list(GROUPS) == ["head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
    assert POSETRACK18.joints[SCORED[-1]] == "right_ankle"


def test_two_persons_found():
    result = joint_ap([frame([everywhere(0, 0), everywhere(100, 0)], [everywhere(101, 1, 0.9), everywhere(1, 0, 0.8)])])
    assert result.ap.tolist() == [1.0] * K
    assert result.mean == 1.0
    assert result.labels.tolist() == [2] * K


def test_swapped_joints_of_two_persons_are_both_wrong():
    a, b = everywhere(0, 0, 0.9), everywhere(100, 0, 0.8)
    a[NOSE], b[NOSE] = b[NOSE], a[NOSE]
    result = joint_ap([frame([everywhere(0, 0), everywhere(100, 0)], [a, b])])
    assert result.ap.tolist() == [0.0] + [1.0] * (K - 1)
    assert result.mean == pytest.approx(14 / 15)
    metrics = result.metrics()
    assert metrics["ap/head"] == pytest.approx(2 / 3)
    assert (metrics["ap/nose"], metrics["ap/wrist"]) == (0.0, 1.0)


def test_a_false_positive_person_costs_by_its_rank():
    truth, right, wrong = everywhere(0, 0), everywhere(0, 0, 0.5), everywhere(300, 300, 0.9)
    assert joint_ap([frame([truth], [right, wrong])]).mean == 0.5  # first of two is wrong: precision 1/2 at recall 1
    wrong = everywhere(300, 300, 0.4)
    assert joint_ap([frame([truth], [right, wrong])]).mean == 1.0  # wrong ones after the last right one are free


def test_a_doubled_person_is_a_false_positive():
    truth, good = everywhere(0, 0), everywhere(0, 0, 0.5)
    copy = everywhere(0, 0, 0.9) | {NOSE: (90.0, 90.0, 0.9)}  # fits all but the nose: the worse of the two is left over
    assert joint_ap([frame([truth], [copy, good])]).ap[NECK] == 0.5
    same = everywhere(0, 0, 0.9)
    assert joint_ap([frame([truth], [same, good])]).mean == 1.0  # of equals the first is matched, whatever its score
    assert joint_ap([frame([truth], [good, same])]).mean == 0.5


def test_recall_counts_labels_that_nobody_found():
    truth = [everywhere(0, 0), everywhere(100, 0), everywhere(200, 0), everywhere(300, 0)]
    assert joint_ap([frame(truth, [everywhere(0, 0, 0.9)])]).mean == 0.25
    assert joint_ap([frame(truth, [])]).mean == 0.0


def test_the_threshold_itself_fits():
    assert joint_ap([frame([{NOSE: (0, 0), "head": 10}], [{NOSE: (3, 4, 1)}])]).ap[NOSE] == 1.0  # 5 / 10
    assert joint_ap([frame([{NOSE: (0, 0), "head": 10}], [{NOSE: (3, np.nextafter(4, 5), 1)}])]).ap[NOSE] == 0.0


def test_a_joint_without_label_is_wrong_on_a_matched_person():
    truth = {NECK: (0, 10)}
    found = {NOSE: (0, 0, 0.9), NECK: (0, 10, 0.9)}
    result = joint_ap([frame([truth, {NOSE: (500, 500)}], [found])])
    assert result.ap[NECK] == 1.0
    assert result.ap[NOSE] == 0.0


def test_a_joint_that_is_not_predicted():
    truth = {NOSE: (0, 0), NECK: (0, 10)}
    result = joint_ap([frame([truth], [{NECK: (0, 10, 0.9)}])])
    assert (result.ap[NOSE], result.ap[NECK]) == (0.0, 1.0)
    assert result.predictions[NOSE] == 0


def test_never_labelled_but_predicted_is_undefined_and_left_out_of_the_mean():
    found = everywhere(0, 0, 0.9)
    result = joint_ap([frame([{NOSE: (0, 0), NECK: (1, 3)}], [found])])
    assert math.isnan(result.ap[2])
    assert result.mean == 1.0
    assert math.isnan(result.metrics()["ap/head"])  # the group's plain mean, as in poseval's table
    assert math.isnan(joint_ap([]).mean)


def test_ignore_regions_take_labels_and_predictions():
    square = [(-5, -5), (5, -5), (5, 5), (-5, 5)]
    truth = {NOSE: (0, 0), NECK: (0, 10)}
    found = {NOSE: (0, 0, 0.9), NECK: (0, 10, 0.9)}
    stray = {NOSE: (1, 1, 1.0)}
    result = joint_ap([frame([truth], [found, stray], [square]), frame([truth], [found])])
    assert result.labels[:2].tolist() == [1, 2]
    assert result.predictions[:2].tolist() == [1, 2]
    assert result.ap[:2].tolist() == [1.0, 1.0]
    on_edge = joint_ap([frame([{NOSE: (5, 0)}], [{NOSE: (5, 0, 1)}], [square])])
    assert on_edge.labels[NOSE] == 1


def test_all_labels_ignored_leaves_false_positives():
    square = [(-5, -5), (5, -5), (5, 5), (-5, 5)]
    gone = frame([{NOSE: (0, 0)}], [{NOSE: (50, 50, 0.9)}], [square])
    there = frame([{NOSE: (0, 0)}], [{NOSE: (0, 0, 0.5)}])
    assert joint_ap([gone, there]).ap[NOSE] == 0.5


def test_frames_without_labelled_persons_are_left_out():
    empty = frame([], [everywhere(0, 0, 1.0)])
    there = frame([everywhere(0, 0)], [everywhere(0, 0, 0.5)])
    result = joint_ap([empty, there])
    assert (result.mean, result.frames) == (1.0, 1)


def test_the_share_counts_all_labelled_joints():
    """One of one joint beats one of two: the person with fewer labels is chosen."""
    many, few = {NOSE: (0, 0), NECK: (50, 50)}, {NOSE: (1, 0)}
    f = frame([many, few], [{NOSE: (0, 0, 1.0)}])
    result = joint_ap([f])
    assert result.ap[NOSE] == 0.5
    fit = np.zeros((1, 2, K), bool)
    fit[0, :, NOSE] = True
    assert match(fit, f.labelled).tolist() == [1]


def test_equal_scores_the_later_first():
    assert average_precision(np.array([0.5, 0.5]), np.array([False, True]), 1) == 1.0
    assert average_precision(np.array([0.5, 0.5]), np.array([True, False]), 1) == 0.5
    assert average_precision(np.array([0.5, 0.5, 0.5]), np.array([True, False, False]), 1) == pytest.approx(1 / 3)


def test_ap_by_hand():
    right = np.array([True, False, True, False, False, True])
    # recall 1/4 at precision 1, 2/4 at 2/3, 3/4 at 3/6
    assert average_precision(np.arange(6)[::-1], right, 4) == pytest.approx(0.25 * (1 + 2 / 3 + 0.5))


def test_head_size():
    assert head_size(np.array([[7.0, 9.0, 3.0, 4.0], [0, 0, 0, 0]])).tolist() == [3.0, 0.0]


def test_a_person_without_head_size_is_missed():
    truth = everywhere(0, 0) | {"head": 0}
    assert joint_ap([frame([truth], [everywhere(0, 0, 1.0)])]).mean == 0.0
    assert joint_ap([frame([everywhere(0, 0) | {"head": float("nan")}], [everywhere(0, 0, 1.0)])]).mean == 0.0


def test_inside_a_polygon_that_crosses_itself():
    bow = np.array([(0, 0), (10, 10), (10, 0), (0, 10)], float)
    points = np.array([(1, 5), (9, 5), (5, 1), (5, 9), (5, 5), (0, 5), (2, 2), (12, 5), (0, 0)], float)
    assert inside(points, bow).tolist() == [True, True, False, False, False, False, False, False, False]
    assert not inside(points, bow[:2]).any()


@given(st.integers(0, 2**32 - 1))
def test_inside_as_in_plain_loops(seed):
    rng = np.random.default_rng(seed)
    polygon = rng.integers(0, 8, (rng.integers(3, 9), 2)).astype(float)
    points = rng.integers(-1, 18, (40, 2)) / 2
    expected = [plain_inside(x, y, polygon.tolist()) for x, y in points.tolist()]
    assert inside(points, polygon).tolist() == expected


def test_order_of_frames_and_scale_of_scores_do_not_matter():
    frames = random_frames(5, 10)
    expected = joint_ap(frames).ap
    np.testing.assert_allclose(joint_ap(frames[::-1]).ap, expected, atol=1e-15)
    scaled = [Frame(f.joints, f.labelled, f.head, f.pred, f.predicted, f.score * 7 - 3, f.regions) for f in frames]
    np.testing.assert_array_equal(joint_ap(scaled).ap, expected)
