"""`bipose evaluate mpii`: every form of labels and predictions, the published figures, and what does not fit."""

import json
import math

import h5py
import numpy as np
import pytest
import scipy.io
from mpii_sets import heads, persons, write_h5, write_json, write_release, write_truth

from bipose_lit.__main__ import main
from bipose_lit.evaluate.mpii import evaluate, read_predictions
from bipose_lit.metrics import pckh
from bipose_lit.types import BiposeError

N = 7
IMAGES = [f"{i}.jpg" for i in range(N)]


def scores(pred, people, some=slice(None)):
    """Of the pure functions, by the name that the table has."""
    joints, present = people["joints"][some], people["present"][some]
    apart = np.sqrt(((pred[some] - joints) ** 2).sum(-1))[present]
    return {**pckh.scores(pred[some], joints, ~present, heads(people)[some]), "mpjpe_px": apart.mean()}


@pytest.fixture
def case(tmp_path):
    people = persons(N)
    write_json(tmp_path / "valid.json", people, IMAGES)
    write_h5(tmp_path / "valid.h5", people, IMAGES)
    write_release(tmp_path / "release.mat", people, IMAGES)
    pred = people["joints"] + np.random.default_rng(4).normal(0, 3, (N, 16, 2))
    with h5py.File(tmp_path / "preds.h5", "w") as file:
        file["preds"] = pred
    return tmp_path, people, pred


@pytest.mark.parametrize("labels", ["gt_valid.mat", "valid.json", "valid.h5", "release.mat"])
def test_all_kinds_of_labels_agree(case, labels):
    root, people, pred = case
    outcome = evaluate(root / labels, root / "preds.h5")
    expected = scores(pred, people)
    assert outcome.metrics.keys() == expected.keys()
    np.testing.assert_allclose(list(outcome.metrics.values()), list(expected.values()))
    assert outcome.counts == {
        "persons": N, "persons_left_out": 0, "joints": people["present"].sum(),
        "joints_missing": (~people["present"]).sum(),
    }  # fmt: skip
    assert any("1-based" in note for note in outcome.notes)
    assert all("\n" not in note for note in outcome.notes)


def test_all_kinds_of_predictions_agree(case):
    root, _, pred = case
    scipy.io.savemat(root / "a.mat", {"preds": pred})
    scipy.io.savemat(root / "b.mat", {"pred": pred})
    scipy.io.savemat(root / "c.mat", {"preds": pred.transpose(2, 1, 0)})
    np.save(root / "d.npy", pred)
    np.save(root / "e.npy", pred.round().astype(np.int32))
    (root / "f.json").write_text(json.dumps(pred.tolist()))
    (root / "g.json").write_text(json.dumps({"preds": pred.tolist(), "model": "x"}))
    for name in ("preds.h5", "a.mat", "b.mat", "c.mat", "d.npy", "f.json", "g.json"):
        np.testing.assert_allclose(read_predictions(root / name, N), pred)
    np.testing.assert_allclose(read_predictions(root / "e.npy", N), pred.round())


def test_the_order_is_that_of_the_list(case):
    root, people, _ = case
    expected = evaluate(root / "valid.json", root / "preds.h5")
    order = np.random.default_rng(3).permutation(N)
    write_truth(root / "gt_valid.mat", {k: v[order] for k, v in people.items()})
    found = evaluate(root / "valid.json", root / "preds.h5")
    assert found.metrics == expected.metrics
    assert any("another order" in note for note in found.notes)
    assert not any("another order" in note for note in expected.notes)
    assert evaluate(root / "gt_valid.mat", root / "preds.h5").metrics != expected.metrics


def test_a_coordinate_of_0_does_not_part_a_person_from_the_list(case):
    root, people, pred = case
    people["joints"][2, np.flatnonzero(people["present"][2])[0], 0] = 0
    write_truth(root / "gt_valid.mat", people)  # and valid.json has the place
    expected = scores(pred, people)
    found = evaluate(root / "valid.json", root / "preds.h5").metrics
    np.testing.assert_allclose(list(found.values()), list(expected.values()))


def test_a_list_of_some_of_the_persons_under_mmposes_names(case):
    root, people, pred = case
    (root / "other").mkdir()
    some = [5, 1, 2]
    write_json(root / "other" / "mpii_val.json", {k: v[some] for k, v in people.items()}, IMAGES[:3], truth=False)
    write_truth(root / "other" / "mpii_gt_val.mat", people)
    np.save(root / "some.npy", pred[some])
    expected = scores(pred, people, some)
    found = evaluate(root / "other" / "mpii_val.json", root / "some.npy").metrics
    np.testing.assert_allclose(list(found.values()), list(expected.values()))


def test_labels_without_any_head_size(case):
    root, people, _ = case
    write_h5(root / "valid.h5", people, IMAGES, normalize=None)
    with pytest.raises(BiposeError, match=r"valid\.h5: holds no normalize \(head sizes\); name gt_valid\.mat"):
        evaluate(root / "valid.h5", root / "preds.h5")
    write_h5(root / "valid.h5", people, IMAGES, normalize=np.zeros(N))
    with pytest.raises(BiposeError, match=r"valid\.h5: no labelled person has a head size"):
        evaluate(root / "valid.h5", root / "preds.h5")
    write_truth(root / "gt_valid.mat", people | {"boxes": np.zeros((N, 2, 2))})
    with pytest.raises(BiposeError, match=r"gt_valid\.mat: no labelled person has a head size"):
        evaluate(root / "gt_valid.mat", root / "preds.h5")


def test_persons_that_cannot_be_read_would_move_the_order(case):
    root, _, _ = case
    content = scipy.io.loadmat(root / "release.mat")
    person = content["RELEASE"][0, 0]["annolist"][0, 1]["annorect"][0, 0]
    person["annopoints"][0, 0]["point"][0, 0]["id"][:] = 16
    scipy.io.savemat(root / "release.mat", {"RELEASE": content["RELEASE"]})
    np.save(root / "p.npy", np.zeros((N - 1, 16, 2)))
    with pytest.raises(BiposeError, match=r"release\.mat: joint numbers outside 0 to 15: 1\.jpg/0"):
        evaluate(root / "release.mat", root / "p.npy")
    person["annopoints"] = np.zeros((0, 0))  # seen, but nobody labelled the joints: as it is in the owners' file
    scipy.io.savemat(root / "release.mat", {"RELEASE": content["RELEASE"]})
    assert evaluate(root / "release.mat", root / "p.npy").counts["persons"] == N - 1


def test_what_is_given_the_wrong_way_round_or_is_a_folder(case):
    root, _, pred = case
    scipy.io.savemat(root / "preds.mat", {"preds": pred})
    with pytest.raises(
        BiposeError, match=r"preds\.h5: no array 'part' \(joint labels\); is this a file of predictions\?"
    ):
        evaluate(root / "preds.h5", root / "valid.h5")
    with pytest.raises(BiposeError, match=r"preds\.mat: .*is this a file of predictions\?"):
        evaluate(root / "preds.mat", root / "valid.h5")
    for name in ("valid.h5", "gt_valid.mat", "release.mat"):
        with pytest.raises(BiposeError, match=rf"{name}: .*is this a file of labels\?"):
            read_predictions(root / name, N)
    with pytest.raises(BiposeError, match=r"is a folder; name gt_valid\.mat in it"):
        evaluate(root, root / "preds.h5")
    with pytest.raises(BiposeError, match=r"is a folder; name the file of predictions in it"):
        evaluate(root / "gt_valid.mat", root)


@pytest.mark.parametrize("kind", ["npy", "json"])
def test_shapes_of_other_tools(case, kind):
    root, _, pred = case

    def told(array):
        if kind == "npy":
            np.save(root / "p.npy", array)
        else:
            (root / "p.json").write_text(json.dumps(array.tolist()))
        with pytest.raises(BiposeError) as raised:
            read_predictions(root / f"p.{kind}", N)
        return str(raised.value)

    assert "transpose(2, 0, 1)" in told(pred.transpose(1, 2, 0))
    assert "leave out the third column" in told(np.concatenate([pred, pred[..., :1]], axis=2))
    assert "order of the annotations" in told(pred[:-1])


def test_persons_whose_head_has_no_size_are_left_out_and_told(case):
    root, people, pred = case
    people["boxes"][3] = 5
    write_truth(root / "gt_valid.mat", people)
    outcome = evaluate(root / "gt_valid.mat", root / "preds.h5")
    assert outcome.counts["persons_left_out"] == 1
    assert any("left out, as their head boxes have no size: 1" in note for note in outcome.notes)
    keep = np.arange(N) != 3
    expected = pckh.pckh(pred[keep], people["joints"][keep], ~people["present"][keep], heads(people)[keep])
    assert outcome.metrics["pckh@0.5"] == pytest.approx(expected.mean)


def test_far_predictions_are_wrong_and_nothing_else(case):
    root, people, pred = case
    far = pred.copy()
    far[0] = [1e300, -1e300]
    np.save(root / "far.npy", far)
    far[0] = 1e5
    expected = pckh.scores(far, people["joints"], ~people["present"], heads(people))
    found = dict(evaluate(root / "gt_valid.mat", root / "far.npy").metrics)
    assert 1e5 < found.pop("mpjpe_px") < 1e12
    np.testing.assert_allclose(list(found.values()), list(expected.values()))


@pytest.mark.parametrize(
    ("shape", "match"),
    [((N, 16, 3), "shape"), ((N - 1, 16, 2), "shape"), ((N, 15, 2), "shape"), ((N, 32), "shape"), ((), "shape")],
)
def test_predictions_that_do_not_fit(case, shape, match):
    root, _, _ = case
    np.save(root / "p.npy", np.zeros(shape))
    with pytest.raises(BiposeError, match=match):
        evaluate(root / "gt_valid.mat", root / "p.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_predictions_that_are_not_finite(case, value):
    root, _, pred = case
    pred[2, 9, 0] = value
    np.save(root / "p.npy", pred)
    with pytest.raises(BiposeError, match="1 joints are not finite, the first is head_top of person 2"):
        evaluate(root / "gt_valid.mat", root / "p.npy")


def test_files_that_are_not_predictions(case):
    root, _, _ = case
    np.save(root / "words.npy", np.array(["a"] * N))
    np.save(root / "objects.npy", np.array([{}], object), allow_pickle=True)
    (root / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'shape': (999999999999, 16, 2)}")
    (root / "word.json").write_text('{"preds": [[["a", 1]]]}')
    (root / "ragged.json").write_text(json.dumps([[[1, 2]] * 16] * (N - 1) + [[[1, 2]] * 15]))
    (root / "other.json").write_text('{"keypoints": []}')
    (root / "nan.json").write_text("[[[NaN, 1]]]")
    (root / "deep.json").write_text("[" * 100_000)
    (root / "text.txt").write_text("1 2")
    (root / "broken.mat").write_bytes(b"x" * 200)
    (root / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 200)
    scipy.io.savemat(root / "other.mat", {"keypoints": 1})
    scipy.io.savemat(root / "cells.mat", {"preds": np.array([[1, "a"]], object)})
    with h5py.File(root / "group.h5", "w") as file:
        file.create_group("preds")
    with h5py.File(root / "other.h5", "w") as file:
        file["keypoints"] = 1
    for path in sorted(p for p in root.iterdir() if p.stem in (
        "words", "objects", "broken", "word", "ragged", "other", "nan", "deep", "text", "cells", "group",
    )):  # fmt: skip
        with pytest.raises(BiposeError, match=path.name) as caught:
            read_predictions(path, N)
        assert "\n" not in str(caught.value)


def test_labels_that_do_not_do(case):
    root, people, _ = case
    (root / "gt_valid.mat").unlink()
    with pytest.raises(BiposeError, match=r"no head boxes; put gt_valid\.mat beside it"):
        evaluate(root / "valid.json", root / "preds.h5")
    write_truth(root / "gt_valid.mat", {k: v[:-1] for k, v in people.items()})
    with pytest.raises(BiposeError, match=r"1 of 7 persons.*the first is entry 6.*take both of one release"):
        evaluate(root / "valid.json", root / "preds.h5")
    write_truth(root / "gt_valid.mat", persons(N, 5))
    with pytest.raises(BiposeError, match=r"7 of 7 persons.*take both of one release"):
        evaluate(root / "valid.json", root / "preds.h5")
    write_truth(root / "gt_valid.mat", people, headboxes_src=None)
    with pytest.raises(BiposeError, match="lacks the variable headboxes_src"):
        evaluate(root / "gt_valid.mat", root / "preds.h5")
    with pytest.raises(BiposeError, match=r"not a \.mat, \.h5 or \.json"):
        evaluate(root / "labels.txt", root / "preds.h5")


@pytest.mark.real_data
def test_the_command_gives_the_published_figures(real_data, tmp_path, capsys):
    folder = real_data / "mpii_mini"
    args = ["--annotations", str(folder / "gt_valid.mat"), "--predictions", str(folder / "preds_stacked_hourglass.h5")]
    assert main(["evaluate", "mpii", *args, "--json", str(tmp_path / "out.json")]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    found = {name: round(100 * value, 3) for name, value in written["metrics"].items()}
    assert {name: found[f"pckh@0.5/{name}"] for name in pckh.GROUPS} == {
        "head": 95.941, "head[neck+top]": 96.709, "shoulder": 94.684, "elbow": 88.529, "wrist": 83.382, "hip": 87.485,
        "knee": 83.094, "ankle": 79.050,
    }  # fmt: skip
    assert (found["pckh@0.5"], found["pckh@0.1"], found["pckh@0.11"]) == (88.035, 28.647, 32.805)
    assert written["counts"] == {"persons": 2958, "persons_left_out": 0, "joints": 44240, "joints_missing": 3088}
    printed = capsys.readouterr().out
    assert "88.035%" in printed
    assert "83.094%" in printed


@pytest.mark.real_data
def test_newells_h5_differs_where_it_says(real_data):
    folder = real_data / "mpii_mini"
    exact, cut = (
        evaluate(folder / name, folder / "preds_stacked_hourglass.h5") for name in ("gt_valid.mat", "valid.h5")
    )
    assert any("whole pixels" in note for note in cut.notes)
    parts = {p for p in pckh.GROUPS if not math.isclose(exact.metrics[f"pckh@0.5/{p}"], cut.metrics[f"pckh@0.5/{p}"])}
    assert parts == {"head", "head[neck+top]", "ankle"}
    assert round(100 * cut.metrics["pckh@0.5/head"], 3) == 95.873
