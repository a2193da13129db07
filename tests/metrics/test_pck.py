"""PCK and its area against loops over persons and joints."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit.metrics import pck
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, VISIBLE


@pytest.mark.parametrize("name", ["bbox", "clip", "torso", "area"])
@pytest.mark.parametrize("threshold", pck.THRESHOLDS)
@pytest.mark.parametrize("flags", [(OCCLUDED, VISIBLE), (VISIBLE,), (OCCLUDED,)])
def test_pck_and_auc_equal_loops(predictions, name, threshold, flags):
    p = predictions
    mask = np.isin(p.visible, flags)
    distance, norm = pck.distances(p.pred, p.joints), pck.normaliser(p.norms, name)
    found = pck.pck(distance, norm, mask, threshold)
    area = pck.auc(distance, norm, mask)
    hits, areas, counts, excluded = {}, {}, {}, 0
    grid = np.linspace(0, 0.2, 4001)
    for i in range(len(p.uid)):
        size = float(p.norms[i, NORMS.index(name)])
        labelled = [k for k in range(13) if p.visible[i, k] in flags]
        if math.isnan(size):
            excluded += bool(labelled)
            continue
        for k in labelled:
            a, b = p.pred[i, k].astype(float), p.joints[i, k].astype(float)
            e = math.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / size
            hits[k] = hits.get(k, 0) + (e <= threshold)
            areas[k] = areas.get(k, 0) + float(np.mean(e <= grid)) if e <= 0.3 else areas.get(k, 0)
            counts[k] = counts.get(k, 0) + 1
    assert found.excluded == excluded
    assert found.mean == pytest.approx(sum(hits.values()) / sum(counts.values()), abs=1e-12)
    assert found.joint_mean == pytest.approx(np.mean([hits[k] / counts[k] for k in counts]), abs=1e-12)
    assert found.group([3, 4]) == pytest.approx((hits[3] + hits[4]) / (counts[3] + counts[4]), abs=1e-12)
    assert found.per_joint[5] == pytest.approx(hits[5] / counts[5], abs=1e-12)
    assert area.mean == pytest.approx(sum(areas.values()) / sum(counts.values()), abs=1e-3)


@given(st.integers(1, 400), st.sampled_from(pck.THRESHOLDS))
def test_boundary_counts(size, threshold):
    """A joint exactly at the threshold is correct; one that is a hair further is not."""
    exact = np.array([[threshold * size]])
    # The quotient may round up by one unit; whole distances such as 2 of 20 are exact.
    if size % 20 == 0:
        whole = np.array([[round(threshold * size)]], dtype=float)
        assert pck.correct(whole, np.array([float(size)]), threshold).all()
    assert not pck.correct(exact * (1 + 1e-9), np.array([float(size)]), threshold).any()
    assert pck.correct(exact * (1 - 1e-9), np.array([float(size)]), threshold).all()


def test_nothing_labelled_is_nan_not_zero():
    empty = pck.pck(np.ones((3, 2)), np.ones(3), np.zeros((3, 2), bool), 0.1)
    assert math.isnan(empty.mean)
    assert math.isnan(empty.joint_mean)
    assert math.isnan(empty.group([0]))
    assert np.isnan(empty.per_joint).all()


def test_bad_normalisers_are_undefined():
    norms = np.zeros((4, len(NORMS)), np.float32)
    norms[:, 0] = [10, 0, -1, np.nan]
    assert np.array_equal(np.isfinite(pck.normaliser(norms, "bbox")), [True, False, False, False])


def test_absent_joints_never_matter(predictions):
    p = predictions
    mask = p.visible != ABSENT
    norm = pck.normaliser(p.norms, "clip")
    moved = p.pred.copy()
    moved[~mask] = 1e6
    before = pck.pck(pck.distances(p.pred, p.joints), norm, mask, 0.1)
    after = pck.pck(pck.distances(moved, p.joints), norm, mask, 0.1)
    assert np.array_equal(before.total, after.total)
