"""Contact sheets show every clip, at the right place, in the right colours."""

import cv2
import numpy as np
import pytest

from bipose_lit import skeletons
from bipose_lit.datasets import commands
from bipose_lit.datasets.frames import Image
from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.datasets.sheet import contact_sheet, sample_tracks
from bipose_lit.types import OCCLUDED, VISIBLE, BiposeError


class Grey:
    """Frames of one colour each."""

    def __len__(self) -> int:
        return 10

    def read(self, frames) -> list[Image]:
        return [np.full((120, 160, 3), (90, 90, 10 * t), np.uint8) for t in frames]

    def fingerprint(self) -> str:
        return ""


def track(clip="walk/a_0", cluster="a", T=10, visible=VISIBLE):
    rng = np.random.default_rng(0)
    joints = rng.uniform(30, 90, (T, 15, 2)).astype(np.float32)
    return Track(
        clip, cluster, Grey(), joints, np.full((T, 15), visible, np.uint8),
        np.tile(np.float32([20, 20, 90, 90]), (T, 1)), np.ones((T, 5), np.float32), np.arange(T), (160, 120), 25.0,
    )  # fmt: skip


@pytest.mark.parametrize("crop", [False, True])
def test_a_sheet_is_written_as_it_is_returned(tmp_path, crop):
    sheet = contact_sheet(
        [track(), track("run/b_0", "b")], skeletons.JHMDB, tmp_path / "new" / "s.png", 4, 2, 120, crop, "t"
    )
    read = cv2.imread(str(tmp_path / "new" / "s.png"))[..., ::-1]
    np.testing.assert_array_equal(read, sheet)


def test_pictures_are_spread_over_the_clip_and_drawn_on(tmp_path):
    seen = contact_sheet([track()], skeletons.JHMDB, tmp_path / "s.png", 3, 1, 120)
    for blue in (0, 40, 90):  # frames 0, 4 (rounded 4.5 to even) and 9
        assert (seen == (90, 90, blue)).all(-1).sum() > 2000, blue
    hidden = contact_sheet([track(visible=OCCLUDED)], skeletons.JHMDB, tmp_path / "h.png", 3, 1, 120)
    assert (seen != hidden).any(), "a hidden joint looks different"


def test_more_clips_than_columns_wrap(tmp_path):
    one = contact_sheet([track()], skeletons.JHMDB, tmp_path / "1.png", 4, 2)
    three = contact_sheet([track(f"walk/{c}_0", c) for c in "abc"], skeletons.JHMDB, tmp_path / "3.png", 4, 2)
    assert three.shape[0] > 1.5 * one.shape[0]
    assert three.shape[1] > 1.5 * one.shape[1]


def test_sampling_prefers_new_sources():
    tracks = tuple(track(f"walk/{c}_{n}", c) for c in "abcd" for n in range(5))
    index = PoseIndex("x", skeletons.JHMDB, "clip-box", "test", tracks)
    chosen = sample_tracks(index, 4)
    assert sorted(t.cluster for t in chosen) == list("abcd")
    assert [t.clip for t in sample_tracks(index, 4)] == [t.clip for t in chosen]
    assert len(sample_tracks(index, 100)) == 20
    assert sorted(t.cluster for t in sample_tracks(index, 6)).count("a") <= 2


def test_nothing_to_show_or_nowhere_to_write(tmp_path):
    with pytest.raises(BiposeError, match="no clips"):
        contact_sheet([], skeletons.JHMDB, tmp_path / "s.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(BiposeError, match="cannot write"):
        contact_sheet([track()], skeletons.JHMDB, tmp_path / "file" / "s.png")


def test_the_command_says_what_formats_there_are(tmp_path):
    with pytest.raises(BiposeError, match="none of jhmdb"):
        commands.show("yolo", tmp_path, tmp_path / "s.png")


@pytest.mark.real_data
def test_the_command_shows_real_clips(real_data, tmp_path, capsys):
    commands.show("jhmdb", real_data / "jhmdb_mini", tmp_path / "s.png")
    assert "10 of 10 clips of jhmdb/split1/test[clip-box], 7 sources" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "s.png")).shape[1] > 1000


@pytest.mark.real_data
def test_spectra_of_captured_motion_are_printed(real_data, capsys):
    commands.spectra(sorted((real_data / "mocap" / "cmu").glob("*.bvh"))[:1])
    out = capsys.readouterr().out
    assert "captured" in out
    assert "legs" in out


def test_statistics_print_as_a_table():
    row = {"clips": 2, "hidden": 0.25, "runs": 7, "median": 9.0, "p90": 20.0, "touching": 0.75, "share_P": 0.5, "share_F": 0.5,
           "share_B": 0.0, "share_N": 0.0}  # fmt: skip
    none = {**row, "runs": 0, "median": None, "p90": None, "touching": None, "share_P": None}
    text = commands.describe({"statistics": {"train": {"all": row, "N": none}}})
    lines = text.splitlines()
    assert lines[1].split() == ["train", "all", "2", "25%", "7", "9", "20", "75%", "50%", "50%", "0%", "0%"]
    assert lines[2].split()[4:8] == ["0", "-", "-", "-"]
