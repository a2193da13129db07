"""Predictions by clip: what the protocols of single persons in video read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.json_labels import FAULTS, read_json, why
from bipose_lit.datasets.labels import LARGEST, load_mat, numbers
from bipose_lit.datasets.safe_npz import names_in, read_npz
from bipose_lit.datasets.safe_pickle import shown
from bipose_lit.evaluate.run_file import is_run_file, read_run_file
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_Frames = list[list[list[float | None]]]
_Read = Callable[[str], NDArray[Any]]

_IN_FOLDER = "joint_positions"  # name of JHMDB's own label files, each in a folder of the clip's name
_KEY = re.compile(rb'"(?:[^"\\]|\\.)*+"(\s*+:)?')


@dataclass(frozen=True)
class Predicted:
    """What was read.

    Attributes:
        joints: (T, K, 2) by clip, in the labels' pixels; 0 where there was no usable place and none is scored.
        extra: further clips that the predictions hold.
        notes: on how they were read.
    """

    joints: dict[str, Floats]
    extra: int
    notes: tuple[str, ...] = ()


def read_predictions(path: Path, labelled: Mapping[str, Bools], skeleton: Skeleton) -> Predicted:
    """The predicted joints of clips.

    Args:
        path: a folder with a CLIP.mat for each clip (x and y of shape (T, K); or preds or joints of shape (T, K, 2); or pos_img
            of shape (2, K, T), as JHMDB's labels have it; CLIP/joint_positions.mat may stand for CLIP.mat); a json
            {clip: [[[x, y], ...], ...]}; an npz {clip: (T, K, 2)}; or a run's own predictions-SPLIT.npz. All but the last in the
            labels' pixels, whose first one is 1.
        labelled: (T, K) by name of the wanted clip ("NNNN", "CLASS/CLIP"), True for joints that are scored. Where none is, the
            prediction may be anything.
        skeleton: of the K joints.

    Raises:
        BiposeError: none of these, damaged, a wanted clip is missing, has another number of frames or joints, or a coordinate
            that is scored and not finite or beyond a million pixels.
    """
    suffix = path.suffix.lower()
    notes: tuple[str, ...] = ()
    if path.is_dir():
        there, read = _folder(path, len(skeleton))
    elif suffix == ".json":
        there, read = _json(path)
    elif suffix == ".npz" and is_run_file(names_in(path)):
        by_clip, data = read_run_file(path, skeleton, origin=1.0)
        there, read = set(by_clip), by_clip.__getitem__
        notes = (
            f"predictions of a run of this suite ({data}), whose first pixel is 0: moved by one pixel to the labels'",
        )
    elif suffix == ".npz":
        there, read = _npz(path, tuple(labelled))
    else:
        raise BiposeError(f"{path}: not a folder of .mat files, a .json or an .npz; name one of these")
    missing = [clip for clip in labelled if clip not in there]
    if missing:
        raise BiposeError(
            f"{path}: no predictions for {len(missing)} of {len(labelled)} clips, the first is {missing[0]}; "
            "predict every clip of the split"
        )
    found = {clip: _checked(path, clip, read(clip), scored) for clip, scored in labelled.items()}
    return Predicted(found, len(there - set(labelled)), notes)


def folder_with(annotations: Path, name: str, owner: str) -> None:
    """Raises BiposeError where the annotations are not a folder that holds another one; `owner` names the layout."""
    if annotations.is_file():
        raise BiposeError(f"{annotations}: is a file; give the folder that holds the folder {name}")
    if not (annotations / name).is_dir():
        raise BiposeError(f"{annotations}: no folder {name}; give the folder of {owner}'s official layout")


def mended(remarks: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Notes on what reading the labels had to mend: reasons with the first five clips, from each clip's remarks."""
    clips: dict[str, list[str]] = {}
    for clip, found in remarks.items():
        for reason in found:
            clips.setdefault(reason, []).append(clip)
    return [f"{reason}: {', '.join(c[:5])}{' ...' if len(c) > 5 else ''}" for reason, c in clips.items()]


def _checked(path: Path, clip: str, joints: NDArray[Any], scored: Bools) -> Floats:
    T, K = scored.shape
    if joints.shape != (T, K, 2):
        what = f"has the shape {joints.shape}, expected ({T}, {K}, 2)"
        if joints.ndim == 3 and joints.shape[1:] == (K, 2):
            what = f"has {len(joints)} frames, the labels have {T}"
        elif joints.shape == (T, K, 3):
            raise BiposeError(
                f"{path}: the prediction of {clip} has a third number in each joint, as {joints[0, 0].tolist()}; write x and y "
                "alone, without a score"
            )
        raise BiposeError(f"{path}: the prediction of {clip} {what}; predict every frame and joint")
    joints = joints.astype(np.float64)
    usable = (np.abs(joints) <= LARGEST).all(axis=-1)  # False for NaN
    bad = scored & ~usable
    if bad.any():
        frame, joint = (int(v[0]) for v in np.nonzero(bad))
        raise BiposeError(
            f"{path}: the prediction of {clip} has no usable place in frame {frame}, joint {joint} (counted from 0): "
            f"{joints[frame, joint].tolist()}; predict every labelled joint, in pixels"
        )
    return np.where(usable[..., None], joints, 0.0)


def _folder(path: Path, K: int) -> tuple[set[str], _Read]:
    there: dict[str, Path] = {}
    for file in sorted(path.rglob("*.mat")):
        if file.name.startswith("."):
            continue
        place = file.relative_to(path).with_suffix("")
        clip = (place.parent if place.name == _IN_FOLDER and len(place.parts) > 1 else place).as_posix()
        if clip in there:
            raise BiposeError(f"{path}: holds {there[clip].relative_to(path)} and {file.relative_to(path)}; keep one")
        there[clip] = file

    def read(clip: str) -> Floats:
        file = there[clip]
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

    return set(there), read


def _json(path: Path) -> tuple[set[str], _Read]:
    content: Mapping[str, Any] = read_json(path, dict[str, msgspec.Raw], "predictions by clip")
    for clip, value in content.items():
        if bytes(memoryview(value)[:1]) != b"[":
            raise BiposeError(
                f"{path}: {shown(clip, 60)!r} is not a list of frames of [x, y]; keep clips alone in the file"
            )
    if _keys(path.read_bytes()) > len(content) + sum(_keys(bytes(value)) for value in content.values()):
        raise BiposeError(f"{path}: names a clip twice; write it again")

    def read(clip: str) -> Floats:
        try:
            frames = msgspec.json.decode(content[clip], type=_Frames)
        except FAULTS as error:
            raise BiposeError(
                f"{path}: the prediction of {clip} is not a list of frames of [x, y] ({why(error)}); write it again"
            ) from error
        amounts = {len(frame) for frame in frames}
        columns = {len(joint) for frame in frames for joint in frame}
        if len(amounts) > 1 or len(columns) > 1:
            what = "joints" if len(amounts) > 1 else "numbers a joint"
            raise BiposeError(
                f"{path}: the prediction of {clip} has frames of unlike numbers of {what}; write it again"
            )
        return np.array(frames, np.float64).reshape(len(frames), max(amounts, default=0), max(columns, default=0))

    return set(content), read


def _keys(text: bytes) -> int:
    """Names in objects of a JSON text."""
    return sum(match[1] is not None for match in _KEY.finditer(text))


def _npz(path: Path, wanted: tuple[str, ...]) -> tuple[set[str], _Read]:
    there = set(names_in(path))
    content = read_npz(
        path, tuple(clip for clip in wanted if clip in there)
    )  # at once: opening it again costs its list

    def read(clip: str) -> Floats:
        value = content[clip]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            raise BiposeError(f"{path}: the prediction of {clip} does not hold numbers; write an array of (T, K, 2)")
        return value

    return there, read
