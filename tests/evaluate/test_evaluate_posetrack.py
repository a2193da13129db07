"""`bipose evaluate posetrack18`: files in, numbers out; and files that are not as they should be."""

import json
import math

import numpy as np
import pytest

from bipose_lit.evaluate.posetrack import evaluate
from bipose_lit.metrics.posetrack import GROUPS, JOINTS
from bipose_lit.types import BiposeError


def labels(number, frames=2, persons=2, seed=0, **image):
    rng, first = np.random.default_rng([number, seed]), 10**10 + number * 10**4
    name = f"{number:06d}_mpii_test"
    images = [{"id": first + f, "file_name": f"images/val/{name}/{f:06d}.jpg"} | image for f in range(frames + 1)]
    people = []
    for f in range(frames):  # the last frame is not labelled
        for p in range(persons):
            places = rng.uniform(0, 40, (17, 2)) + np.array([200, 0]) * p
            keypoints = np.concatenate([places, np.ones((17, 1))], axis=1).round(1)
            keypoints[3:5] = 0
            people.append({
                "image_id": first + f, "id": (first + f) * 100 + p, "track_id": p, "bbox_head": [0, 0, 30, 40],
                "keypoints": keypoints.ravel().tolist(),
            })  # fmt: skip
    return name, {"images": images, "annotations": people}


def predictions(content, move=0.0, score=0.9, **extra):
    found = []
    for label in content["annotations"]:
        keypoints = np.array(label["keypoints"]).reshape(17, 3)
        keypoints[:, 0] += move
        keypoints[:, 2] = score
        found.append({
            "image_id": label["image_id"], "keypoints": keypoints.ravel().tolist(), "scores": [score] * 17,
            "track_id": 0,
        })  # fmt: skip
    return {"images": content["images"], "annotations": found} | extra


@pytest.fixture
def folders(tmp_path):
    for kind in ("gt", "pr"):
        (tmp_path / kind).mkdir()
    for number in (1, 2):
        name, content = labels(number)
        (tmp_path / "gt" / f"{name}.json").write_text(json.dumps(content))
        (tmp_path / "pr" / f"{name}.json").write_text(json.dumps(predictions(content, move=14 if number == 1 else 20)))
    return tmp_path / "gt", tmp_path / "pr"


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_folders(folders):
    outcome = evaluate(*folders)
    assert outcome.protocol == "posetrack18"
    assert outcome.counts == {
        "sequences": 2, "images": 4, "persons": 8, "predicted_persons": 8, "joints": 120, "predicted_joints": 120,
    }  # fmt: skip
    assert list(outcome.metrics) == ["ap", *(f"ap/{g}" for g in GROUPS), *(f"ap/{j}" for j in JOINTS)]
    # Head size 30: 14 px fit, 20 px do not. Equal scores, the later first: four wrong, then four right of eight.
    assert outcome.metrics["ap"] == pytest.approx(0.5 * 0.5)
    assert "mean of the 15 joints" in outcome.notes[0]


def test_single_files(folders):
    gt, pr = folders
    first = "000001_mpii_test.json"
    assert evaluate(gt / first, pr / first).metrics["ap"] == 1.0
    assert evaluate(gt / first, pr).metrics["ap"] == 1.0
    assert evaluate(gt / "000002_mpii_test.json", pr).metrics["ap"] == 0.0
    merged = {"images": [], "annotations": []}
    for path in sorted(pr.iterdir()):
        for key, values in json.loads(path.read_text()).items():
            merged[key] += values
    whole = pr.parent / "all.json"
    whole.write_text(json.dumps(merged))
    assert evaluate(gt, whole).metrics == evaluate(gt, pr).metrics
    part = evaluate(gt / first, whole)
    assert part.metrics["ap"] == 1.0
    assert "4 predicted persons are in images without a labelled person" in part.notes[-1]


def test_persons_in_unlabelled_frames_are_left_out(folders):
    gt, pr = folders
    first = "000001_mpii_test.json"

    def add(content):
        image = content["images"][-1]["id"]
        content["annotations"].append(content["annotations"][0] | {"image_id": image, "scores": [1.0] * 17})

    rewrite(pr / first, add)
    outcome = evaluate(gt / first, pr / first)
    assert outcome.metrics["ap"] == 1.0
    assert outcome.counts["predicted_persons"] == 4
    assert "1 predicted persons" in outcome.notes[-1]


def test_ignore_regions(folders):
    gt, pr = folders
    first = "000001_mpii_test.json"
    rewrite(pr / first, lambda c: c["annotations"].append(
        c["annotations"][0] | {"keypoints": [500.0, 500.0, 1.0] * 17, "scores": [1.0] * 17}
    ))  # fmt: skip
    assert evaluate(gt / first, pr / first).metrics["ap"] == pytest.approx(0.8)  # one wrong before four right
    square = {"ignore_regions_x": [[450, 550, 550, 450]], "ignore_regions_y": [[450, 450, 550, 550]]}
    rewrite(gt / first, lambda c: c["images"][0].update(square))
    assert evaluate(gt / first, pr / first).metrics["ap"] == 1.0


def test_a_joint_that_is_never_labelled_has_no_ap(folders):
    gt, pr = folders
    first = "000001_mpii_test.json"

    def remove(content):
        for label in content["annotations"]:
            label["keypoints"][:3] = [0, 0, 0]

    rewrite(gt / first, remove)
    outcome = evaluate(gt / first, pr / first)
    assert math.isnan(outcome.metrics["ap/nose"])
    assert outcome.metrics["ap"] == 1.0
    assert "1 joints are predicted but never labelled" in outcome.notes[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][1].pop("scores"), r"annotations\[1\] has no scores"),
        (lambda c: c["annotations"][1].update(scores=[]), r"annotations\[1\] has no scores"),
        (lambda c: c["annotations"][1].update(scores=[0.5] * 15), "15 scores, expected 51 and 17"),
        (lambda c: c["annotations"][1].update(keypoints=[0.5] * 34), "34 numbers in keypoints"),
        (lambda c: c["annotations"][1].update(keypoints="x"), "not readable"),
        (lambda c: c["annotations"][1].update(scores=["a"] * 17), "not readable"),
        (lambda c: c["annotations"][1].update(image_id=5), "image_id 5, which images does not list"),
        (lambda c: c["annotations"].append(3), r"annotations\[4\] is not readable"),
        (lambda c: c["images"].pop(0), "image_id 10000010000, which images does not list"),
        (lambda c: c.update(images=c["images"][1:], annotations=[]), "images lacks 10000010000 .*000000.jpg"),
        (lambda c: c.pop("images"), "images"),
        (lambda c: c.pop("annotations"), "annotations"),
        (lambda c: c.update(categories=[{"keypoints": ["nose"]}]), "lacks the joint"),
    ],
)
def test_broken_predictions(folders, change, message):
    gt, pr = folders
    rewrite(pr / "000001_mpii_test.json", change)
    with pytest.raises(BiposeError, match=message) as raised:
        evaluate(gt, pr)
    assert "000001_mpii_test.json" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [a.pop("bbox_head") for a in c["annotations"]], "no labelled person has a head box"),
        (lambda c: c["annotations"][1].update(keypoints=[1]), "wrong number of keypoints"),
        (lambda c: c["annotations"][1].update(image_id=1), "does not list"),
        (lambda c: c["annotations"].append([]), "cannot be read"),
        (lambda c: c["images"][0].update(file_name="x"), "file_name"),
        (lambda c: c.update(images=[], annotations=[]), "no labelled person"),
        (lambda c: c.update(annotations=[]), "no labelled person"),
    ],
)
def test_broken_labels(folders, change, message):
    gt, pr = folders
    rewrite(gt / "000001_mpii_test.json", change)
    with pytest.raises(BiposeError, match=message) as raised:
        evaluate(gt / "000001_mpii_test.json", pr)
    assert "000001_mpii_test.json" in str(raised.value)


def test_a_person_without_a_head_box_is_labelled_and_not_matched(folders):
    gt, pr = folders
    first = "000001_mpii_test.json"
    rewrite(gt / first, lambda c: c["annotations"][0].pop("bbox_head"))
    outcome = evaluate(gt / first, pr / first)
    assert (outcome.counts["persons"], outcome.counts["joints"]) == (4, 60)
    # Three of four right, the first in the file, and so the last in rank, wrong.
    assert outcome.metrics["ap"] == pytest.approx(0.75)
    assert any("1 persons without a head box" in note for note in outcome.notes)


@pytest.mark.parametrize(
    "changes", [{"id": None}, {"id": "x"}, {"id": -1}, {"id": 2.5}, {"track_id": 2**80}, {"track_id": []}]
)
def test_ids_do_not_matter(folders, changes):
    gt, pr = folders
    expected = evaluate(gt, pr).metrics
    rewrite(gt / "000001_mpii_test.json", lambda c: c["annotations"][1].update(changes))
    assert evaluate(gt, pr).metrics == expected


def test_posetrack17_is_named_only_where_it_is(folders):
    gt, pr = folders
    first = gt / "000001_mpii_test.json"
    first.write_text(json.dumps({"annolist": []}))
    with pytest.raises(BiposeError, match=r"PoseTrack17.*convert"):
        evaluate(first, pr)
    first.write_text(json.dumps({"images": []}))
    with pytest.raises(BiposeError, match="PoseTrack18") as raised:
        evaluate(first, pr)
    assert "PoseTrack17" not in str(raised.value)


def test_missing_files(folders, tmp_path):
    gt, pr = folders
    (pr / "000002_mpii_test.json").rename(tmp_path / "moved.json")
    with pytest.raises(BiposeError, match=r"pr/000002_mpii_test\.json: no such file of predictions"):
        evaluate(gt, pr)
    with pytest.raises(BiposeError, match=r"none\.json"):
        evaluate(gt, tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BiposeError, match=r"no label file SEQ\.json"):
        evaluate(tmp_path / "empty", pr)
    (tmp_path / "moved.json").rename(pr / "000002_mpii_test.json")
    (gt / "copy.json").write_text((gt / "000001_mpii_test.json").read_text())
    (pr / "copy.json").write_text((pr / "000001_mpii_test.json").read_text())
    with pytest.raises(BiposeError, match="both list image"):
        evaluate(gt, pr)


@pytest.mark.real_data
def test_real_labels_against_themselves(real_data, tmp_path):
    gt = real_data / "posetrack18_mini" / "annotations"
    pr = tmp_path / "pr"
    pr.mkdir()
    for path in (gt / "val").glob("*.json"):
        content = json.loads(path.read_text())
        for label in content["annotations"]:
            label["scores"] = [0.9] * 17
        (pr / path.name).write_text(json.dumps(content))
    outcome = evaluate(gt / "val", pr)
    assert outcome.metrics["ap"] == 1.0
    assert outcome.counts["persons"] == 14
    assert outcome.counts["sequences"] == 3
    with pytest.raises(BiposeError, match="images lacks"):
        evaluate(gt / "test_posetrack18_val.json", pr / "009473_mpii_test.json")
