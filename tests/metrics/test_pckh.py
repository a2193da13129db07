"""PCKh by plain loops, by hand, by laws, and on a published model's predictions."""

import math

import h5py
import numpy as np
import pytest
import scipy.io
from conftest import make_predictions
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit.metrics import pckh
from bipose_lit.skeletons import MPII
from bipose_lit.types import ABSENT, NORMS

K = len(MPII)
PUBLISHED = {
    "head": 95.941,
    "head[neck+top]": 96.709,
    "shoulder": 94.684,
    "elbow": 88.529,
    "wrist": 83.382,
    "hip": 87.485,
    "knee": 83.094,
    "ankle": 79.050,
}


def people(seed: int = 0, n: int = 23, missing: float = 0.15):
    rng = np.random.default_rng(seed)
    joints = rng.uniform(0, 300, (n, K, 2))
    absent = rng.random((n, K)) < missing
    head = rng.uniform(10, 60, n)
    head[rng.random(n) < 0.1] = np.nan
    pred = joints + rng.normal(0, 9, joints.shape)
    return pred, np.where(absent[..., None], 1e9, joints), absent, head


def loops(pred, joints, missing, head, threshold):
    """The definition, person by person."""
    hits, labels = [0] * K, [0] * K
    for n in range(len(head)):
        if math.isnan(head[n]):
            continue
        for k in range(K):
            if missing[n][k]:
                continue
            dx, dy = pred[n][k][0] - joints[n][k][0], pred[n][k][1] - joints[n][k][1]
            labels[k] += 1
            hits[k] += math.sqrt(dx * dx + dy * dy) / head[n] <= threshold
    each = [h / c if c else math.nan for h, c in zip(hits, labels, strict=True)]
    kept = [k for k in range(K) if k not in (6, 7)]
    return {
        "each": each,
        "mean": sum(hits[k] for k in kept) / sum(labels[k] for k in kept),
        "plain": sum(each) / K,
        "weighted": sum(hits) / sum(labels),
        "knee": (each[1] + each[4]) / 2,
        "wrist": (each[10] + each[15]) / 2,
        "head": each[9],
        "head[neck+top]": (each[8] + each[9]) / 2,
    }


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.11, 0.0])
@pytest.mark.parametrize("seed", range(4))
def test_against_plain_loops(seed, threshold):
    case = people(seed)
    found, expected = pckh.pckh(*case, threshold), loops(*case, threshold)
    np.testing.assert_allclose(found.per_joint, expected["each"], rtol=1e-13)
    assert found.mean == pytest.approx(expected["mean"], rel=1e-13)
    assert found.plain_mean_16 == pytest.approx(expected["plain"], rel=1e-13)
    assert found.all_weighted_16 == pytest.approx(expected["weighted"], rel=1e-13)
    for part in ("knee", "wrist", "head", "head[neck+top]"):
        assert found.groups[part] == pytest.approx(expected[part], rel=1e-13)


def one(k: int, distance: float, head: float = 10.0):
    joints = np.zeros((1, K, 2))
    pred = joints.copy()
    pred[0, k, 0] = distance
    missing = np.ones((1, K), bool)
    missing[0, k] = False
    return pred, joints, missing, np.array([head])


def test_the_boundary_counts():
    assert pckh.pckh(*one(0, 5.0)).mean == 1
    assert pckh.pckh(*one(0, np.nextafter(5.0, 6))).mean == 0


def test_pelvis_and_thorax_are_in_two_of_the_three_means():
    for name in pckh.UNSCORED:
        found = pckh.pckh(*one(MPII.index(name), 0.0))
        assert math.isnan(found.mean)
        assert (found.plain_mean_16, found.all_weighted_16) == (1, 1)


def test_head_is_the_head_top_alone():
    assert math.isnan(pckh.pckh(*one(MPII.index("upper_neck"), 0.0)).groups["head"])
    assert pckh.pckh(*one(MPII.index("head_top"), 0.0)).groups["head"] == 1


def test_sides_weigh_the_same_however_often_they_are_labelled():
    left, right = MPII.index("left_knee"), MPII.index("right_knee")
    joints, missing = np.zeros((4, K, 2)), np.ones((4, K), bool)
    missing[:, left] = missing[0, right] = False
    pred = joints.copy()
    pred[0, right] = 100
    found = pckh.pckh(pred, joints, missing, np.full(4, 10.0))
    assert found.groups["knee"] == 0.5  # 4 of 4 on the left, 0 of 1 on the right
    assert found.mean == 0.8


@pytest.mark.parametrize("head", [np.nan, np.inf, 0.0, -3.0, 1e-300])
def test_persons_without_a_head_size_are_left_out_and_counted(head):
    pred, joints, missing, _ = people(1, n=2, missing=0)
    found = pckh.pckh(pred, joints, missing, np.array([head, 20.0]))
    assert found.excluded == 1
    np.testing.assert_array_equal(found.labels, 1)


def test_a_predicted_nan_is_a_miss():
    pred, joints, missing, head = one(3, 0.0)
    pred[0, 3] = np.nan
    assert pckh.pckh(pred, joints, missing, head).mean == 0


def test_nobody():
    found = pckh.scores(np.zeros((0, K, 2)), np.zeros((0, K, 2)), np.zeros((0, K), bool), np.zeros(0))
    assert all(math.isnan(v) for v in found.values())


def test_shapes_are_checked():
    pred, joints, missing, head = people()
    with pytest.raises(ValueError, match="expected"):
        pckh.pckh(pred[:, :13], joints, missing, head)
    with pytest.raises(ValueError, match="expected"):
        pckh.pckh(pred[:5], joints, missing, head)


@given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 100), shift=st.floats(-500, 500))
def test_units_and_origin_do_not_matter(seed, factor, shift):
    pred, joints, missing, head = people(seed, n=6)
    joints = np.where(missing[..., None], 0, joints)
    moved = pckh.pckh(pred * factor + shift, joints * factor + shift, missing, head * factor)
    np.testing.assert_allclose(moved.per_joint, pckh.pckh(pred, joints, missing, head).per_joint)


@given(seed=st.integers(0, 10_000), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_larger_threshold_never_scores_less(seed, low, high):
    case = people(seed, n=6)
    low, high = sorted((low, high))
    less, more = pckh.pckh(*case, low), pckh.pckh(*case, high)
    scored = less.labels > 0  # the others are NaN
    np.testing.assert_array_equal(less.labels, more.labels)
    assert (less.per_joint[scored] <= more.per_joint[scored]).all()


@given(seed=st.integers(0, 10_000))
def test_the_grid_area_is_within_half_a_step_of_the_exact_one(seed):
    case = people(seed, n=6)
    exact, grid = pckh.area(*case), pckh.area(*case, grid=True)
    # A joint's step lies somewhere in its cell of 0.01; the straight line there puts it in the middle.
    scored = exact.labels > 0
    assert (np.abs(exact.per_joint - grid.per_joint)[scored] <= 0.005 / 0.5 + 1e-12).all()


def test_areas_by_hand():
    assert pckh.area(*one(0, 2.0)).mean == pytest.approx(1 - 0.2 / 0.5)
    # By the grid PCKh rises from 0 at 0.20 to 1 at 0.21, as 0.201 is right from 0.21 on.
    assert pckh.area(*one(0, 2.01), grid=True).mean == pytest.approx(1 - 0.205 / 0.5)
    assert pckh.area(*one(0, 0.0), grid=True).mean == 1
    curve = [pckh.pckh(*people(2), t).mean for t in pckh.GRID]
    assert pckh.area(*people(2), grid=True).mean == pytest.approx(np.trapezoid(curve, pckh.GRID) / 0.5)


def test_scoring_takes_head_sizes_from_the_norms():
    predictions = make_predictions(skeleton=MPII)
    scoring = pckh.MpiiScoring()
    assert all(math.isnan(v) for v in scoring.score(predictions).values())
    column = NORMS.index("head")
    predictions.norms[:, column] = 15
    predictions.norms[:7, column] = np.nan
    found = scoring.score(predictions)
    expected = loops(
        predictions.pred.astype(float), predictions.joints.astype(float), predictions.visible == ABSENT,
        predictions.norms[:, column].astype(float), 0.5,
    )  # fmt: skip
    assert found["pckh@0.5"] == pytest.approx(expected["mean"])
    assert found["pckh@0.5/knee"] == pytest.approx(expected["knee"])
    assert found["pckh@0.5[plain_mean_16]"] == pytest.approx(expected["plain"])
    names = [n for n in found if "/" not in n]
    assert names == [
        "pckh@0.5", "pckh@0.5[plain_mean_16]", "pckh@0.5[all_weighted_16]", "pckh@0.1", "pckh@0.11", "auc@0.5",
        "auc@0.5[grid_0.01]",
    ]  # fmt: skip


def test_estimated_head_sizes_give_the_measure_another_name():
    predictions = make_predictions(skeleton=MPII)
    predictions.norms[:, NORMS.index("head")] = 15
    official, other = (pckh.MpiiScoring(estimated).score(predictions) for estimated in (False, True))
    np.testing.assert_array_equal(list(official.values()), list(other.values()))
    assert not set(official) & set(other)
    assert [n for n in other if "/" not in n] == [
        "pckh@0.5[estimated_head]", "pckh@0.5[plain_mean_16,estimated_head]", "pckh@0.5[all_weighted_16,estimated_head]",
        "pckh@0.1[estimated_head]", "pckh@0.11[estimated_head]", "auc@0.5[estimated_head]",
        "auc@0.5[grid_0.01,estimated_head]",
    ]  # fmt: skip
    assert "pckh@0.5[estimated_head]/knee" in other
    assert "pckh@0.5[estimated_head]/head[neck+top]" in other


@pytest.mark.real_data
def test_a_published_models_numbers(real_data):
    folder = real_data / "mpii_mini"
    truth = scipy.io.loadmat(folder / "gt_valid.mat")
    with h5py.File(folder / "preds_stacked_hourglass.h5") as file:
        pred = file["preds"][()]
    corners = truth["headboxes_src"]
    head = 0.6 * np.linalg.norm(corners[1] - corners[0], axis=0)
    case = pred, truth["pos_gt_src"].transpose(2, 0, 1), truth["jnt_missing"].T == 1, head
    found = {name: round(100 * value, 3) for name, value in pckh.scores(*case).items()}
    assert {part: found[f"pckh@0.5/{part}"] for part in PUBLISHED} == PUBLISHED
    assert (found["pckh@0.5"], found["pckh@0.1"], found["pckh@0.11"]) == (88.035, 28.647, 32.805)
    expected = loops(*case, 0.5)
    assert found["pckh@0.5[plain_mean_16]"] == round(100 * expected["plain"], 3) == 88.494
    assert found["pckh@0.5[all_weighted_16]"] == round(100 * expected["weighted"], 3) == 88.956
    # All knees together would be 83.095: the published figure is the plain mean of the two sides.
    both = [MPII.index("left_knee"), MPII.index("right_knee")]
    labels = pckh.pckh(*case).labels[both]
    assert round(100 * float(pckh.pckh(*case).per_joint[both] @ labels / labels.sum()), 3) == 83.095
