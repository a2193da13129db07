"""What cameras see of a motion: the border of the picture, what is behind, and whatever leaves no track."""

import numpy as np
import pytest

from bipose_lit.datasets.cameras import View
from bipose_lit.datasets.frames import NoFrames
from bipose_lit.datasets.index import Camera
from bipose_lit.datasets.motion import BEHIND, Take, facing, finite, seen_by
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE


def take(tmp_path, pixels):
    """A take whose joints lie at these pixels of `VIEW`, one frame."""
    world = np.array([[[u, v, 1000.0] for u, v in pixels]])
    return Take("a", "a", "", NoFrames(tmp_path, (), 1), world, np.ones(world.shape[:2], np.bool_), 50.0)


VIEW = View(Camera("c", np.diag([1000.0, 1000, 1]), np.eye(3), np.zeros(3)), (640, 480))


@pytest.mark.parametrize(
    ("pixel", "inside"),
    [((-0.49, 10), True), ((-0.51, 10), False), ((639.49, 10), True), ((639.51, 10), False), ((10, -0.49), True),
     ((10, -0.51), False), ((10, 479.49), True), ((10, 479.51), False)],
)  # fmt: skip
def test_a_picture_ends_half_a_pixel_beyond_its_outer_pixels_centres(tmp_path, pixel, inside):
    joints, visible, points = seen_by(take(tmp_path, [pixel, (300, 200)]), VIEW)
    assert visible.tolist() == [[VISIBLE if inside else OCCLUDED, VISIBLE]]
    np.testing.assert_allclose(joints, [[pixel, (300, 200)]], rtol=1e-6)
    np.testing.assert_array_equal(points[0, 0], [*pixel, 1000])


def test_joints_without_a_place_or_a_pixel(tmp_path):
    motion = take(tmp_path, [(10, 10), (20, 20), (30, 30)])
    motion.present[0, 1] = False
    motion.world[0, 2, 2] = -1000
    joints, visible, points = seen_by(motion, VIEW)
    assert visible.tolist() == [[VISIBLE, ABSENT, ABSENT]]
    assert (joints[0, 1:] == 0).all()
    assert (points[0, 1] == 0).all()
    assert points[0, 2, 2] == -1000


def test_a_kilometre_is_too_far():
    world = np.array([[[999_999.0, 0, 0], [0, -1_000_001, 0], [np.nan, 0, 0], [0, np.inf, 0]]])
    found, present = finite(world)
    assert present.tolist() == [[True, False, False, False]]
    assert (found[0, 1:] == 0).all()


def test_what_to_do_where_nobody_is_seen():
    assert facing({"broken": ["a"]}) == ""
    assert "places in millimetres" in facing({BEHIND: ["a"]})
