"""The evaluation's labels of MPII Human Pose, gt_NAME.mat, and which of its persons are those of a list.

The file holds joints and head boxes, but no names of pictures, so persons are known by their joints. The published gt_valid.mat
has a coordinate of 0 in 13 joints of ten persons, where the lists have the place: such a joint says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.mpii_files import Floats, People, head_size, mat_arrays, numbers, plausible
from bipose_lit.types import ABSENT, BiposeError

SHORT_NAMES: Final = ("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head", "rwri", "relb",
                      "rsho", "lsho", "lelb", "lwri")  # fmt: skip
"""The evaluation's names of the joints of `skeletons.MPII`, in its order."""

VARIABLES: Final = ("dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src")

_K: Final = len(skeletons.MPII)
_SAME: Final = 0.1  # pixels between the places of one joint in two files; json lists are rounded to 4 decimals
_NOTHING: Final = 1e-6  # a coordinate below it is the evaluation's 0
_COMPARED: Final = 20_000_000  # pairs of persons, so that a file of any size ends in time


@dataclass(frozen=True)
class Evaluated:
    """What a gt_NAME.mat holds.

    Attributes:
        joints: (N, 16, 2) pixels, 1-based; 0 where missing.
        missing: (N, 16).
        head: (N,) head size in pixels, 0.6 x the head box's diagonal; NaN where the box has no size.
    """

    joints: Floats
    missing: NDArray[np.bool_]
    head: Floats

    def __len__(self) -> int:
        return len(self.head)

    def take(self, rows: NDArray[np.int64]) -> Evaluated:
        """Persons in another order, or some of them."""
        return Evaluated(self.joints[rows], self.missing[rows], self.head[rows])


def read_evaluated(path: Path) -> Evaluated:
    """A gt_NAME.mat.

    Raises:
        BiposeError: not this file, other joints or another order of them, or shapes that do not fit.
    """
    content = mat_arrays(path, VARIABLES)
    names = [str(np.asarray(n).ravel()[0]) if np.asarray(n).size else "" for n in content["dataset_joints"].ravel()]
    if tuple(names) != SHORT_NAMES:
        raise BiposeError(
            f"{path}: dataset_joints are not MPII's 16 joints in their order; is it the evaluation's file?"
        )
    missing, place, boxes = (numbers(path, key, content[key]) for key in VARIABLES[1:])
    N = missing.shape[1] if missing.ndim == 2 else -1
    if N == 1:  # MATLAB drops the last axis of a single person
        place, boxes = place.reshape(*place.shape[:2], -1), boxes.reshape(*boxes.shape[:2], -1)
    if (missing.shape, place.shape, boxes.shape) != ((_K, N), (_K, 2, N), (2, 2, N)) or N < 1:
        raise BiposeError(
            f"{path}: jnt_missing, pos_gt_src and headboxes_src have shapes {missing.shape}, {place.shape} and {boxes.shape}, "
            f"expected ({_K}, persons), ({_K}, 2, persons) and (2, 2, persons); copy or download it again"
        )
    if not np.isin(missing, (0, 1)).all():
        raise BiposeError(f"{path}: jnt_missing holds other numbers than 0 and 1; copy or download it again")
    joints, absent = place.transpose(2, 0, 1), missing.T == 1
    bad = ~plausible(joints).all(axis=-1) & ~absent
    if bad.any():
        i, k = (int(v[0]) for v in np.nonzero(bad))
        raise BiposeError(f"{path}: person {i} has no usable place for {SHORT_NAMES[k]}; copy or download it again")
    return Evaluated(np.where(absent[..., None], 0.0, joints), absent, head_size(boxes.transpose(2, 0, 1)))


def truths_beside(path: Path, exact: bool = False) -> list[Path]:
    """The evaluation's files that lie beside a list of persons.

    Those of the list's name: gt_valid.mat for valid.json, mpii_gt_val.mat for mpii_val.json (mmpose's names). Where there is
    none and `exact` is not set: every *gt_*.mat, sorted, for the persons to be looked for.
    """
    first, _, last = path.stem.rpartition("_")
    names = [f"gt_{path.stem}.mat", *([f"{first}_gt_{last}.mat"] if first else [])]
    found = [beside for name in names if (beside := path.with_name(name)).is_file()]
    if not found and not exact:
        found = sorted(beside for beside in path.parent.glob("*gt_*.mat") if beside.is_file())
    return found


def find_rows(people: People, truth: Evaluated) -> NDArray[np.int64]:
    """(N,) the row of `truth` that has the same joints as each person: the same row of the file, else the only one; -1 for none.

    Joints are the same within 0.1 px. Those with a coordinate of 0 in `truth` are passed over, but half of a person's joints must
    be the same. No row is given twice.
    """
    found: NDArray[np.int64] = np.full(len(people), -1, np.int64)
    missing = people.visible == ABSENT
    inside = np.flatnonzero(people.row < len(truth))
    rows = people.row[inside]
    same = _agree(people.joints[inside], missing[inside], truth.joints[rows], truth.missing[rows])
    found[inside[same]] = rows[same]
    free = np.ones(len(truth), bool)
    free[rows[same]] = False
    # The sums of the coordinates of equal persons are near each other, unless a coordinate of 0 stands for another.
    total = truth.joints.sum(axis=(1, 2))
    order = np.argsort(total, kind="stable")
    wanted, slack = people.joints.sum(axis=(1, 2)), 2 * _K * _SAME
    low, high = (np.searchsorted(total[order], wanted + side) for side in (-slack, slack))
    odd = np.flatnonzero(_unsure(truth.joints, truth.missing).any(axis=1))
    budget = _COMPARED
    for i in np.flatnonzero(found < 0):
        budget -= int(high[i] - low[i]) + len(odd)
        if budget < 0:
            break
        near = np.union1d(order[low[i] : high[i]], odd)
        near = near[free[near]]
        hits = near[_agree(people.joints[i], missing[i], truth.joints[near], truth.missing[near])]
        if len(hits) == 1 or (len(hits) and missing[i].all()):  # persons without a joint are as good as each other
            found[i] = hits[0]
            free[hits[0]] = False
    return found


def _unsure(joints: Floats, missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(joints) < _NOTHING).any(axis=-1) & ~missing)


def _agree(a: Floats, a_missing: NDArray[np.bool_], b: Floats, b_missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether persons `a` of a list are persons `b` of the evaluation."""
    near = (np.abs(a - b) <= _SAME).all(axis=-1)
    unsure = _unsure(b, b_missing) & ~near
    fits = ((a_missing == b_missing) & (near | a_missing)) | unsure
    labelled = ~(a_missing & b_missing)
    return np.asarray(fits.all(axis=-1) & (2 * (unsure & labelled).sum(axis=-1) <= labelled.sum(axis=-1)))
