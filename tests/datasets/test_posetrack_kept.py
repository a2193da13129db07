"""PoseTrack18: persons with a flaw count the same in a run and in files of predictions; neighbouring sequences stay together."""

import json

import numpy as np
import pytest
from test_posetrack import HEAD, person, predict, sequence, write

from bipose_lit.datasets.clips import check_index
from bipose_lit.datasets.labels import hold_out
from bipose_lit.datasets.posetrack import PoseTrack18
from bipose_lit.datasets.posetrack_sequences import neighbourhoods
from bipose_lit.evaluate.posetrack import evaluate


def as_results(content, offset=0.0):
    """The labels moved, as a file of predictions; all joints are predicted, as a run does."""
    found = []
    for label in content["annotations"]:
        keypoints = np.array(label["keypoints"], float).reshape(17, 3)
        keypoints[:, :2] += offset
        found.append({"image_id": label["image_id"], "keypoints": keypoints.ravel().tolist(), "scores": [1.0] * 17})
    return {"images": content["images"], "annotations": found}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1.0), ({"bbox_head": None}, 0.75), ({"bbox_head": [0, 0, 0, 0]}, 0.75), ({"id": None}, 1.0), ({"id": "x"}, 1.0),
        ({"id": -4}, 1.0),
        ({"bbox_head": [1, 2, None, 3]}, 0.75), ({"bbox_head": "x"}, 0.75), ({"track_id": 1.5}, 1.0), ({"bbox": [1, "x"]}, 1.0),
        ({"id": 1000001000001}, 1.0), ({"track_id": 1}, 1.0), ({"track_id": None}, 1.0), ({"track_id": 2**80}, 1.0),
        ({"bbox": None, "bbox_head": None}, 0.75), ({"id": None, "track_id": None}, 1.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("neighbours", [0, 1])
def test_a_flawed_person_counts_alike_in_the_reader_and_in_evaluate(tmp_path, changes, expected, neighbours):
    name, content = sequence(labelled=(0,), persons=4)
    for key, value in changes.items():
        content["annotations"][0].pop(key)
        if value is not None:
            content["annotations"][0][key] = value
    write(tmp_path, (name, content))
    (tmp_path / "results.json").write_text(json.dumps(as_results(content)))
    index = PoseTrack18(tmp_path, neighbours=neighbours).index("test")
    check_index(index)
    assert len(index.tracks) == 4
    own = index.scoring.score(predict(index))
    files = evaluate(tmp_path / "annotations" / "val", tmp_path / "results.json").metrics
    # With equal scores the ranking hangs on the order of rows, so only the share of persons that can be found is compared.
    assert own["ap"] <= expected + 1e-9
    assert files["ap"] <= expected + 1e-9
    assert own["ap"] == pytest.approx(files["ap"])
    assert len(index.scoring.frames[0].joints) == 4


def test_without_a_head_box_the_normaliser_is_unknown(tmp_path):
    name, content = sequence(labelled=(0,), persons=2)
    del content["annotations"][1]["bbox_head"], content["annotations"][1]["bbox"]
    write(tmp_path, (name, content))
    index = PoseTrack18(tmp_path).index("test")
    assert np.isfinite(index.tracks[0].norms[0, HEAD])
    assert np.isnan(index.tracks[1].norms[0, HEAD])
    track = index.tracks[1]
    seen = track.joints[0][track.visible[0] > 0]
    np.testing.assert_allclose(track.boxes[0], [*seen.min(0), *(seen.max(0) - seen.min(0) + 1)], atol=1e-4)


def test_ids_that_were_given_are_the_same_every_time(tmp_path):
    name, content = sequence(labelled=(0, 1), persons=2)
    for label in content["annotations"]:
        del label["id"], label["track_id"]
    content["annotations"].append(person(content["images"][0]["id"], 7, 3, seed=50, id=5))
    content["annotations"].append(person(content["images"][1]["id"], 7, 3, seed=51, id=5))
    write(tmp_path, (name, content))
    first, second = (PoseTrack18(tmp_path).index("test") for _ in range(2))
    uids = np.concatenate([t.uid for t in first.tracks])
    assert len(np.unique(uids)) == 6
    assert [len(t) for t in first.tracks] == [1, 1, 2, 1, 1]
    np.testing.assert_array_equal(uids, np.concatenate([t.uid for t in second.tracks]))
    assert len({t.clip for t in first.tracks}) == 5
    assert first.scoring.score(predict(first))["ap"] == 1.0


def test_sequences_of_neighbouring_numbers_are_held_out_together():
    titles = [f"{n:06d}_mpii_train" for n in range(100, 400, 3)] + [f"{n:06d}_bonn_train" for n in range(50)]
    found = neighbourhoods(titles)
    assert list(found) == titles
    held = hold_out(found.values(), 0.1)
    numbers = {int(t[:6]) // 10 for t in titles if found[t] in held}
    assert {int(t[:6]) // 10 for t in titles if found[t] not in held}.isdisjoint(numbers)
    assert 0.02 < len([t for t in titles if found[t] in held]) / len(titles) < 0.25
    some = titles[::2]  # which others are there does not matter
    assert neighbourhoods(some) == {t: found[t] for t in some}


def test_a_few_sequences_are_shared_out_one_by_one():
    titles = [f"{n:06d}_bonn_train" for n in range(12)] + ["walk"]
    assert neighbourhoods(titles) == {t: t for t in titles}


def test_splits_do_not_part_neighbours(tmp_path):
    for n in range(0, 120, 5):
        write(tmp_path, sequence(n, "train", frames=1, labelled=(0,)), "train")
    reader = PoseTrack18(tmp_path, val_fraction=0.2)
    train, val = ({int(c[:6]) // 10 for c in reader.index(s).clusters} for s in ("train", "val"))
    assert (len(train), len(val)) == (9, 3)
    assert not train & val
