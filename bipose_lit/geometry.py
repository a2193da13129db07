"""The only place that warps coordinates.

Pixel centres sit at integers (OpenCV's convention): a crop of width W spans -0.5 to W - 0.5, so a flip is x -> W - 1 - x and a
map of stride s sees crop pixel x at (x + 0.5) / s - 0.5. All matrices are 2x3 and act on column vectors (x, y, 1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # readers and reports use this file without torch
    from torch import Tensor

Matrix = NDArray[np.float64]


def crop_matrix(
    box: tuple[float, float, float, float] | NDArray[np.floating],
    size: tuple[int, int],
    padding: float = 1.0,
    rotation: float = 0.0,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
) -> Matrix:
    """The affine from original pixels to crop pixels, everything in one matrix.

    The box is padded, widened to the crop's aspect ratio about its centre, scaled, shifted, rotated and flipped.

    Args:
        box: x, y, w, h in original pixels (edges, as COCO: a box from 0 to W covers the image).
        size: width and height of the crop in pixels.
        padding: factor on the box (1.25 is usual).
        rotation: degrees, counter-clockwise on the screen.
        scale: further factor on the box; above 1 shows more surroundings.
        shift: displacement of the crop's centre in units of the padded box's width and height.
        flip: mirror left and right.

    Returns:
        (2, 3) float64.

    Raises:
        ValueError: a box without area or with a number that is not finite.
    """
    x, y, w, h = (float(v) for v in box)
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise ValueError(f"box {x, y, w, h} has no area")
    width, height = size
    # Edges of a pixel lie half a pixel before its centre: edge coordinate e is centre coordinate e - 0.5.
    cx, cy = x + w / 2 - 0.5, y + h / 2 - 0.5
    w, h = w * padding, h * padding
    cx, cy = cx + shift[0] * w, cy + shift[1] * h
    span = max(w / width, h / height) * scale  # original pixels per crop pixel
    angle = math.radians(rotation)
    cos, sin = math.cos(angle) / span, math.sin(angle) / span
    linear = np.array([[cos, sin], [-sin, cos]])
    if flip:
        linear[0] *= -1
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.concatenate([linear, (centre - linear @ (cx, cy))[:, None]], axis=1)


def invert(matrix: Matrix) -> Matrix:
    """The inverse of one (2, 3) or many (..., 2, 3) affines, float64."""
    linear = np.linalg.inv(np.asarray(matrix, dtype=np.float64)[..., :2])
    return np.concatenate([linear, -(linear @ matrix[..., 2:])], axis=-1)


@overload
def apply(matrix: Tensor, points: Tensor) -> Tensor: ...
@overload
def apply(matrix: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.floating]: ...
def apply(
    matrix: Tensor | NDArray[np.floating], points: Tensor | NDArray[np.floating]
) -> Tensor | NDArray[np.floating]:
    """Maps points (..., K, 2) by affines (..., 2, 3) of the same leading shape; numpy or torch, keeps the points' dtype."""
    if isinstance(points, np.ndarray):
        assert isinstance(matrix, np.ndarray)
        moved = points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]
        return np.asarray(moved, dtype=points.dtype)
    assert not isinstance(matrix, np.ndarray)
    matrix = matrix.to(points.dtype)
    return points @ matrix[..., :2].transpose(-1, -2) + matrix[..., 2].unsqueeze(-2)


def flip_points(points: Tensor, width: int, order: Tensor) -> Tensor:
    """Mirrors crop coordinates (..., K, 2): x -> width - 1 - x, left and right joints exchanged by `order` (K,)."""
    flipped = points[..., order, :].clone()
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped


def to_map(points: Tensor, stride: float | Tensor, origin: float = 0.5) -> Tensor:
    """Crop pixels to coordinates on a map of the given stride, by default with pixel centres at integers on both.

    Args:
        points: (..., 2) or any shape.
        stride: crop pixels per map pixel; a tensor (2,) where the axes differ.
        origin: how far before the first pixel's centre, in pixels of either, the places are equal: 0.5, the edges; 0, the
            centres of the first pixels, as the reference codes have it (`codecs.heatmap`).
    """
    return (points + origin) / stride - origin


def from_map(points: Tensor, stride: float | Tensor, origin: float = 0.5) -> Tensor:
    """The inverse of `to_map`."""
    return (points + origin) * stride - origin


def bounding_box(points: NDArray[np.floating], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """x, y, w, h around the present points of (..., 2); NaN where none is present. A single point gets one pixel."""
    kept = points[present]
    if not len(kept):
        return np.full(4, np.nan)
    low, high = kept.min(axis=0).astype(np.float64) - 0.5, kept.max(axis=0).astype(np.float64) + 0.5
    return np.concatenate([low + 0.5, high - low])


__all__ = ["apply", "bounding_box", "crop_matrix", "flip_points", "from_map", "invert", "to_map"]
