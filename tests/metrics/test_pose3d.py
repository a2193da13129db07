"""3D errors: values by hand, scipy's Kabsch as an oracle, the published definitions' formulas, and invariances."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.transform import Rotation

from bipose_lit.metrics import pose3d, smooth
from bipose_lit.store import Predictions
from bipose_lit.types import VISIBLE

T, K = 7, 17
seeds = st.integers(0, 2**32 - 1)


def poses(seed, frames=T, scale=500.0):
    return np.random.default_rng(seed).normal(0, scale, (frames, K, 3))


def mean_of(terms, *order):
    """The mean of a measure's terms as a function; of a difference with its order."""
    return lambda *poses, **root: pose3d.mean(terms(*poses, *order, **root))


p_mpjpe = mean_of(pose3d.procrustes_errors)
n_mpjpe = mean_of(pose3d.scaled_errors)
mpjpe = mean_of(pose3d.position_errors)
mpjve = mean_of(pose3d.difference_errors, 1)
accel_error = mean_of(pose3d.difference_errors, 2)
jitter = mean_of(pose3d.difference_sizes, 3)


def rms(errors):
    return np.sqrt((errors**2).mean(axis=-1))


def test_by_hand():
    truth = np.zeros((2, 2, 3))
    pred = truth.copy()
    pred[0, 1] = (3, 4, 0)
    assert mpjpe(pred, truth) == 5 / 4
    pred += (100, 0, 0)
    assert mpjpe(pred, truth, root=0) == 5 / 4  # the root's 0 counts
    assert mpjpe(pred, truth) > 99
    assert mpjve(pred, truth, root=0) == 5 / 2
    assert mpjpe(np.full((1, 2, 2), 3.0), np.zeros((1, 2, 2))) == pytest.approx(np.sqrt(18))  # pixels


def test_differences_by_hand():
    t = np.arange(6.0)[:, None, None] * np.ones((6, 2, 3))
    still = np.zeros((6, 2, 3))
    assert mpjve(t, still) == pytest.approx(np.sqrt(3))
    assert accel_error(t, still) == pytest.approx(0)
    assert accel_error(t**2, still) == pytest.approx(2 * np.sqrt(3))
    assert jitter(t**2) == pytest.approx(0)
    assert jitter(t**3) == pytest.approx(6 * np.sqrt(3))
    assert pose3d.difference_errors(t, still, 1).shape == (5, 2)


@pytest.mark.parametrize(("measure", "order"), [("velocity_error", 1), ("accel_error", 2), ("jitter", 3)])
def test_differences_are_those_of_the_2d_reports(measure, order):
    """`metrics.smooth` measures the same of any rows of 2D predictions; here are whole clips of points in two dimensions."""
    rng = np.random.default_rng(order)
    truth = np.cumsum(rng.normal(0, 3, (9, K, 2)), axis=0).astype(np.float32)
    pred = (truth + rng.normal(0, 2, truth.shape)).astype(np.float32)
    rows = rng.permutation(9)
    made = Predictions(
        uid=rows, clip=np.zeros(9, np.int64), frame=rows, pred=pred[rows], score=np.ones((9, K), np.float32), joints=truth[rows],
        visible=np.full((9, K), VISIBLE), norms=np.ones((9, 4), np.float32), fps=np.full(9, 50, np.float32), clips=("a",),
        clusters=("a",), joint_names=tuple(map(str, range(K))), data="made",
    )  # fmt: skip
    found = smooth.differences(made, measure)
    values = found.values[np.argsort(rows)][found.defined[np.argsort(rows)].all(axis=1)]
    own = pose3d.difference_sizes(pred, 3) if measure == "jitter" else pose3d.difference_errors(pred, truth, order)
    np.testing.assert_allclose(own, values, rtol=1e-12)
    assert len(own) == 9 - order


def test_clips_too_short_have_no_difference():
    one = np.ones((1, K, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(mpjve(one, one))
        assert np.isnan(accel_error(one, one))
        assert np.isnan(jitter(one))
        assert np.isnan(mpjpe(one[:0], one[:0]))
        assert np.isnan(p_mpjpe(one[:0], one[:0]))


@given(seeds)
def test_procrustes_is_kabsch_with_scale(seed):
    pred, truth = poses(seed), poses(seed + 1)
    moved = pose3d.procrustes(pred, truth)
    for p, q, m in zip(pred, truth, moved, strict=True):
        p, q0 = p - p.mean(axis=0), q.mean(axis=0)
        turn, _ = Rotation.align_vectors(q - q0, p)  # proper rotations alone
        turned = turn.apply(p)
        scale = (turned * (q - q0)).sum() / (turned**2).sum()
        np.testing.assert_allclose(m, scale * turned + q0, atol=1e-7)


@given(seeds)
def test_where_no_reflection_helps_it_is_scipys_procrustes(seed):
    truth = poses(seed, 1)[0]
    pred = truth + np.random.default_rng(seed).normal(0, 20, truth.shape)
    _, _, disparity = scipy_procrustes(truth, pred)
    own = (pose3d.procrustes_errors(pred, truth) ** 2).sum() / ((truth - truth.mean(axis=0)) ** 2).sum()
    assert own == pytest.approx(disparity, rel=1e-9)


def published(pred, truth):
    """VideoPose3D's procedure, written down anew from its definition, one frame at a time."""
    p, q = pred - pred.mean(axis=0), truth - truth.mean(axis=0)
    size_p, size_q = np.linalg.norm(p), np.linalg.norm(q)
    u, s, vt = np.linalg.svd((q / size_q).T @ (p / size_p))
    if np.linalg.det(vt.T @ u.T) < 0:
        vt[-1] *= -1
        s[-1] *= -1
    moved = s.sum() * size_q / size_p * p @ (vt.T @ u.T) + truth.mean(axis=0)
    return np.linalg.norm(moved - truth, axis=-1)


@given(seeds, st.sampled_from([1.0, -1.0]))
def test_procrustes_is_the_published_one(seed, mirrored):
    pred, truth = poses(seed) * (mirrored, 1, 1), poses(seed)
    pred = pred + np.random.default_rng(seed).normal(0, 50, pred.shape)
    expected = [published(p, q) for p, q in zip(pred, truth, strict=True)]
    np.testing.assert_allclose(pose3d.procrustes_errors(pred, truth), expected, atol=1e-7)


def test_a_mirrored_pose_is_not_a_hit():
    truth = poses(3)
    assert p_mpjpe(truth * (-1, 1, 1), truth) > 50


@given(seeds, st.floats(0.01, 100), st.floats(-1e4, 1e4))
def test_p_mpjpe_ignores_similarities_of_the_prediction(seed, scale, shift):
    pred, truth = poses(seed), poses(seed + 1)
    turn = Rotation.random(random_state=seed % 2**31).as_matrix()
    moved = scale * pred @ turn.T + shift
    np.testing.assert_allclose(pose3d.procrustes_errors(moved, truth), pose3d.procrustes_errors(pred, truth), atol=1e-6)
    assert p_mpjpe(scale * truth @ turn.T + shift, truth) < 1e-6


@given(seeds, st.floats(0.01, 100))
def test_n_mpjpe_ignores_the_scale_and_is_optimal(seed, scale):
    pred, truth = poses(seed), poses(seed + 1)
    assert n_mpjpe(scale * pred, truth) == pytest.approx(n_mpjpe(pred, truth), rel=1e-9)
    assert n_mpjpe(scale * truth, truth, root=0) < 1e-9
    best = rms(pose3d.scaled_errors(pred, truth))
    for factor in np.linspace(-2, 2, 41):
        assert (best <= rms(pose3d.position_errors(factor * pred, truth)) + 1e-9).all()


@given(seeds, st.floats(-1e4, 1e4))
def test_root_relative_errors_ignore_translation(seed, shift):
    pred, truth = poses(seed), poses(seed + 1)
    moved = pred + shift * np.random.default_rng(seed).normal(size=(T, 1, 3))
    for measure in (mpjpe, n_mpjpe, mpjve, accel_error):
        assert measure(moved, truth, root=0) == pytest.approx(measure(pred, truth, root=0), rel=1e-8)


@given(seeds, st.floats(0, 3))
def test_each_alignment_lowers_the_root_mean_square(seed, noise):
    truth = pose3d.relative(poses(seed), 0)
    pred = pose3d.relative(truth + noise * poses(seed + 1), 0)
    p, n, plain = (
        rms(f(pred, truth)) for f in (pose3d.procrustes_errors, pose3d.scaled_errors, pose3d.position_errors)
    )
    assert (n <= plain + 1e-9).all()
    positive = (pred * truth).sum(axis=(-1, -2)) >= 0
    assert (p[positive] <= n[positive] + 1e-9).all()


def test_in_the_mean_of_distances_the_order_is_not_certain():
    """One joint is off: alignment lowers its error and gives every other joint some."""
    truth = np.random.default_rng(1).normal(0, 10, (1, K, 3))
    pred = truth.copy()
    pred[0, 5] += 10
    assert p_mpjpe(pred, truth) > mpjpe(pred, truth)
    assert rms(pose3d.procrustes_errors(pred, truth)) < rms(pose3d.position_errors(pred, truth))


def test_degenerate_poses():
    truth, one_place = poses(0, 2), np.full((2, K, 3), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        centroid = np.linalg.norm(truth - truth.mean(axis=1, keepdims=True), axis=-1)
        np.testing.assert_allclose(pose3d.procrustes_errors(one_place, truth), centroid)
        np.testing.assert_allclose(pose3d.procrustes_errors(truth, one_place), 0, atol=1e-9)
        np.testing.assert_allclose(pose3d.procrustes_errors(one_place, one_place), 0, atol=1e-9)
        np.testing.assert_allclose(
            pose3d.scaled_errors(one_place, truth, root=0), np.linalg.norm(truth - truth[:, :1], axis=-1)
        )
        line = np.zeros((2, K, 3))
        line[..., 0] = np.arange(K)
        turned = line @ Rotation.from_euler("xyz", [1, 2, 3]).as_matrix().T
        np.testing.assert_allclose(pose3d.procrustes_errors(line, 7 * turned), 0, atol=1e-9)
        for factor in (1e-200, 1e150):  # squares would vanish or overflow
            np.testing.assert_allclose(pose3d.procrustes_errors(truth * factor, truth), 0, atol=1e-9)
            np.testing.assert_allclose(pose3d.scaled_errors(truth * factor, truth), 0, atol=1e-9)


def test_nan_stays_in_its_frame():
    truth, pred = poses(0), poses(1)
    pred[2, 3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for errors in (pose3d.procrustes_errors(pred, truth), pose3d.scaled_errors(pred, truth)):
            assert np.isnan(errors[2]).all()
            assert np.isfinite(np.delete(errors, 2, 0)).all()
        assert np.isnan(pose3d.position_errors(pred, truth)).sum() == 1
        assert np.isnan(mpjpe(pred, truth))


def test_leading_axes_and_one_frame():
    pred, truth = poses(0, 6), poses(1, 6)
    many = pose3d.procrustes_errors(pred.reshape(2, 3, K, 3), truth.reshape(2, 3, K, 3))
    np.testing.assert_array_equal(many.reshape(6, K), pose3d.procrustes_errors(pred, truth))
    np.testing.assert_allclose(pose3d.procrustes_errors(pred[0], truth[0]), many[0, 0], atol=1e-9)
    with pytest.raises(ValueError, match="one shape"):
        mpjpe(pred[:, :16], truth)
    half = mpjpe(pred.astype(np.float32), truth.astype(np.float32))
    assert half == pytest.approx(mpjpe(pred, truth), rel=1e-6)
