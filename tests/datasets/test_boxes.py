"""Boxes, jitter, norms, ids and held-out sources."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bipose_lit import skeletons
from bipose_lit.datasets import boxes, labels
from bipose_lit.geometry import bounding_box
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, VISIBLE, BiposeError

tracks = hnp.arrays(np.float32, (5, 15, 2), elements=st.floats(-50, 400, width=32))
flags = hnp.arrays(np.uint8, (5, 15), elements=st.integers(0, 2))


@given(tracks, flags)
def test_boxes_hold_every_labelled_joint_and_touch_the_outermost(joints, visible):
    whole = boxes.clip_box(joints, visible)
    per_frame = boxes.frame_boxes(joints, visible)
    kept = joints[visible != ABSENT].astype(np.float64)
    if not len(kept):
        assert np.isnan(whole).all()
        return
    np.testing.assert_allclose(whole[:2], kept.min(0), atol=1e-3)  # the left edge of pixel x is x in edge coordinates
    np.testing.assert_allclose(whole[:2] + whole[2:], kept.max(0) + 1, atol=1e-3)
    good = ~np.isnan(per_frame[:, 0])
    assert (good == (visible != ABSENT).any(1)).all()
    assert (per_frame[good, :2] >= whole[:2] - 1e-3).all()
    assert (per_frame[good, :2] + per_frame[good, 2:] <= whole[:2] + whole[2:] + 1e-3).all()


@given(st.text(max_size=20), st.floats(0, 0.4), st.integers(0, 5))
def test_jitter_is_a_function_of_the_name_and_stays_within_its_bounds(name, fraction, seed):
    box = np.array([30.0, 40.0, 80.0, 120.0])
    moved = boxes.jitter_box(box, name, fraction, seed)
    np.testing.assert_array_equal(moved, boxes.jitter_box(box, name, fraction, seed))
    shift = (moved[:2] + moved[2:] / 2 - box[:2] - box[2:] / 2) / box[2:]
    assert (np.abs(shift) <= fraction + 1e-9).all()
    growth = moved[2:] / box[2:]
    assert growth[0] == pytest.approx(growth[1])
    assert 1 / (1 + fraction) - 1e-9 <= growth[0] <= 1 + fraction + 1e-9
    if fraction == 0:
        np.testing.assert_array_equal(moved, box)


def test_jitter_differs_between_clips_and_seeds_and_is_centred():
    box = np.array([0.0, 0.0, 100.0, 100.0])
    moved = np.stack([boxes.jitter_box(box, f"c{i}", 0.05, 0) for i in range(2000)])
    assert len(np.unique(moved[:, 0])) == 2000
    centre = moved[:, 0] + moved[:, 2] / 2
    assert abs(centre.mean() - 50) < 4 * 5 / np.sqrt(3 * 2000)
    assert abs(np.log(moved[:, 2] / 100).mean()) < 4 * np.log(1.05) / np.sqrt(3 * 2000)
    assert (boxes.jitter_box(box, "c0", 0.05, 1) != moved[0]).any()


def test_norms_by_hand():
    skeleton = skeletons.JHMDB
    joints = np.zeros((2, 15, 2), np.float32)
    visible = np.full((2, 15), ABSENT, np.uint8)
    for name, xy, flag in (("left_shoulder", (10, 20), VISIBLE), ("right_hip", (13, 24), OCCLUDED)):
        joints[:, skeleton.index(name)], visible[:, skeleton.index(name)] = xy, flag
    visible[1, skeleton.index("right_hip")] = ABSENT
    frame = np.array([[0, 0, 30, 50], [np.nan] * 4], np.float32)
    norms = boxes.track_norms(joints, visible, skeleton, frame, np.array([0, 0, 70.0, 60.0]))
    first = dict(zip(NORMS, norms[0], strict=True))
    assert (first["bbox"], first["clip"], first["torso"]) == (50, 70, 5)
    assert first["area"] == pytest.approx(np.sqrt(1500))
    assert np.isnan(first["head"])
    second = dict(zip(NORMS, norms[1], strict=True))
    assert second["clip"] == 70
    assert all(np.isnan(second[name]) for name in ("bbox", "torso", "head", "area"))


@pytest.mark.parametrize(
    ("clip", "action", "source"),
    [
        ("Torwarttraining_catch_u_cm_np1_le_bad_6", "catch", "Torwarttraining"),
        ("Torwarttraining_catch_u_cm_np1_ri_med_0", "catch", "Torwarttraining"),
        ("April_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", "April_09"),
        ("Goalkeeper_Training_Day_@_7_catch_f_cm_np1_ri_med_0", "catch", "Goalkeeper_Training_Day_@_7"),
        ("scene00012_0", "walk", "scene00012"),
        ("scene00012_11", "walk+wave", "scene00012"),
    ],
)
def test_source_titles(clip, action, source):
    assert labels.source_title(clip, action) == source


def test_uids_are_stable_distinct_and_bounded():
    uids = labels.make_uids("walk/scene00012_0", 40)
    assert uids.dtype == np.int64
    assert uids[0] == labels.make_uids("walk/scene00012_0", 5)[0] == 0x29983BEBAC3D << 12
    assert (np.diff(uids) == 1).all()
    everything = np.concatenate([labels.make_uids(f"c/{i}", 40) for i in range(3000)])
    assert len(np.unique(everything)) == len(everything)
    assert everything.min() >= 0
    with pytest.raises(BiposeError, match="4096"):
        labels.make_uids("long", 4097)
    with pytest.raises(BiposeError, match="same id"):
        labels.check_uids(["a", "b", "a"])


@given(st.lists(st.text(max_size=6), max_size=20), st.floats(0, 0.99))
def test_hold_out_ignores_order_and_leaves_something_to_train_on(names, fraction):
    held = labels.hold_out(names, fraction)
    assert held == labels.hold_out(reversed(names), fraction)
    unique = set(names)
    assert held <= unique
    if fraction == 0 or len(unique) < 2:
        assert not held
    else:
        assert 1 <= len(held) < len(unique)


def test_frame_boxes_are_the_boxes_of_single_frames() -> None:
    rng = np.random.default_rng(0)
    joints = rng.normal(100, 40, (50, 15, 2)).astype(np.float32)
    visible = rng.integers(0, 3, (50, 15)).astype(np.uint8)
    visible[7] = ABSENT
    visible[8, 1:] = ABSENT
    expected = np.stack([bounding_box(j, v != ABSENT) for j, v in zip(joints, visible, strict=True)]).astype(np.float32)
    np.testing.assert_array_equal(boxes.frame_boxes(joints, visible), expected)
    assert np.isnan(boxes.frame_boxes(joints, visible)[7]).all()
