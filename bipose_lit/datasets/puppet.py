"""JHMDB's puppet masks: which pixels of a frame the labelled person covers, and the person's box from that.

Tree:
    puppet_mask/CLASS/CLIP/puppet_mask.mat    part_mask (H, W, T), not zero on the person

The published PCK of sub-JHMDB takes the person's size from this box. Source: `getBox.m`, `JHMDB_PreData.m` and
`run_benchmark_GPU_JHMDB.m` of LSTM Pose Machines (Luo et al. 2018, https://github.com/lawy623/LSTM_Pose_Machines): corners are
the outermost pixels of the mask, the size is max(x2 - x1, y2 - y1), so a pixel less than the mask is wide. That code finds the
column or row of the mask's first and last pixel by dividing its place in counting order by the line's length, which gives the
next line where the pixel is the last of its own. This is repeated here, as published numbers have it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.labels import MAX_FRAMES, load_mat
from bipose_lit.datasets.matfile import Foreign
from bipose_lit.types import BiposeError

FOLDER = "puppet_mask"


def mask_path(root: Path, action: str, clip: str) -> Path:
    """Where a clip's mask lies."""
    return root / FOLDER / action / clip / "puppet_mask.mat"


def clip_corners(path: Path, frames: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """The boxes around the masks of a clip, if they are its masks: one a labelled frame, as large as its pictures.

    Args:
        path: of the masks.
        frames: T, of the clip's labels.
        size: width and height of its pictures.

    Returns:
        (T, 4) as `mask_corners`.

    Raises:
        BiposeError: as `mask_corners`, or the masks of another clip.
    """
    corners, masked = mask_corners(path)
    if len(corners) != frames:
        raise BiposeError(f"{path}: {len(corners)} masks for {frames} labelled frames; is it this clip's?")
    if masked != size:
        raise BiposeError(
            f"{path}: masks of {masked[0]}x{masked[1]} pixels for frames of {size[0]}x{size[1]}; is it this clip's?"
        )
    return corners


def mask_corners(path: Path) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """The box around the mask in each frame as published, and the masks' width and height.

    Returns:
        (T, 4) x1, y1, x2, y2: the outermost pixels, 0-based, the last ones included, one further where the rule above makes them
        so; NaN where a frame has no mask. And the width and height in pixels.

    Raises:
        BiposeError: missing, damaged, or not masks of frames.
    """
    mask = load_mat(path, ["part_mask"])["part_mask"]
    if isinstance(mask, Foreign) or mask.dtype.kind not in "biuf":
        raise BiposeError(f"{path}: part_mask does not hold numbers; is it a puppet mask?")
    if mask.ndim == 2:  # MATLAB drops the last axis of a clip of one frame
        mask = mask[:, :, None]
    if mask.ndim != 3 or not mask.size or mask.shape[2] > MAX_FRAMES:
        raise BiposeError(f"{path}: part_mask has the shape {mask.shape}, expected (height, width, frames)")
    if mask.dtype.kind == "f" and not np.isfinite(mask).all():
        raise BiposeError(f"{path}: part_mask holds numbers that are not finite; copy or download it again")
    covered = mask != 0
    found = np.full((mask.shape[2], 4), np.nan)
    for column, area in (
        (0, covered.transpose(1, 0, 2)),
        (1, covered),
    ):  # lines are columns, then rows: (lines, along, T)
        lines = area.any(axis=1)
        t = np.flatnonzero(lines.any(axis=0))
        first = lines.argmax(axis=0)[t]
        last = len(lines) - 1 - lines[::-1].argmax(axis=0)[t]
        # The very first pixel in counting order is at the line's end only if the line holds no other.
        found[t, column] = first + ~area[first, :-1, t].any(axis=1)
        found[t, column + 2] = last + area[last, -1, t]
    return found, (mask.shape[1], mask.shape[0])
