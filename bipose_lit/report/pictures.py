"""Clips that play and frames that went wrong, arms side by side; chosen by rule, and the rule is told in the caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.index import FrameSource
from bipose_lit.drawing import RIM, caption, draw_errors, draw_pose, side_by_side
from bipose_lit.skeletons import SKELETONS, Skeleton
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT

PANEL, TALL = 260, 300
"""Width and height of one panel in pixels."""
LONGEST = 96
"""Frames of a video; longer clips are cut."""


class HasFrames(Protocol):
    """What a lookup gives for a clip's name: a Track, or anything that holds its frames."""

    @property
    def frames(self) -> FrameSource: ...


Lookup = Mapping[str, HasFrames]


@dataclass(frozen=True)
class Window:
    """A fixed part of the picture, enlarged to a panel: x, y, width, height in source pixels, and the factor."""

    x: int
    y: int
    width: int
    height: int
    scale: float

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image[self.y : self.y + self.height, self.x : self.x + self.width]

    def points(self, joints: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(joints, np.float64) - (self.x, self.y)


def skeleton_of(joint_names: Sequence[str]) -> Skeleton:
    """The known skeleton with these joints, else one with the limbs that known skeletons have between them."""
    names = tuple(joint_names)
    for known in SKELETONS.values():
        if known.joints == names:
            return known
    limbs = dict.fromkeys(limb for known in SKELETONS.values() for limb in known.limbs if set(limb) <= set(names))
    return Skeleton(name="custom", joints=names, swaps=(), limbs=tuple(limbs), torso=(names[0], names[0]))


def window(joints: NDArray[np.floating], visible: NDArray[np.uint8], size: tuple[int, int]) -> Window:
    """The part of the pictures around all labelled joints of a clip, a quarter wider on each side.

    Args:
        joints: (T, K, 2) labels.
        visible: (T, K).
        size: height and width of the pictures.
    """
    points = joints[visible != ABSENT]
    height, width = size
    if not len(points):
        return Window(0, 0, width, height, min(PANEL / width, TALL / height))
    low, high = points.min(0), points.max(0)
    pad = 0.25 * float((high - low).max()) + 2
    x0, y0 = np.floor(np.maximum(low - pad, 0)).astype(int)
    x1, y1 = np.ceil(np.minimum(high + pad + 1, (width, height))).astype(int)
    if x1 - x0 < 8 or y1 - y0 < 8:
        x0, y0, x1, y1 = 0, 0, width, height
    scale = min(PANEL / (x1 - x0), TALL / (y1 - y0))
    return Window(int(x0), int(y0), int(x1 - x0), int(y1 - y0), float(scale))


def clip_frames(source: FrameSource, predictions: Mapping[str, Predictions], clip: str) -> list[NDArray[np.uint8]]:
    """One picture a frame, up to `LONGEST`: the labels, then each arm's prediction.

    Args:
        source: the clip's pixels.
        predictions: by arm; all score this clip's frames.
        clip: name of the clip.

    Raises:
        BiposeError: a picture cannot be read.
    """
    first = next(iter(predictions.values()))
    skeleton = skeleton_of(first.joint_names)
    rows = {arm: _rows(p, clip) for arm, p in predictions.items()}
    at = rows[next(iter(rows))][:LONGEST]
    images = source.read([int(f) for f in first.frame[at]])
    view = window(first.joints[at], first.visible[at], images[0].shape[:2])
    pages = []
    for i, image in enumerate(images):
        part = view.cut(image)
        seen = first.visible[at[i]]
        panels = [_panel(part, view.points(first.joints[at[i]]), skeleton, seen, view.scale, "label")]
        for arm, p in predictions.items():
            points = view.points(p.pred[rows[arm][i]])
            panels.append(_panel(part, points, skeleton, seen, view.scale, arm))
        pages.append(_even(side_by_side(panels, columns=3 if len(panels) == 3 else 2)))
    return pages


def strip(
    source: FrameSource, predictions: Mapping[str, Predictions], clip: str, frame: int, title: str
) -> NDArray[np.uint8]:
    """One frame: the labels, then each arm's prediction with red lines from label to prediction.

    Raises:
        BiposeError: the picture cannot be read.
    """
    first = next(iter(predictions.values()))
    skeleton = skeleton_of(first.joint_names)
    at = _rows(first, clip)
    row = at[first.frame[at] == frame][0]
    image = source.read([frame])[0]
    view = window(first.joints[[row]], first.visible[[row]], image.shape[:2])
    part, label, seen = view.cut(image), view.points(first.joints[row]), first.visible[row]
    panels = [_panel(part, label, skeleton, seen, view.scale, title)]
    for arm, p in predictions.items():
        mine = _rows(p, clip)
        pred = view.points(p.pred[mine[p.frame[mine] == frame][0]])
        drawn = draw_pose(part, pred, skeleton, seen, view.scale)
        panels.append(_framed(draw_errors(drawn, pred, label, seen, view.scale, thickness=2), arm))
    return side_by_side(panels)


def stack(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Strips below each other."""
    return side_by_side(pictures, columns=1, gap=8)


def _panel(
    part: NDArray[np.uint8],
    points: NDArray[np.float64],
    skeleton: Skeleton,
    seen: NDArray[np.uint8],
    scale: float,
    title: str,
) -> NDArray[np.uint8]:
    return _framed(draw_pose(part, points, skeleton, seen, scale), title)


def _framed(picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """A panel of one size for all pictures, so that strips align."""
    height, width = picture.shape[:2]
    y, x = max(TALL - height, 0) // 2, max(PANEL - width, 0) // 2
    panel = np.empty((max(TALL, height), max(PANEL, width), 3), np.uint8)
    panel[:] = RIM
    panel[y : y + height, x : x + width] = picture
    return caption(panel, title)


def _rows(predictions: Predictions, clip: str) -> NDArray[np.int64]:
    """Rows of a clip by frame."""
    rows = np.flatnonzero(predictions.clip == predictions.clips.index(clip))
    return rows[np.argsort(predictions.frame[rows], kind="stable")]


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    return np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
