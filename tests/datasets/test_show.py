"""`bipose data show`: sheets and pages of every kind of set."""

import re

import cv2
import pytest
from tiny_sets import write_coco, write_penn, write_video_json

from bipose_lit.datasets.coco import COCO
from bipose_lit.datasets.show import choose, left_out, show, with_pictures
from bipose_lit.types import BiposeError


@pytest.fixture(scope="module")
def penn(tmp_path_factory):
    return write_penn(tmp_path_factory.mktemp("made") / "penn")


def test_clips_as_strips(penn, tmp_path, capsys):
    show("penn", penn, tmp_path / "s.png")
    assert "2 of 2 clips of penn_action/test[gt-box], 2 sources" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "s.png")) is not None
    show("penn", penn, tmp_path / "t.png", split="train", crop=True, clips=1)
    assert "1 of 1 clips of penn_action/train[gt-box], 1 source\n" in capsys.readouterr().out


def test_stills_as_a_grid_without_a_picture_twice(tmp_path, capsys):
    root = write_coco(tmp_path / "coco", people=((3, 1), (2, 1, 1)))
    show("coco", root, tmp_path / "s.png")
    assert "3 of 4 clips of coco/val2017[gt-box]" in capsys.readouterr().out
    index = COCO(root).index("test")
    assert len({t.frames.names for t in choose(index, 10, False)}) == len(choose(index, 10, False)) == 3
    assert len(choose(index, 10, True)) == 4, "crops are persons"
    assert len(choose(index, 2, False)) == 2


def test_labels_without_pictures(tmp_path, capsys):
    show("penn", write_penn(tmp_path / "penn", frames=False), tmp_path / "s.png")
    show("coco", write_coco(tmp_path / "coco", pictures=False), tmp_path / "c.png", crop=True)
    assert cv2.imread(str(tmp_path / "c.png")) is not None


def test_tracks_with_pictures_come_first(tmp_path):
    root = write_coco(tmp_path / "coco", people=((3, 1), (2, 1, 1)))
    index = COCO(root).index("test")
    gone = index.tracks[0].frames
    (gone.root / gone.names[0]).unlink()
    assert gone.names not in [t.frames.names for t in with_pictures(index).tracks]
    for track in index.tracks:
        (track.frames.root / track.frames.names[0]).unlink(missing_ok=True)
    assert with_pictures(index).tracks == index.tracks


def test_a_page_holds_its_pictures(penn, tmp_path):
    show("penn", penn, tmp_path / "deep" / "s.html", clips=2)
    text = (tmp_path / "deep" / "s.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert not re.search(r"(src|href)=\"(?!data:)", text), "nothing from elsewhere"
    assert "penn_action/test[gt-box]" in text
    assert "13 (penn_action)" in text


def test_a_page_tells_what_was_left_out(tmp_path):
    root = write_penn(tmp_path / "<penn>")
    (root / "frames" / "0003" / "000003.jpg").unlink()
    show("penn", root, tmp_path / "s.html")
    text = (tmp_path / "s.html").read_text()
    assert "labels and frames differ in number" in text
    assert "<penn>" not in text


def test_ones_own_set(tmp_path, capsys):
    show("video_json", write_video_json(tmp_path), tmp_path / "s.png", skeleton=str(tmp_path / "hands.yaml"))
    assert "2 of 2 clips" in capsys.readouterr().out


def test_what_the_caller_gets_wrong(penn, tmp_path):
    with pytest.raises(BiposeError, match=r"x\.jpg: ends in none of \.png, \.html"):
        show("penn", penn, tmp_path / "x.jpg")
    with pytest.raises(BiposeError, match="--clips 0: must be 1 or more"):
        show("penn", penn, tmp_path / "x.png", clips=0)
    with pytest.raises(BiposeError, match="did you mean penn"):
        show("pennn", penn, tmp_path / "x.png")
    with pytest.raises(BiposeError, match="layout of penn, not of jhmdb; say 'bipose data show penn"):
        show("jhmdb", penn, tmp_path / "x.png")
    with pytest.raises(BiposeError, match="--skeleton: penn has its own"):
        show("penn", penn, tmp_path / "x.png", skeleton="coco")
    (tmp_path / "e").mkdir()
    with pytest.raises(BiposeError, match="the folder is empty"):
        show("penn", tmp_path / "e", tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(BiposeError, match="cannot write the page"):
        show("penn", penn, tmp_path / "file" / "x.html")


def test_the_first_complaint_is_told(tmp_path):
    root = write_penn(tmp_path / "penn", frames=False)
    for path in (root / "labels").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BiposeError, match="no test clips"):
        show("penn", root, tmp_path / "x.png")


def test_left_out_names_five_places():
    assert left_out({"gone": list("abc")}) == ["gone: a, b, c"]
    assert left_out({"gone": list("abcdef"), "bad": ["g"]}) == ["gone: a, b, c, d, e ...", "bad: g"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "folder", "told"),
    [
        ("jhmdb", "jhmdb_mini", "10 of 10 clips of jhmdb/split1/test[clip-box], 7 sources"),
        ("coco", "coco_mini", "12 of 68 clips of coco/val2017[gt-box], 32 sources"),
        ("mpii", "mpii_mini", "5 of 2958 clips of mpii/test[gt-box], 2729 sources"),
        ("penn", "penn_action_mini", "12 of 31 clips of penn_action/test[gt-box], 31 sources"),
        ("posetrack18", "posetrack18_mini", "3 of 14 clips of posetrack18/test[gt-box], 3 sources"),
        ("mocap", "mocap", "8 of 8 clips of mocap/test[frame-box], 2 sources"),
    ],
)
def test_real_samples(real_data, tmp_path, capsys, name, folder, told):
    show(name, real_data / folder, tmp_path / "s.png")
    assert told in capsys.readouterr().out
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert 1000 < sheet.shape[1] < 2300
