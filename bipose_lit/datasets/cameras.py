"""Cameras for sets of 3D motion: read from JSON or placed in a ring, and their projection.

The JSON holds the cameras of each subject, or those of all under "*":

    {"S1": [{"id": "54138969", "K": [[f, 0, cx], [0, f, cy], [0, 0, 1]], "R": [[...], [...], [...]], "t": [x, y, z],
             "distortion": [k1, k2, k3, p1, p2], "size": [1000, 1002]}, ...], ...}

with pixel = distort(K (R X + t)), X in the world's millimetres. In place of K: "focal_length" and "center", two pixels each. In
place of R and t: "orientation", the unit quaternion (w, x, y, z) that turns camera axes into the world's, and "translation",
the camera's place in the world in millimetres. In place of distortion, which may be left out: "radial_distortion" (three) and
"tangential_distortion" (two). In place of size: "res_w" and "res_h".

The second names are those of VideoPose3D's two tables (`common/h36m_dataset.py`): one has lens and picture of each of the four
cameras, the other orientation and translation by subject and camera. Put together entry by entry, as its class does, they are
such a file ("azimuth", for its drawings, is passed over). That class then goes on to metres and to pictures from -1 to 1: cameras
taken from there are not these, and are refused.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.index import Camera
from bipose_lit.datasets.safe_pickle import shown
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]

ALL = "*"
FARTHEST = 1e6
"""Millimetres (a kilometre) and pixels beyond which a coordinate is no person's."""
_MAX_BYTES = 2**24
_SHORTEST_FOCAL = 50.0  # pixels
_NEAREST = 20.0  # mm: a camera nearer to the origin, but not at it, has its place in metres
_KEYS = ("id", "K", "R", "t", "distortion", "size", "focal_length", "center", "orientation", "translation", "radial_distortion",
         "tangential_distortion", "res_w", "res_h")  # fmt: skip


@dataclass(frozen=True)
class View:
    """A camera and the width and height of its picture in pixels."""

    camera: Camera
    size: tuple[int, int]


def load_cameras(path: Path) -> dict[str, tuple[View, ...]]:
    """Cameras by subject from a JSON file; see the module for the format.

    Raises:
        BiposeError: missing, not JSON, or a camera that lacks something or is not a camera.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BiposeError(f"{path}: larger than any list of cameras; give the cameras' JSON file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the cameras ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise BiposeError(f"{path}: not a JSON file; write the cameras again") from error
    if isinstance(content, list):
        content = {ALL: content}
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise BiposeError(f"{path}: expected lists of cameras by subject, or one list for all")
    out: dict[str, tuple[View, ...]] = {}
    for subject, entries in content.items():
        views: list[View] = []
        for number, entry in enumerate(entries):
            if entry == {}:  # as VideoPose3D's table has them for subjects without positions
                continue
            try:
                views.append(_view(entry, str(number)))
            except _WrongError as error:
                raise BiposeError(f"{path}: camera {number} of {shown(subject, 40)}: {error}") from None
        names = [v.camera.name for v in views]
        if len(set(names)) != len(names):
            raise BiposeError(f"{path}: two cameras of {shown(subject, 40)} have the same id; give each its own")
        if views:
            out[subject] = tuple(views)
    if not out:
        raise BiposeError(f"{path}: holds no camera")
    return out


class _WrongError(Exception):
    pass


def _view(entry: Any, default: str) -> View:
    if not isinstance(entry, dict):
        raise _WrongError("is not a dict with K, R and t")
    unknown = sorted(set(entry) - {*_KEYS, "azimuth"})
    if unknown:
        raise _WrongError(
            f"has {shown(unknown[0], 40)}, which is none of {', '.join(_KEYS)}; mend its name or take it out"
        )
    name = entry.get("id", default)
    name = str(name) if isinstance(name, str | int) else ""
    if not name or len(name) > 60 or not name.isprintable() or "/" in name:
        raise _WrongError("has an id that is no short word; give it a plain one")
    if "K" in entry:
        K = _numbers(entry, "K", (3, 3))
    else:
        K = np.eye(3)
        K[[0, 1], [0, 1]], K[:2, 2] = _numbers(entry, "focal_length", (2,)), _numbers(entry, "center", (2,))
    if K[0, 0] <= 0 or K[1, 1] <= 0 or K[1, 0] != 0 or not np.array_equal(K[2], (0, 0, 1)):
        raise _WrongError("K is no pinhole camera's [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with positive fx and fy")
    if "R" in entry:
        R, t = _numbers(entry, "R", (3, 3)), _numbers(entry, "t", (3,))
        if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
            raise _WrongError("R is not a rotation (its rows must be at right angles, of length 1, and not mirrored)")
    else:
        quaternion, place = _numbers(entry, "orientation", (4,)), _numbers(entry, "translation", (3,))
        norm = float(np.linalg.norm(quaternion))
        if not 0.99 < norm < 1.01:
            raise _WrongError(f"orientation has length {norm:.3g}; a rotation's quaternion has 1")
        R = _rotation(quaternion / norm).T
        t = -R @ place
    if 0 < (away := float(np.linalg.norm(t))) < _NEAREST:
        raise _WrongError(f"stands {away:.3g} mm from the world's origin; give millimetres, not metres")
    if "distortion" in entry:
        lens = _numbers(entry, "distortion", (5,)) if entry["distortion"] else np.zeros(0)
    elif "radial_distortion" in entry or "tangential_distortion" in entry:
        parts = _numbers(entry, "radial_distortion", (3,)), _numbers(entry, "tangential_distortion", (2,))
        lens = np.concatenate(parts)
    else:
        lens = np.zeros(0)
    if "size" not in entry and "res_w" in entry:
        size = _numbers([entry.get(k) for k in ("res_w", "res_h")], "", (2,))
    else:
        size = _numbers(entry, "size", (2,))
    if not ((size >= 1) & (size <= 100_000) & (size == np.rint(size))).all():
        raise _WrongError("has no size of its picture; give size as [width, height] in pixels")
    (width, height), (cx, cy) = size.astype(int).tolist(), K[:2, 2].tolist()
    if min(K[0, 0], K[1, 1]) < _SHORTEST_FOCAL:
        raise _WrongError(f"has the focal length {K[0, 0]:.3g} x {K[1, 1]:.3g}; give it in pixels of its picture")
    if not (0 <= cx <= width and 0 <= cy <= height):
        raise _WrongError(
            f"its center ({cx:.6g}, {cy:.6g}) lies outside of its picture of {width} x {height}; give pixels"
        )
    return View(Camera(name, K, R, t, tuple(lens.tolist())), (width, height))


def _numbers(entry: Any, key: str, shape: tuple[int, ...]) -> Floats:
    if key and key not in entry:
        raise _WrongError(f"lacks {key}")

    def checked(value: Any, rest: tuple[int, ...]) -> Any:
        if rest:
            if not isinstance(value, list) or len(value) != rest[0]:
                raise _WrongError(f"{key or 'res_w, res_h'} must hold {' x '.join(map(str, shape))} numbers")
            return [checked(item, rest[1:]) for item in value]
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e7:
            raise _WrongError(f"{key or 'res_w, res_h'} holds {shown(value, 30)!r}, which is no such number")
        return float(value)

    return np.array(checked(entry[key] if key else entry, shape), np.float64)


def _rotation(q: Floats) -> Floats:
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def of_subject(cameras: Mapping[str, tuple[View, ...]], subject: str) -> tuple[View, ...]:
    """A subject's cameras, or those of all; empty where there are none."""
    return cameras.get(subject, cameras.get(ALL, ()))


def to_camera(camera: Camera, world: Floats) -> Floats:
    """(T, K, 3) world millimetres in the camera's coordinates: x right, y down, z away from it."""
    return np.asarray(world @ np.swapaxes(camera.rotation, -1, -2) + camera.translation[..., None, :])


def project(camera: Camera, points: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Pixels of points in camera coordinates.

    The lens is Human3.6M's (`ProjectPointRadial` of its toolkit, as in 3d-pose-baseline's `src/cameras.py`): with x = X / Z,
    y = Y / Z, r2 = x x + y y and s = 1 + k1 r2 + k2 r2^2 + k3 r2^3 + p1 y + p2 x it is (s x + p2 r2, s y + p1 r2). OpenCV's
    model counts the terms p1 y + p2 x twice; VideoPose3D's code takes p1 and p2 the other way round. With Human3.6M's
    lenses either changes a joint by less than a pixel.

    Args:
        camera: intrinsics and distortion are used.
        points: (T, K, 3) millimetres, camera coordinates.

    Returns:
        (T, K, 2) pixels, 0 where there are none, and (T, K) whether there are: in front of the camera and where its lens model is
        one-to-one, which ends at the smallest radius where it folds.
    """
    depth = points[..., 2]
    ahead = depth > 1.0  # nearer than a millimetre is within the lens
    x, y = (np.where(ahead, points[..., i] / np.where(ahead, depth, 1.0), 0.0) for i in (0, 1))
    ahead &= np.maximum(np.abs(x), np.abs(y)) < 100  # 89.4 degrees off the axis
    x, y = np.where(ahead, x, 0.0), np.where(ahead, y, 0.0)
    if camera.distortion:
        k1, k2, k3, p1, p2 = camera.distortion
        r2 = x * x + y * y
        ahead &= r2 < _fold(k1, k2, k3)
        s = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)) + p1 * y + p2 * x
        x, y = s * x + p2 * r2, s * y + p1 * r2
    K = camera.intrinsics
    u = K[..., 0, 0, None] * x + K[..., 0, 1, None] * y + K[..., 0, 2, None]
    v = K[..., 1, 1, None] * y + K[..., 1, 2, None]
    pixels = np.stack([u, v], axis=-1)
    ahead &= (np.abs(pixels) < FARTHEST).all(axis=-1)
    return np.where(ahead[..., None], pixels, 0.0), ahead


@functools.lru_cache(maxsize=256)
def _fold(k1: float, k2: float, k3: float) -> float:
    """The squared radius where a radial lens model first turns back, so that points beyond it lie in the picture a second time.

    It is the smallest positive root u of 1 + 3 k1 u + 5 k2 u^2 + 7 k3 u^3, sought as 1 / u, whose polynomial divides by nothing.
    """
    roots = np.roots([1.0, 3 * k1, 5 * k2, 7 * k3])
    largest = max((z.real for z in roots.tolist() if abs(z.imag) <= 1e-7 * abs(z)), default=0.0)
    return 1 / largest if largest > 1e-9 else math.inf


def ring(
    points: Floats, count: int, distance: float, elevation: float, focal: float, size: tuple[int, int]
) -> tuple[View, ...]:
    """Cameras at equal angles around a motion, looking at its middle; the world's y is up.

    Args:
        points: (T, K, 3) world millimetres.
        count: cameras.
        distance: millimetres from the middle; more where the motion would leave the picture.
        elevation: degrees above the horizon.
        focal: pixels.
        size: width and height of the picture; the principal point is in its middle.
    """
    flat = points.reshape(-1, 3)
    middle = (flat.min(axis=0) + flat.max(axis=0)) / 2
    radius = float(np.linalg.norm(flat - middle, axis=1).max())
    far = max(distance, 1.02 * radius / math.sin(math.atan((min(size) - 1) / 2 / focal)))
    K = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]], np.float64)
    views = []
    for number in range(count):
        angle, rise = 2 * math.pi * (number + 0.5) / count, math.radians(elevation)
        back = np.array([math.cos(rise) * math.sin(angle), math.sin(rise), math.cos(rise) * math.cos(angle)])
        right = np.cross(-back, (0.0, 1.0, 0.0))
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(-back, right), -back])
        views.append(View(Camera(f"ring{number}of{count}", K, R, -R @ (middle + far * back)), size))
    return tuple(views)
