"""Predictions by clip: what the protocols of single persons in video read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.json_labels import FAULTS, read_json, why
from bipose_lit.datasets.labels import LARGEST, load_mat, numbers
from bipose_lit.datasets.safe_npz import names_in, read_npz
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]
_Frames = list[list[tuple[float, float]]]


def read_predictions(path: Path, lengths: Mapping[str, int], K: int) -> tuple[dict[str, Floats], int]:
    """The predicted joints of clips, in the labels' pixels.

    Args:
        path: a folder with a CLIP.mat for each clip (x and y of shape (T, K); or preds or joints of shape (T, K, 2); or pos_img
            of shape (2, K, T), as JHMDB's labels have it); a json {clip: [[[x, y], ...], ...]}; or an npz {clip: (T, K, 2)}.
        lengths: frames of the wanted clips, by name ("NNNN", "CLASS/CLIP").
        K: joints.

    Returns:
        (T, K, 2) by clip, and the number of further clips that the predictions hold.

    Raises:
        BiposeError: none of these, damaged, a wanted clip is missing, has another number of frames or joints, or a coordinate
            that is not finite or beyond a million pixels.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        there, read = _folder(path, K)
    elif suffix == ".json":
        there, read = _json(path)
    elif suffix == ".npz":
        there, read = _npz(path)
    else:
        raise BiposeError(f"{path}: not a folder of .mat files, a .json or an .npz; name one of these")
    missing = [clip for clip in lengths if clip not in there]
    if missing:
        raise BiposeError(
            f"{path}: no predictions for {len(missing)} of {len(lengths)} clips, the first is {missing[0]}; "
            "predict every clip of the split"
        )
    found = {}
    for clip, T in lengths.items():
        joints = read(clip)
        if joints.shape != (T, K, 2):
            what = (
                f"has {len(joints)} frames, the labels have {T}"
                if joints.ndim == 3 and joints.shape[1:] == (K, 2)
                else f"has the shape {joints.shape}, expected ({T}, {K}, 2)"
            )
            raise BiposeError(f"{path}: the prediction of {clip} {what}; predict every frame and joint")
        bad = ~(np.abs(joints) <= LARGEST)
        if bad.any():
            frame, joint, _ = (int(v[0]) for v in np.nonzero(bad))
            raise BiposeError(
                f"{path}: the prediction of {clip} has no usable place in frame {frame}, joint {joint} (counted from 0): "
                f"{joints[frame, joint].tolist()}; predict every joint, in pixels"
            )
        found[clip] = joints
    return found, len(there - set(lengths))


def mended(remarks: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Notes on what reading the labels had to mend: reasons with the first five clips, from each clip's remarks."""
    clips: dict[str, list[str]] = {}
    for clip, found in remarks.items():
        for reason in found:
            clips.setdefault(reason, []).append(clip)
    return [f"{reason}: {', '.join(c[:5])}{' ...' if len(c) > 5 else ''}" for reason, c in clips.items()]


def _folder(path: Path, K: int) -> tuple[set[str], Callable[[str], Floats]]:
    there = {p.relative_to(path).with_suffix("").as_posix() for p in path.rglob("*.mat") if not p.name.startswith(".")}

    def read(clip: str) -> Floats:
        file = path / f"{clip}.mat"
        content = load_mat(file, ())
        if "x" in content and "y" in content:
            x, y = numbers(file, content, "x"), numbers(file, content, "y")
            if x.shape != y.shape:
                raise BiposeError(f"{file}: x has the shape {x.shape}, y {y.shape}; they must be equal")
            return np.stack([x, y], axis=-1)
        for name in ("preds", "joints"):
            if name in content:
                return numbers(file, content, name)
        if "pos_img" in content:
            value = numbers(file, content, "pos_img")
            value = value[:, :, None] if value.ndim == 2 else value  # MATLAB drops the last axis of a clip of one frame
            return value.transpose(2, 1, 0) if value.ndim == 3 else value
        raise BiposeError(
            f"{file}: lacks x and y, preds, joints or pos_img; write one of them, with {K} joints a frame"
        )

    return there, read


def _json(path: Path) -> tuple[set[str], Callable[[str], Floats]]:
    content: Mapping[str, Any] = read_json(path, dict[str, msgspec.Raw], "predictions by clip")
    if len(re.findall(rb'"(?:[^"\\]|\\.)*"\s*:', path.read_bytes())) > len(content):
        raise BiposeError(f"{path}: names a clip twice, or holds more than joints by clip; write it again")

    def read(clip: str) -> Floats:
        try:
            frames = msgspec.json.decode(content[clip], type=_Frames)
        except FAULTS as error:
            raise BiposeError(
                f"{path}: the prediction of {clip} is not a list of frames of [x, y] ({why(error)}); write it again"
            ) from error
        if len({len(frame) for frame in frames}) > 1:
            raise BiposeError(
                f"{path}: the prediction of {clip} has frames of unlike numbers of joints; write it again"
            )
        return np.array(frames, np.float64).reshape(len(frames), -1, 2) if frames else np.zeros((0, 0, 2))

    return set(content), read


def _npz(path: Path) -> tuple[set[str], Callable[[str], Floats]]:
    def read(clip: str) -> Floats:
        value = read_npz(path, (clip,))[clip]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            raise BiposeError(f"{path}: the prediction of {clip} does not hold numbers; write an array of (T, K, 2)")
        return value.astype(np.float64)

    return set(names_in(path)), read
