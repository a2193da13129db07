"""Human3.6M's official files: labels in the world, predictions in each camera's axes; and units and axes that do not fit."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bipose_lit.datasets.h36m_files import KEPT
from bipose_lit.evaluate.command import evaluate as command
from bipose_lit.evaluate.h36m import evaluate
from bipose_lit.types import BiposeError

TURNS = Rotation.random(4, random_state=1).as_matrix()


def pose(seed, frames=6, joints=17, size=1.0):
    """A motion in metres: a person of 1.7 m along one axis."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform(-0.3, 0.3, (1, joints, 3))
    rest[0, KEPT[0] if joints == 32 else 0] = 0
    rest[0, [3, 15 if joints == 32 else 10], 2] = -0.85, 0.85
    return size * (rest + np.cumsum(rng.normal(0, 0.01, (frames, joints, 3)), axis=0))


def save(path, content):
    np.savez(path, positions_3d=np.array(content, dtype=object))
    return path


def cameras(path, subjects=("S9", "S11"), count=4):
    found = [
        {
            "id": str(i),
            "K": [[1145, 0, 512], [0, 1145, 512], [0, 0, 1]],
            "R": R.tolist(),
            "t": [10.0 * i, 200, 5000],
            "size": [1024, 1024],
        }
        for i, R in enumerate(TURNS[:count])
    ]
    path.write_text(json.dumps(dict.fromkeys(subjects, found)))
    return path


@pytest.fixture
def official(tmp_path):
    """Labels of 32 joints in world metres, and predictions of four cameras in theirs: root-relative, with noise."""
    labels = {
        s: {"Walking": pose(i, joints=32), "Eating 1": pose(i + 5, 9, 32)} for i, s in enumerate(("S1", "S9", "S11"))
    }
    rng = np.random.default_rng(0)
    views = {}
    for subject in ("S9", "S11"):
        views[subject] = {}
        for action, world in labels[subject].items():
            kept = (world - world[:, :1])[:, KEPT]
            views[subject][action] = [kept @ R.T + rng.normal(0, 0.02, kept.shape) for R in TURNS]
    return labels, views


def test_labels_are_moved_into_each_cameras_axes(official, tmp_path):
    labels, views = official
    files = save(tmp_path / "labels.npz", labels), save(tmp_path / "pred.npz", views)
    outcome = evaluate(*files, cameras=cameras(tmp_path / "cameras.json"))
    assert outcome.counts == {"subjects": 2, "takes": 4, "views": 16, "frames": 4 * 30, "joints": 17}
    assert outcome.about["axes"] == "each camera's, by cameras.json"
    errors = [
        np.linalg.norm((p - p[:, :1]) - ((q - q[:, :1])[:, KEPT] @ R.T), axis=-1)
        for s in views
        for a, q in labels[s].items()
        for p, R in zip(views[s][a], TURNS, strict=True)
    ]
    assert outcome.metrics["mpjpe"] == pytest.approx(1000 * np.concatenate(errors).mean())
    assert 40 < outcome.metrics["mpjpe"] < 60
    assert not any("other axes" in note for note in outcome.notes)
    stacked = {s: {a: np.stack(p) for a, p in x.items()} for s, x in views.items()}
    again = evaluate(files[0], save(tmp_path / "stacked.npz", stacked), cameras=cameras(tmp_path / "c.json"))
    assert again.metrics == outcome.metrics
    there = np.array([7.0, 200, 5000])
    moved = {s: {a: [q[:, KEPT] * 1000 @ R.T + there for R in TURNS] for a, q in x.items()} for s, x in labels.items()}
    perfect = evaluate(files[0], save(tmp_path / "moved.npz", moved), unit="mm", cameras=tmp_path / "cameras.json")
    assert perfect.metrics["mpjpe"] < 1e-6  # absolute places in camera coordinates fit as well
    assert perfect.about["unit"] == "mm (labels in m, predictions in mm)"


def test_a_joint_without_a_label_stays_one(official, tmp_path):
    labels, views = official
    labels["S9"]["Walking"][2, 3] = np.nan
    labels["S9"]["Walking"][4] = np.inf
    files = save(tmp_path / "labels.npz", labels), save(tmp_path / "pred.npz", views)
    outcome = evaluate(*files, cameras=cameras(tmp_path / "cameras.json"))
    assert outcome.counts["frames_left_out"] == 8
    assert outcome.counts["frames"] == 112


def test_views_that_do_not_fit(official, tmp_path):
    labels, views = official
    files = save(tmp_path / "labels.npz", labels), save(tmp_path / "pred.npz", views)
    with pytest.raises(
        BiposeError, match=r"S11/Eating 1 has arrays of 4 views, and the labels one array in the world; give --cameras"
    ):
        evaluate(*files)
    with pytest.raises(
        BiposeError, match=r"S11/Eating 1 has arrays of 4 views, and c\.json 3 cameras of S11; predict each"
    ):
        evaluate(*files, cameras=cameras(tmp_path / "c.json", count=3))
    with pytest.raises(BiposeError, match=r"c\.json: no cameras of S11"):
        evaluate(*files, cameras=cameras(tmp_path / "c.json", ("S9",)))
    with pytest.raises(BiposeError, match="cannot read the cameras"):
        evaluate(*files, cameras=tmp_path / "none.json")
    with pytest.raises(
        BiposeError, match=r"labels\.npz: S11/Eating 1 has arrays of 4 views already; leave --cameras out"
    ):
        evaluate(save(tmp_path / "labels.npz", views), files[1], cameras=cameras(tmp_path / "c.json"))
    few = {s: {a: p[:3] for a, p in x.items()} for s, x in views.items()}
    with pytest.raises(BiposeError, match="S11/Eating 1 has arrays of 3 views, and the labels of 4; predict each"):
        evaluate(save(tmp_path / "labels.npz", views), save(tmp_path / "few.npz", few))
    views["S9"]["Walking"][2] = views["S9"]["Walking"][2][:5]
    with pytest.raises(BiposeError, match=r"S9/Walking, view 2 has 5 frames where the labels have 6"):
        evaluate(
            save(tmp_path / "l.npz", labels), save(tmp_path / "pred.npz", views), cameras=cameras(tmp_path / "c.json")
        )
    views["S9"]["Walking"][2] = np.full((6, 17, 3), np.nan)
    with pytest.raises(BiposeError, match=r"S9/Walking, view 2: frame 0 holds numbers"):
        evaluate(tmp_path / "l.npz", save(tmp_path / "pred.npz", views), cameras=cameras(tmp_path / "c.json"))


def test_other_axes_are_suspected(official, tmp_path):
    labels, views = official
    first = {s: {a: p[0] for a, p in x.items()} for s, x in views.items()}
    outcome = evaluate(save(tmp_path / "labels.npz", labels), save(tmp_path / "pred.npz", first))
    assert any("other axes" in note and "--cameras" in note for note in outcome.notes)
    assert outcome.metrics["mpjpe"] > 5 * outcome.metrics["p_mpjpe"]
    still = {s: {a: np.zeros((len(q), 17, 3)) for a, q in x.items()} for s, x in labels.items()}
    outcome = evaluate(tmp_path / "labels.npz", save(tmp_path / "still.npz", still))
    assert not any("other axes" in note for note in outcome.notes)
    outcome = evaluate(tmp_path / "labels.npz", tmp_path / "labels.npz")
    assert not any("other axes" in note for note in outcome.notes)


def scored(tmp_path, label_size, pred_size, unit=None):
    labels, pred = (
        {"S9": {"W": pose(0, size=size)}, "S11": {"W": pose(1, size=size)}} for size in (label_size, pred_size)
    )
    return evaluate(save(tmp_path / "l.npz", labels), save(tmp_path / "p.npz", pred), unit=unit)


@pytest.mark.parametrize(
    ("label", "pred", "unit", "told"),
    [
        (1, 1000, None, "1000 times as large as the labelled ones; give --unit mm"),
        (1000, 1, None, "0.001 times as large as the labelled ones; give --unit m"),
        (1, 1, "mm", "0.001 times as large as the labelled ones; give --unit m"),
        (1, 100, None, "100 times as large as the labelled ones, which fits neither m nor mm"),
        (1, 100, "mm", "0.1 times as large as the labelled ones, which fits neither m nor mm"),
        (1000, 100, None, "0.1 times as large as the labelled ones, which fits neither"),
        (1, 39.37, None, "39.4 times as large as the labelled ones, which fits neither"),
        (1, 5.1, None, "5.1 times as large"),
        (1, 0.19, None, "0.19 times as large"),
        (1, 1e-5, None, "1e-05 times as large"),
        (100, 100, None, "persons are 1[67]. units in size, which fits neither metres nor millimetres"),
        (39.37, 39.37, None, "which fits neither metres nor millimetres"),
        (0, 1, None, "persons are 0 units in size"),
        (1.85, 1, None, "fits neither metres nor millimetres"),
        (0.27, 1, None, "fits neither metres nor millimetres"),
    ],
)
def test_units_that_do_not_fit(tmp_path, label, pred, unit, told):
    with pytest.raises(BiposeError, match=told) as error:
        scored(tmp_path, label, pred, unit)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("label", "pred", "unit"),
    [(1, 4.9, None), (1, 0.21, None), (1.6, 1600, "mm"), (300, 300, None), (1, 0, None), (1, 1e-8, None)],
)
def test_units_that_fit(tmp_path, label, pred, unit):
    assert scored(tmp_path, label, pred, unit).metrics["mpjpe"] >= 0


def test_an_unknown_unit(tmp_path):
    with pytest.raises(BiposeError, match="unit 'cm' is none of m, mm"):
        scored(tmp_path, 1, 1, "cm")


def test_the_command_takes_cameras(official, tmp_path, capsys):
    labels, views = official
    files = save(tmp_path / "labels.npz", labels), save(tmp_path / "pred.npz", views)
    outcome = command("h36m", *files, cameras=cameras(tmp_path / "cameras.json"))
    assert outcome.counts["views"] == 16
    assert "16 views" in capsys.readouterr().out


def test_the_command_line_takes_cameras(official, tmp_path, capsys):
    from bipose_lit.__main__ import main

    labels, views = official
    files = save(tmp_path / "labels.npz", labels), save(tmp_path / "pred.npz", views)
    line = ["evaluate", "h36m", "--annotations", str(files[0]), "--predictions", str(files[1])]
    assert main([*line, "--cameras", str(cameras(tmp_path / "cameras.json"))]) == 0
    assert "each camera's, by cameras.json" in " ".join(capsys.readouterr().out.split())
    assert main(line) == 1
    assert "give --cameras" in capsys.readouterr().err
