"""Perspective cameras and hand-held camera paths.

World: right-handed, y up, metres. Camera: x right, y down, z forward (cv2). Pixel centres are at integers, so the
principal point of a W x H image is ((W - 1) / 2, (H - 1) / 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

SENSOR_HEIGHT_MM = 24.0  # of the 35 mm format, in which focal lengths are quoted


class MotionLike(Protocol):
    """What the renderer reads of a motion.

    ``positions`` is (T, 22, 3) in world metres, ``frames`` (T, 22, 3, 3) holds the global orientation of the segment
    that starts at each joint (columns are its axes; identity in the rest pose).
    """

    @property
    def fps(self) -> float: ...
    @property
    def positions(self) -> np.ndarray: ...
    @property
    def frames(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        K: (3, 3) intrinsics, pixels.
        R: (3, 3) world to camera rotation.
        t: (3,) translation, metres: ``x_cam = R @ x_world + t``.
        size: (width, height) of the image in pixels.
    """

    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    size: tuple[int, int]

    @property
    def centre(self) -> np.ndarray:
        """(3,) position of the camera in the world, metres."""
        return np.asarray(-self.R.T @ self.t)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in camera coordinates (..., 3), metres."""
        return np.asarray(points @ self.R.T + self.t)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projects world points.

        Args:
            points: (..., 3) world metres.

        Returns:
            Pixels (..., 2) and depth along the optical axis (...,) in metres. A point that is not in front of the
            camera (depth <= 0) has NaN pixels.
        """
        cam = self.to_camera(np.asarray(points, dtype=np.float64))
        depth = cam[..., 2]
        safe = np.where(depth > 0, depth, np.nan)
        x = self.K[0, 0] * cam[..., 0] / safe + self.K[0, 2]
        y = self.K[1, 1] * cam[..., 1] / safe + self.K[1, 2]
        return np.stack([x, y], axis=-1), depth

    def plane_homography(self, origin: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(3, 3) homography from plane coordinates (a, b, 1), point = origin + a u + b v, to pixels."""
        cols = np.stack([self.R @ u, self.R @ v, self.R @ origin + self.t], axis=1)
        return np.asarray(self.K @ cols)


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """World to camera rotation (3, 3) and translation (3,) of a camera at `position` that looks at `target`.

    Args:
        position: (3,) world metres.
        target: (3,) world metres; not straight above or below `position`.
        roll: turn about the optical axis, radians; positive turns the picture's content anticlockwise.
    """
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    x, y, z = forward  # crossed by hand: for single vectors numpy's own takes ten times as long
    right = np.array([-z, 0.0, x])
    right = right / np.linalg.norm(right)
    down = np.array([y * right[2] - z * right[1], z * right[0] - x * right[2], x * right[1] - y * right[0]])
    c, s = np.cos(roll), np.sin(roll)
    R = np.stack([c * right + s * down, c * down - s * right, forward])
    return R, -R @ position


def intrinsics(focal_mm: float, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) intrinsics of a lens quoted for the 35 mm format, square pixels, `size` = (width, height)."""
    W, H = size
    f = H * focal_mm / SENSOR_HEIGHT_MM
    return np.array([[f, 0.0, (W - 1) / 2], [0.0, f, (H - 1) / 2], [0.0, 0.0, 1.0]])


def smooth_path(path: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing of (T, D) over frames with constant ends; `sigma` in frames."""
    T = len(path)
    if T < 2 or sigma <= 0:
        return np.array(path, dtype=np.float64)
    steps = np.arange(T)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps[None]) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum(1, keepdims=True) @ path)


def shake(rng: np.random.Generator, frames: int, fps: float, channels: int, band: tuple[float, float]) -> np.ndarray:
    """Band-limited noise (frames, channels) of about unit standard deviation; `band` in Hz."""
    n = 7
    freq = np.exp(rng.uniform(np.log(band[0]), np.log(band[1]), (n, channels)))
    phase = rng.uniform(0, 2 * np.pi, (n, channels))
    gain = rng.uniform(0.4, 1.0, (n, channels)) * (freq / band[0]) ** -0.6
    gain /= np.sqrt(0.5 * (gain**2).sum(0))
    time = np.arange(frames)[:, None, None] / fps
    return np.asarray((gain * np.sin(2 * np.pi * freq * time + phase)).sum(1))


def sample_cameras(rng: np.random.Generator, motion: MotionLike, size: tuple[int, int] = (320, 240)) -> list[Camera]:
    """One hand-held camera per frame of `motion`.

    The lens is a 35 to 70 mm one (35 mm format), the camera stands between knee height and above the head, follows the
    person loosely, and is as far away as makes the person fill 45 to 85% of the frame's height at its largest moment
    (less where the pose would not fit the width).

    Args:
        rng: source of every choice; consumed the same way for every motion.
        motion: the motion to film.
        size: (width, height) of the image, pixels.

    Returns:
        T cameras.
    """
    pos = np.asarray(motion.positions, dtype=np.float64)
    T, fps = len(pos), float(motion.fps)
    W, H = size
    K = intrinsics(float(np.exp(rng.uniform(np.log(35), np.log(70)))), size)
    azimuth = rng.uniform(0, 2 * np.pi)
    height = rng.choice([rng.uniform(0.45, 1.0), rng.uniform(1.0, 1.8), rng.uniform(1.8, 2.5)], p=[0.2, 0.6, 0.2])
    fill = rng.uniform(0.48, 0.82)
    follow, dolly = rng.uniform(0.75, 1.0), rng.choice([0.0, rng.uniform(0.3, 1.0)], p=[0.5, 0.5])
    lag = rng.uniform(0.15, 0.5) * fps
    # now and then the framing is poor and somebody's hands, head or feet are cut off
    aim_offset = rng.uniform(-1, 1, 2) * (np.array([0.65, 0.4]) if rng.random() < 0.08 else np.array([0.12, 0.06]))
    drift = rng.normal(0, 1, 3) * np.array([0.15, 0.03, 0.15])
    pan = rng.normal(0, 0.02, 2)
    roll0 = rng.normal(0, np.radians(1.2))
    amount = rng.choice([0.0, rng.uniform(0.3, 1.5)], p=[0.25, 0.75])
    wobble = shake(rng, T, fps, 3, (0.4, 5.0)) * np.radians(amount) * np.array([0.22, 0.18, 0.25])
    sway = shake(rng, T, fps, 3, (0.2, 1.5)) * amount * np.array([0.012, 0.006, 0.012])

    middle = 0.5 * (pos.max(1) + pos.min(1))
    mean = middle.mean(0)
    track = mean + (smooth_path(middle, lag) - mean) * np.array([follow, 0.6, follow])
    base = (track - mean) * np.array([dolly, 0.0, dolly])
    seconds = (np.arange(T) - (T - 1) / 2)[:, None] / fps
    direction = np.array([np.sin(azimuth), 0.0, np.cos(azimuth)])
    outline = np.concatenate([pos, pos[:, 5:6] + [0, 0.03, 0], pos[:, [17, 21]] - [0, 0.04, 0]], axis=1)

    def path(distance: float, at: Iterable[int]) -> list[Camera]:
        cams = []
        for f in at:
            eye = mean + direction * distance + base[f] + drift * seconds[f] + sway[f]
            eye[1] = max(height + drift[1] * seconds[f, 0] + sway[f, 1], 0.2)
            reach = float(np.linalg.norm(track[f] - eye))
            side = np.array([direction[2], 0.0, -direction[0]])
            tilt = np.array([aim_offset[0], aim_offset[1]]) + np.array([pan[0], pan[1]]) * seconds[f]
            angle = tilt * 0.35 + wobble[f, :2]
            target = track[f] + reach * (side * angle[0] + np.array([0, angle[1], 0]))
            R, t = look_at(eye, target, roll0 + wobble[f, 2])
            cams.append(Camera(K, R, t, size))
        return cams

    some = np.unique(np.linspace(0, T - 1, min(T, 12)).round().astype(int))  # enough to see how large the person gets

    def largest(distance: float) -> float:
        best = 0.0
        for f, cam in zip(some, path(distance, some), strict=True):
            px, depth = cam.project(outline[f])
            if depth.min() < 0.5:
                return np.inf
            extent = px.max(0) - px.min(0)
            best = max(best, extent[1] / H, extent[0] / W * (fill / 0.95))
        return best

    low, high = 1.0, 60.0
    for _ in range(14):
        mid = float(np.sqrt(low * high))
        low, high = (mid, high) if largest(mid) > fill else (low, mid)
    return path(max(high, 1.6), range(T))


def camera_path(cameras: Sequence[Camera]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stacked intrinsics (T, 3, 3), rotations (T, 3, 3) and translations (T, 3)."""
    return (
        np.stack([c.K for c in cameras]),
        np.stack([c.R for c in cameras]),
        np.stack([c.t for c in cameras]),
    )
