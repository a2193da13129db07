"""JHMDB's puppet masks: which pixels of a frame the labelled person covers, and the person's box from that.

Tree:
    puppet_mask/CLASS/CLIP/puppet_mask.mat    part_mask (H, W, T), not zero on the person

The published PCK of sub-JHMDB takes the person's size from this box. Source: `getBox.m` and `run_benchmark_GPU_JHMDB.m` of
LSTM Pose Machines (Luo et al. 2018, https://github.com/lawy623/LSTM_Pose_Machines): corners are the outermost pixels of the
mask, the size is max(x2 - x1, y2 - y1), so a pixel less than the mask is wide. That code finds a corner one column or row
further where its pixel lies in the image's last row or column, which is not repeated here.
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


def mask_corners(path: Path) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """The box around the mask in each frame, and the masks' width and height.

    Returns:
        (T, 4) x1, y1, x2, y2: the outermost pixels, 0-based, the last ones included; NaN where a frame has no mask. And the
        width and height in pixels.

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
    for column, lines in ((0, covered.any(axis=0)), (1, covered.any(axis=1))):  # (W, T), (H, T)
        some = lines.any(axis=0)
        found[some, column] = lines.argmax(axis=0)[some]
        found[some, column + 2] = (len(lines) - 1 - lines[::-1].argmax(axis=0))[some]
    return found, (mask.shape[1], mask.shape[0])
