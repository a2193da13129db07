"""Reference rows against naive filters written joint by joint."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import savgol_filter

from bipose_lit.metrics import reference
from bipose_lit.metrics.summary import mean_of
from bipose_lit.types import ABSENT, NORMS, VISIBLE, BiposeError


def _tracks(p):
    """(rows of consecutive frames) of each clip, in order."""
    order = sorted(range(len(p.uid)), key=lambda i: (p.clip[i], p.frame[i]))
    runs = [[order[0]]]
    for a, b in pairwise(order):
        if p.clip[a] == p.clip[b] and p.frame[b] == p.frame[a] + 1:
            runs[-1].append(b)
        else:
            runs.append([b])
    return runs


def _kalman(z, conf, q, power, smooth):
    """Textbook filter and smoother of one coordinate, in full matrices."""
    F, H = np.array([[1.0, 1], [0, 1]]), np.array([[1.0, 0]])
    Q = q**2 * np.array([[0.25, 0.5], [0.5, 1]])
    x, P = np.array([z[0], 0.0]), np.diag([conf[0] ** -power, 1e4])
    xs, Ps, xp, Pp = [x], [P], [x], [P]
    for t in range(1, len(z)):
        a, A = F @ x, F @ P @ F.T + Q
        K = A @ H.T / (H @ A @ H.T + conf[t] ** -power)
        x, P = a + (K @ (z[t] - H @ a)).ravel(), (np.eye(2) - K @ H) @ A
        xs.append(x), Ps.append(P), xp.append(a), Pp.append(A)
    if smooth:
        for t in range(len(z) - 2, -1, -1):
            G = Ps[t] @ F.T @ np.linalg.inv(Pp[t + 1])
            xs[t] = xs[t] + G @ (xs[t + 1] - xp[t + 1])
    return np.array([v[0] for v in xs])


def _one_euro(z, fps, min_cutoff, beta, d_cutoff):
    alpha = lambda c: 1 / (1 + (1 / (2 * np.pi * c)) * fps)  # noqa: E731
    last, speed, out = z[0], 0.0, [z[0]]
    for v in z[1:]:
        speed = alpha(d_cutoff) * (v - last) * fps + (1 - alpha(d_cutoff)) * speed
        a = alpha(min_cutoff + beta * abs(speed))
        last = a * v + (1 - a) * last
        out.append(last)
    return np.array(out)


@pytest.mark.parametrize("name", ["kalman", "rts", "one_euro", "savitzky_golay"])
def test_filters_equal_loops(predictions, name):
    p = predictions
    params = {
        "kalman": {"process": 0.4, "power": 1.5},
        "rts": {"process": 0.4, "power": 1.5},
        "one_euro": {"min_cutoff": 2.0, "beta": 3.0, "d_cutoff": 1.0},
        "savitzky_golay": {"window": 5, "order": 2},
    }[name]
    found = reference.FILTERS[name][0](p, **params)
    assert np.array_equal(found.score, p.score)
    for rows in _tracks(p):
        scale = float(p.norms[rows[0], NORMS.index("clip")])
        for k in (0, 4):
            for i in (0, 1):
                z = p.pred[rows, k, i].astype(float)
                if name in ("kalman", "rts"):
                    want = _kalman(z, p.score[rows, k].astype(float), 0.4, 1.5, name == "rts")
                elif name == "one_euro":
                    want = _one_euro(z / scale, 25.0, 2.0, 3.0, 1.0) * scale
                else:
                    width = min(5, len(z) if len(z) % 2 else len(z) - 1)
                    want = savgol_filter(z, width, 2) if width > 2 else z
                assert np.allclose(found.pred[rows, k, i], want, atol=2e-4), (name, len(rows))


@pytest.mark.parametrize("name", ["kalman", "one_euro"])
def test_causal_filters_never_look_ahead(make, name):
    p = make(gaps=False, clips=2)
    later = replace(p, pred=p.pred + (p.frame >= 6)[:, None, None].astype(np.float32) * 50)
    smoother = reference.FILTERS[name][0]
    before = p.frame < 6
    assert np.array_equal(smoother(p).pred[before], smoother(later).pred[before])
    assert not np.array_equal(reference.rts(p).pred[before], reference.rts(later).pred[before])


@pytest.mark.parametrize("name", reference.FILTERS)
def test_filters_scale_with_the_picture_and_do_not_mind_order(make, name):
    p = make(clips=3)
    smoother, grid = reference.FILTERS[name]
    params = grid[len(grid) // 2]
    found = smoother(p, **params)
    twice = replace(p, pred=p.pred * 2, norms=p.norms * 2)
    assert np.allclose(smoother(twice, **params).pred, found.pred * 2, atol=1e-2)
    order = np.random.default_rng(0).permutation(len(p.uid))
    fields = ("uid", "clip", "frame", "pred", "score", "joints", "visible", "norms", "fps")
    mixed = replace(p, **{f: getattr(p, f)[order] for f in fields})
    assert np.allclose(smoother(mixed, **params).pred, found.pred[order], atol=1e-4)


@pytest.mark.parametrize("name", reference.FILTERS)
def test_first_grid_point_leaves_predictions_nearly_alone(predictions, name):
    smoother, grid = reference.FILTERS[name]
    moved = np.abs(smoother(predictions, **grid[0]).pred - predictions.pred).max()
    assert moved < 0.5
    assert 20 <= len(grid) <= 30
    assert len({tuple(sorted(g.items())) for g in grid}) == len(grid)


def _smooth_data(make):
    """Straight uniform motion under noise: any sensible smoother must win."""
    p = make(clips=6, frames=30, gaps=False, noise=0)
    rng = np.random.default_rng(3)
    line = (p.frame[:, None, None] * rng.uniform(-2, 2, (6, 13, 2))[p.clip] + 100).astype(np.float32)
    p.visible[:] = VISIBLE
    return replace(
        p, joints=line, pred=line + rng.normal(0, 4, line.shape).astype(np.float32), score=np.ones_like(p.score)
    )


@pytest.mark.parametrize("name", reference.FILTERS)
def test_tuned_filters_denoise(make, name):
    p = _smooth_data(make)
    params, (found,) = reference.tuned(name, p, [p], "error_px")
    raw, tuned = mean_of(p, "error_px"), mean_of(found, "error_px")
    assert tuned < 0.85 * raw
    values = [mean_of(reference.FILTERS[name][0](p, **g), "error_px") for g in reference.FILTERS[name][1]]
    assert tuned == pytest.approx(min(values))
    assert params in reference.FILTERS[name][1]


def test_confidence_weighting_bridges_an_occlusion(make):
    p = _smooth_data(make)
    hidden = (p.frame >= 10) & (p.frame < 16)
    p.pred[hidden] += np.float32(60)
    p.score[hidden] = 0.05
    blind, weighted = reference.rts(p, process=0.03, power=0.0), reference.rts(p, process=0.03, power=4.0)
    assert mean_of(weighted, "error_px") < 0.2 * mean_of(blind, "error_px")


def test_tune_direction_ties_and_refusals(predictions):
    p = predictions
    same = lambda q, **_: q  # noqa: E731
    assert reference.tune(same, [p, p], ({"a": 1.0}, {"a": 2.0})) == {"a": 1.0}
    spoil = lambda q, by: replace(q, pred=q.pred + np.float32(by))  # noqa: E731
    grid = ({"by": 30.0}, {"by": 0.0}, {"by": 5.0})
    assert reference.tune(spoil, p, grid, "error_px") == {"by": 0.0}
    assert reference.tune(spoil, p, grid, "pck@0.1[clip]") == {"by": 0.0}
    with pytest.raises(BiposeError, match="grid is empty"):
        reference.tune(same, p, ())
    with pytest.raises(BiposeError, match="unknown"):
        reference.tuned("median", p, [p])


def test_lines_through_labels(predictions):
    p = predictions
    line, hold = reference.labels_line(p), reference.labels_hold(p)
    seen = p.visible == VISIBLE
    assert np.array_equal(line.pred[seen], p.joints[seen])
    assert np.array_equal(hold.pred[seen], p.joints[seen])
    for i in range(len(p.uid)):
        for k in range(13):
            known = sorted((p.frame[m], m) for m in range(len(p.uid)) if p.clip[m] == p.clip[i] and seen[m, k])
            past = [m for f, m in known if f <= p.frame[i]]
            future = [m for f, m in known if f >= p.frame[i]]
            a, b = past[-1] if past else None, future[0] if future else None
            assert np.array_equal(hold.pred[i, k], p.joints[a, k] if past else p.pred[i, k])
            if a is not None and b is not None and a != b:
                w = (p.frame[i] - p.frame[a]) / (p.frame[b] - p.frame[a])
                want = (1 - w) * p.joints[a, k] + w * p.joints[b, k]
            elif a is None and b is None:
                want = p.pred[i, k]
            else:
                want = p.joints[b if a is None else a, k]
            assert np.allclose(line.pred[i, k], want, atol=1e-3)


@dataclass
class _Track:
    joints: np.ndarray
    visible: np.ndarray
    boxes: np.ndarray
    uid: np.ndarray


def test_mean_pose(predictions):
    p = predictions
    rng = np.random.default_rng(0)
    pose = rng.uniform(0, 1, (13, 2))
    boxes = np.concatenate([rng.uniform(0, 50, (40, 2)), rng.uniform(50, 90, (40, 2))], axis=1).astype(np.float32)
    joints = (boxes[:, None, :2] - 0.5 + pose * boxes[:, None, 2:]).astype(np.float32)
    visible = rng.integers(0, 3, (40, 13)).astype(np.uint8)
    visible[:, 12] = ABSENT
    joints[visible == ABSENT] = 0
    train = [
        _Track(joints[:25], visible[:25], boxes[:25], np.arange(25)),
        _Track(joints[25:], visible[25:], boxes[25:], np.arange(15)),
    ]
    fitted = reference.fit_mean_pose(train)
    assert np.allclose(fitted[:12], pose[:12], atol=1e-5)
    assert fitted[12].tolist() == [0.5, 0.5]
    n = len(p.uid)
    where = np.tile(np.array([10, 20, 30, 60], np.float32), (n, 1))
    mixed = rng.permutation(n)
    found = reference.mean_pose(p, pose, [_Track(p.joints, p.visible, where, p.uid[mixed])])
    assert np.allclose(found.pred, [9.5, 19.5] + pose * [30, 60], atol=1e-4)
    with pytest.raises(BiposeError, match="not in the index"):
        reference.mean_pose(p, pose, [_Track(p.joints, p.visible, where, p.uid + 1)])
    with pytest.raises(BiposeError, match="no track"):
        reference.fit_mean_pose([])
