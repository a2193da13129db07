"""Clips in JHMDB's layout, with pictures of 32 x 24 and masks."""

import cv2
import numpy as np
import scipy.io


def add_clip(root, action, clip, joints, mark=1, images=None, **extra):
    """One clip in the official layout. `joints` (T, 15, 2) 0-based; `images` of them are written (default all)."""
    folder = root / "joint_positions" / action / clip
    folder.mkdir(parents=True)
    scipy.io.savemat(folder / "joint_positions.mat", {"pos_img": joints.transpose(2, 1, 0) + 1.0, **extra})
    pixels = root / "Rename_Images" / action / clip
    pixels.mkdir(parents=True)
    for t in range(len(joints) if images is None else images):
        cv2.imwrite(str(pixels / f"{t + 1:05d}.png"), np.full((24, 32, 3), 10 * t, np.uint8))
    (root / "splits").mkdir(exist_ok=True)
    with (root / "splits" / f"{action}_test_split1.txt").open("a") as file:
        file.write(f"{clip}.avi {mark}\n")


def add_mask(root, clip, corners, size=(32, 24), frames=None):
    """A puppet mask whose pixels reach from x1, y1 to x2, y2, last ones included."""
    mask = np.zeros((size[1], size[0], len(corners) if frames is None else frames), np.uint8)
    for t, (x1, y1, x2, y2) in enumerate(corners[: mask.shape[2]]):
        mask[y1 : y2 + 1, x1 : x2 + 1, t] = 1
    folder = root / "puppet_mask" / "walk" / clip
    folder.mkdir(parents=True)
    scipy.io.savemat(folder / "puppet_mask.mat", {"part_mask": mask})
