"""JHMDB's pictures, videos and masks: which belongs to which label, and what is missing or of another clip."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from jhmdb_sets import add_clip, add_mask

from bipose_lit.datasets.frames import VideoFrames
from bipose_lit.datasets.jhmdb import JHMDB, picture_size
from bipose_lit.types import BiposeError


@pytest.fixture
def joints():
    return np.random.default_rng(0).uniform(2, 22, (6, 15, 2))


@pytest.mark.parametrize(("images", "kept"), [(4, 4), (8, 6)])
def test_labels_and_frames_that_differ_in_number_are_reported(tmp_path, joints, images, kept):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2, images=images)
    index = JHMDB(tmp_path).index("test")
    assert len(index.tracks[0]) == len(index.tracks[0].boxes) == kept
    (reports,) = index.skipped.values()
    assert reports == [f"walk/scene00001_0 (6 labels, {images} frames)"]


def test_a_missing_picture_shifts_no_label(tmp_path, joints):
    for number in range(1, 4):
        add_clip(tmp_path, "walk", f"scene0000{number}_0", joints, mark=2)
    (tmp_path / "Rename_Images" / "walk" / "scene00001_0" / "00004.png").unlink()
    (tmp_path / "Rename_Images" / "walk" / "scene00002_0" / "00001.png").unlink()
    index = JHMDB(tmp_path).index("test")
    assert index.skipped == {
        "a picture is missing, clip cut before it": ["walk/scene00001_0 (no 00004.png, 3 of 6 frames kept)"],
        "the first picture is missing, clip left out": ["walk/scene00002_0 (no 00001.png)"],
    }
    cut, whole = index.tracks
    assert len(cut) == len(cut.frames) == len(cut.boxes) == 3
    np.testing.assert_allclose(cut.joints, joints[:3], atol=1e-5)
    assert [int(i.mean()) for i in cut.frames.read([0, 1, 2])] == [0, 10, 20]
    assert len(whole) == 6


def test_pictures_are_ordered_by_their_numbers(tmp_path):
    joints = np.random.default_rng(0).uniform(2, 22, (12, 15, 2))
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    folder = tmp_path / "Rename_Images" / "walk" / "scene00001_0"
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"{int(path.stem)}.png")
    index = JHMDB(tmp_path).index("test")
    assert not index.skipped
    assert [int(i.mean()) for i in index.tracks[0].frames.read(range(12))] == list(range(0, 120, 10))


@pytest.mark.parametrize(
    ("folders", "pixels", "said"),
    [
        (["ReCompress_Videos"], "auto", r"ReCompress_Videos/walk/scene00001_0\.avi"),
        (["ReCompress_Videos", "Rename_Images/other"], "auto", r"ReCompress_Videos/walk/scene00001_0\.avi"),
        (["ReCompress_Videos"], "images", r"Rename_Images/walk/scene00001_0/00001\.png"),
        ([], "video", r"ReCompress_Videos/walk/scene00001_0\.avi"),
        (["Rename_Images/other"], "auto", r"Rename_Images/walk/scene00001_0/00001\.png"),
    ],
)
def test_the_missing_file_is_the_one_that_other_clips_have(tmp_path, joints, folders, pixels, said):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2, images=0)
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    index = JHMDB(tmp_path, pixels=pixels).index("test")
    assert not index.skipped
    (track,) = index.tracks
    assert (len(track), len(track.frames), track.image_size, track.fps) == (6, 6, (320, 240), 30.0)
    assert track.frames.fingerprint()
    with pytest.raises(BiposeError, match=said):
        track.frames.read([0])


CORNERS = [(3, 2, 20, 12), (0, 0, 31, 23), (5, 5, 9, 22), (4, 4, 4, 4), (0, 0, 0, -1), (2, 2, 10, 9)]


def test_the_puppet_box_is_box_and_norm(tmp_path, joints):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    add_mask(tmp_path, "scene00001_0", CORNERS)
    index = JHMDB(tmp_path, box_rule="puppet-box").index("test")
    tight = JHMDB(tmp_path, box_rule="frame-box").index("test").tracks[0]
    (track,) = index.tracks
    assert index.name == "jhmdb/split1/test[puppet-box]"
    assert index.skipped == {"frames without puppet mask, the joints' box used": ["walk/scene00001_0 (2)"]}
    np.testing.assert_array_equal(track.norms[[0, 1, 2, 5], 0], [17, 32, 17, 8])  # max(x2 - x1, y2 - y1), as published
    np.testing.assert_array_equal(track.norms[[3, 4], 0], tight.norms[[3, 4], 0])
    np.testing.assert_array_equal(track.boxes[0], [3.5, 2.5, 17, 10])  # from the centre of pixel 3 to that of pixel 20
    np.testing.assert_array_equal(tight.norms[:, 1:4], track.norms[:, 1:4])


def test_masks_that_are_missing_short_or_broken(tmp_path, joints):
    with pytest.raises(BiposeError, match="no folder"):
        JHMDB(tmp_path, box_rule="puppet-box")
    for number in range(1, 5):
        add_clip(tmp_path, "walk", f"scene0000{number}_0", joints, mark=2)
    with pytest.raises(BiposeError, match="no folder puppet_mask"):
        JHMDB(tmp_path, box_rule="puppet-box")
    add_mask(tmp_path, "scene00001_0", [(1, 1, 9, 9)] * 6, frames=4)
    add_mask(tmp_path, "scene00002_0", [(1, 1, 9, 9)] * 6, size=(64, 48))
    add_mask(tmp_path, "scene00003_0", [(1, 1, 9, 9)] * 9)
    add_mask(tmp_path, "scene00005_0", [(1, 1, 9, 9)] * 5 + [(3, 2, 3, 20)])
    add_clip(tmp_path, "walk", "scene00005_0", joints, mark=2)
    index = JHMDB(tmp_path, box_rule="puppet-box", strict=False).index("test")
    assert index.skipped == {
        "damaged puppet mask, the joints' box used": [
            "walk/scene00001_0 (4 masks for 6 labelled frames; is it this clip's?)",
            "walk/scene00002_0 (masks of 64x48 pixels for frames of 32x24; is it this clip's?)",
            "walk/scene00003_0 (9 masks for 6 labelled frames; is it this clip's?)",
        ],
        "no puppet mask, the joints' box used": ["walk/scene00004_0"],
        "frames without puppet mask, the joints' box used": ["walk/scene00005_0 (1)"],
    }
    tight = JHMDB(tmp_path, box_rule="frame-box").index("test")
    np.testing.assert_array_equal(index.tracks[0].norms, tight.tracks[0].norms)
    # A mask of one column has no box with an area, but the official size.
    np.testing.assert_array_equal(index.tracks[4].norms[:, 0], [8, 8, 8, 8, 8, 18])
    np.testing.assert_array_equal(index.tracks[4].boxes[5], tight.tracks[4].boxes[5])
    mask = tmp_path / "puppet_mask" / "walk" / "scene00001_0" / "puppet_mask.mat"
    for content, said in (
        (mask.read_bytes(), "4 masks for 6 labelled frames"),
        ((mask.parents[1] / "scene00002_0" / mask.name).read_bytes(), "masks of 64x48 pixels for frames of 32x24"),
        (b"", "not a readable MATLAB file"),
    ):
        mask.write_bytes(content)
        with pytest.raises(BiposeError, match=rf"scene00001_0/puppet_mask\.mat: {said}"):
            JHMDB(tmp_path, box_rule="puppet-box").index("test")


def test_a_cut_video_or_picture_is_one_line_or_a_counted_skip(tmp_path, joints):
    for number in (1, 2):
        add_clip(tmp_path, "walk", f"scene0000{number}_0", joints, mark=2)
    picture = tmp_path / "Rename_Images" / "walk" / "scene00001_0" / "00001.png"
    picture.write_bytes(picture.read_bytes()[:20])
    with pytest.raises(BiposeError, match=r"00001\.png"):
        JHMDB(tmp_path).index("test")
    index = JHMDB(tmp_path, strict=False).index("test")
    assert [t.clip for t in index.tracks] == ["walk/scene00002_0"]
    assert list(index.skipped) == ["damaged frames"]


@pytest.mark.real_data
def test_a_real_clip_without_its_video_or_with_a_gap_in_its_pictures(real_data, tmp_path):
    source = real_data / "jhmdb_mini"
    clips = {t.clip: t for t in JHMDB(source).index("test").tracks}
    name = next(n for n in clips if (source / "Rename_Images" / n).is_dir())
    shutil.copytree(source / "joint_positions" / name, tmp_path / "joint_positions" / name)
    shutil.copytree(source / "Rename_Images" / name, tmp_path / "Rename_Images" / name)
    shutil.copytree(source / "splits", tmp_path / "splits")
    (tmp_path / "Rename_Images" / name / "00005.png").unlink()
    (track,) = JHMDB(tmp_path).index("test").tracks
    assert len(track) == 4
    np.testing.assert_array_equal(track.frames.read([3])[0], clips[name].frames.read([3])[0])
    video = Path("ReCompress_Videos") / f"{name}.avi"
    (tmp_path / video).parent.mkdir(parents=True)
    shutil.copy(source / video, tmp_path / video)
    index = JHMDB(tmp_path).index("test")
    assert len(index.tracks[0]) == len(clips[name])
    assert isinstance(index.tracks[0].frames, VideoFrames)
    (tmp_path / video).unlink()
    shutil.rmtree(tmp_path / "Rename_Images")
    (track,) = JHMDB(tmp_path).index("test").tracks
    with pytest.raises(BiposeError, match=rf"{re.escape(name)}\.avi"):
        track.frames.read([0])


def test_the_size_of_pictures_that_are_not_there(tmp_path, joints):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    assert picture_size(tmp_path, "walk", "scene00001_0") == (32, 24)
    assert picture_size(tmp_path, "walk", "other") == (320, 240)
    (tmp_path / "Rename_Images" / "walk" / "scene00001_0" / "00001.png").write_bytes(b"")
    with pytest.raises(BiposeError, match=r"00001\.png"):
        picture_size(tmp_path, "walk", "scene00001_0")


@pytest.mark.real_data
def test_a_cut_real_video(real_data, tmp_path):
    source = real_data / "jhmdb_mini"
    _action, clip = JHMDB(source).members("test")[0]
    joints = np.random.default_rng(0).uniform(2, 22, (6, 15, 2))
    add_clip(tmp_path, "catch", clip, joints, mark=2, images=0)
    folder = tmp_path / "ReCompress_Videos" / "catch"
    folder.mkdir(parents=True)
    data = next((source / "ReCompress_Videos").glob("*/*.avi")).read_bytes()
    for size in (0, 100, 5000, len(data) // 2, len(data) - 1):
        (folder / f"{clip}.avi").write_bytes(data[:size])
        with pytest.raises(BiposeError, match=r"\.avi"):
            JHMDB(tmp_path).index("test")
