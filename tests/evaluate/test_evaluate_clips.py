"""Predictions by clip, as people write them: what is read, what is not scored, and what is said of the rest."""

import json

import numpy as np
import pytest
import scipy.io

from bipose_lit.evaluate import clips
from bipose_lit.evaluate.clips import read_predictions
from bipose_lit.skeletons import JHMDB, PENN_ACTION
from bipose_lit.store import Predictions
from bipose_lit.types import BiposeError

K = len(PENN_ACTION)


@pytest.fixture
def joints():
    return np.random.default_rng(0).uniform(0, 300, (4, K, 2))


def whole(*names, T=4):
    return {name: np.ones((T, K), bool) for name in names}


def refused(path, labelled, said):
    with pytest.raises(BiposeError, match=said) as caught:
        read_predictions(path, labelled, PENN_ACTION)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def write(path, predictions, kind):
    """The same in each form; returns its path."""
    if kind == "json":
        path = path / "p.json"
        named = {name: np.where(np.isnan(p), None, p).tolist() for name, p in predictions.items()}
        path.write_text(json.dumps(named))
    elif kind == "npz":
        path = path / "p.npz"
        np.savez(path, **predictions)
    else:
        path = path / "p"
        path.mkdir(exist_ok=True)
        for name, p in predictions.items():
            scipy.io.savemat(path / f"{name}.mat", {"preds": p})
    return path


EACH = pytest.mark.parametrize("kind", ["json", "npz", "mat"])


@EACH
def test_a_joint_that_is_not_scored_may_be_anything(tmp_path, joints, kind):
    labelled = whole("a")
    labelled["a"][2, 5] = labelled["a"][3, 0] = False
    joints[2, 5], joints[3, 0] = np.nan, (1e300, 5)
    path = write(tmp_path, {"a": joints}, kind)
    found = read_predictions(path, labelled, PENN_ACTION).joints["a"]
    np.testing.assert_array_equal(found[labelled["a"]], joints[labelled["a"]])
    assert (found[~labelled["a"]] == 0).all()
    refused(path, whole("a"), "no usable place in frame 2, joint 5")


@EACH
def test_a_score_as_a_third_column_is_named(tmp_path, joints, kind):
    path = write(tmp_path, {"a": np.concatenate([joints, np.full((4, K, 1), 0.5)], axis=-1)}, kind)
    refused(
        path, whole("a"), r"the prediction of a has a third number in each joint, as \[.*, 0.5\]; write x and y alone"
    )


@EACH
def test_further_clips_are_counted(tmp_path, joints, kind):
    path = write(tmp_path, {"a": joints, "b": joints + 1, "c": joints[:1]}, kind)
    found = read_predictions(path, whole("b"), PENN_ACTION)
    assert (list(found.joints), found.extra, found.notes) == (["b"], 2, ())
    np.testing.assert_array_equal(found.joints["b"], joints + 1)


def test_an_archive_is_opened_once(tmp_path, joints, monkeypatch):
    path = write(tmp_path, {f"{n:04d}": joints + n for n in range(50)}, "npz")
    calls = []
    for name in ("names_in", "read_npz"):
        real = getattr(clips, name)
        monkeypatch.setattr(clips, name, lambda *a, real=real, name=name: calls.append(name) or real(*a))
    found = read_predictions(path, whole(*(f"{n:04d}" for n in range(50))), PENN_ACTION)
    np.testing.assert_array_equal(found.joints["0049"], joints + 49)
    assert calls.count("read_npz") == 1
    assert calls.count("names_in") <= 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"meta": {"model": "x", "a": 1}, "a": [[[1, 2]]]}',
            "'meta' is not a list of frames of .x, y.; keep clips alone",
        ),
        ('{"version": 1, "a": [[[1, 2]]]}', "'version' is not a list of frames"),
        ('{"predictions": {"a": [[[1, 2]]]}}', "'predictions' is not a list of frames"),
        ('{"a": [[[1, 2]]], "a": [[[1, 2]]]}', "names a clip twice"),
        ('{"a": [{"b": 1}], "a": [{"b": 1}]}', "names a clip twice"),
        ('{"a": [{"x": 1, "y": 2}]}', "the prediction of a is not a list of frames of .x, y."),
        ('{"a": [[[1, 2]], [[1]]]}', "frames of unlike numbers of numbers a joint"),
        ('{"a": [[[1, 2]], [[1, 2], [3, 4]]]}', "frames of unlike numbers of joints"),
        ('{"a": [[[1, "2"]]]}', "is not a list of frames"),
    ],
)
def test_what_json_may_hold_instead(tmp_path, text, said):
    (tmp_path / "p.json").write_text(text)
    refused(tmp_path / "p.json", whole("a"), said)


def test_text_in_json_is_no_key(tmp_path, joints):
    content = {"a": joints.tolist(), 'odd "name": [': [['":', ':"', '\\": ']]}
    (tmp_path / "p.json").write_text(json.dumps(content))
    assert read_predictions(tmp_path / "p.json", whole("a"), PENN_ACTION).extra == 1


def run(joints, **changes):
    """A run's predictions of clips "a" (4 frames) and "b" (2), in mixed order."""
    N = 6
    content = {
        "uid": np.arange(N), "clip": np.array([1, 0, 0, 1, 0, 0]), "frame": np.array([1, 3, 0, 0, 2, 1]),
        "pred": np.zeros((N, K, 2), np.float32), "score": np.ones((N, K), np.float32),
        "joints": np.zeros((N, K, 2), np.float32), "visible": np.full((N, K), 2, np.uint8),
        "norms": np.ones((N, 5), np.float32), "fps": np.zeros(N, np.float32), "clips": ("a", "b"), "clusters": ("a", "b"),
        "joint_names": PENN_ACTION.joints, "data": "penn_action/test[gt-box]",
    }  # fmt: skip
    for row, (clip, frame) in enumerate(zip(content["clip"], content["frame"], strict=True)):
        content["pred"][row] = joints[frame] + 500 * clip
    return Predictions(**{**content, **changes})


def test_a_run_of_this_suite_is_moved_to_the_labels_pixels(tmp_path, joints):
    path = tmp_path / "predictions-test.npz"
    run(joints).save(path)
    found = read_predictions(path, whole("a") | whole("b", T=2), PENN_ACTION)
    np.testing.assert_allclose(found.joints["a"], joints + 1, atol=1e-4)
    np.testing.assert_allclose(found.joints["b"], joints[:2] + 501, atol=1e-4)
    assert found.extra == 0
    (note,) = found.notes
    assert "penn_action/test[gt-box]" in note
    assert "first pixel is 0" in note
    assert read_predictions(path, whole("b", T=2), PENN_ACTION).extra == 1


def test_a_run_that_does_not_fit(tmp_path, joints):
    path = tmp_path / "predictions-test.npz"

    def wrong(said, labelled=None, **changes):
        run(joints, **changes).save(path)
        refused(path, labelled or whole("a"), said)

    wrong("a has 4 frames, the labels have 5", whole("a", T=5))
    wrong("no predictions for 1 of 1 clips, the first is c", whole("c"))
    wrong("a is not predicted once in each frame", frame=np.array([1, 3, 0, 0, 2, 3]))
    wrong("a is not predicted once in each frame", frame=np.array([1, 4, 1, 0, 3, 2]))
    wrong(
        "the run's 15 joints are not the 13 of penn_action .neck.",
        joint_names=JHMDB.joints,
        pred=np.zeros((6, 15, 2), np.float32),
    )
    wrong("another order", joint_names=PENN_ACTION.joints[::-1])
    wrong("clips are not named one by one", clips=("a", "a"))
    wrong("clips are not named one by one", clips=("a",))
    wrong("clips are not named one by one", clip=np.array([1, 0, 0, 1, 0, -1]))
    wrong("not of the same persons", pred=np.zeros((5, K, 2), np.float32))
    wrong("not of the same persons", frame=np.arange(5))
    wrong("clip does not hold whole numbers", clip=np.zeros(6))
    wrong("clips does not hold names", clips=(1, 2))
    bad = run(joints).pred
    bad[1, 3, 0] = np.nan
    wrong("no usable place in frame 3, joint 3", pred=bad)
    path.write_bytes(path.read_bytes()[:3000])
    refused(path, whole("a"), "npz")


def test_a_run_without_anybody(tmp_path, joints):
    empty = {
        "uid": np.zeros(0, int), "clip": np.zeros(0, int), "frame": np.zeros(0, int), "pred": np.zeros((0, K, 2), np.float32),
    }  # fmt: skip
    run(joints, **empty).save(tmp_path / "p.npz")
    refused(tmp_path / "p.npz", whole("a"), "no predictions for 1 of 1 clips")
