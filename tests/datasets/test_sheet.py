"""Contact sheets show every clip, at the right place, in the right colours."""

import cv2
import numpy as np
import pytest

from bipose_lit import skeletons
from bipose_lit.datasets.frames import Image
from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.datasets.sheet import contact_sheet, facts, sample_tracks, strip
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


def test_stills_fill_a_grid(tmp_path):
    """Many pictures in a row, as high as asked for, without the gaps of a column of strips."""
    stills = [track(f"{n}", str(n), T=1) for n in range(20)]
    sheet = contact_sheet(stills, skeletons.JHMDB, tmp_path / "s.png", height=120)
    assert 1000 < sheet.shape[1] < 1700
    assert sheet.shape[0] < 58 + 3 * (120 + 34 + 18) + 40, "eight and a bit in a row"
    assert ((sheet == (90, 90, 0)).all(-1)).mean() > 0.35


def test_wide_strips_are_not_set_side_by_side(tmp_path):
    pair = [track(f"{n}", str(n)) for n in range(2)]
    wide = contact_sheet(pair, skeletons.JHMDB, tmp_path / "s.png", 8, 2, 176)
    assert wide.shape[1] < 8 * 240 + 100


def test_facts_tell_length_and_source():
    assert facts(track()) == "10 frames  25 fps  hidden 0%  source a"
    assert facts(track(T=1, visible=OCCLUDED)) == "hidden 100%  source a"
    assert strip(track(), skeletons.JHMDB, 3, 100, captions=False).shape[0] == 100
