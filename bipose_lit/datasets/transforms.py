"""From a box in an image to a crop: augmentation drawn once per clip, one warp per frame, labels moved by the same matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit import geometry
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT

Image = NDArray[np.uint8]

WINDOW, VIEW, CHOICE, PIXELS, OCCLUDERS, SUPERVISE, ORDER = range(7)
"""Streams of random numbers: a draw for one purpose never shifts another's."""

_LOWER = ("hip", "knee", "ankle", "heel", "toe", "pelvis")
_HALF_BODY_MARGIN = 1.2  # on top of the padding: 1.2 x 1.25 is the usual 1.5
_HALF_BODY_JOINTS = 3


def generator(seed: int, *key: int) -> np.random.Generator:
    """Random numbers that are a pure function of the seed and the key (stream, epoch, item, ...)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True)
class View:
    """One drawn augmentation of a whole clip; the default is the plain view.

    Attributes:
        scale: factor on the box; above 1 the person gets smaller.
        rotation: degrees, counter-clockwise on the screen.
        shift: of the crop's centre, in units of the padded box's width and height.
        flip: mirror left and right.
        half: crop to the "upper" or "lower" body's joints; "" for the whole body.
        pixels: seed of the pixel augmentation and of the occluders; None to leave the pixels alone.
    """

    scale: float = 1.0
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False
    half: str = ""
    pixels: int | None = None


PLAIN, MIRRORED = View(), View(flip=True)


@dataclass(frozen=True)
class Augmentation:
    """Ranges that a `View` is drawn from, once per clip, so that motion within the clip stays motion.

    Args:
        scale: the factor is log-uniform between 1 / (1 + scale) and 1 + scale.
        rotation: largest angle in degrees, uniform either side.
        rotation_probability: share of clips that are rotated at all.
        shift: largest displacement of the centre in units of the padded box, uniform either side.
        flip: probability of mirroring; 0 where marks tell left from right, as on the synthetic people.
        half_body: probability of cropping to the upper or the lower body's joints (each equally likely).
        normal: draw scale and rotation as the code of Simple Baselines and HRNet does: the factor is normal about 1, cut at 1
            +- scale, which is its deviation too; the angle is normal, of deviation `rotation`, cut at twice that.
    """

    LATER: ClassVar = {"normal": False}
    """Fields that came later, and the value that changes nothing: kept features are named without them."""

    scale: float = 0.25
    rotation: float = 30.0
    rotation_probability: float = 0.6
    shift: float = 0.05
    flip: float = 0.5
    half_body: float = 0.0
    normal: bool = False

    def __post_init__(self) -> None:
        for name in ("rotation_probability", "flip", "half_body"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augmentation.{name} is a probability between 0 and 1, not {getattr(self, name)}")
        for name in ("scale", "rotation", "shift"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"augmentation.{name} must not be negative, and is {getattr(self, name)}")
        if self.normal and self.scale >= 1:
            raise ValueError(f"augmentation.scale is {self.scale}, and must be below 1 where normal is true")

    def draw(self, rng: np.random.Generator) -> View:
        """One view. Every setting uses its own numbers, so switching one off leaves the others as they were."""
        u = rng.random(8)
        if self.normal:
            scale = 1 + self.scale * _normal(u[0], 1)
            rotation = self.rotation * _normal(u[1], 2)
        else:
            scale = math.exp((2 * u[0] - 1) * math.log1p(self.scale))
            rotation = (2 * u[1] - 1) * self.rotation
        return View(
            scale=float(scale),
            rotation=float(rotation) if u[2] < self.rotation_probability else 0.0,
            shift=(float((2 * u[3] - 1) * self.shift), float((2 * u[4] - 1) * self.shift)),
            flip=bool(u[5] < self.flip),
            half=("upper" if u[7] < 0.5 else "lower") if u[6] < self.half_body else "",
            pixels=int(rng.integers(2**63)),
        )


def _normal(u: float, limit: float) -> float:
    """A normal number from a uniform one, cut at +- limit."""
    return min(limit, max(-limit, NormalDist().inv_cdf(min(max(u, 1e-12), 1 - 1e-12))))


def half_body_boxes(
    boxes: NDArray[np.float32], joints: NDArray[np.float32], visible: NDArray[np.uint8], skeleton: Skeleton, half: str
) -> NDArray[np.float32]:
    """Boxes (T, 4) around the upper or lower body's joints, by the boxes' own rule: one for the clip, or one per frame.

    Where any box would rest on fewer than three labelled joints, the clip keeps its boxes.

    HRNet's code has the same halves and the same extent (1.5 times the joints' range, padding included; here the range has the
    half pixels at its ends too). It centres on the mean of the joints, not the middle of their range; takes the upper half in 69
    of 100 cases, not 50, and the other one where it has fewer than three joints; and leaves persons with eight or fewer labelled
    joints alone (its usual probability for the others is 0.3).
    """
    lower = np.array([any(part in name for part in _LOWER) for name in skeleton.joints])
    present = (visible != ABSENT) & (lower if half == "lower" else ~lower)
    if bool((boxes == boxes[0]).all()):
        # The clip's extent is that of all frames together; every joint of the half must be seen somewhere.
        if present.any(axis=0).sum() < _HALF_BODY_JOINTS:
            return boxes
        found = np.broadcast_to(geometry.bounding_box(joints, present), boxes.shape)
    else:
        if (present.sum(axis=1) < _HALF_BODY_JOINTS).any():
            return boxes
        found = np.stack([geometry.bounding_box(j, p) for j, p in zip(joints, present, strict=True)])
    centre = found[:, :2] + found[:, 2:] / 2
    extent = np.maximum(found[:, 2:] * _HALF_BODY_MARGIN, 1.0)
    return np.concatenate([centre - extent / 2, extent], axis=1).astype(np.float32)


def clip_matrices(
    boxes: NDArray[np.float32], size: tuple[int, int], padding: float, view: View = PLAIN
) -> NDArray[np.float64]:
    """Affines (T, 2, 3) from original to crop pixels: the same augmentation of every frame's box.

    Args:
        boxes: (T, 4); equal rows (one box per clip) give equal matrices.
        size: width and height of the crop.
        padding: factor on the boxes.
        view: the augmentation.
    """

    def matrix(box: NDArray[np.float32]) -> NDArray[np.float64]:
        return geometry.crop_matrix(box, size, padding, view.rotation, view.scale, view.shift, view.flip)

    if bool((boxes == boxes[0]).all()):
        return np.repeat(matrix(boxes[0])[None], len(boxes), axis=0)
    return np.stack([matrix(box) for box in boxes])


def crop_labels(
    joints: NDArray[np.float32],
    visible: NDArray[np.uint8],
    matrices: NDArray[np.float64],
    flip: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Joints (T, K, 2) and visibility (T, K) in crop pixels.

    Joints that leave the crop keep their label; absent ones are zero. `flip` is the skeleton's order where the matrices mirror.
    """
    if flip is not None:
        joints, visible = joints[:, flip], visible[:, flip]
    moved = geometry.apply(matrices, joints)
    moved[visible == ABSENT] = 0
    return moved, np.ascontiguousarray(visible)


def warp(image: Image, matrix: NDArray[np.float64], out: Image) -> None:
    """The crop of one frame, bilinear, black outside the image; written into `out` (H, W, 3).

    Where a crop pixel covers two or more image pixels, the needed part of the image is first averaged over blocks of whole pixels
    (a bilinear kernel alone would skip pixels and alias).
    """
    height, width = out.shape[:2]
    span = 1.0 / math.sqrt(abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))
    if span > 2 - 1e-6:
        shrunk = _shrink(image, matrix, (width, height), round(span))
        if shrunk is None:
            out[:] = 0
            return
        image, matrix = shrunk
    done = cv2.warpAffine(
        image, matrix, (width, height), dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    if done is not out and not np.shares_memory(done, out):
        out[:] = done


def _shrink(
    image: Image, matrix: NDArray[np.float64], size: tuple[int, int], factor: int
) -> tuple[Image, NDArray[np.float64]] | None:
    """The part of the image under the crop, averaged over factor x factor pixels, and the matrix from there to the crop."""
    width, height = size
    corners = np.array([[-1.0, -1.0], [width, -1.0], [-1.0, height], [width, height]])
    reached = geometry.apply(geometry.invert(matrix), corners)
    low = np.floor(reached.min(axis=0)).astype(int) - factor
    high = np.ceil(reached.max(axis=0)).astype(int) + factor + 1
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, (image.shape[1], image.shape[0]))
    if right <= left or bottom <= top:
        return None
    part = image[top:bottom, left:right]
    spare_x, spare_y = -part.shape[1] % factor, -part.shape[0] % factor
    if spare_x or spare_y:
        part = cv2.copyMakeBorder(part, 0, spare_y, 0, spare_x, cv2.BORDER_REPLICATE)
    small = cv2.resize(
        part, (part.shape[1] // factor, part.shape[0] // factor), interpolation=cv2.INTER_AREA
    )  # exact block means: the size divides
    # Small pixel u covers image pixels around from_map(u, factor) + origin.
    origin = np.array([[left + (factor - 1) / 2, top + (factor - 1) / 2]])
    moved = np.concatenate([matrix[:, :2] * factor, geometry.apply(matrix, origin).T], axis=1)
    return np.asarray(small, np.uint8), moved


__all__ = [
    "MIRRORED", "PLAIN", "Augmentation", "Image", "View", "clip_matrices", "crop_labels", "generator", "half_body_boxes",
    "warp",
]  # fmt: skip
