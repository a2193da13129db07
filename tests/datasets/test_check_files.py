"""Pictures: the three rules of a split without any, copies of a picture in two splits, JPEGs that decode although damaged."""

import shutil
from collections import defaultdict
from dataclasses import replace

import cv2
import numpy as np
import pytest
from tiny_sets import write_coco, write_penn

from bipose_lit.datasets.check import check
from bipose_lit.datasets.check_files import LABELS_ALONE, Files
from bipose_lit.datasets.frames import FolderFrames
from bipose_lit.datasets.index import Entry
from bipose_lit.datasets.penn import PennAction


def test_copies_of_a_picture_in_two_splits(tmp_path):
    root = write_penn(tmp_path)
    frames = root / "frames"
    shutil.copyfile(frames / "0001" / "000002.jpg", frames / "0003" / "000001.jpg")
    shutil.copyfile(frames / "0001" / "000002.jpg", frames / "0001" / "000003.jpg")  # within a clip: no leak
    for pixels in ("exist", "decode"):
        wrong = check("penn", root, pixels).wrong
        assert list(wrong) == ["copies of a picture in two splits"]
        assert [place.split(": ")[1] for place in wrong["copies of a picture in two splits"]] == [
            "frames/0001/000002.jpg and frames/0003/000001.jpg"
        ]


def test_files_of_one_size_and_middle_are_compared_whole(tmp_path):
    root = write_penn(tmp_path)
    for clip, last in (("0001", b"a"), ("0003", b"b")):
        (root / "frames" / clip / "000001.jpg").write_bytes(bytes(30_000) + last)
    assert "copies of a picture in two splits" not in check("penn", root).wrong
    (root / "frames" / "0003" / "000001.jpg").write_bytes(bytes(30_000) + b"a")
    assert len(check("penn", root).wrong["copies of a picture in two splits"]) == 1


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ((Entry("frames/NNNN/000001.jpg", "frames", needed=False),), "notes"),
        ((Entry("frames/NNNN/000001.jpg", "frames"),), "wrong"),
        ((Entry("images/NNNN/000001.jpg", "frames", needed=False),), "wrong"),
    ],
)
def test_a_split_without_any_picture(tmp_path, layout, kind):
    root = write_penn(tmp_path, frames=False)
    files = Files()
    files.add("test", PennAction(root).index("test"))
    wrong, notes = defaultdict(list), defaultdict(list)
    files.look(layout, "exist", None, wrong, notes)
    told = ["test: 6 files, as frames/0003/000001.jpg"]
    assert notes[LABELS_ALONE] == (told if kind == "notes" else [])
    assert wrong["splits without any picture"] == (told if kind == "wrong" else [])
    assert wrong["pictures that are not there"] == []


def test_a_split_that_shares_missing_files_with_one_that_has_some(tmp_path):
    """JHMDB's split 1 tests on what split 2 trains on."""
    files = Files()
    (tmp_path / "a.jpg").write_bytes(b"a")
    index = PennAction(write_penn(tmp_path / "penn", clips=2, T=1)).index("train")

    def of(*names):
        return replace(
            index, tracks=tuple(replace(index.tracks[0], frames=FolderFrames(tmp_path, (n,))) for n in names)
        )

    files.add("split1/test", of("b.jpg"))
    files.add("split2/train", of("a.jpg", "b.jpg"))
    wrong, notes = defaultdict(list), defaultdict(list)
    files.look((), "exist", None, wrong, notes)
    assert wrong["splits without any picture"] == ["split1/test: 1 files, as b.jpg"]
    assert wrong["pictures that are not there"] == ["b.jpg"]


def damage(data, how):
    middle = len(data) // 2
    if how == "middle zeroed":
        return data[:middle] + bytes(len(data) // 10) + data[middle + len(data) // 10 :]
    if how == "random bytes":
        noise = np.random.default_rng(0).bytes(len(data) // 10)
        return data[:middle] + noise + data[middle + len(data) // 10 :]
    return data[: len(data) // 4] + b"\xff\xd9"


@pytest.mark.parametrize("how", ["middle zeroed", "random bytes", "cut to a quarter, with an end"])
def test_a_damaged_jpeg_is_found_by_decoding_and_nobody_else_is_told(tmp_path, how, capfd):
    root = write_coco(tmp_path)
    path = root / "val2017" / f"{100:012d}.jpg"
    rng = np.random.default_rng(5)
    small = rng.integers(0, 255, (12, 16, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC))
    assert check("coco", root, "decode").wrong == {}
    path.write_bytes(damage(path.read_bytes(), how))
    assert check("coco", root).wrong == {}
    wrong = check("coco", root, "decode").wrong
    assert list(wrong) == ["pictures that cannot be read"]
    assert wrong["pictures that cannot be read"][0].startswith(f"val2017/{100:012d}.jpg: damaged JPEG (")
    assert capfd.readouterr().err == ""


def test_a_picture_that_may_not_be_read_is_no_copy(tmp_path, monkeypatch):
    root = write_penn(tmp_path)
    for clip in ("0001", "0003"):
        (root / "frames" / clip / "000001.jpg").write_bytes(b"one")
    monkeypatch.setattr("pathlib.Path.open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    files = Files()
    files.root = root
    files.splits = {"train": {"frames/0001/000001.jpg"}, "test": {"frames/0003/000001.jpg"}}
    wrong = {}
    files._copies({f"frames/{clip}/000001.jpg": 3 for clip in ("0001", "0003")}, wrong)
    assert wrong == {}
