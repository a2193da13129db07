"""The arrays of Human3.6M's npz files: which takes there are, and each as checked numbers. See `h36m` for the layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.cameras import FARTHEST
from bipose_lit.datasets.safe_npz import names_in, read_npz
from bipose_lit.datasets.safe_pickle import shown
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]
Key = tuple[str, str]
"""Subject and action, e.g. ("S9", "Walking 1")."""

UNITS = {"m": 1000.0, "mm": 1.0}
"""Millimetres per unit."""
SMALLEST, LARGEST = 500.0, 3000.0
"""Millimetres that the typical person of a file may have along the longest side of the box around its joints."""

KEPT = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""The 17 of the 32 joints, in the order of `skeletons.H36M`."""
JOINTS_32 = 32


class Arrays(dict[str, Any]):
    """The plain arrays of one take, by name."""


_SWAPS = tuple(sorted(sorted(pair) for pair in zip(*([4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]), strict=True)))
_PARTS = ("positions_3d", "positions_2d", "visible", "K", "R", "t", "fps")
_LARGEST = 1e30  # squares and products of what is larger overflow


def load_positions(path: Path) -> dict[Key, Any]:
    """3D positions by subject and action.

    Returns:
        For the pickled layout an array (T, 32 or 17, 3), or a list of them, not yet checked (see `as_positions`); for plain
        arrays named SUBJECT/ACTION/positions_3d the take's `Arrays`.

    Raises:
        BiposeError: missing, damaged, refused (see `safe_npz`), or in neither layout.
    """
    names = names_in(path)
    if "positions_3d" in names:
        content = read_npz(path, ("positions_3d",), objects=True)["positions_3d"]
        return _takes(path, "positions_3d", content)
    plain: dict[Key, Arrays] = {}
    chosen = tuple(name for name in names if name.rpartition("/")[2] in _PARTS and name.count("/") == 2)
    for name, array in read_npz(path, chosen).items():
        subject, action, part = name.split("/")
        plain.setdefault(_key(path, subject, action), Arrays())[part] = array
    takes: dict[Key, Any] = {key: arrays for key, arrays in plain.items() if "positions_3d" in arrays}
    if not takes or len(takes) < len(plain):
        lacking = name_of(next(key for key in plain if key not in takes)) + "/" if plain else ""
        raise BiposeError(f"{path}: no array {lacking}positions_3d; is this a file of 3D positions?")
    return takes


def load_detections(path: Path) -> dict[Key, Any]:
    """2D detections by subject and action: a list of arrays (T, 17, 2) per camera, not yet checked (see `as_pixels`).

    Raises:
        BiposeError: as `load_positions`, or detections of joints that are not Human3.6M's 17.
    """
    names = names_in(path)
    content = read_npz(path, tuple(n for n in ("positions_2d", "metadata") if n in names), objects=True)
    if "positions_2d" not in content:
        raise BiposeError(f"{path}: no array positions_2d; is this a file of 2D detections?")
    meta = content.get("metadata", {})
    if not isinstance(meta, dict):
        raise BiposeError(f"{path}: metadata is no dict; write the file again")
    layout, count = (_single(meta.get(name, usual)) for name, usual in (("layout_name", "h36m"), ("num_joints", 17)))
    as_ours = isinstance(layout, str) and layout == "h36m" and isinstance(count, int) and count == 17
    if not as_ours or _pairs(meta.get("keypoints_symmetry")) not in (None, _SWAPS):
        raise BiposeError(
            f"{path}: detections of {shown(count, 20)} joints in the layout {shown(layout, 20)}; "
            "take those of Human3.6M's 17 joints (such as data_2d_h36m_gt or data_2d_h36m_cpn_ft_h36m_dbb)"
        )
    return _takes(path, "positions_2d", content["positions_2d"])


def _single(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _pairs(symmetry: Any) -> tuple[list[int], ...] | None:
    if symmetry is None:
        return None
    try:
        left, right = ([int(i) for i in side] for side in symmetry)
        return tuple(sorted(sorted(pair) for pair in zip(left, right, strict=True)))
    except (TypeError, ValueError, OverflowError):
        return ()


def _takes(path: Path, array: str, content: Any) -> dict[Key, Any]:
    if not isinstance(content, dict) or not all(isinstance(actions, dict) for actions in content.values()):
        raise BiposeError(f"{path}: {array} is no dict of subjects and actions; is this the right file?")
    out = {_key(path, subject, action): value for subject, acts in content.items() for action, value in acts.items()}
    if not out:
        raise BiposeError(f"{path}: {array} is empty; copy or download the file again")
    return out


def _key(path: Path, subject: Any, action: Any) -> Key:
    for name in (subject, action):
        if not isinstance(name, str) or not name.strip() or len(name) > 100 or not name.isprintable() or "/" in name:
            raise BiposeError(f"{path}: {shown(name, 60)!r} is no name of a subject or an action; mend the file")
    return subject, action


def name_of(key: Key) -> str:
    """A take's name in messages."""
    return f"{key[0]}/{key[1]}"


def action_of(name: str) -> str:
    """A take's action: its name's first word without the number of the take, "Walking" of "Walking 1" and of "Walking_1"."""
    words = name.split()
    return re.sub(r"(?<=.)[_-][0-9]+$", "", words[0]) if words else name


def as_views(value: Any) -> list[Any]:
    """A take's arrays by camera, from a list of them or one of four axes; of one array alone a list of it. Not yet checked."""
    if isinstance(value, Arrays):
        value = value["positions_3d"]
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 4):
        return list(value)
    return [value]


def as_numbers(value: Any, shape: tuple[int | None, ...], where: str) -> Floats:
    """An array of numbers of a given shape, as float64; None stands for any length but 0. NaN is in the place of what overflows.

    Raises:
        BiposeError: not that.
    """
    array = value if isinstance(value, np.ndarray) else np.asarray(value if isinstance(value, int | float) else None)
    expected = f"({', '.join('T' if n is None else str(n) for n in shape)})"
    if array.dtype.kind not in "biuf":
        raise BiposeError(f"{where}: expected an array {expected} of numbers, found something else; mend the file")
    if array.ndim != len(shape) or any(n == 0 or w not in (None, n) for n, w in zip(array.shape, shape, strict=True)):
        raise BiposeError(f"{where}: has the shape {shown(array.shape, 60)}, expected {expected}")
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = array.astype(np.float64)
        return np.where(np.abs(numbers) < _LARGEST, numbers, np.nan)


def as_positions(value: Any, where: str) -> Floats:
    """(T, 17, 3) in the file's unit from an array of 32 or 17 joints; what is not finite stays so.

    Raises:
        BiposeError: another shape, no frames, or no numbers.
    """
    if isinstance(value, Arrays):
        value = value["positions_3d"]
    full = isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[1] == JOINTS_32
    if full:
        value = value[:, KEPT]
    return as_numbers(value, (None, len(skeletons.H36M), 3), where)


def as_pixels(value: Any, where: str) -> NDArray[np.float32]:
    """(T, 17, 2) pixels; a third column (a score) is dropped.

    Raises:
        BiposeError: another shape, no frames, or numbers that are no pixels.
    """
    if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[2] == 3:
        value = value[..., :2]
    pixels = as_numbers(value, (None, len(skeletons.H36M), 2), where)
    with np.errstate(invalid="ignore"):
        good = (np.abs(pixels) < FARTHEST).all()
    if not good:
        raise BiposeError(
            f"{where}: holds numbers that are no pixels (not finite, or beyond {FARTHEST:g}); mend the file"
        )
    return pixels.astype(np.float32)


def typical_extent(takes: Mapping[Key, Any]) -> float:
    """Median over takes and frames of a person's size, the longest side of the box around its joints, in the file's unit.

    Takes that are broken are passed over; NaN where none is left.
    """
    sizes: list[Floats] = [np.zeros(0)]
    for key, value in takes.items():
        for view in as_views(value):
            try:
                points = as_positions(view, name_of(key))
            except BiposeError:
                continue
            points = points[:: max(1, len(points) // 16)]
            points = points[np.isfinite(points).all(axis=(1, 2))]
            sizes.append((points.max(axis=1) - points.min(axis=1)).max(axis=1))
    found = np.concatenate(sizes)
    return float(np.median(found)) if len(found) else float("nan")


def unit_of(extent: float) -> str | None:
    """The unit in which persons of that size are persons, "m" or "mm"; None where it is neither."""
    return next((unit for unit, factor in UNITS.items() if SMALLEST <= extent * factor <= LARGEST), None)
