"""`bipose data check`: a sound set is sound, and each fault is told once, at its place."""

import json
import os
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.io
from tiny_sets import write_coco, write_jhmdb, write_mpii, write_penn, write_video_json

from bipose_lit.datasets import catalogue
from bipose_lit.datasets.catalogue_entry import OWN
from bipose_lit.datasets.check import check
from bipose_lit.datasets.check_files import LABELS_ALONE
from bipose_lit.datasets.penn import PennAction
from bipose_lit.types import BiposeError


@pytest.fixture(scope="module")
def penn_made(tmp_path_factory):
    return write_penn(tmp_path_factory.mktemp("made") / "penn")


@pytest.fixture
def penn(penn_made, tmp_path):
    shutil.copytree(penn_made, tmp_path / "penn")
    return tmp_path / "penn"


def change(path, **values):
    content = scipy.io.loadmat(path)
    scipy.io.savemat(path, {**{k: v for k, v in content.items() if not k.startswith("__")}, **values})


def test_a_sound_set(penn):
    report = check("penn", penn, "decode")
    assert report.wrong == {}
    assert [row.split for row in report.rows] == ["train", "val", "test"]
    train, val, test = report.rows
    assert (train.clips + val.clips, train.persons + val.persons, test.clips, test.pictures) == (2, 6, 2, 6)
    assert (test.labelled, test.hidden, test.sources) == (2 * 3 * 13, 0.0, 2)
    assert report.notes["a sample of the set"] == [
        "train+val: 2 clips, published 1,258", "test: 2 clips, published 1,068",
    ]  # fmt: skip


def test_counts_equal_different_or_not_compared(penn, monkeypatch):
    data = replace(catalogue.find("penn"), published={"train+val": {"clips": 2}, "test": {"clips": 3, "persons": 5}})
    monkeypatch.setattr(catalogue, "CATALOGUE", {"penn": data})
    notes = check("penn", penn).notes
    assert notes["counts as published"] == ["train+val: 2 clips, published 2"]
    assert notes["counts that differ from the published ones"] == [
        "test: 2 clips, published 3", "test: 6 persons, published 5",
    ]  # fmt: skip
    assert not any("published" in reason for reason in check("penn", penn, counts=False).notes)


def test_a_truncated_picture_is_found_by_decoding_alone(penn):
    path = penn / "frames" / "0003" / "000002.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert check("penn", penn).wrong == {}
    wrong = check("penn", penn, "decode").wrong
    assert list(wrong) == ["pictures that cannot be read"]
    assert wrong["pictures that cannot be read"] == [
        "frames/0003/000002.jpg: truncated JPEG; copy or download the file again"
    ]


def test_missing_and_empty_pictures_and_ones_of_another_size(penn):
    (penn / "frames" / "0003" / "000001.jpg").write_bytes(b"")
    (penn / "frames" / "0003" / "000002.jpg").write_bytes(b"text")
    cv2.imwrite(str(penn / "frames" / "0003" / "000003.jpg"), np.zeros((50, 64, 3), np.uint8))
    wrong = check("penn", penn, "decode").wrong
    assert wrong["empty files"] == ["frames/0003/000001.jpg"]
    assert len(wrong["pictures that cannot be read"]) == 1
    assert wrong["pictures of another size than the labels say"] == ["frames/0003/000003.jpg: 64x50, not 64x48"]


def test_decoding_a_few(penn):
    report = check("penn", penn, "decode", limit=5)
    assert report.notes["not all pictures were decoded"] == ["5 of 12"]


def test_labels_without_any_picture_are_a_note(tmp_path):
    report = check("penn", write_penn(tmp_path, frames=False))
    assert report.wrong == {}
    assert len(report.notes[LABELS_ALONE]) == 3
    assert report.notes[LABELS_ALONE][2] == "test: 6 files, as frames/0003/000001.jpg"


def test_a_damaged_label_file_is_told_and_the_rest_read(penn):
    path = penn / "labels" / "0003.mat"
    path.write_bytes(path.read_bytes()[:100])
    report = check("penn", penn)
    assert any("0003" in place for places in report.wrong.values() for place in places)
    assert report.rows[-1].clips == 1


def test_labels_outside_of_the_picture(penn):
    content = scipy.io.loadmat(penn / "labels" / "0003.mat")
    x, box = content["x"], content["bbox"].astype(np.float64)
    x[1, 4], x[1, 5] = 66.0, 9000.0
    box[2] = [700, 5, 760, 40]
    change(penn / "labels" / "0003.mat", x=x, bbox=box)
    report = check("penn", penn)
    assert report.wrong["joints far outside of the picture"] == ["0003 (1, the first in frame 1)"]
    assert report.wrong["boxes outside of the picture"] == ["0003 (1, the first in frame 2)"]
    assert report.notes["joints outside of the picture"] == ["0003 (1, the first in frame 1)"]


def test_a_file_and_an_id_in_two_splits(penn, monkeypatch):
    whole = PennAction.index

    def leaking(self, split):
        index = whole(self, split)
        if split == "test":
            index = replace(index, tracks=(*index.tracks, whole(self, "train").tracks[0]))
        return index

    monkeypatch.setattr(PennAction, "index", leaking)
    report = check("penn", penn)
    assert len(report.wrong["files in two splits"]) == 3
    assert report.wrong["annotation ids in two splits"][0].startswith("train and test: 3, as ")
    assert len(report.notes["sources in two splits (as the owners split it)"]) == 1
    own = replace(catalogue.find("penn"), access=OWN)
    monkeypatch.setattr(catalogue, "CATALOGUE", {"penn": own})
    assert len(check("penn", penn).wrong["sources in two splits"]) == 1


def test_ids_that_are_not_unique(penn, monkeypatch):
    whole = PennAction.index

    def doubled(self, split):
        index = whole(self, split)
        return replace(index, tracks=(*index.tracks, index.tracks[0]))

    monkeypatch.setattr(PennAction, "index", doubled)
    wrong = check("penn", penn).wrong
    assert "test: 3" in wrong["annotation ids that are not unique"]
    assert any(place.startswith("test: 0003") for place in wrong["clips of one name"])


def test_stills_and_what_the_reader_leaves_out(tmp_path):
    report = check("coco", write_coco(tmp_path), "decode")
    assert report.wrong == {}
    assert report.rows[-1].persons == 1
    (tmp_path / "val2017" / f"{100:012d}.jpg").unlink()
    report = check("coco", tmp_path)
    assert report.wrong == {}
    assert report.notes[LABELS_ALONE] == [f"test: 1 files, as val2017/{100:012d}.jpg"]


def test_a_split_that_is_not_here_is_a_note_and_what_is_needed_is_told(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "annotations" / "person_keypoints_train2017.json").unlink()
    report = check("coco", tmp_path)
    assert [row.split for row in report.rows] == ["test"]
    assert len(report.notes["splits that are not here"]) == 2
    assert report.wrong["needed but not there"][0].startswith("annotations/person_keypoints_train2017.json (")


def test_a_split_that_is_damaged_is_wrong(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "annotations" / "person_keypoints_train2017.json"
    path.write_text(path.read_text()[:-100])
    assert len(check("coco", tmp_path).wrong["splits that cannot be read"]) == 2


def test_a_split_whose_every_label_is_damaged_is_wrong_and_says_why(tmp_path):
    root = write_penn(tmp_path / "penn")
    for name in ("0003", "0004"):
        path = root / "labels" / f"{name}.mat"
        path.write_bytes(path.read_bytes()[:200])
    report = check("penn", root)
    assert report.notes.get("splits that are not here") is None
    (told,) = report.wrong["splits that cannot be read"]
    assert told.startswith("test: ")
    assert "left out: damaged label file: 0003 (not a readable MATLAB file" in told
    write_coco(tmp_path / "coco")
    path = tmp_path / "coco" / "annotations" / "person_keypoints_val2017.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    assert check("coco", tmp_path / "coco").wrong["splits that cannot be read"][0].startswith("test: ")
    root = write_video_json(tmp_path / "own")
    (root / "hands.yaml").rename(root / "skeleton.yaml")
    (root / "annotations_test.json").write_text("")
    told = check("video_json", root).wrong["splits that cannot be read"]
    assert told == [f"test: {root}/annotations_test.json: the file is empty; copy or download it again"]


def test_damaged_and_missing_clips_of_jhmdb_are_wrong(tmp_path):
    root = write_jhmdb(tmp_path)
    assert check("jhmdb", root).wrong == {}
    labels = root / "joint_positions" / "run"
    (labels / "e_0" / "joint_positions.mat").unlink()
    assert check("jhmdb", root).wrong == {"reader: no joint positions": ["run/e_0"]}
    path = labels / "d_0" / "joint_positions.mat"
    path.write_bytes(path.read_bytes()[:150])
    told = check("jhmdb", root).wrong["splits that cannot be read"]
    assert told[0].startswith(
        f"split1/test: {root}/splits: split 1 has no test clips that can be used; left out: damaged label"
    )


def test_a_fault_in_json_names_its_file(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] += [{"id": "x"}, {**content["annotations"][0], "id": 99, "bbox": [900, 900, 5, 5]}]
    content["annotations"].append({**content["annotations"][0], "id": 98, "bbox": [5, 5, 1.2, 30]})
    path.write_text(json.dumps(content))
    wrong = check("coco", tmp_path).wrong
    assert wrong["reader: annotations: id: expected int, got str"] == [f"{path.name}: annotations[1]"]
    assert wrong["reader: boxes outside of the image"] == [f"{path.name}: 1 (the first is 99)"]
    assert wrong["reader: boxes below one pixel, widened"] == [f"{path.name}: 1 (the first is 98)"]


def test_labels_of_which_any_kind_will_do_and_pictures_told_once(tmp_path):
    write_mpii(tmp_path, pictures=2)
    report = check("mpii", tmp_path)
    assert report.wrong == {}
    lacking = report.notes["not there (the reader does without it)"]
    assert [line.split(" ")[0] for line in lacking] == ["annot/gt_valid.mat"]
    (tmp_path / "images" / "000000001.jpg").unlink()
    report = check("mpii", tmp_path)
    assert report.wrong == {"pictures that are not there": ["images/000000001.jpg"]}
    assert not any("000000001" in place for places in report.notes.values() for place in places)
    (tmp_path / "images" / "000000002.jpg").unlink()
    (tmp_path / "images").rmdir()
    assert check("mpii", tmp_path).wrong == {}
    (tmp_path / "annot" / "valid.json").rename(tmp_path / "annot" / "other.json")
    with pytest.raises(BiposeError, match="no annot/valid"):
        check("mpii", tmp_path)


def test_a_set_that_shares_a_folder_is_told_what_lacks(tmp_path):
    write_jhmdb(tmp_path)
    told = r"holds jhmdb, but no sub_splits/CLASS_test_split_1\.txt; 'bipose data fetch sub_jhmdb' says"
    with pytest.raises(BiposeError, match=told):
        check("sub_jhmdb", tmp_path)


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    root = write_coco(tmp_path)
    scan = os.scandir

    def closed(path="."):
        if str(path).endswith(("val2017", "annotations")):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", closed)
    report = check("coco", root)
    assert report.wrong == {
        "folders that cannot be read": [f"{n} (Permission denied)" for n in ("annotations", "val2017")]
    }


def test_the_commands_of_the_page_end_well(tmp_path):
    root = write_coco(tmp_path)
    shutil.rmtree(root / "train2017")  # fetch coco --only val2017.zip,annotations_trainval2017.zip
    report = check("coco", root, "decode")
    assert report.wrong == {}
    assert [line.split(":")[0] for line in report.notes[LABELS_ALONE]] == ["train", "val"]


def test_a_limit_is_for_decoding(penn):
    with pytest.raises(BiposeError, match="--limit 5: says how many pictures to decode; add --pixels decode"):
        check("penn", penn, limit=5)


def test_a_picture_of_coco_in_two_splits_is_wrong(tmp_path):
    root = write_coco(tmp_path)
    path = root / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = f"{1:012d}.jpg"
    path.write_text(json.dumps(content))
    (place,) = check("coco", root).wrong["sources in two splits"]
    assert place.endswith(f" and test: {1:012d}.jpg")


def test_ones_own_set_and_skeleton(tmp_path):
    report = check("video_json", write_video_json(tmp_path), "decode", skeleton=str(tmp_path / "hands.yaml"))
    assert report.wrong == {}
    assert report.rows[0].clips == 2
    with pytest.raises(BiposeError, match=r"video_json needs --skeleton NAME\|YAML, or a skeleton\.yaml in "):
        check("video_json", tmp_path)
    (tmp_path / "hands.yaml").rename(tmp_path / "skeleton.yaml")
    assert check("video_json", tmp_path).wrong == {}
    with pytest.raises(BiposeError, match="--skeleton: penn has its own"):
        check("penn", write_penn(tmp_path / "penn", clips=2, T=1, frames=False), skeleton="coco")


def test_what_the_caller_gets_wrong(tmp_path, penn):
    with pytest.raises(BiposeError, match="did you mean penn"):
        check("pen", penn)
    with pytest.raises(BiposeError, match="no such folder"):
        check("penn", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BiposeError, match="the folder is empty"):
        check("penn", tmp_path / "empty")
    with pytest.raises(BiposeError, match="layout of penn, not of coco"):
        check("coco", penn)
    with pytest.raises(BiposeError, match="pixels 'all' is none of exist, decode"):
        check("penn", penn, "all")


def test_the_report_is_written_as_json(penn, tmp_path):
    report = check("penn", penn)
    report.save(tmp_path / "deep" / "r.json")
    read = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert read["rows"][0]["split"] == "train"
    assert read["wrong"] == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(BiposeError, match="choose another place"):
        report.save(tmp_path / "file" / "r.json")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "folder", "persons"),
    [
        ("coco", "coco_mini", {"train": 76, "val": 10, "test": 68}),
        ("penn", "penn_action_mini", {"train": 2060, "val": 257, "test": 2011}),
        ("posetrack18", "posetrack18_mini", {"test": 14}),
        ("jhmdb", "jhmdb_mini", {"split1/train": 427, "split1/val": 49, "split1/test": 298}),
        ("mocap", "mocap", {"train": 68916, "val": 4584, "test": 2348}),
    ],
)
def test_real_samples_are_sound(real_data, name, folder, persons):
    report = check(name, real_data / folder, "decode")
    assert report.wrong == {}
    found = {row.split: row.persons for row in report.rows}
    assert {split: found[split] for split in persons} == persons


@pytest.mark.real_data
def test_real_labels_whose_pictures_are_not_there(real_data):
    report = check("mpii", real_data / "mpii_mini")
    assert {reason: len(places) for reason, places in report.wrong.items()} == {"pictures that are not there": 2724}
    assert not any("LIST" in place or len(places) > 1000 for places in report.notes.values() for place in places)
    assert report.notes["counts as published"] == ["test: 2,958 persons, published 2,958"]
