"""Which person of a list is which of the evaluation's labels, and what head sizes are then called."""

import json

import numpy as np
import pytest
from mpii_sets import entries, heads, persons, write_json, write_truth

from bipose_lit.datasets.mpii import MPII, NECK_NOTE
from bipose_lit.datasets.mpii_files import read_json
from bipose_lit.datasets.mpii_truth import find_rows, read_evaluated, truths_beside
from bipose_lit.metrics.pckh import MpiiScoring
from bipose_lit.types import NORMS

N = 9
IMAGES = [f"{i}.jpg" for i in range(N)]
HEAD = NORMS.index("head")


def turned(people, rows):
    return {key: values[rows] for key, values in people.items()}


def pair(folder, listed, truth):
    write_json(folder / "valid.json", listed, [f"{i}.jpg" for i in range(len(listed["scale"]))], truth=False)
    write_truth(folder / "gt_valid.mat", truth)
    return read_json(folder / "valid.json"), read_evaluated(folder / "gt_valid.mat")


@pytest.mark.parametrize("seed", range(3))
def test_persons_are_found_in_any_order(tmp_path, seed):
    people, order = persons(N, seed), np.random.default_rng(seed).permutation(N)
    np.testing.assert_array_equal(find_rows(*pair(tmp_path, people, turned(people, order))), np.argsort(order))
    np.testing.assert_array_equal(find_rows(*pair(tmp_path, people, people)), np.arange(N))


def test_others_are_not_found(tmp_path):
    people = persons(N)
    assert (find_rows(*pair(tmp_path, people, persons(N, 1))) == -1).all()
    some = [0, 2, 5]
    found = find_rows(*pair(tmp_path, people, turned(people, some)))
    np.testing.assert_array_equal(np.flatnonzero(found >= 0), some)
    moved = people | {"joints": people["joints"] + np.where(np.arange(N) == 4, 0.2, 0.05)[:, None, None]}
    np.testing.assert_array_equal(find_rows(*pair(tmp_path, people, moved)) < 0, np.arange(N) == 4)


def test_a_coordinate_of_0_in_the_evaluations_file_is_passed_over(tmp_path):
    """The published gt_valid.mat has such for ten persons."""
    people = persons(N, missing=0)
    truth = {key: values.copy() for key, values in people.items()}
    truth["joints"][3, 9, 1] = truth["joints"][5, 2, 0] = truth["joints"][5, 3] = 0
    order = np.roll(np.arange(N), 2)
    np.testing.assert_array_equal(find_rows(*pair(tmp_path, people, turned(truth, order))), np.argsort(order))
    truth["joints"][5, :9] = 0  # more than half of them: anybody could be meant
    assert find_rows(*pair(tmp_path, people, truth))[5] == -1


def test_twins_are_found_where_their_rows_are_the_same_and_not_elsewhere(tmp_path):
    people = persons(N)
    for key in ("joints", "present"):
        people[key][4] = people[key][7]
    np.testing.assert_array_equal(find_rows(*pair(tmp_path, people, people)), np.arange(N))
    found = find_rows(*pair(tmp_path, people, turned(people, np.roll(np.arange(N), 1))))
    np.testing.assert_array_equal(np.flatnonzero(found < 0), [4, 7])


def test_each_person_is_found_once(tmp_path):
    people = persons(N)
    for key in ("joints", "present"):
        people[key][4] = people[key][7]
    found = find_rows(*pair(tmp_path, people, turned(people, [0, 1, 2, 3, 7, 5, 6])))
    known = found[found >= 0]
    assert len(set(known)) == len(known)


def test_persons_without_joints(tmp_path):
    people = persons(N)
    people["present"][[2, 6]] = False
    order = np.roll(np.arange(N), 1)
    found = find_rows(*pair(tmp_path, people, turned(people, order)))
    assert sorted(found) == list(range(N))
    np.testing.assert_array_equal(np.delete(found, [2, 6]), np.delete(np.argsort(order), [2, 6]))


def test_names_of_truths(tmp_path):
    for name in ("gt_valid.mat", "mpii_gt_val.mat", "other.mat"):
        (tmp_path / name).touch()

    def found(name):
        return [path.name for path in truths_beside(tmp_path / name)]

    assert found("valid.json") == ["gt_valid.mat"]
    assert found("mpii_val.json") == ["mpii_gt_val.mat"]  # mmpose's
    assert found("sample.json") == ["gt_valid.mat", "mpii_gt_val.mat"]
    assert [path.name for path in truths_beside(tmp_path / "sample.json", exact=True)] == []


def test_mmposes_names(tmp_path):
    people = persons(N)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "mpii_val.json").write_text(json.dumps(entries(people, IMAGES)))
    write_truth(tmp_path / "annotations" / "mpii_gt_val.mat", people)
    index = MPII(tmp_path, annotations="annotations/mpii_val.json").index("test")
    np.testing.assert_allclose([t.norms[0, HEAD] for t in index.tracks], heads(people), rtol=1e-6)
    assert NECK_NOTE not in index.skipped


def test_estimated_head_sizes_are_not_the_official_measure(tmp_path):
    people = persons(N, missing=0)
    write_json(tmp_path / "annot" / "train.json", people, IMAGES, truth=False)
    write_json(tmp_path / "annot" / "valid.json", people, IMAGES)
    reader = MPII(tmp_path, val_fraction=0.3)
    for split, estimated in (("train", True), ("val", True), ("test", False)):
        index = reader.index(split)
        assert index.scoring == MpiiScoring(estimated)
        assert (NECK_NOTE in index.skipped) is estimated
    assert "estimated_head" in NECK_NOTE
    write_truth(tmp_path / "annot" / "gt_valid.mat", turned(people, slice(0, N - 1)))  # one of them has no head box
    assert reader.index("test").scoring == MpiiScoring(False)  # read before
    assert MPII(tmp_path).index("test").scoring == MpiiScoring(True)
