"""Overlays: geometry to the pixel, visibility styles, nothing drawn outside what is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit import drawing
from bipose_lit.skeletons import COCO, JHMDB, SKELETONS
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE

K = len(JHMDB)


def blank(height: int = 90, width: int = 120) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def pose(x: float = 60, y: float = 45) -> np.ndarray:
    angle = np.linspace(0, 5.5, K)
    return np.stack([x + 30 * np.cos(angle), y + 30 * np.sin(angle)], -1)


def colours(image: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, image.reshape(-1, 3).tolist()))


def test_input_is_untouched_and_size_follows_the_scale() -> None:
    image = blank()
    out = drawing.draw_pose(image, pose(), JHMDB, scale=2.5)
    assert out.shape == (225, 300, 3)
    assert (image == 128).all()
    assert (out != 128).any()


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_sides_have_their_colours(skeleton) -> None:
    for joint, colour in zip(skeleton.joints, drawing.side_colours(skeleton), strict=True):
        expected = drawing.LEFT if joint.startswith("left_") else drawing.RIGHT if joint.startswith("right_") else None
        assert colour == (expected or drawing.CENTRE)


def test_marker_lies_on_its_joint_at_any_scale() -> None:
    visible = np.zeros(K, np.uint8)
    k = JHMDB.index("left_wrist")
    visible[k] = VISIBLE
    joints = np.zeros((K, 2))
    joints[k] = 40.3, 22.6
    for scale in (1.0, 2.0, 4.0):
        out = drawing.draw_pose(blank(), joints, JHMDB, visible, scale, thickness=3)
        rows, columns = np.nonzero((out == drawing.LEFT).all(-1))
        centre = np.array([columns.mean(), rows.mean()])
        assert np.abs(centre - drawing.upscale_points(joints[k], scale)).max() < 0.35


def test_enlarging_keeps_pixel_centres() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[12:15, 24:27] = 255
    big = drawing.upscale(image, 3)
    rows, columns = np.nonzero(big[..., 0] > 128)
    np.testing.assert_allclose([columns.mean(), rows.mean()], drawing.upscale_points([25, 13], 3), atol=0.1)


def test_hidden_joints_are_hollow_and_absent_ones_not_drawn() -> None:
    k = JHMDB.index("right_ankle")
    joints = np.full((K, 2), 45.0)
    for state in (ABSENT, OCCLUDED, VISIBLE):
        visible = np.zeros(K, np.uint8)
        visible[k] = state
        out = drawing.draw_pose(blank(), joints, JHMDB, visible, thickness=4)
        centre = tuple(out[45, 45].tolist())
        if state == ABSENT:
            assert (out == 128).all()
        else:
            assert drawing.RIGHT in colours(out)
            assert (centre == drawing.RIGHT) is (state == VISIBLE)


def test_hidden_limbs_are_dashed() -> None:
    a, b = JHMDB.index("left_elbow"), JHMDB.index("left_wrist")
    joints = np.zeros((K, 2))
    joints[a], joints[b] = (10, 45), (110, 45)
    painted = []
    for state in (VISIBLE, OCCLUDED):
        visible = np.zeros(K, np.uint8)
        visible[[a, b]] = VISIBLE, state
        out = drawing.draw_pose(blank(), joints, JHMDB, visible, thickness=2)
        painted.append(int((out[45, 20:100] == drawing.LEFT).all(-1).sum()))
    assert painted[0] == 80
    assert 20 < painted[1] < 70


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 10.0, 1e9]))
def test_any_prediction_can_be_drawn(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    joints = rng.normal(0, spread, (17, 2)) + 30
    joints[rng.integers(17)] = np.nan
    joints[rng.integers(17)] = np.inf
    visible = rng.integers(0, 3, 17)
    out = drawing.draw_pose(blank(), joints, COCO, visible, label="x", names=True)
    drawing.draw_errors(out, joints, joints + 3, visible)
    assert out.shape == (90, 120, 3)


@pytest.mark.parametrize(
    ("image", "joints", "visible"),
    [
        (np.zeros((9, 9), np.uint8), np.zeros((K, 2)), None),
        (np.zeros((9, 9, 3), np.float32), np.zeros((K, 2)), None),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((K - 1, 2)), None),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((K, 2)), np.zeros(3)),
    ],
)
def test_wrong_shapes_are_told(image, joints, visible) -> None:
    with pytest.raises(ValueError, match=r"RGB|joints"):
        drawing.draw_pose(image, joints, JHMDB, visible)


def test_errors_are_lines_from_label_to_prediction() -> None:
    label, pred = np.array([[20.0, 45.0]]), np.array([[100.0, 45.0]])
    out = drawing.draw_errors(blank(), pred, label)
    assert (out[45, 22:98, 0] > out[45, 22:98, 1].astype(int) + 80).all()
    assert (drawing.draw_errors(blank(), pred, label, [ABSENT]) == 128).all()


def test_layout() -> None:
    a, b = blank(20, 30), blank(40, 10)
    assert drawing.side_by_side([a, b], gap=4).shape == (40, 44, 3)
    assert drawing.side_by_side([a, b, a], gap=4, columns=2).shape == (64, 44, 3)
    captioned = drawing.caption(blank(20, 90), "a text that is much too long for this picture")
    assert captioned.shape[1] == 90
    assert (captioned[-20:] == 128).all()
    with pytest.raises(ValueError, match="one picture"):
        drawing.side_by_side([])
