"""What readers of label files share: one clear line for everything that a MATLAB file can hold instead of numbers."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from mat_writer import CHAR, CLASSES, STORED, element, mat_file, matrix

from bipose_lit.datasets import labels
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

ODD = {
    "text": "abc", "a struct": {"a": 1.0}, "cells": np.array([1, "a"], dtype=object),
    "complex numbers": np.ones((2, 2)) * 1j, "a sparse matrix": scipy.sparse.eye(2).tocsc(),
}  # fmt: skip


@pytest.fixture
def mat(tmp_path):
    def write(**content):
        path = tmp_path / "a.mat"
        scipy.io.savemat(path, content)
        return path, labels.load_mat(path, [])

    return write


def one_line(caught):
    return "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_numbers_is_named(mat, kind):
    with pytest.raises(BiposeError, match=rf"a\.mat: x is {kind}, expected numbers") as caught:
        labels.numbers(*mat(x=ODD[kind]), "x")
    assert one_line(caught)


def test_more_numbers_than_any_label_has(mat, monkeypatch):
    monkeypatch.setattr(labels, "MOST_NUMBERS", 12)
    assert labels.numbers(*mat(x=np.ones((3, 4))), "x").shape == (3, 4)
    with pytest.raises(BiposeError, match=r"a\.mat: x holds 13 numbers") as caught:
        labels.numbers(*mat(x=np.ones((13, 1))), "x")
    assert one_line(caught)


def test_what_cannot_be_read_keeps_no_other_variable_from_being_read(tmp_path):
    path = tmp_path / "a.mat"
    odd = matrix("<", CHAR, (1, 2), element("<", 16, b"\xff\xfe"), b"odd")
    good = matrix("<", CLASSES["f8"], (1, 1), element("<", STORED["u1"], b"\x07"), b"good")
    path.write_bytes(mat_file("<", odd, good))
    content = labels.load_mat(path, ["good", "odd"])
    assert labels.number(path, content, "good") == 7
    with pytest.raises(BiposeError, match=r"a\.mat: odd is a text in no known encoding, expected numbers"):
        labels.numbers(path, content, "odd")
    with pytest.raises(BiposeError, match=r"a\.mat: odd is a text in no known encoding, expected a short text"):
        labels.text(path, content, "odd")


def test_one_number(mat):
    assert labels.number(*mat(x=np.uint8(3)), "x") == 3
    for wrong in (np.nan, np.inf, np.ones(2), np.zeros((0, 0))):
        with pytest.raises(BiposeError, match="expected one number"):
            labels.number(*mat(x=wrong), "x")


def test_text(mat):
    assert labels.text(*mat(x="jump rope"), "x") == "jump rope"
    assert labels.text(*mat(x=np.array(["in a cell"], dtype=object)), "x") == "in a cell"
    assert labels.text(*mat(x=""), "x") == labels.text(*mat(x=1.0), "y") == labels.text(*mat(x=[]), "x") == ""
    for wrong in (3.0, "two\nlines", "long" * 99, {"a": "b"}):
        with pytest.raises(BiposeError, match="expected a short text") as caught:
            labels.text(*mat(x=wrong), "x")
        assert one_line(caught)


@pytest.mark.parametrize("wrong", [np.nan, -1.0, 1e300, "fast", np.ones(3), np.zeros((0, 0))])
def test_a_frame_rate_that_is_none_is_unknown_and_remarked(mat, wrong):
    remarks = {}
    assert labels.frame_rate(*mat(fps=wrong), remarks) == 0
    assert list(remarks) == ["frame rate not usable, taken as unknown"]
    assert labels.frame_rate(*mat(fps=25), remarks := {}) == 25
    assert labels.frame_rate(*mat(x=25), remarks) == 0
    assert not remarks


def test_places_that_are_none_are_absent_and_counted():
    places = np.full((2, 4, 2), 7.0)
    places[0, 0, 0], places[0, 1], places[1, 2, 1], places[1, 3] = np.nan, 1e300, -1e7, np.inf
    visible = np.array([[VISIBLE, OCCLUDED, VISIBLE, VISIBLE], [VISIBLE, VISIBLE, VISIBLE, ABSENT]], np.uint8)
    remarks = {}
    kept, seen = labels.drop_unusable(places, visible, remarks)
    np.testing.assert_array_equal(seen, [[0, 0, 2, 2], [2, 2, 0, 0]])
    np.testing.assert_array_equal(kept, 7.0 * np.repeat((seen != 0)[..., None], 2, axis=-1))
    assert remarks == {
        "joints not finite, taken as absent": "1",
        "joints more than 1,000,000 px away, taken as absent": "2",
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such label file"),
        (b"", "shorter than a header"),
        (b"<html>404</html>", "shorter than a header"),
        (b"x" * 300, "no header of a version 5 file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 600, r"\(saved as v7\.3\); save it again with '-v7'"),
        (b"MATLAB 5.0".ljust(124) + b"\x00\x01IM\x0e", r"\(cut short\); copy or download it again"),
    ],
)
def test_files_that_are_none(tmp_path, content, said):
    path = tmp_path / "b.mat"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BiposeError, match=rf"b\.mat: .*{said}") as caught:
        labels.load_mat(path, [])
    assert one_line(caught)


def test_a_folder_or_a_huge_file_is_not_read(tmp_path):
    with pytest.raises(BiposeError, match="is not a file"):
        labels.load_mat(tmp_path, [])
    with (tmp_path / "big.mat").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BiposeError, match="at most"):
        labels.load_mat(tmp_path / "big.mat", [])
    with pytest.raises(BiposeError, match="cannot read"):
        labels.load_mat(tmp_path / "a\0b.mat", [])


def numbered(*numbers, width=5):
    return [f"{n:0{width}d}.png" for n in numbers]


@pytest.mark.parametrize(
    ("names", "kept", "said"),
    [
        (numbered(1, 2, 3, 4), numbered(1, 2, 3, 4), ""),
        (numbered(3, 1, 4, 2), numbered(1, 2, 3, 4), ""),
        (numbered(0, 1, 2, 3), numbered(0, 1, 2, 3), ""),
        (["a_9.png", "a_10.png", "a_8.png"] + [f"a_{n}.png" for n in range(1, 8)], ["a_1.png", "a_2.png", "a_3.png", "a_4.png"],
         "labels and frames differ in number, common start used: 4 labels, 10 frames"),
        (numbered(1, 2), numbered(1, 2), "labels and frames differ in number, common start used: 4 labels, 2 frames"),
        (numbered(1, 2, 4), numbered(1, 2), "a picture is missing, clip cut before it: no 00003.png, 2 of 4 frames kept"),
        (numbered(1, 2, 4, 5), numbered(1, 2), "a picture is missing, clip cut before it: no 00003.png, 2 of 4 frames kept"),
        (numbered(1, 2, 3, 4, 6), numbered(1, 2, 3, 4),
         "labels and frames differ in number, common start used: 4 labels, 5 frames"),
        (numbered(2, 3, 4), [], "the first picture is missing, clip left out: no 00001.png"),
        (numbered(2, 3, 4, 5), [], "the first picture is missing, clip left out: no 00001.png"),
        (numbered(0, 1, 2), [],
         "pictures numbered from 0 and not one for each label, clip left out: 4 labels, 3 frames"),
        (numbered(0, 1, 2, 4), [],
         "pictures numbered from 0 and not one for each label, clip left out: 4 labels, 4 frames"),
        (numbered(0, 1, 2, 3, 4), [],
         "pictures numbered from 0 and not one for each label, clip left out: 4 labels, 5 frames"),
        (["a.png", "b.png", "c.png", "d.png"], [], "pictures without a number of their own, clip left out: a.png"),
        (["1.png", "01.png", "2.png"], [], "pictures without a number of their own, clip left out: 01.png"),
    ],
    ids=str,
)  # fmt: skip
def test_pictures_are_paired_by_number(names, kept, said):
    found = labels.pair_frames(names, 4)
    assert list(found.names) == kept
    assert f"{found.reason}: {found.detail}" == (said or ": ")


def test_names():
    assert labels.is_name("Torwarttraining_-_Impressionen_vom_1__FFC")
    assert not any(labels.is_name(w) for w in ("", "a\nb", "a\0", "\udcff", "x" * 201))
    with pytest.raises(BiposeError, match="cut it into shorter clips"):
        labels.make_uids("a", labels.MAX_FRAMES + 1)
    with pytest.raises(BiposeError, match="same id"):
        labels.check_uids(["a", "b", "a"])
