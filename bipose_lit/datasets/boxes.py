"""Boxes and normalisers that several readers share.

Boxes are x, y, w, h in edge coordinates (pixel i covers i to i + 1), so a tight box around joints is one pixel wider
than their coordinate range; see `geometry`.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from bipose_lit.geometry import bounding_box
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, NORMS

Boxes = NDArray[np.float32]


def frame_boxes(joints: NDArray[np.float32], visible: NDArray[np.uint8]) -> Boxes:
    """(T, 4) tight boxes around each frame's labelled joints (seen or hidden); NaN where a frame has none."""
    present = (visible != ABSENT)[..., None]  # all frames at once: a run reads thousands of them before it starts
    places = joints.astype(np.float64)
    low = np.where(present, places, np.inf).min(axis=1) - 0.5
    high = np.where(present, places, -np.inf).max(axis=1) + 0.5
    found = np.concatenate([low + 0.5, high - low], axis=1)
    found[~present.any(axis=(1, 2))] = np.nan
    return found.astype(np.float32)


def clip_box(joints: NDArray[np.float32], visible: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(4,) one tight box around all labelled joints of the clip, seen or hidden; NaN where there is none."""
    return bounding_box(joints, visible != ABSENT)


def jitter_box(box: NDArray[np.float64], key: str, fraction: float, seed: int = 0) -> NDArray[np.float64]:
    """Moves and scales a box by amounts that depend on `key` and `seed` alone.

    Centre: uniform within +-fraction of the width and of the height; size: one factor for both sides, log-uniform
    within 1 / (1 + fraction) to 1 + fraction. A clip's tight box tells the extent of the motion to come; the jitter
    blurs that.

    Args:
        box: (4,) x, y, w, h.
        key: the clip's name.
        fraction: 0 switches it off.
        seed: another seed gives other boxes.
    """
    if fraction == 0:
        return box
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    dx, dy, grow = rng.uniform(-1, 1, 3)
    x, y, w, h = box
    factor = (1 + fraction) ** grow
    centre_x, centre_y = x + w / 2 + dx * fraction * w, y + h / 2 + dy * fraction * h
    return np.array([centre_x - w * factor / 2, centre_y - h * factor / 2, w * factor, h * factor])


def without_area(boxes: Boxes) -> NDArray[np.bool_]:
    """(T,) True for rows (x, y, w, h) that hold NaN or enclose nothing."""
    return np.asarray(~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1))


def fill_boxes(boxes: Boxes, fallback: NDArray[np.floating]) -> Boxes:
    """Replaces rows without area or with NaN by `fallback` (4,)."""
    return np.where(without_area(boxes)[:, None], np.asarray(fallback, np.float32), boxes)


def track_norms(
    joints: NDArray[np.float32],
    visible: NDArray[np.uint8],
    skeleton: Skeleton,
    frame: Boxes,
    clip: NDArray[np.floating],
) -> NDArray[np.float32]:
    """(T, M) normalisers in the order of `types.NORMS`; `head` stays NaN (no video format here labels a head box).

    Args:
        joints: (T, K, 2).
        visible: (T, K).
        skeleton: names the torso's two joints.
        frame: (T, 4) each frame's own ground-truth box, unpadded and unjittered; NaN where there is none.
        clip: (4,) the clip's unpadded and unjittered box.
    """
    norms = np.full((len(joints), len(NORMS)), np.nan, np.float32)
    column = {name: i for i, name in enumerate(NORMS)}
    norms[:, column["bbox"]] = frame[:, 2:].max(axis=1)
    norms[:, column["clip"]] = max(clip[2], clip[3])
    norms[:, column["area"]] = np.sqrt(frame[:, 2] * frame[:, 3])
    a, b = (skeleton.index(name) for name in skeleton.torso)
    torso = np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)
    both = (visible[:, a] != ABSENT) & (visible[:, b] != ABSENT)
    norms[both, column["torso"]] = torso[both]
    return norms
