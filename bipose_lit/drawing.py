"""Skeletons on pictures: overlays for reports, contact sheets, dashboards and videos; numpy and OpenCV alone, no torch.

Left and right are the person's own. Their hues (sky blue, orange) and the third (white) are told apart by readers with any
colour vision (Okabe and Ito, "Color universal design", 2008); a dark rim keeps them readable on any picture. A hidden joint
is hollow and its limbs are dashed; an absent one is not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bipose_lit.skeletons import Skeleton

Colour = tuple[int, int, int]

LEFT: Colour = (86, 180, 233)
RIGHT: Colour = (230, 159, 0)
CENTRE: Colour = (245, 245, 245)
RIM: Colour = (20, 20, 24)
INK: Colour = (235, 235, 235)
ERROR: Colour = (255, 77, 109)

_SHIFT = 4  # OpenCV draws with 1/16 px, so overlays do not jitter by whole pixels from frame to frame
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def side_of(joint: str) -> str:
    """ "left", "right" or "centre", from the joint's name."""
    for side in ("left", "right"):
        if joint.startswith(f"{side}_"):
            return side
    return "centre"


def side_colours(skeleton: Skeleton) -> list[Colour]:
    """Colour of each of the K joints by its side."""
    colours = {"left": LEFT, "right": RIGHT, "centre": CENTRE}
    return [colours[side_of(joint)] for joint in skeleton.joints]


def upscale(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """The picture `scale` times as large; pixel centres follow x -> (x + 0.5) * scale - 0.5 (see `upscale_points`)."""
    if scale == 1:
        return np.array(image, np.uint8, copy=True, order="C")
    height, width = image.shape[:2]
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=interpolation), dtype=np.uint8)


def upscale_points(points: ArrayLike, scale: float) -> NDArray[np.float64]:
    """(..., 2) points of a picture in the picture that `upscale` made of it (exact where the size needed no rounding)."""
    return (np.asarray(points, np.float64) + 0.5) * scale - 0.5


def draw_pose(
    image: NDArray[np.uint8],
    joints: ArrayLike,
    skeleton: Skeleton,
    visible: ArrayLike | None = None,
    scale: float = 1.0,
    *,
    thickness: float | None = None,
    colour: Colour | None = None,
    label: str = "",
    names: bool = False,
) -> NDArray[np.uint8]:
    """Draws one person; the input is left as it is.

    Args:
        image: RGB (H, W, 3).
        joints: (K, 2) joints in pixels of `image`; joints that are not finite are not drawn.
        skeleton: names, sides and limbs.
        visible: (K,) ABSENT, OCCLUDED, VISIBLE; None draws all as visible.
        scale: the picture is enlarged by this factor before anything is drawn.
        thickness: of limbs in pixels of the result; default by its size.
        colour: one colour for everything instead of the sides' colours (to tell several persons apart).
        label: text in the upper left corner.
        names: writes every joint's name beside it.

    Returns:
        RGB (round(H * scale), round(W * scale), 3).

    Raises:
        ValueError: shapes that do not fit the skeleton or are no RGB picture.
    """
    points, seen = _checked(image, joints, skeleton, visible)
    canvas = upscale(image, scale)
    if thickness is None:
        thickness = max(min(canvas.shape[:2]) / 130, 1.0)
    points = _tame(upscale_points(points, scale), canvas)
    colours = [colour] * len(skeleton) if colour else side_colours(skeleton)
    drawn = (seen != ABSENT) & np.isfinite(points).all(axis=1)
    rim = thickness + max(thickness * 0.7, 1.2)
    limbs = [(int(a), int(b)) for a, b in skeleton.limb_indices if drawn[a] and drawn[b]]
    for width, rims in ((rim, True), (thickness, False)):
        for a, b in limbs:
            same = side_of(skeleton.joints[a]) == side_of(skeleton.joints[b])
            paint = RIM if rims else colours[a] if same or colour else CENTRE
            hidden = OCCLUDED in (seen[a], seen[b])
            _line(canvas, points[a], points[b], paint, width, dash=4 * thickness + 2 if hidden else 0)
    radius = max(1.5 * thickness, 1.8)
    for k in np.flatnonzero(drawn):
        if seen[k] == VISIBLE:
            _disc(canvas, points[k], radius + (rim - thickness) / 2, RIM)
            _disc(canvas, points[k], radius, colours[k])
        else:
            _ring(canvas, points[k], radius + thickness / 2, RIM, rim)
            _ring(canvas, points[k], radius + thickness / 2, colours[k], max(thickness * 0.8, 1))
        if names:
            _text(canvas, skeleton.joints[k], points[k] + (2 * radius, -radius), max(thickness / 5, 0.3))
    if label:
        write(canvas, label)
    return canvas


def draw_errors(
    image: NDArray[np.uint8],
    pred: ArrayLike,
    joints: ArrayLike,
    visible: ArrayLike | None = None,
    scale: float = 1.0,
    *,
    thickness: float = 1.0,
) -> NDArray[np.uint8]:
    """Thin red lines from each labelled joint to its prediction, on a picture that was already enlarged by `scale`.

    Args:
        image: RGB (H, W, 3), as `draw_pose` returned it.
        pred: (K, 2) predictions in pixels of the picture before enlarging.
        joints: (K, 2) labels, likewise.
        visible: (K,) ABSENT joints get no line.
        scale: by which the picture was enlarged.
        thickness: in pixels of the result.
    """
    canvas = np.array(image, np.uint8, copy=True, order="C")
    a = _tame(upscale_points(joints, scale), canvas)
    b = _tame(upscale_points(pred, scale), canvas)
    seen = np.full(len(a), VISIBLE) if visible is None else np.asarray(visible)
    for k in np.flatnonzero((seen != ABSENT) & np.isfinite(a).all(1) & np.isfinite(b).all(1)):
        _line(canvas, a[k], b[k], RIM, thickness + 1.2)
        _line(canvas, a[k], b[k], ERROR, thickness)
    return canvas


def write(canvas: NDArray[np.uint8], text: str, corner: tuple[int, int] = (4, 4), size: float | None = None) -> None:
    """Writes one line of text with a dark ground into `canvas` (in place); `corner` is its upper left corner."""
    size = size or max(min(canvas.shape[:2]) / 600, 0.4)
    (width, height), base = cv2.getTextSize(text, _FONT, size, 1)
    x, y = corner
    cv2.rectangle(canvas, (x - 2, y - 2), (x + width + 3, y + height + base + 1), RIM, cv2.FILLED)
    cv2.putText(canvas, text, (x, y + height), _FONT, size, INK, 1, cv2.LINE_AA)


def caption(image: NDArray[np.uint8], text: str, size: float = 0.45) -> NDArray[np.uint8]:
    """The picture with a dark band above it that holds one line of text, shortened where it does not fit."""
    (_, height), base = cv2.getTextSize("Ag", _FONT, size, 1)
    width = image.shape[1]
    while len(text) > 1 and cv2.getTextSize(text, _FONT, size, 1)[0][0] > width - 8:
        text = text[:-4] + "..." if len(text) > 4 else text[:-1]
    band = np.empty((height + base + 8, width, 3), np.uint8)
    band[:] = RIM
    cv2.putText(band, text, (4, height + 4), _FONT, size, INK, 1, cv2.LINE_AA)
    return np.concatenate([band, image])


def side_by_side(images: Sequence[NDArray[np.uint8]], gap: int = 4, columns: int | None = None) -> NDArray[np.uint8]:
    """Pictures in rows of `columns` (default: one row) on a dark ground, aligned at their upper left corners.

    Raises:
        ValueError: no picture.
    """
    if not images:
        raise ValueError("side_by_side needs at least one picture")
    columns = columns or len(images)
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    widths = [max(r[c].shape[1] for r in rows if c < len(r)) for c in range(len(rows[0]))]
    heights = [max(p.shape[0] for p in row) for row in rows]
    canvas = np.empty((sum(heights) + gap * (len(rows) - 1), sum(widths) + gap * (len(widths) - 1), 3), np.uint8)
    canvas[:] = RIM
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            y, x = sum(heights[:r]) + gap * r, sum(widths[:c]) + gap * c
            canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas


def _checked(
    image: NDArray[np.uint8], joints: ArrayLike, skeleton: Skeleton, visible: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an RGB uint8 picture (H, W, 3) is needed, not {image.dtype} {image.shape}")
    points = np.asarray(joints, np.float64)
    if points.shape != (len(skeleton), 2):
        raise ValueError(f"skeleton {skeleton.name} has {len(skeleton)} joints, got {points.shape}")
    seen = np.full(len(skeleton), VISIBLE) if visible is None else np.asarray(visible, np.int64)
    if seen.shape != (len(skeleton),):
        raise ValueError(f"visibility of shape {seen.shape} for {len(skeleton)} joints")
    return points, seen


def _tame(points: NDArray[np.float64], canvas: NDArray[np.uint8]) -> NDArray[np.float64]:
    # OpenCV's fixed-point coordinates overflow for wild predictions; eight picture sizes away nothing is seen anyway
    reach = 8.0 * max(canvas.shape[:2])
    return np.clip(points, -reach, reach)


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.round(point * 2**_SHIFT).astype(int)
    return int(x), int(y)


def _line(
    canvas: NDArray[np.uint8],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    colour: Colour,
    thickness: float,
    dash: float = 0,
) -> None:
    width = max(round(thickness), 1)
    length = float(np.hypot(*(b - a)))
    pieces = 1 if not dash else min(max(round(length / dash), 1) | 1, 401)
    for i in range(0, pieces, 2):
        start, stop = a + (b - a) * (i / pieces), a + (b - a) * ((i + 1) / pieces)
        cv2.line(canvas, _fixed(start), _fixed(stop), colour, width, cv2.LINE_AA, _SHIFT)


def _disc(canvas: NDArray[np.uint8], centre: NDArray[np.float64], radius: float, colour: Colour) -> None:
    cv2.circle(canvas, _fixed(centre), round(radius * 2**_SHIFT), colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _ring(canvas: NDArray[np.uint8], centre: NDArray[np.float64], radius: float, colour: Colour, width: float) -> None:
    cv2.circle(canvas, _fixed(centre), round(radius * 2**_SHIFT), colour, max(round(width), 1), cv2.LINE_AA, _SHIFT)


def _text(canvas: NDArray[np.uint8], text: str, at: NDArray[np.float64], size: float) -> None:
    spot = (round(float(at[0])), round(float(at[1])))
    cv2.putText(canvas, text, spot, _FONT, size, RIM, 3, cv2.LINE_AA)
    cv2.putText(canvas, text, spot, _FONT, size, INK, 1, cv2.LINE_AA)
