"""The catalogue: every set is complete, readable, and light to import."""

import re
import subprocess
import sys

import pytest

from bipose_lit.datasets.catalogue import CATALOGUE, find
from bipose_lit.datasets.catalogue_entry import CLICK, HAND, OPEN, OWN, REQUEST
from bipose_lit.datasets.check import Row
from bipose_lit.datasets.layouts import lacking
from bipose_lit.types import BiposeError

EACH = pytest.mark.parametrize("data", CATALOGUE.values(), ids=CATALOGUE)


def test_importing_it_is_light():
    code = "import sys, bipose_lit.datasets.catalogue; print({'numpy', 'cv2', 'torch', 'pooch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@EACH
def test_entries_are_complete(data):
    assert data.access in (OPEN, HAND, CLICK, REQUEST, OWN)
    assert data.title
    assert data.licence
    assert data.how
    assert data.home
    assert bool(data.downloads) == (data.access == OPEN), "what is open can be fetched, the rest cannot"
    assert not data.published or data.source, "no number without where it stands"
    for splits, counts in data.published.items():
        assert set(splits.split("+")) <= {"train", "val", "test"}
        assert set(counts) <= set(Row.__dataclass_fields__)
        assert all(number > 0 for number in counts.values())


@EACH
def test_downloads_have_sound_addresses_and_checksums(data):
    assert len({item.file for item in data.downloads}) == len(data.downloads)
    for item in data.downloads:
        assert item.url.startswith(("https://", "http://"))
        assert item.url.endswith(item.file)
        assert re.fullmatch(r"|md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", item.checksum)
        assert item.into is None or item.file.endswith((".zip", ".tar.gz"))


@EACH
def test_readers_exist_and_have_a_layout(data):
    layout = data.layout()
    assert any(entry.needed for entry in layout) or data.either
    assert all(entry.about and not entry.path.startswith("/") for entry in layout)
    if data.name != "video_json":  # it takes any skeleton
        labelled = {"posetrack18": 15}.get(data.name, len(data.reader_class().skeleton))
        assert data.joints == labelled


def test_sub_jhmdb_needs_its_own_lists():
    needed = {entry.path.split("/")[0] for entry in CATALOGUE["sub_jhmdb"].layout() if entry.needed}
    assert "sub_splits" in needed
    assert "splits" not in needed
    assert "splits" in {entry.path.split("/")[0] for entry in CATALOGUE["jhmdb"].layout() if entry.needed}


def test_mpii_does_without_pictures_but_not_without_labels(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(b"")
    mpii = CATALOGUE["mpii"]
    assert not any(entry.needed for entry in mpii.layout())
    (needed,) = [entry for entry in lacking(mpii, tmp_path) if entry.needed]
    assert needed.path == "annot/LIST.json or annot/LIST.h5 or mpii_human_pose_v1_u12_1.mat"
    for name in ("annot/valid.h5", "valid.json", "mpii_human_pose_v1_u12_1.mat", "annot/mpii_human_pose_v1_u12_2.mat"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        assert not any(entry.needed for entry in lacking(mpii, tmp_path)), name
        path.unlink()


def test_mpii_lists_may_lie_in_the_folder_itself(tmp_path):
    for name in ("valid.h5", "gt_valid.mat"):
        (tmp_path / name).write_bytes(b"")
    assert [entry.path for entry in lacking(CATALOGUE["mpii"], tmp_path)] == ["images/NNNNNNNNN.jpg"]


def test_files_of_the_folder_become_arguments(tmp_path, monkeypatch):
    given = {}
    data = CATALOGUE["h36m"]
    monkeypatch.setattr(type(data), "reader_class", lambda self: lambda root, **arguments: given.update(arguments))
    for name in ("data_3d_h36m.npz", "data_2d_h36m_gt.npz", "data_2d_h36m_cpn_ft_h36m_dbb.npz"):
        (tmp_path / name).write_bytes(b"")
    data.make_reader(tmp_path, strict=False)
    assert given == {
        "positions": "data_3d_h36m.npz", "detections": "data_2d_h36m_cpn_ft_h36m_dbb.npz", "strict": False,
    }  # fmt: skip


def test_names_aliases_and_suggestions():
    assert find("penn_action") is find("penn") is CATALOGUE["penn"]
    assert find("posetrack").name == "posetrack18"
    for wrong, meant in (("coko", "coco"), ("JHMDB", "jhmdb"), ("human36", "human36m"), ("pen", "penn")):
        with pytest.raises(BiposeError, match=rf"{re.escape(wrong)!r} is none of coco, .*did you mean {meant}\?"):
            find(wrong)
    with pytest.raises(BiposeError, match=r"is none of coco, mpii, [^?]*$"):
        find("")
