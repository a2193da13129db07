"""Occluders: coverage is what is drawn; tracks place, turn, scale and hide them."""

from __future__ import annotations

import numpy as np
import pytest

from bipose_lit.datasets.synthetic.camera import Camera, intrinsics, look_at
from bipose_lit.datasets.synthetic.occluders import KINDS, Occluder, OccluderTrack, draw_occluders
from bipose_lit.types import BiposeError

FRAME = np.full((120, 160, 3), 128, np.uint8)


def front_camera(distance: float = 4.0, focal_mm: float = 24.0, size: tuple[int, int] = (320, 240)) -> Camera:
    R, t = look_at(np.array([0.0, 1.0, distance]), np.array([0.0, 1.0, 0.0]))
    return Camera(intrinsics(focal_mm, size), R, t, size)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_deterministic_and_opaque(kind: str) -> None:
    a = Occluder.make(kind, (40, 60), 7)
    b = Occluder.make(kind, (40, 60), 7)
    other = Occluder.make(kind, (40, 60), 8)
    np.testing.assert_array_equal(a.sprite, b.sprite)
    assert not np.array_equal(a.sprite, other.sprite)
    frame, alpha = draw_occluders(FRAME, [a.on(OccluderTrack.still((80, 60), 1))], 0)
    assert alpha[60, 80] == pytest.approx(1.0)
    assert (alpha > 0.5).mean() > 0.3 * 40 * 60 / (120 * 160)
    assert alpha.max() <= 1.0
    assert (frame[alpha == 1.0] != 128).any()
    far = np.ones_like(alpha, bool)
    far[15:105, 45:115] = False
    np.testing.assert_array_equal(frame[far], FRAME[far])  # nothing beyond its shadow's reach
    assert (alpha[far] == 0).all()


def test_rectangle_covers_exactly_its_box() -> None:
    panel = Occluder.make("panel", (40, 20), 3)
    _, alpha = draw_occluders(FRAME, [panel.on(OccluderTrack.still((79.5, 59.5), 1))], 0)
    rows, columns = np.nonzero(alpha > 0.5)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (60, 99, 50, 69)
    assert alpha.sum() == pytest.approx(40 * 20, rel=1e-3)


def test_half_pixel_edges_are_antialiased() -> None:
    panel = Occluder.make("panel", (40, 20), 3)
    _, alpha = draw_occluders(FRAME, [panel.on(OccluderTrack.still((80.0, 60.0), 1))], 0)
    assert alpha.sum() == pytest.approx(40 * 20, rel=0.01)
    assert 0.3 < alpha[60, 60] < 0.7


def test_track() -> None:
    panel = Occluder.make("panel", (40, 20), 3)
    track = OccluderTrack(
        np.array([[79.5, 59.5], [79.5, 59.5], [79.5, 59.5]]),
        np.array([1.0, 2.0, 1.0]),
        np.array([np.pi / 2, 0, 0]),
        np.array([True, True, False]),
    )
    turned = draw_occluders(FRAME, [panel.on(track)], 0)[1]
    assert turned[59 - 15, 79] == pytest.approx(1.0)
    assert turned[59, 79 - 15] == 0
    assert draw_occluders(FRAME, [panel.on(track)], 1)[1].sum() == pytest.approx(4 * 800, rel=0.02)
    frame, alpha = draw_occluders(FRAME, [panel.on(track)], 2)
    assert not alpha.any()
    np.testing.assert_array_equal(frame, FRAME)


def test_motion_blur_spreads_but_keeps_the_area() -> None:
    panel = Occluder.make("panel", (40, 20), 3)
    centre = np.stack([60.0 + 12 * np.arange(3), np.full(3, 60.0)], 1)
    moving = panel.on(OccluderTrack(centre, np.ones(3), np.zeros(3), np.ones(3, bool)))
    sharp, blurred = draw_occluders(FRAME, [moving], 1)[1], draw_occluders(FRAME, [moving], 1, shutter=1.0)[1]
    assert blurred.sum() == pytest.approx(sharp.sum(), rel=0.01)
    assert (blurred > 0).sum() > (sharp > 0).sum()


def test_world_anchor_follows_the_camera() -> None:
    cam = front_camera(4.0, size=(160, 120))
    track = OccluderTrack.anchored(np.array([0.5, 1.0, 2.0]), [cam, front_camera(6.0, size=(160, 120))], 60.0)
    np.testing.assert_allclose(track.centre[0], [79.5 + 120 / 2 * 0.5, 59.5])
    np.testing.assert_allclose(track.scale, [120 / 2 / 60, 120 / 4 / 60])
    assert track.present.all()


def test_errors_are_named() -> None:
    with pytest.raises(BiposeError, match="choose one of"):
        Occluder.make("cloud", (10, 10), 0)
    with pytest.raises(BiposeError, match="width and height"):
        Occluder.make("pole", (1, 10), 0)
    with pytest.raises(BiposeError, match="track"):
        draw_occluders(FRAME, [Occluder.make("pole", (10, 10), 0)], 0)
    with pytest.raises(BiposeError, match="shapes"):
        OccluderTrack(np.zeros((3, 2)), np.ones(2), np.zeros(3), np.ones(3, bool))
