"""One frame of a track as a picture: its pixels, or blank paper where there are none, with everybody's labels drawn in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.frames import FolderFrames, NoFrames, VideoFrames
from bipose_lit.datasets.index import Track
from bipose_lit.datasets.video_json import VideoPiece
from bipose_lit.drawing import draw_pose, upscale_points
from bipose_lit.geometry import apply, crop_matrix
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, BiposeError

Image = NDArray[np.uint8]

_SHEET, _EDGE, _WORDS, _BOX = (236, 236, 230), (196, 196, 188), (120, 124, 132), (255, 221, 87)
_VIEWS = ("from the front", "from the side")
_WIDEST = 3.0
"""Width of a picture over its height, at most."""


class Company:
    """Who is in the same picture: the tracks of an index by picture."""

    def __init__(self, tracks: Sequence[Track]) -> None:
        self._people: dict[Hashable, list[tuple[Track, int]]] = defaultdict(list)
        for track in tracks:
            for t in range(len(track)):
                self._people[_key(track, t)].append((track, t))

    def people(self, track: Track, t: int) -> list[tuple[Track, int]]:
        """(track, frame) of everybody in that picture, the track itself last."""
        found = self._people.get(_key(track, t), [])
        return [*((other, at) for other, at in found if other is not track), (track, t)]

    def count(self, track: Track, t: int) -> int:
        """How many people the picture shows."""
        return len(self.people(track, t))


def _key(track: Track, t: int) -> Hashable:
    match track.frames:
        case FolderFrames(root, names):
            return root, names[t]
        case VideoFrames(root, name):
            return root, name, t
        case VideoPiece(video, start, step):
            return video.root, video.name, start + step * t
    return id(track), t


def picture(track: Track, t: int) -> tuple[Image | None, str]:
    """The pixels of a frame, or None and why there are none."""
    source = track.frames
    if isinstance(source, NoFrames):
        return None, "no pictures in this set"
    name = (
        source.names[t] if isinstance(source, FolderFrames) else source.name if isinstance(source, VideoFrames) else ""
    )
    if isinstance(source, FolderFrames | VideoFrames) and not (source.root / name).exists():
        return None, "no pictures here"
    try:
        return source.read([t])[0], ""
    except BiposeError:
        return None, "cannot be read"


def tile(
    track: Track, t: int, skeleton: Skeleton, height: int, crop: bool = False, company: Company | None = None
) -> Image:
    """Frame `t`, `height` pixels high, RGB, with its labels; 3D labels beside it as a side view.

    Args:
        track: whose.
        t: frame of the track.
        skeleton: of the labels.
        height: of the tile.
        crop: the padded box at 3:4 instead of the whole frame, with this person alone.
        company: who else to draw.
    """
    image, why = picture(track, t)
    if image is None and track.joints_3d is not None and not (track.visible != ABSENT).any():
        views = [_lifted(track, t, skeleton, height, view) for view in _VIEWS]  # nothing was seen by a camera
        return np.concatenate(views, axis=1)
    if crop and _has_area(track.boxes[t]):
        drawn = _cropped(track, t, skeleton, height, image)
    else:
        people = company.people(track, t) if company else [(track, t)]
        drawn = _whole(track, t, skeleton, height, image, people)
    if why:
        cv2.putText(drawn, why, (5, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _WORDS, 1, cv2.LINE_AA)
    if track.joints_3d is not None:
        drawn = np.concatenate([drawn, _lifted(track, t, skeleton, height, _VIEWS[1])], axis=1)
    return drawn


def _whole(
    track: Track, t: int, skeleton: Skeleton, height: int, image: Image | None, people: Sequence[tuple[Track, int]]
) -> Image:
    origin = np.zeros(2)
    if image is not None:
        size = np.array(image.shape[1::-1], np.float64)
    else:
        origin, size = _extent(track, people)
    scale = height / size[1] * min(1.0, _WIDEST * size[1] / size[0])
    width = max(round(float(size[0] * scale)), 8)
    rows = min(max(round(float(size[1] * scale)), 1), height)
    canvas = _paper(width, height)
    if image is not None:
        way = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        canvas[:rows] = cv2.resize(image, (width, rows), interpolation=way)
    for person, at in people:
        box = (np.asarray(person.boxes[at], np.float64) - [*origin, 0, 0]) * scale
        if _has_area(box):
            _rectangle(canvas, box)
    for person, at in people:
        joints = upscale_points(np.asarray(person.joints[at], np.float64) - origin, scale)
        canvas = draw_pose(
            canvas, joints, skeleton, person.visible[at], thickness=_thickness(joints, person.visible[at], canvas)
        )
    return canvas


def _cropped(track: Track, t: int, skeleton: Skeleton, height: int, image: Image | None) -> Image:
    size = (height * 3 // 4, height)
    matrix = crop_matrix(track.boxes[t], size, padding=1.25)
    canvas = _paper(*size)
    if image is not None:
        # Half a pixel is drawn finer than it is: enlarge in one warp, then draw.
        canvas = np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)
    return draw_pose(canvas, apply(matrix, track.joints[t].astype(np.float64)), skeleton, track.visible[t])


def _paper(width: int, height: int) -> Image:
    made = np.full((height, width, 3), _SHEET, np.uint8)
    cv2.rectangle(made, (0, 0), (width - 1, height - 1), _EDGE, 1)
    return made


def _extent(track: Track, people: Sequence[tuple[Track, int]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Upper left corner and size of what to draw: the frame, or the people's surroundings where its size is not known."""
    if min(track.image_size) > 0:
        return np.zeros(2), np.array(track.image_size, np.float64)
    points = [p.joints[at][(p.visible[at] != ABSENT) & np.isfinite(p.joints[at]).all(1)] for p, at in people]
    corners = [
        np.stack([b[:2], b[:2] + b[2:]]) for p, at in people if _has_area(b := np.asarray(p.boxes[at], np.float64))
    ]
    found = np.concatenate([*points, *corners, np.zeros((0, 2))]).astype(np.float64)
    if not len(found):
        return np.zeros(2), np.array([100.0, 100.0])
    low, high = found.min(0), found.max(0)
    margin = 0.08 * max(float((high - low).max()), 1.0)
    return low - margin, high - low + 2 * margin


def _has_area(box: NDArray[np.floating]) -> bool:
    return bool(np.isfinite(box).all() and (box[2:] > 0).all())


def _rectangle(canvas: Image, box: NDArray[np.float64]) -> None:
    reach = 4 * max(canvas.shape)
    x, y = np.clip(box[:2], -reach, reach).round().astype(int)
    x2, y2 = np.clip(box[:2] + box[2:] - 1, -reach, reach).round().astype(int)
    cv2.rectangle(canvas, (int(x), int(y)), (int(x2), int(y2)), _BOX, 1, cv2.LINE_AA)


def _thickness(joints: NDArray[np.float64], visible: NDArray[np.uint8], canvas: Image) -> float:
    """Thin lines for people who are small in the picture."""
    usual = max(float(min(canvas.shape[:2])) / 130, 1.0)
    there = joints[(visible != ABSENT) & np.isfinite(joints).all(1)]
    if len(there) < 2:
        return usual
    extent = float(np.ptp(there, axis=0).max())
    return min(max(extent / 80, 0.6), usual)


def _lifted(track: Track, t: int, skeleton: Skeleton, height: int, view: str) -> Image:
    """The 3D labels on paper, at one scale for the whole track."""
    flat = _upright(track, skeleton, view)
    reach = max(float(np.nanmax(np.abs(flat - flat.mean(1, keepdims=True)), initial=0.0)), 1e-6)
    width = round(0.62 * height)
    points = (flat[t] - flat[t].mean(0)) / reach * 0.44 * height + [width / 2, height / 2]
    drawn = draw_pose(_paper(width, height), points, skeleton, None)
    cv2.putText(drawn, view, (5, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _WORDS, 1, cv2.LINE_AA)
    return drawn


def _upright(track: Track, skeleton: Skeleton, view: str) -> NDArray[np.float64]:
    """(T, K, 2) rows count down, as in a picture. In the world, up is where heads are above ankles."""
    places = np.asarray(track.joints_3d, np.float64)
    if track.camera is not None:
        return np.asarray(places[..., [0 if view == _VIEWS[0] else 2, 1]])
    names = skeleton.joints
    top = next((names.index(n) for n in ("head_top", "nose", "upper_neck") if n in names), 0)
    low = next((names.index(n) for n in ("left_ankle", "left_knee") if n in names), len(names) - 1)
    rise = np.nanmean(places[:, top] - places[:, low], axis=0)
    up = int(np.nanargmax(np.abs(rise))) if np.isfinite(rise).any() else 1
    first, second = (axis for axis in range(3) if axis != up)
    across = first if view == _VIEWS[0] else second
    return np.stack([places[..., across], -np.sign(rise[up] or 1.0) * places[..., up]], axis=-1)
