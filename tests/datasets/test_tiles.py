"""One frame as a picture: pixels, or paper where there are none, with everybody in it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from bipose_lit import skeletons
from bipose_lit.datasets.frames import FolderFrames, NoFrames, VideoFrames
from bipose_lit.datasets.index import Camera, Track
from bipose_lit.datasets.tiles import Company, picture, tile
from bipose_lit.datasets.video_json import VideoPiece
from bipose_lit.types import ABSENT, VISIBLE

K = len(skeletons.H36M)


def track(frames, T=2, size=(160, 120), low=30, high=90, **changes):
    joints = np.random.default_rng(0).uniform(low, high, (T, K, 2)).astype(np.float32)
    made = Track(
        "c", "s", frames, joints, np.full((T, K), VISIBLE, np.uint8), np.tile(np.float32([20, 20, 90, 90]), (T, 1)),
        np.ones((T, 5), np.float32), np.arange(T), size, 25.0,
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture
def folder(tmp_path):
    for t in range(2):
        cv2.imwrite(str(tmp_path / f"{t}.png"), np.full((120, 160, 3), 60, np.uint8))
    return FolderFrames(tmp_path, ("0.png", "1.png"))


def drawn(made):
    """Pixels that are no paper."""
    return int((np.ptp(made.astype(int), axis=-1) > 30).sum())


def test_pixels_and_labels(folder):
    made = tile(track(folder), 1, skeletons.H36M, 120)
    assert made.shape == (120, 160, 3)
    assert ((made == 60).all(-1)).sum() > 5000
    assert drawn(made) > 200


def test_why_there_is_no_picture(folder, tmp_path):
    assert picture(track(folder), 0)[1] == ""
    assert picture(track(FolderFrames(tmp_path, ("x.png",))), 0) == (None, "no pictures here")
    assert picture(track(NoFrames(tmp_path, ("x.bvh",), 2)), 0) == (None, "no pictures in this set")
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert picture(track(FolderFrames(tmp_path, ("bad.png",))), 0) == (None, "cannot be read")
    assert picture(track(VideoFrames(tmp_path, "x.avi", 2)), 0)[1] == "no pictures here"
    (tmp_path / "x.avi").write_bytes(b"bad")
    assert picture(track(VideoPiece(VideoFrames(tmp_path, "x.avi", 9), 3, 2, 2)), 0)[1] == "cannot be read"


def test_paper_has_the_frame_s_shape_and_the_pose_its_place(tmp_path):
    frames = FolderFrames(tmp_path, ("x.png",))
    made = tile(track(frames, 1), 0, skeletons.H36M, 240)
    assert made.shape == (240, 320, 3)
    wide = tile(track(frames, 1, size=(100_000, 100)), 0, skeletons.H36M, 100)
    assert wide.shape == (100, 300, 3), "a strange size makes no giant"


def test_paper_of_unknown_size_is_around_the_people(tmp_path):
    frames = FolderFrames(tmp_path, ("x.png",))
    box = np.float32([[5020, 5020, 90, 90]])
    assert drawn(tile(track(frames, 1, size=(0, 0), low=5030, high=5090, boxes=box), 0, skeletons.H36M, 200)) > 500
    nobody = track(frames, 1, size=(0, 0), boxes=np.full((1, 4), np.nan, np.float32))
    nobody.visible[:] = ABSENT
    assert tile(nobody, 0, skeletons.H36M, 100).shape[0] == 100


def test_everybody_in_the_picture_is_drawn(folder):
    one, other = track(folder), track(FolderFrames(folder.root, ("1.png", "0.png")))
    other.joints[:] += 40
    company = Company([one, other, track(FolderFrames(folder.root, ("2.png", "3.png")))])
    assert company.count(one, 0) == 2
    assert company.people(one, 0) == [(other, 1), (one, 0)]
    assert drawn(tile(one, 0, skeletons.H36M, 120, company=company)) > drawn(tile(one, 0, skeletons.H36M, 120)) + 200


def test_people_of_a_video_meet_frame_by_frame(tmp_path):
    video = VideoFrames(tmp_path, "x.avi", 9)
    whole, piece = track(video, 5), track(VideoPiece(video, 2, 2, 2))
    company = Company([whole, piece])
    assert company.people(piece, 1) == [(whole, 4), (piece, 1)]
    assert company.count(whole, 3) == 1


def test_a_crop_shows_the_padded_box_alone(folder):
    one, other = track(folder), track(folder)
    assert tile(one, 0, skeletons.H36M, 120, True, Company([one, other])).shape == (120, 90, 3)
    without = replace(one, boxes=np.full((2, 4), np.nan, np.float32))
    assert tile(without, 0, skeletons.H36M, 120, True).shape == (120, 160, 3), "no box, no crop"


@pytest.mark.parametrize("camera", [None, Camera("c", np.eye(3), np.eye(3), np.zeros(3))])
def test_3d_comes_with_a_side_view(tmp_path, camera):
    places = np.random.default_rng(1).normal(0, 500, (2, K, 3)).astype(np.float32)
    lifted = track(NoFrames(tmp_path, (), 2), joints_3d=places, camera=camera)
    made = tile(lifted, 0, skeletons.H36M, 120)
    assert made.shape == (120, 160 + 74, 3)
    assert drawn(made[:, 160:]) > 200


def test_3d_without_2d_is_seen_from_the_front_as_well(tmp_path):
    places = np.random.default_rng(1).normal(0, 500, (2, K, 3)).astype(np.float32)
    lifted = track(NoFrames(tmp_path, (), 2), joints_3d=places)
    lifted.visible[:] = ABSENT
    made = tile(lifted, 0, skeletons.H36M, 120)
    assert made.shape == (120, 148, 3)
    assert drawn(made[:, :74]) > 200


def test_upright_is_upwards(tmp_path):
    """A person along the world's z stands, whichever way z counts."""
    for sign in (1, -1):
        places = np.zeros((1, K, 3), np.float32)
        for joint, height in (("head_top", 1700), ("left_ankle", 0), ("right_ankle", 0)):
            places[:, skeletons.H36M.index(joint), 2] = sign * height
        lifted = track(NoFrames(tmp_path, (), 1), 1, joints_3d=places)
        lifted.visible[:] = ABSENT
        made = tile(lifted, 0, skeletons.H36M, 120)[:, 74:].astype(int)
        rows = np.flatnonzero((abs(made - (236, 236, 230)).sum(-1) > 60)[20:, 5:-5].any(1))
        assert rows.max() - rows.min() > 40
