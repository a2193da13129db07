"""Human3.6M's protocols: numbers by hand and by the published procedure, layouts, units, and what bad predictions are told."""

import json

import numpy as np
import pytest

from bipose_lit.datasets.h36m_files import KEPT
from bipose_lit.evaluate.command import evaluate as command
from bipose_lit.evaluate.h36m import evaluate
from bipose_lit.metrics import pose3d
from bipose_lit.skeletons import H36M
from bipose_lit.types import BiposeError


def body(seed, frames=6, joints=32):
    rng = np.random.default_rng(seed)
    return rng.normal((0, 0, 1), (0.3, 0.3, 0.4), (1, joints, 3)) + np.cumsum(
        rng.normal(0, 0.01, (frames, joints, 3)), axis=0
    )


def truth():
    return {
        s: {"Walking": body(i, 6), "Walking 1": body(i + 10, 4), "Eating": body(i + 20, 20)}
        for i, s in enumerate(("S1", "S9", "S11"))
    }


def noisy(labels, sigma=0.03):
    rng = np.random.default_rng(5)
    return {
        s: {a: p + rng.normal(0, sigma, p.shape) for a, p in acts.items()} for s, acts in labels.items() if s != "S1"
    }


def save(path, content):
    np.savez(path, positions_3d=np.array(content, dtype=object))
    return path


@pytest.fixture
def files(tmp_path):
    return save(tmp_path / "labels.npz", truth()), save(tmp_path / "pred.npz", noisy(truth()))


def test_the_published_procedure(files):
    """VideoPose3D's evaluation: per action the frames' mean, then the mean of the actions."""
    outcome = evaluate(*files)
    labels, pred = truth(), noisy(truth())
    by_action = {}
    for subject in ("S9", "S11"):
        for action in labels[subject]:
            q, p = (x[subject][action][:, KEPT] * 1000 for x in (labels, pred))
            q, p = q - q[:, :1], p - p[:, :1]
            by_action.setdefault(action.split(" ")[0], []).append((p, q))
    measures = {"mpjpe": pose3d.mpjpe, "p_mpjpe": pose3d.p_mpjpe, "n_mpjpe": pose3d.n_mpjpe}
    for name, measure in measures.items():
        means, weights = [], []
        for action, pairs in by_action.items():
            p, q = (np.concatenate(x) for x in zip(*pairs, strict=True))
            means.append(measure(p, q))
            weights.append(len(p))
            assert outcome.metrics[f"{name}/action:{action}"] == pytest.approx(means[-1])
        assert outcome.metrics[f"{name}[action_mean]"] == pytest.approx(np.mean(means))
        assert outcome.metrics[name] == pytest.approx(np.average(means, weights=weights))
    steps = np.concatenate(
        [np.linalg.norm(np.diff(p - q, axis=0), axis=-1) for pairs in by_action.values() for p, q in pairs]
    )
    assert outcome.metrics["mpjve"] == pytest.approx(steps.mean())
    assert outcome.metrics["mpjve/left_wrist"] == pytest.approx(steps[:, H36M.index("left_wrist")].mean())
    assert outcome.counts == {"subjects": 2, "takes": 6, "frames": 60, "joints": 17}
    assert outcome.metrics["mpjpe/pelvis"] == 0
    assert 40 < outcome.metrics["mpjpe"] < 90
    assert outcome.metrics["p_mpjpe"] < outcome.metrics["n_mpjpe"] < outcome.metrics["mpjpe"]
    assert list(outcome.metrics)[:4] == ["mpjpe", "mpjpe[action_mean]", "p_mpjpe", "p_mpjpe[action_mean]"]


def test_a_perfect_prediction_anywhere(files, tmp_path):
    moved = {s: {a: p + 0.7 for a, p in acts.items()} for s, acts in truth().items()}
    outcome = evaluate(files[0], save(tmp_path / "moved.npz", moved))
    assert max(outcome.metrics.values()) < 1e-9
    grown = {s: {a: (p - p[:, :1]) * 1.5 for a, p in acts.items()} for s, acts in truth().items()}
    outcome = evaluate(files[0], save(tmp_path / "grown.npz", grown))
    assert outcome.metrics["mpjpe"] > 100
    assert outcome.metrics["n_mpjpe"] < 1e-9
    assert outcome.metrics["p_mpjpe"] < 1e-9


def test_layouts_and_units_give_the_same_numbers(files, tmp_path):
    expected = evaluate(*files).metrics
    pred = noisy(truth())

    def same(other):
        assert other.keys() == expected.keys()
        assert all(other[k] == pytest.approx(expected[k], rel=1e-9, abs=1e-9) for k in expected)

    reduced = {s: {a: p[:, KEPT] for a, p in acts.items()} for s, acts in pred.items()}
    same(evaluate(files[0], save(tmp_path / "a.npz", reduced)).metrics)
    np.savez(tmp_path / "b.npz", **{f"{s}/{a}/positions_3d": p for s, acts in reduced.items() for a, p in acts.items()})
    same(evaluate(files[0], tmp_path / "b.npz").metrics)
    millimetres = {s: {a: p * 1000 for a, p in acts.items()} for s, acts in pred.items()}
    same(evaluate(files[0], save(tmp_path / "c.npz", millimetres), unit="mm").metrics)
    labels = {s: {a: p * 1000 for a, p in acts.items()} for s, acts in truth().items()}
    save(tmp_path / "labels_mm.npz", labels)
    same(evaluate(tmp_path / "labels_mm.npz", tmp_path / "c.npz").metrics)
    same(evaluate(tmp_path / "labels_mm.npz", files[1], unit="m").metrics)
    listed = {s: {a: [p] for a, p in acts.items()} for s, acts in truth().items()}
    same(
        evaluate(
            save(tmp_path / "d.npz", listed),
            save(tmp_path / "e.npz", {s: {a: [p] for a, p in x.items()} for s, x in pred.items()}),
        ).metrics
    )


def test_subjects(files, tmp_path):
    outcome = evaluate(*files, subjects=["S9"])
    assert outcome.counts["takes"] == 3
    with pytest.raises(BiposeError, match="has no subject S5; it holds S1, S11, S9"):
        evaluate(*files, subjects=["S9", "S5"])
    with pytest.raises(BiposeError, match=r"no prediction for S1/Walking"):
        evaluate(*files, subjects=["S1"])
    with pytest.raises(BiposeError, match="none was named"):
        evaluate(*files, subjects=[])
    few = {s: acts for s, acts in truth().items() if s == "S11"}
    outcome = evaluate(save(tmp_path / "few.npz", few), files[1])
    assert outcome.counts["subjects"] == 1
    assert "S11 alone: the labels hold no other of S9, S11" in outcome.notes
    with pytest.raises(BiposeError, match="has no subject S9, S11; it holds S1"):
        evaluate(save(tmp_path / "none.npz", {"S1": truth()["S1"]}), files[1])


def test_frames_without_labels_are_left_out_and_told(files, tmp_path):
    labels = truth()
    labels["S9"]["Eating"][3, 2] = np.nan
    labels["S11"]["Walking"][:, :] = np.nan
    outcome = evaluate(save(tmp_path / "nan.npz", labels), files[1])
    assert outcome.counts["frames"] == 53
    assert outcome.counts["frames_left_out"] == 7
    assert np.isfinite(list(outcome.metrics.values())).all()
    assert any("7 frames left out" in note for note in outcome.notes)


def test_a_clip_of_one_frame_has_no_velocity(tmp_path):
    labels = save(tmp_path / "a.npz", {"S9": {"Walking": body(0, 1)}})
    outcome = evaluate(labels, labels, subjects=["S9"])
    assert np.isnan(outcome.metrics["mpjve"])
    assert np.isnan(outcome.metrics["mpjve[action_mean]"])
    assert outcome.metrics["mpjpe"] == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "S9/Walking: expected an array"),
        (body(1, 5), "S9/Walking has 5 frames where the labels have 6"),
        (body(1, 6, 16), "S9/Walking: has the shape"),
        (np.full((6, 17, 3), np.nan), "S9/Walking: frame 0 holds numbers that are not finite"),
        (np.full((6, 17, 3), 1e200), "S9/Walking: frame 0 holds numbers"),
        (np.array(["a"]), "S9/Walking: expected an array"),
        ([body(1, 6)], "S9/Walking has 1 arrays|where the labels have"),
        ({"a": body(1, 6)}, "S9/Walking: expected an array"),
    ],
)
def test_bad_predictions(files, tmp_path, value, told):
    pred = noisy(truth())
    pred["S9"]["Walking"] = value
    with pytest.raises(BiposeError, match=told) as error:
        evaluate(files[0], save(tmp_path / "bad.npz", pred))
    assert "\n" not in str(error.value)


def test_a_unit_mistaken(files, tmp_path):
    with pytest.raises(BiposeError, match="predicted persons have 1e\\+03 times the labels' size; are they in mm"):
        evaluate(
            files[0], save(tmp_path / "mm.npz", {s: {a: p * 1000 for a, p in x.items()} for s, x in truth().items()})
        )
    with pytest.raises(BiposeError, match=r"0\.001 times the labels' size; are they in m"):
        evaluate(*files, unit="mm")
    with pytest.raises(BiposeError, match="unit 'cm'"):
        evaluate(*files, unit="cm")
    with pytest.raises(BiposeError, match="neither metres nor millimetres"):
        evaluate(save(tmp_path / "odd.npz", {"S9": {"W": body(0) * 30}, "S11": {"W": body(0) * 30}}), files[1])


def test_a_prediction_of_one_place_is_scored_not_refused(files, tmp_path):
    still = {s: {a: np.zeros((len(p), 17, 3)) for a, p in acts.items()} for s, acts in truth().items()}
    outcome = evaluate(files[0], save(tmp_path / "zero.npz", still))
    assert outcome.metrics["mpjpe"] > 300
    assert np.isfinite(list(outcome.metrics.values())).all()


def test_missing_and_further_takes(files, tmp_path):
    pred = noisy(truth())
    pred["S9"]["Sitting"] = body(1)
    outcome = evaluate(files[0], save(tmp_path / "more.npz", pred))
    assert any("1 predicted takes left out" in note for note in outcome.notes)
    del pred["S11"]["Eating"]
    with pytest.raises(BiposeError, match="no prediction for S11/Eating"):
        evaluate(files[0], save(tmp_path / "less.npz", pred))


def test_the_command(files, tmp_path, capsys):
    outcome = command("h36m", *files, json=tmp_path / "out.json", subjects=["S9"], unit="m")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["metrics"]["mpjpe"] == outcome.metrics["mpjpe"]
    shown = capsys.readouterr().out
    assert "p_mpjpe[action_mean]" in shown
    assert "action:Walking" in shown
    assert "left_wrist" in shown
    assert "%" not in shown
