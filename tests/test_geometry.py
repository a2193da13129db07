"""Affines of crops: inverses, flips, strides; properties over random boxes."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit import geometry

numbers = st.floats(-300, 300)
boxes = st.tuples(numbers, numbers, st.floats(5, 400), st.floats(5, 400))


@given(
    boxes, st.floats(-180, 180), st.floats(0.5, 2), st.booleans(), st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
)
def test_inverse_undoes_the_crop(box, rotation, scale, flip, shift) -> None:
    matrix = geometry.crop_matrix(box, (96, 128), 1.25, rotation, scale, shift, flip)
    points = np.random.default_rng(0).uniform(-500, 500, (7, 2))
    back = geometry.apply(geometry.invert(matrix), geometry.apply(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-8)


@given(boxes)
def test_flip_mirrors_the_crop(box) -> None:
    points = np.random.default_rng(1).uniform(-50, 300, (5, 2))
    plain = geometry.apply(geometry.crop_matrix(box, (96, 128)), points)
    mirrored = geometry.apply(geometry.crop_matrix(box, (96, 128), flip=True), points)
    np.testing.assert_allclose(mirrored[:, 0], 95 - plain[:, 0], atol=1e-9)
    np.testing.assert_allclose(mirrored[:, 1], plain[:, 1], atol=1e-9)


@given(boxes, st.floats(-90, 90))
def test_the_box_centre_stays_the_centre_and_rotation_is_rigid(box, rotation) -> None:
    x, y, w, h = box
    matrix = geometry.crop_matrix(box, (64, 64), 1.25, rotation)
    centre = geometry.apply(matrix, np.array([[x + w / 2 - 0.5, y + h / 2 - 0.5]]))
    np.testing.assert_allclose(centre, [[31.5, 31.5]], atol=1e-9)
    linear = matrix[:, :2] * max(w, h) * 1.25 / 64
    np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=1e-9)


def test_identity_box_is_the_image() -> None:
    matrix = geometry.crop_matrix((0, 0, 64, 48), (64, 48))
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_rotation_is_counter_clockwise_on_the_screen() -> None:
    matrix = geometry.crop_matrix((0, 0, 64, 64), (64, 64), rotation=90)
    right_of_centre = geometry.apply(matrix, np.array([[41.5, 31.5]]))
    np.testing.assert_allclose(right_of_centre, [[31.5, 21.5]], atol=1e-9)


def test_matrix_agrees_with_cv2_pixels() -> None:
    image = np.zeros((80, 100), np.uint8)
    image[40, 60] = 255
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2)
    matrix = geometry.crop_matrix((30, 10, 60, 60), (128, 128), 1.1, rotation=25, flip=True)
    warped = cv2.warpAffine(image, matrix, (128, 128), flags=cv2.INTER_LINEAR)
    ys, xs = np.mgrid[:128, :128]
    centroid = np.array([(warped * xs).sum(), (warped * ys).sum()]) / warped.sum()
    np.testing.assert_allclose(centroid, geometry.apply(matrix, np.array([[60.0, 40.0]]))[0], atol=0.05)


def test_numpy_and_torch_agree_over_leading_shapes() -> None:
    rng = np.random.default_rng(2)
    matrices, points = rng.normal(size=(3, 4, 2, 3)), rng.normal(size=(3, 4, 6, 2))
    expected = np.einsum("btij,btkj->btki", matrices[..., :2], points) + matrices[..., None, :, 2]
    np.testing.assert_allclose(geometry.apply(matrices, points), expected)
    moved = geometry.apply(torch.tensor(matrices), torch.tensor(points))
    np.testing.assert_allclose(moved.numpy(), expected)


@given(st.floats(1, 32))
def test_map_coordinates_round_trip(stride) -> None:
    points = torch.linspace(-3, 200, 9, dtype=torch.float64)
    torch.testing.assert_close(geometry.from_map(geometry.to_map(points, stride), stride), points)


def test_map_of_a_flip_is_the_flip_of_the_map() -> None:
    x = torch.tensor([3.0, 17.25, 100.0], dtype=torch.float64)
    torch.testing.assert_close(geometry.to_map(127 - x, 4), 31 - geometry.to_map(x, 4))


def test_flip_points_twice_is_the_identity() -> None:
    order = torch.tensor([0, 2, 1])
    points = torch.rand(4, 3, 2, dtype=torch.float64) * 64
    once = geometry.flip_points(points, 64, order)
    assert not torch.equal(once, points)
    torch.testing.assert_close(geometry.flip_points(once, 64, order), points)


@pytest.mark.parametrize("box", [(0, 0, 0, 10), (0, 0, 10, -1), (float("nan"), 0, 5, 5), (0, 0, float("inf"), 5)])
def test_boxes_without_area_are_refused(box) -> None:
    with pytest.raises(ValueError, match="no area"):
        geometry.crop_matrix(box, (8, 8))


def test_bounding_box_of_points() -> None:
    points = np.array([[1.0, 2.0], [5.0, 9.0], [100.0, 100.0]])
    np.testing.assert_allclose(geometry.bounding_box(points, np.array([True, True, False])), [1, 2, 5, 8])
    assert np.isnan(geometry.bounding_box(points, np.zeros(3, bool))).all()
