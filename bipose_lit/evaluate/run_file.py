"""What a run of this suite leaves behind, predictions-SPLIT.npz (see `store.Predictions`), as predictions by clip.

A row is a person in a frame, numbered in the whole clip from 0; pixels are the readers', whose first one is 0.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.safe_npz import read_npz
from bipose_lit.datasets.safe_pickle import shown
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import BiposeError

FIELDS = ("clip", "frame", "pred", "clips", "joint_names", "data")
"""What is read of such a file, and by which it is told from an archive of one array a clip."""


def is_run_file(names: Collection[str]) -> bool:
    """Whether arrays of these names are a run's predictions."""
    return {"uid", *FIELDS} <= set(names)


def read_run_file(path: Path, skeleton: Skeleton, origin: float) -> tuple[dict[str, NDArray[np.float64]], str]:
    """Predictions of single persons by clip.

    Args:
        path: the npz.
        skeleton: whose joints they must be.
        origin: coordinate of the first pixel that the protocol counts with.

    Returns:
        (T, K, 2) by clip, in order of the frames and with `origin` added; and the name of the run's data.

    Raises:
        BiposeError: damaged, of other joints, or a clip in which a frame is missing or predicted twice.
    """
    content = read_npz(path, FIELDS)
    clip, frame = (_whole(path, content, name) for name in ("clip", "frame"))
    names, joints = (_words(path, content, name) for name in ("clips", "joint_names"))
    pred = content["pred"]
    N, K = len(clip), len(joints)
    if not isinstance(pred, np.ndarray) or pred.dtype.kind != "f" or pred.shape != (N, K, 2) or len(frame) != N:
        raise BiposeError(f"{path}: pred, clip and frame are not of the same persons; score the run again")
    if joints != skeleton.joints:
        other = next((j for j in joints if j not in skeleton.joints), "another order")
        raise BiposeError(
            f"{path}: the run's {K} joints are not the {len(skeleton)} of {skeleton.name} ({shown(other, 40)}); "
            "score a run on this data set"
        )
    if len(set(names)) != len(names) or (N and not 0 <= clip.min() <= clip.max() < len(names)):
        raise BiposeError(f"{path}: clips are not named one by one; score the run again")
    order = np.lexsort((frame, clip))
    found: dict[str, NDArray[np.float64]] = {}
    for rows in np.split(order, np.flatnonzero(np.diff(clip[order])) + 1) if N else ():
        name = names[int(clip[rows[0]])]
        if not np.array_equal(frame[rows], np.arange(len(rows))):
            raise BiposeError(
                f"{path}: {shown(name)} is not predicted once in each frame; score the run again, on whole clips"
            )
        found[name] = pred[rows].astype(np.float64) + origin
    data = content["data"]
    return found, shown(data.item(), 80) if isinstance(data, np.ndarray) and data.size == 1 else ""


def _whole(path: Path, content: dict[str, Any], name: str) -> NDArray[np.int64]:
    value = content[name]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.ndim != 1:
        raise BiposeError(f"{path}: {name} does not hold whole numbers; score the run again")
    return value.astype(np.int64)


def _words(path: Path, content: dict[str, Any], name: str) -> tuple[str, ...]:
    value = content[name]
    if not isinstance(value, np.ndarray) or value.dtype.kind != "U" or value.ndim != 1:
        raise BiposeError(f"{path}: {name} does not hold names; score the run again")
    try:
        return tuple(str(word) for word in value)
    except ValueError as error:  # not Unicode
        raise BiposeError(f"{path}: {name} holds damaged text; score the run again") from error
