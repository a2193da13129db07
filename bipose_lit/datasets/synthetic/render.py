"""Renders one clip with exact labels: person, scene, occluders, camera.

Cost per 320x240 frame is about one rasterisation of the body in four to six time samples, one warp per visible
plane, and the sensor; see `person`, `scenes`, `imaging`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bipose_lit.datasets.synthetic.body import JOINTS
from bipose_lit.datasets.synthetic.camera import Camera, MotionLike, camera_path, sample_cameras
from bipose_lit.datasets.synthetic.imaging import Imaging, Sensor, sample_imaging, streak
from bipose_lit.datasets.synthetic.looks import Look
from bipose_lit.datasets.synthetic.occluders import Occluder, draw_occluders
from bipose_lit.datasets.synthetic.person import Person
from bipose_lit.datasets.synthetic.scenes import Scene, Stage, sample_scene
from bipose_lit.types import BiposeError

__all__ = ["RenderedClip", "render_clip", "sample_cameras", "sample_imaging", "sample_scene"]


@dataclass(frozen=True)
class RenderedClip:
    """A clip and what is true of it.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        joints: (T, 22, 2) float32 pixels (pixel centres at integers); NaN behind the camera.
        depth: (T, 22) float32 metres along the optical axis.
        hidden_by_object: (T, 22) bool: occluders cover more than half of the 3x3 pixels around the joint.
        out_of_view: (T, 22) bool: the joint's pixel is not in the image.
        self_occluded: (T, 22) bool: the joint lies behind the body's own visible surface (`person.OTHER_GAP`).
        boxes: (T, 4) float32 x0, y0, x1, y1: centres of the first and last pixel columns and rows of which the person,
            without occluders, fills at least half; NaN where there is none.
        hidden_share: (T,) float32 share of the person's pixels that occluders cover; 0 where there is no person.
        K, R, t: (T, 3, 3), (T, 3, 3), (T, 3) cameras: pixel = K (R x + t), world metres.
        positions: (T, 22, 3) joints in the world, metres.
        fps: frames per second.
        look_id: the person's appearance.
    """

    frames: np.ndarray
    joints: np.ndarray
    depth: np.ndarray
    hidden_by_object: np.ndarray
    out_of_view: np.ndarray
    self_occluded: np.ndarray
    boxes: np.ndarray
    hidden_share: np.ndarray
    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    positions: np.ndarray
    fps: float
    look_id: int


def render_clip(
    motion: MotionLike,
    look: Look,
    scene: Scene,
    cameras: Sequence[Camera],
    occluders: Sequence[Occluder],
    imaging: Imaging,
    rng: np.random.Generator,
    size: tuple[int, int] = (320, 240),
) -> RenderedClip:
    """Renders every frame of a motion.

    Args:
        motion: T frames of a person.
        look: appearance.
        scene: surroundings, placed around the motion.
        cameras: T cameras made for `size`.
        occluders: things in front, each with a track of at least T frames; may be empty.
        imaging: picture quality.
        rng: source of the sensor noise, the only randomness here; the same state gives the same bytes.
        size: (width, height) of the frames, pixels.

    Raises:
        BiposeError: as many cameras as frames are needed, made for `size`, and finite joints.
    """
    positions = np.asarray(motion.positions, dtype=np.float64)
    T = len(positions)
    W, H = size
    if len(cameras) != T or T == 0:
        raise BiposeError(
            f"render_clip: {len(cameras)} cameras for {T} frames; give one camera per frame, at least one"
        )
    if any(tuple(c.size) != (W, H) for c in cameras):
        raise BiposeError(f"render_clip: cameras are made for {cameras[0].size}, frames are {size}; use one size")
    if positions.shape[1:] != (len(JOINTS), 3) or not np.isfinite(positions).all():
        raise BiposeError(f"render_clip: joints have shape {positions.shape} or are not finite; give finite (T, 22, 3)")
    stage = Stage(scene, cameras, positions, float(motion.fps))
    person = Person(motion, look, cameras, scene.light)
    sensor = Sensor(imaging, size, rng)
    flow = _camera_flow(cameras, stage.origin)

    frames = np.empty((T, H, W, 3), np.uint8)
    joints, depth = np.empty((T, len(JOINTS), 2)), np.empty((T, len(JOINTS)))
    hidden, behind = np.zeros((T, len(JOINTS)), bool), np.zeros((T, len(JOINTS)), bool)
    boxes, share = np.full((T, 4), np.nan, np.float32), np.zeros(T, np.float32)
    for f, cam in enumerate(cameras):
        joints[f], depth[f] = cam.project(positions[f])
        image = streak(stage.draw(f), flow[f] * imaging.shutter)
        stage.cast_shadow(f, image, person.points[f])
        (x, y), rgb, cover = person.draw(f, imaging.shutter)
        if cover.size:
            h, w = cover.shape
            area = image[y : y + h, x : x + w]
            area[:] = (area * (1 - cover)[..., None] + rgb + 0.5).clip(0, 255).astype(np.uint8)
            columns, rows = np.flatnonzero((cover >= 0.5).any(0)), np.flatnonzero((cover >= 0.5).any(1))
            if len(columns):
                boxes[f] = x + columns[0], y + rows[0], x + columns[-1], y + rows[-1]
        if occluders:
            image, alpha = draw_occluders(image, occluders, f, imaging.shutter)
            hidden[f] = _covered(alpha, joints[f])
            if cover.size and cover.sum() > 0:
                share[f] = (cover * (alpha[y : y + h, x : x + w] > 0.5)).sum() / cover.sum()
        behind[f] = person.self_occluded(f, joints[f], depth[f])
        frames[f] = sensor.develop(image)
    inside = (np.round(joints) >= 0) & (np.round(joints) <= (W - 1, H - 1))
    K, R, t = camera_path(cameras)
    return RenderedClip(
        frames=frames, joints=joints.astype(np.float32), depth=depth.astype(np.float32), hidden_by_object=hidden,
        out_of_view=np.logical_not(inside.all(-1)), self_occluded=behind, boxes=boxes, hidden_share=share, K=K, R=R, t=t,
        positions=positions, fps=float(motion.fps), look_id=look.look_id,
    )  # fmt: skip


def _covered(alpha: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """(22,) whether the mean coverage of the 3x3 pixels around each joint in the image exceeds one half."""
    H, W = alpha.shape
    out = np.zeros(len(joints), bool)
    for j, (x, y) in enumerate(joints):
        if not np.isfinite(x + y):
            continue
        i, k = round(float(x)), round(float(y))
        if 0 <= i < W and 0 <= k < H:
            out[j] = alpha[max(k - 1, 0) : k + 2, max(i - 1, 0) : i + 2].mean() > 0.5
    return out


def _camera_flow(cameras: Sequence[Camera], origin: np.ndarray) -> np.ndarray:
    """(T, 2) pixels per frame by which the background moves because the camera does, measured behind the person."""
    T = len(cameras)
    flow = np.zeros((T, 2))
    for f, cam in enumerate(cameras):
        before, after = cameras[max(f - 1, 0)], cameras[min(f + 1, T - 1)]
        ahead = origin - cam.centre
        point = cam.centre + ahead * 1.6
        point[1] = cam.centre[1] + 1.6 * np.linalg.norm(ahead) * cam.R[2, 1]
        p, q = before.project(point)[0], after.project(point)[0]
        if np.isfinite(p).all() and np.isfinite(q).all() and T > 1:
            flow[f] = (q - p) / (min(f + 1, T - 1) - max(f - 1, 0))
    return np.clip(flow, -40, 40)
