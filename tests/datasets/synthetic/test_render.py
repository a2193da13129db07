"""Rendered clips: same rng, same bytes; labels on the body; flags true where they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bipose_lit.datasets.synthetic.body import INDEX, JOINTS, Proportions, forward_kinematics, rest_offsets
from bipose_lit.datasets.synthetic.camera import Camera, intrinsics, look_at
from bipose_lit.datasets.synthetic.imaging import Imaging, Sensor, streak
from bipose_lit.datasets.synthetic.looks import Look
from bipose_lit.datasets.synthetic.motions import MOTIONS, Motion, make_motion
from bipose_lit.datasets.synthetic.occluders import Occluder, OccluderTrack
from bipose_lit.datasets.synthetic.person import Person
from bipose_lit.datasets.synthetic.raster import rasterise
from bipose_lit.datasets.synthetic.render import RenderedClip, render_clip, sample_cameras, sample_imaging, sample_scene
from bipose_lit.types import BiposeError


def front_camera(distance: float = 4.0, focal_mm: float = 24.0, size: tuple[int, int] = (320, 240)) -> Camera:
    R, t = look_at(np.array([0.0, 1.0, distance]), np.array([0.0, 1.0, 0.0]))
    return Camera(intrinsics(focal_mm, size), R, t, size)


def clip(seed: int, kind: str = "walk", frames: int = 3, occluders: tuple[Occluder, ...] = ()) -> RenderedClip:
    rng = np.random.default_rng(seed)
    motion = make_motion(kind, frames, 25.0, rng)
    look, scene, cameras = Look.sample(rng), sample_scene(rng), sample_cameras(rng, motion)
    return render_clip(motion, look, scene, cameras, occluders, sample_imaging(rng), rng)


def standing(seed: int = 0) -> Motion:
    """Somebody at rest: upright on the origin, facing +z."""
    p = Proportions.sample(np.random.default_rng(seed))
    eye = np.tile(np.eye(3), (1, len(JOINTS), 1, 1))
    positions, orientation = forward_kinematics(rest_offsets(p)[None, 0], eye, p)
    return Motion(25.0, positions, orientation, p, "stand")


def render_still(motion: Motion, camera: Camera, seed: int = 0, occluders: tuple[Occluder, ...] = ()) -> RenderedClip:
    rng = np.random.default_rng(seed)
    return render_clip(motion, Look.sample(rng), sample_scene(rng), [camera], occluders, Imaging.none(), rng)


def test_rerun_is_bit_identical_and_seeds_differ() -> None:
    a, b, c = clip(1), clip(1), clip(2)
    np.testing.assert_array_equal(a.frames, b.frames)
    np.testing.assert_array_equal(a.joints, b.joints)
    np.testing.assert_array_equal(a.self_occluded, b.self_occluded)
    assert a.look_id == b.look_id != c.look_id
    assert not np.array_equal(a.frames, c.frames)


def test_shapes_types_and_cameras() -> None:
    c = clip(3, frames=2)
    assert c.frames.shape == (2, 240, 320, 3)
    assert c.frames.dtype == np.uint8
    assert c.joints.shape == (2, 22, 2)
    assert c.joints.dtype == np.float32
    for flag in (c.hidden_by_object, c.out_of_view, c.self_occluded):
        assert flag.shape == (2, 22)
        assert flag.dtype == bool
    cam = np.einsum("tij,tkj->tki", c.R, c.positions) + c.t[:, None]
    pixels = np.einsum("tij,tkj->tki", c.K, cam)
    np.testing.assert_allclose(pixels[..., :2] / pixels[..., 2:], c.joints, atol=1e-3)
    np.testing.assert_allclose(cam[..., 2], c.depth, rtol=1e-5)
    assert not c.hidden_by_object.any()


@pytest.mark.parametrize("seed", range(8))
def test_joints_lie_on_the_body(seed: int) -> None:
    rng = np.random.default_rng(seed)
    motion = make_motion(list(MOTIONS)[seed % len(MOTIONS)], 2, 25.0, rng)
    look, scene, cameras = Look.sample(rng), sample_scene(rng), sample_cameras(rng, motion)
    person = Person(motion, look, cameras, scene.light)
    (x0, y0), _, cover = person.draw(0, 0.0)
    pixels, _ = cameras[0].project(motion.positions[0])
    H, W = cover.shape
    reach = 2  # the vertex of the head and the tips of fingers and toes lie on the outline itself
    for name, (x, y) in zip(JOINTS, pixels, strict=True):
        if not (0 <= x < 320 and 0 <= y < 240):
            continue
        i, k = round(x) - x0, round(y) - y0
        around = cover[max(k - reach, 0) : min(k + reach + 1, H), max(i - reach, 0) : min(i + reach + 1, W)]
        assert around.size, name
        assert around.max() > 0.5, name
        if name not in ("head_top", "left_hand", "right_hand", "left_toe", "right_toe"):
            assert cover[min(max(k, 0), H - 1), min(max(i, 0), W - 1)] > 0.5, name


def test_box_is_the_silhouette() -> None:
    motion = standing()
    c = render_still(motion, front_camera(4.0, 24.0))
    x0, y0, x1, y1 = c.boxes[0]
    top, left, right = (c.joints[0, INDEX[j]] for j in ("head_top", "left_elbow", "right_elbow"))
    assert abs(y0 - top[1]) < 4  # hair
    sole = front_camera(4.0, 24.0).project(np.array([0.0, 0.0, 0.1]))[0][1]
    assert abs(y1 - sole) < 4
    assert x0 < right[0] < left[0] < x1
    assert x1 - x0 < 0.6 * (y1 - y0)


def test_left_is_on_the_right_of_a_person_who_faces_the_camera() -> None:
    motion = standing()
    facing = render_still(motion, front_camera())
    names = ("wrist", "shoulder", "hip", "knee", "ankle")
    for part in names:
        assert facing.joints[0, INDEX[f"left_{part}"], 0] > facing.joints[0, INDEX[f"right_{part}"], 0]
    behind = replace(motion, positions=motion.positions * (-1, 1, -1), frames=np.diag([-1.0, 1, -1]) @ motion.frames)
    away = render_still(behind, front_camera())
    for part in names:
        assert away.joints[0, INDEX[f"left_{part}"], 0] < away.joints[0, INDEX[f"right_{part}"], 0]


def head_patch(c: RenderedClip) -> np.ndarray:
    top, base = c.joints[0, INDEX["head_top"]], c.joints[0, INDEX["head"]]
    x, y = round(float(base[0])), round(float(base[1] * 0.65 + top[1] * 0.35))
    return c.frames[0, y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).astype(float)


def test_face_and_back_of_the_head_look_different() -> None:
    motion = standing()
    turned = replace(motion, positions=motion.positions * (-1, 1, -1), frames=np.diag([-1.0, 1, -1]) @ motion.frames)
    differences = []
    for seed in range(10):
        face, back = (
            head_patch(render_still(motion, front_camera(), seed)),
            head_patch(render_still(turned, front_camera(), seed)),
        )
        differences.append(abs(face.mean(0) - back.mean(0)).max() + face.std(0).max())
    assert np.median(differences) > 25


def test_flags_under_a_known_occluder() -> None:
    motion, cam = standing(), front_camera(4.0, 24.0)
    knees = cam.project(motion.positions[0, [INDEX["left_knee"], INDEX["right_knee"]]])[0].mean(0)
    board = Occluder.make("panel", (80, 30), 5).on(OccluderTrack.still(tuple(knees), 1))
    bare, covered = render_still(motion, cam), render_still(motion, cam, occluders=(board,))
    expected = (np.abs(np.round(bare.joints[0]) - knees) <= (39, 14)).all(-1)
    assert expected[[INDEX["left_knee"], INDEX["right_knee"]]].all()
    assert not expected[INDEX["head"]]
    np.testing.assert_array_equal(covered.hidden_by_object[0], expected)
    assert not bare.hidden_by_object.any()
    np.testing.assert_array_equal(bare.joints, covered.joints)
    np.testing.assert_array_equal(bare.boxes, covered.boxes)
    np.testing.assert_array_equal(bare.self_occluded, covered.self_occluded)
    assert bare.hidden_share[0] == 0
    assert 0.05 < covered.hidden_share[0] < 0.35


def test_out_of_view() -> None:
    motion = standing()
    cam = front_camera(1.6, 35.0)
    c = render_still(motion, cam)
    x, y = cam.project(motion.positions[0])[0].T
    np.testing.assert_array_equal(c.out_of_view[0], (x < -0.5) | (x > 319.5) | (y < -0.5) | (y > 239.5))
    assert c.out_of_view[0, INDEX["left_ankle"]]
    assert not c.out_of_view[0, INDEX["spine"]]
    assert not (c.hidden_by_object & c.out_of_view).any()


def test_the_body_hides_its_own_far_side() -> None:
    motion = standing()
    front = render_still(motion, front_camera())
    assert not front.self_occluded[0].any()
    side = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # faces +x: the camera on +z sees the person's right side
    turned = replace(motion, positions=motion.positions @ side.T, frames=side @ motion.frames)
    c = render_still(turned, front_camera())
    for part in ("shoulder", "elbow", "hip", "knee"):
        assert c.self_occluded[0, INDEX[f"left_{part}"]], part
        assert not c.self_occluded[0, INDEX[f"right_{part}"]], part


def test_one_frame() -> None:
    c = clip(5, frames=1)
    assert c.frames.shape[0] == 1
    assert np.isfinite(c.boxes).all()
    assert c.frames.std() > 5


def test_a_person_out_of_sight_has_no_box() -> None:
    motion = standing()
    away = replace(motion, positions=motion.positions + np.array([30.0, 0, 0]))
    c = render_still(away, front_camera())
    assert np.isnan(c.boxes).all()
    assert c.out_of_view.all()
    assert c.hidden_share[0] == 0


def test_rasteriser_against_painting_by_hand() -> None:
    # two triangles over each other; the nearer wins where both cover, and values are affine
    screen = np.array([[[2, 2, 2.0], [2, 12, 2.0], [12, 2, 2.0], [0, 0, 1.0], [0, 5, 1.0], [5, 0, 1.0]]], np.float32)
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    out = rasterise(screen, faces, screen[0, :, :1].copy(), (0, 0), (16, 16))
    y, x = np.divmod(out.pixel, 16)
    np.testing.assert_allclose(out.values[:, 0], x, atol=1e-4)
    near, far = (x + y <= 5), (x >= 2) & (y >= 2) & (x + y <= 14)
    assert set(out.face[near]) == {1}
    assert len(out.pixel) == sum(
        1 for a in range(16) for b in range(16) if a + b <= 5 or (a >= 2 and b >= 2 and a + b <= 14)
    )
    assert set(out.face[far & ~near]) == {0}
    back = rasterise(screen, faces[:, ::-1], screen[0, :, :1].copy(), (0, 0), (16, 16))
    assert len(back.pixel) == 0  # seen from inside


def test_motion_blur_and_sensor() -> None:
    dot = np.zeros((21, 21, 3), np.uint8)
    dot[10, 10] = 255
    line = streak(dot, np.array([6.0, 0.0])).astype(int)
    assert (line[10, 8:13, 0] > 30).all()
    assert line[8].sum() == 0
    assert abs(line[..., 0].sum() - 255) < 8
    grey = np.full((60, 80, 3), 100, np.uint8)
    assert Sensor(Imaging.none(), (80, 60), np.random.default_rng(0)).develop(grey) is grey
    noisy = Sensor(Imaging(read_noise=4.0, shot_noise=0.2), (80, 60), np.random.default_rng(0))
    first, second = noisy.develop(grey).astype(float), noisy.develop(grey).astype(float)
    assert first.std() == pytest.approx(np.sqrt(16 + 20), rel=0.06)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    dark = Sensor(Imaging(gain=0.5), (80, 60), np.random.default_rng(0)).develop(grey)
    assert dark.mean() == pytest.approx(50, abs=1)


def test_errors() -> None:
    motion = standing()
    rng = np.random.default_rng(0)
    scene, look = sample_scene(rng), Look.sample(rng)
    with pytest.raises(BiposeError, match="one camera per frame"):
        render_clip(motion, look, scene, [], (), Imaging.none(), rng)
    with pytest.raises(BiposeError, match="use one size"):
        render_clip(motion, look, scene, [front_camera(size=(160, 120))], (), Imaging.none(), rng)
    broken = replace(motion, positions=motion.positions * np.nan)
    with pytest.raises(BiposeError, match="finite"):
        render_clip(broken, look, scene, [front_camera()], (), Imaging.none(), rng)
