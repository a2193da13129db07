"""The other engines are silent, leave what they are given alone, and say how to get them; numbers: test_coco_measure.py."""

import sys

import numpy as np
import pytest
from coco_persons import SIGMAS, files, make_detected, make_truth

from bipose_lit.metrics.coco_engines import ENGINES, as_dicts, find_engine
from bipose_lit.types import BiposeError


@pytest.fixture
def persons():
    rng = np.random.default_rng(1)
    truth = make_truth(rng)
    return truth, make_detected(rng, truth)


@pytest.mark.parametrize("name", ENGINES)
def test_silent_and_without_traces(name, persons, capfd):
    truth, detected = persons
    before = [v.tobytes() for p in persons for v in vars(p).values()]
    first = find_engine(name)(truth, detected, SIGMAS)
    np.testing.assert_equal(find_engine(name)(truth, detected, SIGMAS), first)
    assert [v.tobytes() for p in persons for v in vars(p).values()] == before
    assert capfd.readouterr() == ("", "")


def test_dicts_are_what_the_files_hold(persons):
    truth, detected = persons
    labels, results = as_dicts(truth, detected)
    expected_labels, expected = files(truth, detected)
    for found, wanted in zip(labels["annotations"], expected_labels["annotations"], strict=True):
        assert {k: found[k] for k in ("image_id", "category_id", "keypoints", "bbox", "area", "iscrowd")} == {
            k: wanted[k] for k in ("image_id", "category_id", "keypoints", "bbox", "area", "iscrowd")
        }
        assert (found["num_keypoints"] == 0 or found["iscrowd"]) == (wanted["num_keypoints"] == 0 or wanted["iscrowd"])
    for found, wanted in zip(results["annotations"], expected, strict=True):
        assert {k: found[k] for k in wanted} == wanted
    ids = [a["id"] for a in labels["annotations"]]
    assert min(ids) == 1
    assert len(set(ids)) == len(ids)


def test_how_to_install_what_is_missing(persons, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(BiposeError, match=r"pip install 'bipose_lit\[coco\]'"):
        find_engine("faster-coco-eval")(*persons, SIGMAS)
