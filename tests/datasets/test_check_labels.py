"""Labels that make no sense, whether the size of the picture is known or not."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from tiny_sets import write_penn

from bipose_lit.datasets.check_labels import check_labels
from bipose_lit.datasets.penn import PennAction
from bipose_lit.types import ABSENT


@pytest.fixture
def index(tmp_path):
    return PennAction(write_penn(tmp_path, frames=False)).index("test")


def faults(index, **changes):
    first = index.tracks[0]
    edited = replace(first, **{k: v(getattr(first, k).copy()) if callable(v) else v for k, v in changes.items()})
    wrong, notes = defaultdict(list), defaultdict(list)
    check_labels("test", replace(index, tracks=(edited, *index.tracks[1:])), wrong, notes)
    return dict(wrong), dict(notes)


def at(where, value):
    def change(array):
        array[where] = value
        return array

    return change


def test_sound_labels(index):
    assert faults(index) == ({}, {})
    assert faults(index, image_size=(0, 0)) == ({}, {})


def test_a_box_that_holds_no_joint(index):
    reason = "boxes that hold none of the person's joints"
    for size in ((64, 48), (0, 0)):
        wrong, _ = faults(index, boxes=at(1, [0, 0, 2, 2]), image_size=size)
        assert wrong == {reason: ["0003 (1, the first in frame 1)"]}
    wrong, _ = faults(index, boxes=at(1, [0, 0, 2, 2]), visible=at(1, ABSENT))
    assert wrong == {}
    x, y = index.tracks[0].joints[1, 4]
    assert faults(index, boxes=at(1, [x + 1.2, y - 1, 3, 3]))[0] == {}  # within a pixel


def test_places_in_a_picture_of_unknown_size(index):
    wrong, _ = faults(index, joints=at((1, 2), [0, -2e4]), image_size=(0, 0))
    assert wrong == {"joints beyond 10,000 px": ["0003 (1, the first in frame 1)"]}
    wrong, _ = faults(index, boxes=at(2, [0, 0, 3e4, 50]), image_size=(0, 0))
    assert wrong == {"boxes beyond 10,000 px": ["0003 (1, the first in frame 2)"]}
    wrong, _ = faults(index, joints=at((0, 0), np.nan), image_size=(0, 0))
    assert wrong == {"joints that are not numbers": ["0003 (1, the first in frame 0)"]}
