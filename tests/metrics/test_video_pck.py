"""Sizes of persons and the table of PCK of single persons in video, by hand."""

import numpy as np
import pytest

from bipose_lit.metrics import video_pck
from bipose_lit.skeletons import JHMDB, PENN_ACTION


@pytest.mark.parametrize(
    ("corners", "size"),
    [
        ((3, 4, 63, 44), 60),
        ((3, 4, 13, 44), 40),
        ((3, 4, 63, 4), 60),  # the longer side counts, whatever the shorter one is
        ((3, 4, 3, 44), 40),
        ((3, 4, 63, -44), 60),
        ((63, 4, 3, 44), 40),
        ((3, 4, 3, 4), np.nan),
        ((63, 44, 3, 4), np.nan),
        ((3, 4, np.nan, 44), np.nan),
        ((np.nan, 4, 63, 44), np.nan),
        ((3, 4, np.inf, 44), np.nan),
    ],
)
def test_the_size_of_corners_is_the_longer_side(corners, size):
    found = video_pck.corner_size(np.array([corners, (0, 0, 1, 2)], float))
    np.testing.assert_array_equal(found, [size, 2])


def test_the_size_of_joints_is_that_of_their_box():
    joints = np.array([[[3, 4], [13, 7], [99, 99]], [[3, 4], [5, 24], [99, 99]], [[3, 4], [5, 24], [99, 99]]], float)
    labelled = np.array([[True, True, False], [True, True, False], [False, False, False]])
    np.testing.assert_array_equal(video_pck.joint_size(joints, labelled), [11, 21, np.nan])
    one = video_pck.joint_size(joints, np.array([[True, False, False]] * 3))
    np.testing.assert_array_equal(one, [1, 1, 1])


@pytest.mark.parametrize("skeleton", [JHMDB, PENN_ACTION])
def test_a_torso_needs_both_joints_in_two_places(skeleton):
    a, b = skeleton.index("left_shoulder"), skeleton.index("right_hip")
    joints = np.zeros((4, len(skeleton), 2))
    joints[:3, a], joints[:3, b] = (10, 10), (13, 14)
    labelled = np.ones((4, len(skeleton)), bool)
    labelled[1, a] = labelled[2, b] = False
    np.testing.assert_array_equal(video_pck.torso_size(joints, labelled, skeleton), [5, np.nan, np.nan, np.nan])


def test_a_frame_without_size_counts_nowhere():
    K = len(PENN_ACTION)
    joints = np.zeros((2, K, 2))
    pred = joints + np.array([3.0, 4.0])  # 5 px away
    sizes = {"bbox": np.array([25.0, np.nan]), "torso": np.array([np.nan, np.nan])}
    found = video_pck.scores(pred, joints, np.ones((2, K), bool), sizes, PENN_ACTION)
    assert found["pck@0.2[bbox]"] == 1
    assert found["pck@0.1[bbox]"] == 0
    assert found["auc@0.2[bbox]"] == 0
    assert found["mpjpe_px"] == 5, "in pixels a frame counts without a size"
    assert np.isnan(found["pck@0.2[torso]"])
