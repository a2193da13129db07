"""Writes synthetic clips in the official layouts of the video data sets; the official readers read them.

JHMDB: motion JPEG in AVI. Every frame is coded by itself, so that no frame carries pixels of its past or future (an
inter-frame codec would hand a causal model a view ahead), one file per clip decodes faster than its PNGs and takes a seventh
of their space. Values that the official format lacks (`visible`, `fps`, the list value 3) are extra variables beside the
official ones.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np
import scipy.io
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.synthetic.points import NAMES
from bipose_lit.types import OCCLUDED, VISIBLE

JHMDB_POINTS: Final = skeletons.JHMDB.joints
PENN_POINTS: Final = tuple("head_centre" if name == "head" else name for name in skeletons.PENN_ACTION.joints)

# What a clip counts as in the three official split lists: 1 is the ablation, 2 the per-frame stage before it, 3 both.
_MARKS: Final[dict[int, dict[str, int]]] = {
    1: {"stage1": 0, "train": 1, "val": 3, "test": 2},
    2: {"stage1": 1, "train": 0, "val": 3, "test": 2},
    3: {"stage1": 1, "train": 1, "val": 3, "test": 2},
}


@dataclass(frozen=True)
class ClipLabels:
    """All that is known of a clip but its pixels.

    Attributes:
        clip, split, cluster, action, regime: see `assay.ClipPlan`.
        fps: frames per second.
        size: width and height of the frames.
        points: (T, N, 2) float32 pixels of `points.NAMES`, 0-based pixel centres.
        hidden: (T, N) bool, an object covers it.
        outside: (T, N) bool, not in the image.
        behind: (T, N) bool, the person's own body hides it.
        boxes: (T, 4) float32 x0, y0, x1, y1 of the person's pixels; NaN where there are none.
        heads: (T, 4) float32 x0, y0, x1, y1 around the head's outline.
        positions: (T, 22, 3) float32 metres.
        K, R, t: cameras.
    """

    clip: str
    split: str
    cluster: str
    action: str
    regime: str
    fps: float
    size: tuple[int, int]
    points: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    behind: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    heads: NDArray[np.float32]
    positions: NDArray[np.float32]
    K: NDArray[np.float32]
    R: NDArray[np.float32]
    t: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.points)

    def select(self, names: Sequence[str]) -> NDArray[np.float32]:
        """(T, K, 2) pixels of the named points."""
        return self.points[:, [NAMES.index(name) for name in names]]

    def visible(self, names: Sequence[str]) -> NDArray[np.uint8]:
        """(T, K) OCCLUDED where an object covers the point or it is not in the image, else VISIBLE.

        A joint behind the person's own body counts as visible, as annotators of video treat it: its place follows from
        what is seen.
        """
        at = [NAMES.index(name) for name in names]
        return np.where(self.hidden[:, at] | self.outside[:, at], OCCLUDED, VISIBLE).astype(np.uint8)

    def save(self, path: Path) -> None:
        """Writes everything as one npz."""
        values = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with whole_file(path) as file:
            np.savez(file, **values)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> ClipLabels:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as content:
            values: dict[str, Any] = {name: content[name] for name in content.files}
        for name in ("clip", "split", "cluster", "action", "regime"):
            values[name] = str(values[name])
        values["fps"] = float(values["fps"])
        values["size"] = (int(values["size"][0]), int(values["size"][1]))
        return cls(**values)


class whole_file:  # noqa: N801 (used like a function)
    """A binary file that appears under its name only when it is complete: written beside it, then renamed."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(f".{path.name}.part")

    def __enter__(self) -> io.BufferedWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.part.open("wb")
        return self.file

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        self.file.close()
        if kind is None:
            os.replace(self.part, self.path)
        else:
            self.part.unlink(missing_ok=True)


def encode_video(frames: NDArray[np.uint8], fps: float) -> bytes:
    """Motion JPEG in AVI at its best quality, the same bytes for the same frames (T, H, W, 3)."""
    target = io.BytesIO()
    with av.open(target, "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mjpeg", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        stream.options = {"qmin": "2", "qmax": "2", "flags": "+bitexact"}
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def encode_mat(content: Mapping[str, Any]) -> bytes:
    """A MATLAB 5 file without the date that its header usually carries."""
    target = io.BytesIO()
    scipy.io.savemat(target, dict(content), do_compression=True)  # type: ignore[arg-type]
    return b"MATLAB 5.0 MAT-file, written by bipose".ljust(116) + target.getvalue()[116:]


def encode_image(frame: NDArray[np.uint8], extension: str, quality: int = 95) -> bytes:
    """One RGB frame as ".png" or ".jpg"."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3] if extension == ".png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode(extension, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()


def put(path: Path, data: bytes) -> None:
    """Writes a file completely or not at all."""
    with whole_file(path) as file:
        file.write(data)


def write_jhmdb_clip(root: Path, labels: ClipLabels, frames: NDArray[np.uint8], pixels: str = "video") -> None:
    """A clip's pixels and its joint_positions.mat.

    Args:
        root: the set's folder.
        labels: of the clip.
        frames: (T, H, W, 3) RGB.
        pixels: "video" (ReCompress_Videos, motion JPEG) or "png" (Rename_Images, lossless, seven times as large).
    """
    if pixels == "video":
        put(root / "ReCompress_Videos" / f"{labels.clip}.avi", encode_video(frames, labels.fps))
    else:
        for t, frame in enumerate(frames):
            put(root / "Rename_Images" / labels.clip / f"{t + 1:05d}.png", encode_image(frame, ".png"))
    position = labels.select(JHMDB_POINTS).astype(np.float64).transpose(2, 1, 0) + 1
    W, H = labels.size
    centre = np.array([W / 2, H / 2])[:, None, None]
    content = {
        "pos_img": position,
        "pos_world": (position - centre) / H,  # official relation: pos_img = pos_world * scale * H + (W / 2, H / 2)
        "scale": np.ones((1, len(labels))),
        "visible": labels.visible(JHMDB_POINTS).T,
        "fps": labels.fps,
    }
    put(root / "joint_positions" / labels.clip / "joint_positions.mat", encode_mat(content))


def write_jhmdb_splits(root: Path, members: Iterable[tuple[str, str]]) -> None:
    """The split lists of all classes.

    Args:
        root: the set's folder.
        members: (clip, split) of all clips; where none is of "stage1", split 1 alone is written.
    """
    by_action: dict[str, list[tuple[str, str]]] = defaultdict(list)
    known = sorted(members)
    for clip, split in known:
        action, title = clip.split("/")
        by_action[action].append((title, split))
    numbers = (1, 2, 3) if any(split == "stage1" for _, split in known) else (1,)
    for action, clips in by_action.items():
        for number in numbers:
            lines = [f"{title}.avi {_MARKS[number][split]}\n" for title, split in clips]
            put(root / "splits" / f"{action}_test_split{number}.txt", "".join(lines).encode())


def write_penn_clip(root: Path, number: int, labels: ClipLabels, frames: NDArray[np.uint8]) -> None:
    """A clip in Penn Action's layout: JPEG frames and labels/NNNN.mat ("stage1" counts as train there)."""
    name = f"{number:04d}"
    for t, frame in enumerate(frames):
        put(root / "frames" / name / f"{t + 1:06d}.jpg", encode_image(frame, ".jpg"))
    xy = labels.select(PENN_POINTS).astype(np.float64) + 1
    box = labels.boxes.astype(np.float64) + 1
    empty = ~np.isfinite(box).all(axis=1)
    box[empty] = np.concatenate([xy[empty].min(axis=1), xy[empty].max(axis=1)], axis=1)
    W, H = labels.size
    visible = labels.visible(PENN_POINTS)
    content = {
        "action": labels.action, "pose": "unknown", "x": xy[..., 0], "y": xy[..., 1],
        "visibility": (visible == VISIBLE).astype(np.uint8), "visible": visible, "bbox": box,
        "train": np.int32({"stage1": 1, "train": 1, "val": 0, "test": -1}[labels.split]),
        "dimensions": np.array([[H, W, len(labels)]], np.uint16), "nframes": np.uint16(len(labels)),
        "cluster": labels.cluster, "fps": labels.fps,
    }  # fmt: skip
    put(root / "labels" / f"{name}.mat", encode_mat(content))
