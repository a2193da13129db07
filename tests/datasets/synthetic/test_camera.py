"""Projection against hand computation; camera paths keep their promises."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bipose_lit.datasets.synthetic.camera import Camera, intrinsics, look_at, sample_cameras
from bipose_lit.datasets.synthetic.motions import make_motion


def front_camera(distance: float = 4.0, focal_mm: float = 24.0, size: tuple[int, int] = (320, 240)) -> Camera:
    R, t = look_at(np.array([0.0, 1.0, distance]), np.array([0.0, 1.0, 0.0]))
    return Camera(intrinsics(focal_mm, size), R, t, size)


def test_projection_by_hand() -> None:
    # a 24 mm lens on a 24 mm high sensor has f = H pixels; at 4 m one metre is 240 / 4 = 60 pixels
    cam = front_camera()
    assert cam.K[0, 0] == pytest.approx(240.0)
    pixels, depth = cam.project(np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.5, 0.5, 2.0]]))
    # world +x is to the right for a camera on +z that looks back along -z
    expected = [[159.5, 119.5], [219.5, 119.5], [159.5, 59.5], [159.5 + 60.0, 119.5 + 60.0]]
    np.testing.assert_allclose(pixels, expected, atol=1e-9)
    np.testing.assert_allclose(depth, [4, 4, 4, 2], atol=1e-12)
    np.testing.assert_allclose(cam.centre, [0, 1, 4], atol=1e-12)


def test_rotation_is_proper_and_roll_turns_the_picture() -> None:
    R, t = look_at(np.array([2.0, 1.5, 3.0]), np.array([0.0, 0.9, -0.5]), roll=0.3)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)
    cam = Camera(intrinsics(50, (320, 240)), R, t, (320, 240))
    base, tip = cam.project(np.array([[0.0, 0.9, -0.5], [0.0, 1.1, -0.5]]))[0]
    np.testing.assert_allclose(base, [159.5, 119.5], atol=1e-9)
    assert tip[1] < base[1]
    assert tip[0] < base[0]  # up leans left: the content has turned anticlockwise


def test_points_behind_are_nan() -> None:
    pixels, depth = front_camera().project(np.array([0.0, 1.0, 9.0]))
    assert depth < 0
    assert np.isnan(pixels).all()


def test_homography_agrees_with_projection() -> None:
    cam = front_camera()
    origin, u, v = np.array([-1.0, 0.2, -0.5]), np.array([2.0, 0.1, 0.3]), np.array([0.0, 1.0, -1.0])
    H = cam.plane_homography(origin, u, v)
    for a, b in ((0.1, 0.8), (0.9, 0.3)):
        p = H @ (a, b, 1.0)
        np.testing.assert_allclose(p[:2] / p[2], cam.project(origin + a * u + b * v)[0], atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    motion = make_motion("walk", 24, 25.0, rng)
    cams = sample_cameras(np.random.default_rng(seed), motion, (320, 240))
    again = sample_cameras(np.random.default_rng(seed), motion, (320, 240))
    assert len(cams) == 24
    for a, b in zip(cams, again, strict=True):
        np.testing.assert_array_equal(a.R, b.R)
        np.testing.assert_array_equal(a.t, b.t)
    heights = []
    for cam, joints in zip(cams, motion.positions, strict=True):
        px, depth = cam.project(joints)
        assert depth.min() > 0.5
        assert 0.2 <= cam.centre[1] < 3.0
        heights.append(np.ptp(px[:, 1]) / 240)
    assert 0.40 < max(heights) < 0.86
    focal_mm = cams[0].K[1, 1] * 24 / 240
    assert 35 <= focal_mm <= 70
    steps = np.diff([c.centre for c in cams], axis=0)
    assert np.linalg.norm(steps, axis=1).max() < 0.25  # nobody carries a camera at over 6 m/s


def test_single_frame() -> None:
    pose = SimpleNamespace(
        fps=25.0, positions=make_motion("stand", 1, 25.0, np.random.default_rng(0)).positions, frames=None
    )
    assert len(sample_cameras(np.random.default_rng(1), pose, (160, 120))) == 1
