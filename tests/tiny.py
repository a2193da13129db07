"""A tiny data set in JHMDB's layout and the options that make any configuration tiny: seconds, not minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io
from numpy.typing import NDArray

from bipose_lit import skeletons

SIZE = (64, 48)
K = len(skeletons.JHMDB)
MARKS = {"train": 1, "test": 2, "val": 3}
HUES = np.linspace(0, 180, K, endpoint=False).astype(np.uint8)
COLOURS = cv2.cvtColor(
    np.stack([HUES, np.full(K, 255, np.uint8), np.full(K, 255, np.uint8)], 1)[None], cv2.COLOR_HSV2RGB
)[0]


def draw(joints: NDArray[np.floating], size: tuple[int, int] = SIZE, sigma: float = 1.8) -> NDArray[np.uint8]:
    """RGB picture with a blob of its own colour at each joint (K, 2)."""
    x, y = np.arange(size[0]), np.arange(size[1])
    image = np.zeros((size[1], size[0], 3), np.float32)
    for (jx, jy), colour in zip(joints, COLOURS.astype(np.float32), strict=True):
        blob = np.exp(-((x - jx) ** 2)[None] / (2 * sigma**2) - ((y - jy) ** 2)[:, None] / (2 * sigma**2))
        image = np.maximum(image, blob[..., None] * colour)
    return np.round(image).astype(np.uint8)


def moving_joints(number: int, frames: int, size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    """Joints (T, K, 2) that stand on a jittered grid and drift."""
    rng = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(np.linspace(0.15, 0.85, 5), np.linspace(0.2, 0.8, 3)), -1).reshape(1, K, 2) * size
    drift = rng.uniform(-0.5, 0.5, (1, K, 2)) * np.arange(frames)[:, None, None]
    joints = grid + rng.uniform(-4, 4, (1, K, 2)) + drift
    return np.clip(joints, 2, np.array(size) - 3).astype(np.float32)


def write_clip(root: Path, number: int, split: str, frames: int = 6, lists: int = 1) -> Path:
    """One clip with its label and its line in the split list number `lists`; returns the folder of its pictures."""
    clip = f"scene{number:05d}_0"
    joints = moving_joints(number, frames)
    labels = root / "joint_positions" / "move" / clip
    labels.mkdir(parents=True)
    visible = np.full((K, frames), 2)
    visible[-1, frames // 2 :] = 1
    label = {"pos_img": joints.transpose(2, 1, 0) + 1.0, "visible": visible, "fps": 25.0}
    scipy.io.savemat(labels / "joint_positions.mat", label)
    pictures = root / "Rename_Images" / "move" / clip
    pictures.mkdir(parents=True)
    for t in range(frames):
        cv2.imwrite(str(pictures / f"{t + 1:05d}.png"), cv2.cvtColor(draw(joints[t]), cv2.COLOR_RGB2BGR))
    (root / "splits").mkdir(exist_ok=True)
    with (root / "splits" / f"move_test_split{lists}.txt").open("a") as file:
        file.write(f"{clip}.avi {MARKS[split]}\n")
    return pictures


def write_jhmdb(root: Path, train: int = 4, val: int = 3, test: int = 3, frames: int = 6) -> Path:
    """A whole set; clips of a split differ in length by a frame."""
    number = 0
    for split, count in {"train": train, "val": val, "test": test}.items():
        for _ in range(count):
            write_clip(root, number, split, frames + number % 2)
            number += 1
    return root


def write_penn(root: Path, train: int = 8, test: int = 2, frames: int = 6) -> Path:
    """A set in Penn Action's layout, with 13 of the joints."""
    (root / "labels").mkdir(parents=True)
    for number in range(train + test):
        joints = moving_joints(number, frames)
        label = {
            "x": joints[:, :13, 0] + 1, "y": joints[:, :13, 1] + 1, "visibility": np.ones((frames, 13), np.uint8),
            "bbox": np.tile([1.0, 1.0, *SIZE], (frames, 1)), "dimensions": np.array([[SIZE[1], SIZE[0], frames]]),
            "nframes": frames, "train": 1 if number < train else -1, "action": "move", "pose": "front",
        }  # fmt: skip
        scipy.io.savemat(root / "labels" / f"{number + 1:04d}.mat", label)
        folder = root / "frames" / f"{number + 1:04d}"
        folder.mkdir(parents=True)
        for t in range(frames):
            cv2.imwrite(str(folder / f"{t + 1:06d}.jpg"), cv2.cvtColor(draw(joints[t]), cv2.COLOR_RGB2BGR))
    return root


def break_joint(root: Path) -> None:
    """Makes one joint of one frame of such a set's first clip not finite."""
    file = root / "joint_positions" / "move" / "scene00000_0" / "joint_positions.mat"
    content = {k: v for k, v in scipy.io.loadmat(file).items() if not k.startswith("__")}
    content["pos_img"] = content["pos_img"].astype(float)
    content["pos_img"][:, 3, 1] = np.nan
    scipy.io.savemat(file, content)


def tiny_options(root: Path, **more: Any) -> dict[str, Any]:
    """Options over experiments/base.yaml for a run of four steps on such a set."""
    return {
        "trainer.max_steps": 4,
        "trainer.log_every_n_steps": 2,
        "trainer.val_check_interval": 2,
        "model.backbone.class_path": "bipose_lit.models.backbones.timm_backbone.TimmBackbone",
        "model.backbone.init_args.name": "test_resnet",
        "model.decoder.init_args.channels": 8,
        "model.codec.init_args.sigma": 1.0,
        "data.reader.init_args.root": str(root),
        "data.size": [64, 64],
        "data.clips.length": 4,
        "data.batch_size": 2,
        "data.eval_batch_size": 2,
        **more,
    }


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line has them."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()]
