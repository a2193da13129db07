"""One warp per frame: labels and pixels stay together."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_index import BODY, COLOURS, draw_blobs, make_track

from bipose_lit import geometry, skeletons
from bipose_lit.datasets.transforms import (
    MIRRORED,
    PLAIN,
    Augmentation,
    View,
    clip_matrices,
    crop_labels,
    generator,
    half_body_boxes,
    warp,
)

VIEWS = st.builds(
    View,
    scale=st.floats(0.7, 1.4),
    rotation=st.floats(-180, 180),
    shift=st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
    flip=st.booleans(),
)


def centroid(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Sub-pixel centre of the blob of one colour (the others are removed by projecting on its own channels)."""
    weight = image.astype(np.float64)[..., colour > 0].min(axis=-1) - image[..., colour == 0].max(axis=-1, initial=0)
    weight = np.where(weight > 20, weight, 0)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@given(VIEWS, st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_a_blob_stays_under_its_joint(view: View, dx: float, dy: float) -> None:
    joints = np.array([[[80 + dx, 60 + dy]]], np.float32)
    image = draw_blobs(joints[0], (160, 120), sigma=4.0)
    matrices = clip_matrices(np.array([[30, 20, 100, 80]], np.float32), (128, 128), 1.25, view)
    crop = np.empty((128, 128, 3), np.uint8)
    warp(image, matrices[0], crop)
    moved, _ = crop_labels(joints, np.full((1, 1), 2, np.uint8), matrices)
    assert np.abs(centroid(crop, COLOURS[0]) - moved[0, 0]).max() < 0.05


@pytest.mark.parametrize("span", [2.0, 2.7, 3.0, 4.3])
@pytest.mark.parametrize("flip", [False, True])
def test_a_blob_stays_under_its_joint_when_shrunk(span: float, flip: bool) -> None:
    joints = np.array([[[401.3, 299.6]]], np.float32)
    image = draw_blobs(joints[0], (803, 601), sigma=16.0)
    side = 128 * span
    box = np.array([[400 - side / 2, 300 - side / 2, side, side]], np.float32)
    for rotation in (0.0, 33.0):
        matrices = clip_matrices(box, (128, 128), 1.0, View(rotation=rotation, flip=flip))
        crop = np.empty((128, 128, 3), np.uint8)
        warp(image, matrices[0], crop)
        moved, _ = crop_labels(joints, np.full((1, 1), 2, np.uint8), matrices)
        assert np.abs(centroid(crop, COLOURS[0]) - moved[0, 0]).max() < 0.05


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_by_a_whole_factor_averages_blocks(factor: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (96 * factor, 128 * factor, 3), dtype=np.uint8)
    matrix = clip_matrices(np.array([[0, 0, 128 * factor, 96 * factor]], np.float32), (128, 96), 1.0)[0]
    crop = np.empty((96, 128, 3), np.uint8)
    warp(image, matrix, crop)
    means = image.reshape(96, factor, 128, factor, 3).mean(axis=(1, 3))
    assert np.abs(crop - means).max() <= 1


def test_shrinking_does_not_alias() -> None:
    # Stripes above the crop's Nyquist frequency must come out nearly grey, whatever the span and the angle.
    x = np.arange(640)
    for period in (2.0, 2.3):
        row = 127.5 + 127.5 * np.cos(2 * np.pi * x / period)
        image = np.repeat(np.repeat(row[None, :, None], 640, 0), 3, 2).astype(np.uint8)
        for span in (2.0, 2.4, 2.6, 3.0, 3.5, 3.9):
            for rotation in (0.0, 25.0):
                box = np.array([[320 - 64 * span, 320 - 64 * span, 128 * span, 128 * span]], np.float32)
                matrix = clip_matrices(box, (128, 128), 1.0, View(rotation=rotation))[0]
                crop = np.empty((128, 128, 3), np.uint8)
                warp(image, matrix, crop)
                plain = cv2.warpAffine(image, matrix, (128, 128))
                inner = slice(30, -30)
                assert crop[inner, inner].std() < 35, (period, span, rotation)
                if plain[inner, inner].std() > 60:
                    assert crop[inner, inner].std() < plain[inner, inner].std() / 2, (period, span, rotation)


def test_shrunk_crops_beyond_the_image_are_black() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    crop = np.empty((32, 32, 3), np.uint8)
    warp(image, clip_matrices(np.array([[500, 500, 100, 100]], np.float32), (32, 32), 1.0)[0], crop)
    assert not crop.any()
    warp(image, clip_matrices(np.array([[0, 0, 200, 100]], np.float32), (32, 32), 1.0)[0], crop)
    assert (crop[9:22, :15] == 200).all()
    assert not crop[:, 17:].any()


def test_a_crop_of_the_image_itself_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    matrix = clip_matrices(np.array([[0, 0, 64, 48]], np.float32), (64, 48), 1.0)[0]
    crop = np.empty((48, 64, 3), np.uint8)
    warp(image, matrix, crop)
    np.testing.assert_array_equal(crop, image)
    flipped = clip_matrices(np.array([[0, 0, 64, 48]], np.float32), (64, 48), 1.0, MIRRORED)[0]
    warp(image, flipped, crop)
    np.testing.assert_array_equal(crop, image[:, ::-1])


@given(VIEWS, st.integers(0, 1000))
def test_to_image_undoes_the_crop(view: View, number: int) -> None:
    track = make_track(number, 4, rule="frame-box")
    matrices = clip_matrices(track.boxes, (96, 128), 1.25, view)
    flip = BODY.flip if view.flip else None
    moved, visible = crop_labels(track.joints, track.visible, matrices, flip)
    back = geometry.apply(geometry.invert(matrices).astype(np.float32), moved)
    expected = track.joints[:, BODY.flip] if view.flip else track.joints
    np.testing.assert_allclose(back, expected, atol=2e-3)
    np.testing.assert_array_equal(visible, track.visible[:, BODY.flip] if view.flip else track.visible)


@given(VIEWS, st.integers(0, 1000))
def test_flipping_twice_is_nothing(view: View, number: int) -> None:
    track = make_track(number, 3)
    plain, mirrored = (View(view.scale, view.rotation, view.shift, flip) for flip in (False, True))
    one, _ = crop_labels(track.joints, track.visible, clip_matrices(track.boxes, (96, 128), 1.25, plain))
    two, _ = crop_labels(track.joints, track.visible, clip_matrices(track.boxes, (96, 128), 1.25, mirrored), BODY.flip)
    again = two[:, BODY.flip]
    again[..., 0] = 96 - 1 - again[..., 0]
    np.testing.assert_allclose(again, one, atol=1e-3)


def test_one_box_gives_one_matrix_and_frame_boxes_one_relative_view() -> None:
    view = View(scale=1.2, rotation=20, shift=(0.1, -0.05), flip=True)
    same = clip_matrices(make_track(0, 5).boxes, (128, 128), 1.25, view)
    assert (same == same[0]).all()
    boxes = make_track(0, 5, rule="frame-box").boxes
    per_frame, plain = clip_matrices(boxes, (128, 128), 1.25, view), clip_matrices(boxes, (128, 128), 1.25)
    for one, other, box in zip(per_frame, plain, boxes, strict=True):
        linear = one[:, :2] @ np.linalg.inv(other[:, :2])
        angle = math.radians(20)
        turn = np.array([[-math.cos(angle), -math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / 1.2
        np.testing.assert_allclose(linear, turn, atol=1e-6)
        centre = box[:2] + box[2:] / 2 - 0.5 + np.array([0.1, -0.05]) * box[2:] * 1.25
        np.testing.assert_allclose(geometry.apply(one, centre[None].astype(np.float64))[0], [63.5, 63.5], atol=1e-6)


def test_absent_joints_are_zero_and_distant_ones_keep_their_label() -> None:
    joints = np.array([[[0, 0], [500, 500]]], np.float32)
    matrices = clip_matrices(np.array([[0, 0, 64, 64]], np.float32), (64, 64), 1.0)
    moved, visible = crop_labels(joints, np.array([[0, 2]], np.uint8), matrices)
    assert visible.tolist() == [[0, 2]]
    np.testing.assert_allclose(moved, [[[0, 0], [500, 500]]], atol=1e-4)


def test_views_depend_on_the_generator_alone_and_settings_do_not_shift_each_other() -> None:
    full = Augmentation(scale=0.3, rotation=40, rotation_probability=1, shift=0.1, flip=0.5, half_body=0.5)
    views = [full.draw(generator(0, 1, i)) for i in range(400)]
    assert views == [full.draw(generator(0, 1, i)) for i in range(400)]
    still = Augmentation(scale=0.3, rotation=0, rotation_probability=1, shift=0.1, flip=0.5, half_body=0.5)
    for i, view in enumerate(views):
        other = still.draw(generator(0, 1, i))
        assert (other.scale, other.shift, other.flip, other.half) == (view.scale, view.shift, view.flip, view.half)
        assert other.rotation == 0
    scales = np.array([v.scale for v in views])
    assert 1 / 1.3 <= scales.min() < 0.8 < 1.25 < scales.max() <= 1.3
    assert 0.4 < np.mean([v.flip for v in views]) < 0.6
    assert {v.half for v in views} == {"", "upper", "lower"}
    assert Augmentation(0, 0, 0, 0, 0, 0).draw(generator(0)).scale == 1.0
    with pytest.raises(ValueError, match="probability"):
        Augmentation(flip=1.5)


def test_normal_views_are_those_of_the_reference_s_law() -> None:
    """Oracle: the published sampling itself, clip(N(0, 1)) a million times over, by quantiles and by what lies on the cuts."""
    law = Augmentation(scale=0.35, rotation=45, rotation_probability=0.6, shift=0.1, normal=True)
    views = [law.draw(generator(3, i)) for i in range(20_000)]
    z = np.random.default_rng(0).standard_normal(1_000_000)
    levels = np.linspace(0.02, 0.98, 25)
    scales = np.array([v.scale for v in views])
    wanted = np.clip(1 + 0.35 * z, 0.65, 1.35)
    assert np.abs(np.quantile(scales, levels) - np.quantile(wanted, levels)).max() < 0.015
    assert (scales.min(), scales.max()) == (0.65, 1.35)
    assert abs((scales == 1.35).mean() - (wanted == 1.35).mean()) < 0.01
    turned = np.array([v.rotation for v in views if v.rotation])
    assert abs(len(turned) / len(views) - 0.6) < 0.015
    assert np.abs(np.quantile(turned, levels) - np.quantile(np.clip(45 * z, -90, 90), levels)).max() < 4
    assert (turned.min(), turned.max()) == (-90, 90)


def test_a_normal_law_changes_scale_and_rotation_alone() -> None:
    even = Augmentation(scale=0.3, rotation=40, half_body=0.3)
    normal = Augmentation(scale=0.3, rotation=40, half_body=0.3, normal=True)
    for i in range(200):
        one, two = even.draw(generator(i)), normal.draw(generator(i))
        assert (one.shift, one.flip, one.half, one.pixels) == (two.shift, two.flip, two.half, two.pixels)
        assert (one.scale > 1, one.rotation > 0) == (two.scale > 1, two.rotation > 0)
    with pytest.raises(ValueError, match=r"scale is 1\.0, and must be below 1 where normal is true"):
        Augmentation(scale=1.0, normal=True)
    assert Augmentation(scale=1.0).draw(generator(0)).scale > 0


@pytest.mark.parametrize("rule", ["clip-box", "frame-box"])
def test_half_body_follows_the_box_rule(rule: str) -> None:
    track = make_track(3, 6, rule=rule)
    upper = half_body_boxes(track.boxes, track.joints, track.visible, BODY, "upper")
    assert upper.shape == track.boxes.shape
    assert (upper == upper[0]).all() == (rule == "clip-box")
    inside = track.joints[:, :3]
    assert (inside >= upper[:, None, :2] - 0.5).all()
    assert (inside <= upper[:, None, :2] + upper[:, None, 2:]).all()
    # Two joints are too few for a box: the clip keeps its own.
    np.testing.assert_array_equal(half_body_boxes(track.boxes, track.joints, track.visible, BODY, "lower"), track.boxes)
    assert PLAIN.half == ""


@pytest.mark.parametrize(
    ("skeleton", "upper"), [(skeletons.COCO, range(11)), (skeletons.MPII, range(7, 16))], ids=["coco", "mpii"]
)
@pytest.mark.parametrize("half", ["upper", "lower"])
def test_half_body_is_as_large_as_the_reference_s(skeleton, upper: range, half: str) -> None:
    """Oracle: half_body_transform of HRNet's code (scale x 1.5 about the chosen joints), its ids of the upper body."""
    rng = np.random.default_rng(0)
    width, height = 192, 256
    chosen = [i for i in range(len(skeleton)) if (i in upper) == (half == "upper")]
    for _ in range(20):
        joints = rng.uniform(0, rng.uniform(50, 500, 2), (1, len(skeleton), 2)).astype(np.float32)
        visible = (rng.random((1, len(skeleton))) < 0.8).astype(np.uint8) * 2
        kept = [i for i in chosen if visible[0, i]]
        whole = np.array([[0, 0, 500, 500]], np.float32)
        found = half_body_boxes(whole, joints, visible, skeleton, half)
        if len(kept) < 3:
            np.testing.assert_array_equal(found, whole)
            continue
        w, h = np.ptp(joints[0, kept], axis=0)
        aspect = width / height
        w, h = (w, w / aspect) if w > aspect * h else (h * aspect, h)
        theirs = 1.5 * w / width  # original pixels per crop pixel, as UDP and HRNet scale
        matrix = clip_matrices(found, (width, height), 1.25)[0]
        # One pixel more on each side before the factor 1.5: half a pixel at either end of the range.
        assert theirs < 1 / matrix[0, 0] <= theirs + 1.5 / min(width, height) + 1e-4
