"""Layouts as trees, and found in folders."""

import os

import pytest

from bipose_lit.datasets.catalogue import CATALOGUE, find
from bipose_lit.datasets.index import Entry
from bipose_lit.datasets.layouts import check_layout, closed, lacking, missing, pattern, recognise, tree
from bipose_lit.types import BiposeError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("path", "glob"),
    [
        ("labels/NNNN.mat", "labels/*.mat"),
        ("splits/CLASS_test_split1.txt", "splits/*_test_split1.txt"),
        ("Rename_Images/CLASS/CLIP/00001.png", "Rename_Images/*/*/00001.png"),
        ("ReCompress_Videos/CLASS/CLIP.avi", "ReCompress_Videos/*/*.avi"),
        ("sequences_batchN/STEM/NNNNNNNN.jpg", "sequences_batch*/*/*.jpg"),
        ("data_2d_h36m_DETECTOR.npz", "data_2d_h36m_*.npz"),
        ("SUBJECT_TAKE.bvh", "*.bvh"),
        ("annotations/person_keypoints_{train,val}2017.json", "annotations/person_keypoints_*2017.json"),
        ("frames/...", "frames/*"),
        ("images/", "images"),
        ("annot/gt_valid.mat", "annot/gt_valid.mat"),
    ],
)
def test_words_in_capitals_stand_for_anything(path, glob):
    assert pattern(path) == glob


def test_missing_entries(tmp_path):
    layout = (Entry("labels/NNNN.mat", "labels"), Entry("frames/NNNN/000001.jpg", "frames", needed=False))
    assert missing(tmp_path, layout) == list(layout)
    touch(tmp_path, "labels/0001.mat")
    assert missing(tmp_path, layout) == [layout[1]]


def test_files_of_a_kind_may_lie_deeper(tmp_path):
    touch(tmp_path, "cmu/01/01_01.bvh")
    assert missing(tmp_path, [Entry("SUBJECT_TAKE.bvh", "takes")]) == []
    assert missing(tmp_path, [Entry("SUBJECT_TAKE.bvh", "takes")], 1) != []


def test_another_file_in_the_place_of_the_usual_one(tmp_path):
    touch(tmp_path, "tracks.npz")
    assert not any(entry.needed for entry in lacking(CATALOGUE["h36m"], tmp_path))


def test_a_tree_is_written_with_folders_once():
    layout = (
        Entry("a/b/ONE.txt", "one"),
        Entry("a/b/two.txt", "two", needed=False),
        Entry("a/three", "three"),
        Entry("c/", "c"),
    )
    assert tree(layout, "data/x").splitlines() == [
        "data/x/",
        "  a/",
        "    b/",
        "      ONE.txt   one",
        "      two.txt   two (may be missing)",
        "    three       three",
        "  c/            c",
    ]


def test_what_a_wrong_folder_is_told(tmp_path):
    jhmdb, penn = find("jhmdb"), find("penn")
    with pytest.raises(BiposeError, match="nowhere: no such folder; give the folder of the data set"):
        check_layout(jhmdb, tmp_path / "nowhere", "show")
    with pytest.raises(BiposeError, match="the folder is empty; 'bipose data fetch jhmdb'"):
        check_layout(jhmdb, tmp_path, "show")
    touch(tmp_path, "labels/0001.mat")
    assert recognise(tmp_path) == ["penn"]
    check_layout(penn, tmp_path, "show")
    with pytest.raises(BiposeError, match="layout of penn, not of jhmdb; say 'bipose data check penn"):
        check_layout(jhmdb, tmp_path, "check")
    touch(tmp_path, "sub/penn_action/labels/0001.mat")
    with pytest.raises(BiposeError, match=f"penn lies deeper; say 'bipose data show penn {tmp_path}/sub/penn_action'"):
        check_layout(penn, tmp_path / "sub", "show")
    check_layout(penn, tmp_path / "sub" / "penn_action" / "labels", "show")  # nothing known: the reader says the rest


def test_a_file_is_no_folder(tmp_path):
    touch(tmp_path, "file")
    with pytest.raises(BiposeError, match="file: is no folder; give the folder of the data set"):
        check_layout(find("coco"), tmp_path / "file", "show")


def test_folders_that_may_not_be_read(tmp_path, monkeypatch):
    touch(tmp_path, "labels/0001.mat", "frames/0001/000001.jpg")
    assert closed(find("penn"), tmp_path) == []
    scan = os.scandir

    def refused(path="."):
        if str(path).endswith("frames"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refused)
    assert closed(find("penn"), tmp_path) == ["frames (Permission denied)"]


def test_a_root_that_may_not_be_read(tmp_path, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.iterdir", refused)
    with pytest.raises(BiposeError, match=r"the folder cannot be read \(Permission denied\); change its permissions"):
        check_layout(find("penn"), tmp_path, "check")


def test_sets_of_one_page_are_told_what_lacks(tmp_path):
    touch(tmp_path, "joint_positions/a/b/joint_positions.mat", "splits/a_test_split1.txt")
    with pytest.raises(
        BiposeError, match=r"holds jhmdb, but no sub_splits/CLASS_test_split_1\.txt; 'bipose data fetch sub"
    ):
        check_layout(find("sub_jhmdb"), tmp_path, "check")
    check_layout(find("jhmdb"), tmp_path, "check")
    touch(tmp_path / "m", "valid.h5", "images/1.jpg")
    with pytest.raises(
        BiposeError, match=r"holds mpii, but no mpii_human_pose_v1_sequences_batchN/STEM/.*, mpii_human"
    ):
        check_layout(find("mpii_sequences"), tmp_path / "m", "check")
