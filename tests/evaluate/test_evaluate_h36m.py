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


def test_root_relative_errors_by_action(files):
    """Per action the frames' mean, then the mean of the actions; the root subtracted from predictions and labels."""
    outcome = evaluate(*files)
    labels, pred = truth(), noisy(truth())
    by_action = {}
    for subject in ("S9", "S11"):
        for action in labels[subject]:
            q, p = (x[subject][action][:, KEPT] * 1000 for x in (labels, pred))
            q, p = q - q[:, :1], p - p[:, :1]
            by_action.setdefault(action.split(" ")[0], []).append((p, q))
    measures = {
        "mpjpe": lambda p, q: np.linalg.norm(p - q, axis=-1).mean(),
        "p_mpjpe": lambda p, q: pose3d.procrustes_errors(p, q).mean(),
        "n_mpjpe": lambda p, q: pose3d.scaled_errors(p, q).mean(),
    }
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
    for name, order, reads in (("accel_error", 2, lambda p, q: p - q), ("jitter", 3, lambda p, q: p)):
        terms = [
            np.linalg.norm(np.diff(reads(p, q), n=order, axis=0), axis=-1)
            for pairs in by_action.values()
            for p, q in pairs
        ]
        assert outcome.metrics[name] == pytest.approx(np.concatenate(terms).mean())
        means = [np.concatenate(terms[i : i + n]).mean() for i, n in ((0, 4), (4, 2))]
        assert outcome.metrics[f"{name}[action_mean]"] == pytest.approx(np.mean(means))
    assert outcome.counts == {"subjects": 2, "takes": 6, "views": 6, "frames": 60, "joints": 17}
    assert outcome.about == {
        "subjects": "S9 and S11",
        "unit": "mm (labels in m, predictions in m)",
        "axes": "the labels' own",
    }
    assert outcome.metrics["mpjpe/pelvis"] == 0
    assert 40 < outcome.metrics["mpjpe"] < 90
    assert outcome.metrics["p_mpjpe"] < outcome.metrics["n_mpjpe"] < outcome.metrics["mpjpe"]
    assert list(outcome.metrics)[:6] == [
        "mpjpe", "mpjpe[action_mean]", "mpjpe[as_given]", "mpjpe[as_given,action_mean]", "p_mpjpe", "p_mpjpe[action_mean]"
    ]  # fmt: skip
    assert [name for name in outcome.metrics if "as_given" in name] == list(outcome.metrics)[2:4]


def run_py(labels, pred):
    """What VideoPose3D's `run.py` prints, in mm: `evaluate` on each action's takes, then the plain mean of the actions.

    There a label has its root set to 0 (`inputs_3d[:, :, 0] = 0`, the others are relative to it already), a prediction is as the
    network gave it; the mean of each take, over frames or steps, is weighted with its frames.
    """
    actions = {}
    for subject, takes in labels.items():
        for action in takes:
            actions.setdefault(action.split(" ")[0], []).append((subject, action))
    errors = {}
    for name, members in actions.items():
        N = position = velocity = 0
        for subject, action in members:
            target = labels[subject][action][:, KEPT] - labels[subject][action][:, KEPT[:1]]
            predicted = pred[subject][action]
            N += len(target)
            position += len(target) * np.mean(np.linalg.norm(predicted - target, axis=-1))
            steps = np.diff(predicted, axis=0) - np.diff(target, axis=0)
            velocity += len(target) * np.mean(np.linalg.norm(steps, axis=-1))
        errors[name] = np.array([position, velocity]) / N * 1000
    return np.mean(list(errors.values()), axis=0)


def test_videopose3ds_own_number(files, tmp_path):
    labels = {s: truth()[s] for s in ("S9", "S11")}
    rng = np.random.default_rng(8)
    pred = {
        s: {a: (p - p[:, :1])[:, KEPT] + rng.normal(0, 0.03, (len(p), 17, 3)) for a, p in x.items()}
        for s, x in labels.items()
    }
    outcome = evaluate(files[0], save(tmp_path / "a.npz", pred))
    position, _ = run_py(labels, pred)
    assert outcome.metrics["mpjpe[as_given,action_mean]"] == pytest.approx(position)
    assert abs(outcome.metrics["mpjpe[action_mean]"] - position) > 1  # the root's noise is subtracted from all others
    # With roots at 0, as most networks give them, both agree; velocities do where an action's takes have one length.
    rooted = {s: {a: p * (np.arange(17) > 0)[:, None] for a, p in x.items()} for s, x in pred.items()}
    outcome = evaluate(files[0], save(tmp_path / "b.npz", rooted))
    position, velocity = run_py(labels, rooted)
    for name in ("mpjpe[as_given,action_mean]", "mpjpe[action_mean]"):
        assert outcome.metrics[name] == pytest.approx(position)
    assert outcome.metrics["mpjve[action_mean]"] != pytest.approx(velocity, rel=1e-6)
    same = {s: {a: p[:4] for a, p in x.items()} for s, x in rooted.items()}
    cut = {s: {a: p[:4] for a, p in x.items()} for s, x in labels.items()}
    outcome = evaluate(save(tmp_path / "c.npz", cut), save(tmp_path / "d.npz", same))
    assert outcome.metrics["mpjve[action_mean]"] == pytest.approx(run_py(cut, same)[1])


def test_a_perfect_prediction_anywhere(files, tmp_path):
    moved = {s: {a: p + 0.7 for a, p in acts.items()} for s, acts in truth().items()}
    outcome = evaluate(files[0], save(tmp_path / "moved.npz", moved))
    errors = {name: value for name, value in outcome.metrics.items() if not name.startswith("jitter")}
    # Where the person is, not how:
    assert min(errors.pop("mpjpe[as_given]"), errors.pop("mpjpe[as_given,action_mean]")) > 1000
    assert max(errors.values()) < 1e-9
    grown = {s: {a: (p - p[:, :1]) * 1.5 for a, p in acts.items()} for s, acts in truth().items()}
    outcome = evaluate(files[0], save(tmp_path / "grown.npz", grown))
    assert outcome.metrics["mpjpe"] > 100
    assert outcome.metrics["n_mpjpe"] < 1e-9
    assert outcome.metrics["p_mpjpe"] < 1e-9


def listed_mm(takes):
    """One view each, as a list and as an array of four axes in turn."""
    return {
        s: {a: [p * 1000] if i % 2 else p[None] * 1000 for i, (a, p) in enumerate(x.items())} for s, x in takes.items()
    }


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
    same(evaluate(tmp_path / "labels_mm.npz", save(tmp_path / "f.npz", listed_mm(pred))).metrics)
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
    labels["S9"]["Eating"][10] += 0.5  # with the prediction unmoved, an error in its velocities
    labels["S11"]["Walking"][:, :] = np.nan
    pred = noisy(truth())
    pred["S9"]["Eating"][3] = 1e9  # not scored, so it need not be a pose
    outcome = evaluate(save(tmp_path / "nan.npz", labels), save(tmp_path / "p.npz", pred))
    assert outcome.counts["frames"] == 53
    assert outcome.counts["frames_left_out"] == 7
    assert np.isfinite(list(outcome.metrics.values())).all()
    assert any("7 frames left out" in note for note in outcome.notes)
    # Differences reach over no gap: those of S9's Eating are the ones of its frames 0 to 2 and 4 to 19.
    found = {"mpjve": [], "accel_error": [], "jitter": []}
    for s in ("S9", "S11"):
        for a in labels[s]:
            p, q = (1000 * (x[s][a][:, KEPT] - x[s][a][:, KEPT[:1]]) for x in (pred, labels))
            parts = (
                [slice(0, 3), slice(4, 20)] if (s, a) == ("S9", "Eating") else [slice(0 if np.isnan(q).all() else None)]
            )
            for part in parts:
                for order, terms in enumerate(found.values(), 1):
                    signal = p[part] if order == 3 else (p - q)[part]
                    terms.append(np.linalg.norm(np.diff(signal, n=order, axis=0), axis=-1))
    for name, terms in found.items():
        assert outcome.metrics[name] == pytest.approx(np.concatenate(terms).mean()), name


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
        ([body(1, 6)] * 4, "S9/Walking has arrays of 4 views, and the labels one .* world; give --cameras"),
        (np.stack([body(1, 6)] * 4), "S9/Walking has arrays of 4 views, and the labels one"),
        ([], "S9/Walking has arrays of 0 views"),
        ([body(1, 5)], "S9/Walking has 5 frames"),
        ({"a": body(1, 6)}, "S9/Walking: expected an array"),
    ],
)
def test_bad_predictions(files, tmp_path, value, told):
    pred = noisy(truth())
    pred["S9"]["Walking"] = value
    with pytest.raises(BiposeError, match=told) as error:
        evaluate(files[0], save(tmp_path / "bad.npz", pred))
    assert "\n" not in str(error.value)


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
    shown = " ".join(capsys.readouterr().out.split())
    assert "p_mpjpe[action_mean]" in shown
    assert "mpjpe[as_given,action_mean]" in shown
    assert "action:Walking" in shown
    assert "left_wrist" in shown
    assert "accel_error" in shown
    assert "axes the labels' own" in shown
    assert written["about"]["subjects"] == "S9"
    assert "%" not in shown
