"""`bipose evaluate mpii`: anybody's predictions by PCKh, against any of the four forms in which MPII's labels go round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.mpii_files import (
    LIMIT,
    NO_PLACE,
    People,
    h5_arrays,
    json_entries,
    mat_arrays,
    numbers,
    read_bytes,
    read_h5,
    read_json,
)
from bipose_lit.datasets.mpii_release import NO_JOINTS, read_release
from bipose_lit.datasets.mpii_truth import VARIABLES, Evaluated, find_rows, read_evaluated, truths_beside
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.metrics import pckh
from bipose_lit.metrics.pck import average, distances
from bipose_lit.types import ABSENT, BiposeError

_K = len(skeletons.MPII)
_LACKS = "lacks the variable"  # what `load_mat` says
_NO_ARRAY = "no array"  # what `h5_arrays` says
_LABELS = {".h5": ("part",), ".hdf5": ("part",), ".mat": ("jnt_missing", "RELEASE")}
_MOST_BYTES = 2**31
_FAR = 1e4 * LIMIT  # nothing labelled is near it, so that a prediction moved there is as wrong as before


def evaluate(annotations: Path, predictions: Path) -> Outcome:
    """Scores predictions of MPII.

    Predictions are compared in the labels' own 1-based pixels and taken as being in them: what they are in cannot be told from
    the file, and the reference code writes them so (it adds 1 to its 0-based ones).

    Args:
        annotations: gt_valid.mat (any file with its variables); Newell's valid.h5; HRNet's valid.json (or mmpose's
            mpii_val.json) with gt_valid.mat (mpii_gt_val.mat) beside it, whose labels are used in the order of the list; or the
            owners' mpii_human_pose_v1_u12_1.mat, of which all labelled persons of the training pictures are taken, in the
            file's order.
        predictions: `preds` (or `pred`) in an h5 or mat; an npy; or a json list, or one under "preds": of shape (N, 16, 2), or
            (2, 16, N), as MATLAB has it, in the annotations' order. Further columns (confidence) are not accepted.

    Raises:
        BiposeError: a file that is not one of these, labels without any head size, or predictions that do not fit the
            annotations or are not finite.
    """
    truth, notes = read_annotations(annotations)
    if not np.isfinite(truth.head[~truth.missing.all(axis=1)]).any():
        raise BiposeError(f"{annotations}: no labelled person has a head size, so there is no PCKh; name gt_valid.mat")
    pred = read_predictions(predictions, len(truth))
    metrics = pckh.scores(pred, truth.joints, truth.missing, truth.head)
    metrics["mpjpe_px"] = average(distances(pred, truth.joints), ~truth.missing).mean
    headed = np.isfinite(truth.head)
    scored = ~truth.missing & headed[:, None]
    sizeless = int((~headed & ~truth.missing.all(axis=1)).sum())
    if sizeless:
        notes = (*notes, f"persons left out, as their head boxes have no size: {sizeless}")
    notes = (
        "predictions are taken to be in the labels' 1-based pixels; no 1 was added (a file cannot tell: 0-based ones need it)",
        "pckh is the mean over labelled joints without pelvis and thorax; /shoulder to /ankle are plain means of left and right",
        "/head is the head top, as SimpleBaselines and HRNet print it; /head[neck+top] is Head of the owners' toolkit",
        "mpjpe_px is the mean distance of all labelled joints in pixels of the pictures, whatever the persons' sizes",
        'pckh@0.11 is what SimpleBaselines and HRNet print as "Mean@0.1"',
        *notes,
    )
    counts = {
        "persons": int(headed.sum()),
        "persons_left_out": sizeless,
        "joints": int(scored.sum()),
        "joints_missing": int((truth.missing & headed[:, None]).sum()),
    }
    return Outcome("mpii", counts, metrics, notes, {"labels": annotations.name})


def read_annotations(path: Path) -> tuple[Evaluated, tuple[str, ...]]:
    """Labels and head sizes in the file's order, and what to say about them.

    Raises:
        BiposeError: not one of the four kinds, entries that cannot be read (the order would be lost), or no labels.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise BiposeError(f"{path}: is a folder; name gt_valid.mat in it")
    if suffix == ".mat":
        return _of_mat(path)
    if suffix in (".h5", ".hdf5"):
        people = read_h5(path)
        if len(people) <= people.row[-1] or not np.array_equal(people.row, np.arange(len(people))):
            raise BiposeError(f"{path}: holds names that cannot be a picture's; copy or download it again")
        if "normalize" not in h5_arrays(path, (), ("normalize",)):
            raise BiposeError(f"{path}: holds no normalize (head sizes); name gt_valid.mat")
        remark = (
            "Newell's h5 cuts neck and head top to whole pixels; published numbers are made with gt_valid.mat "
            "(a stacked hourglass has head 95.87 by the h5, 95.94 by gt_valid.mat)"
        )
        return _labels(path, people, (NO_PLACE,)), (remark,)
    if suffix == ".json":
        return _of_list(path)
    raise BiposeError(f"{path}: not a .mat, .h5 or .json file of MPII's labels")


def _of_mat(path: Path) -> tuple[Evaluated, tuple[str, ...]]:
    try:
        return read_evaluated(path), ()
    except BiposeError as error:
        if _LACKS not in str(error):
            raise
        try:
            people = read_release(path)
        except BiposeError as second:
            if _LACKS not in str(second):
                raise
            if not all(name in str(error) for name in VARIABLES):
                raise error from None
            raise BiposeError(
                f"{path}: has neither the evaluation's variables ({', '.join(VARIABLES)}) nor RELEASE; "
                "is this a file of predictions?"
            ) from None
    order = "the owners' file: all labelled persons of its training pictures, in its order"
    return _labels(path, people, tuple(reason for reason in people.skipped if reason != NO_JOINTS)), (order,)


def _labels(path: Path, people: People, faults: tuple[str, ...]) -> Evaluated:
    """The labels of persons who are all those of a file.

    Raises:
        BiposeError: one of the faults is there: someone or something labelled was left out, so order or counts would be others.
    """
    for reason in faults:
        if where := people.skipped.get(reason):
            more = f" and {len(where) - 1} more" if len(where) > 1 else ""
            raise BiposeError(f"{path}: {reason}: {where[0]}{more}; mend it, or copy or download it again")
    return Evaluated(people.joints, people.visible == ABSENT, people.head)


def _of_list(path: Path) -> tuple[Evaluated, tuple[str, ...]]:
    """The labels of the evaluation's file that lies beside a json list, in the order of the list."""
    beside = truths_beside(path)
    if not beside:
        raise BiposeError(
            f"{path}: has no head boxes; put gt_{path.stem}.mat beside it, or name a gt_valid.mat instead"
        )
    people = read_json(path)
    if len(people) != people.row[-1] + 1 or len(people) != len(json_entries(path)):
        reason, where = next(iter(people.skipped.items()))
        raise BiposeError(
            f"{path}: {len(where)} entries cannot be read ({reason}: {where[0]}), so the order is lost; mend them"
        )
    told = ""
    for source in beside:
        truth = read_evaluated(source)
        rows = find_rows(people, truth)
        lost = np.flatnonzero(rows < 0)
        if not len(lost):
            notes = [f"labels and head boxes of {source.name}, which lies beside {path.name}"]
            if not np.array_equal(rows, np.arange(len(rows))):
                notes.append(
                    f"{source.name} has the persons in another order, or more of them: put into that of {path.name}"
                )
            return truth.take(rows), tuple(notes)
        told = told or (
            f"{source}: lacks {len(lost)} of {len(people)} persons of {path.name} (by their joints; "
            f"the first is entry {lost[0]}); take both of one release"
        )
    raise BiposeError(told)


def read_predictions(path: Path, people: int) -> NDArray[np.float64]:
    """(N, 16, 2) predictions for so many persons.

    Raises:
        BiposeError: not a file of predictions, another number of persons or joints, or a number that is not finite.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise BiposeError(f"{path}: is a folder; name the file of predictions in it")
    if suffix in (".h5", ".hdf5"):
        array = _either(path, lambda key: h5_arrays(path, (key,))[key], _NO_ARRAY)
    elif suffix == ".mat":
        array = _either(path, lambda key: mat_arrays(path, (key,))[key], _LACKS)
    elif suffix == ".npy":
        array = _npy(path)
    elif suffix == ".json":
        array = _json(path)
    else:
        raise BiposeError(f"{path}: not an .h5, .mat, .npy or .json file of predictions")
    values = numbers(path, "preds", array)
    if values.shape == (2, _K, people) and values.shape != (people, _K, 2):
        values = values.transpose(2, 1, 0)
    if values.shape != (people, _K, 2):
        raise BiposeError(
            f"{path}: predictions have shape {values.shape}, expected ({people}, {_K}, 2): {_hint(values, people)}"
        )
    bad = ~np.isfinite(values).all(axis=-1)
    if bad.any():
        i, k = (int(v[0]) for v in np.nonzero(bad))
        raise BiposeError(
            f"{path}: {int(bad.sum())} joints are not finite, the first is {skeletons.MPII.joints[k]} of person {i}; "
            "predict every joint"
        )
    return np.clip(values, -_FAR, _FAR)


def _hint(values: NDArray[np.float64], people: int) -> str:
    if values.shape == (_K, 2, people):
        return "transpose(2, 0, 1) gives it"
    if values.shape == (people, _K, 3):
        return "leave out the third column (confidence), preds[..., :2]"
    return "one row for each person, in the order of the annotations"


def _either(path: Path, read: Any, absent: str) -> NDArray[Any]:
    """`preds`, else `pred`."""
    errors = []
    for key in ("preds", "pred"):
        try:
            found: NDArray[Any] = read(key)
        except BiposeError as error:
            if absent not in str(error):
                raise
            errors.append(error)
        else:
            return found
    for key in _LABELS[path.suffix.lower()]:
        try:
            read(key)
        except BiposeError:
            continue
        raise BiposeError(
            f"{path}: holds {key} and no preds; is this a file of labels? Name it as annotations"
        ) from errors[0]
    raise BiposeError(f"{path}: holds no preds; put the predictions (N, {_K}, 2) under that name") from errors[0]


def _npy(path: Path) -> NDArray[Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BiposeError(f"{path}: too large for predictions of MPII")
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a damaged header asks for no memory
        return np.array(array) if isinstance(array, np.ndarray) else np.empty(0)
    except BiposeError:
        raise
    except Exception as error:  # a damaged header can fail anywhere inside the parser
        raise BiposeError(f"{path}: not a readable npy file of numbers; write it again with np.save") from error


def _json(path: Path) -> NDArray[Any]:
    shape = list[list[list[float]]]
    data = read_bytes(path)
    try:
        if data.lstrip()[:1] == b"{":
            content = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            if "preds" not in content and "pred" not in content:
                raise BiposeError(f"{path}: holds no preds; put the predictions (N, {_K}, 2) under that name")
            data = bytes(content["preds" if "preds" in content else "pred"])
        values = msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise BiposeError(f"{path}: not a list of persons of joints of x, y ({what}); NaN is not JSON") from error
    shapes = {(len(person), *{len(xy) for xy in person}) for person in values}
    if len(shapes) == 1 and len(next(iter(shapes))) == 2:  # whether it is the right one is looked at later
        return np.array(values, np.float64)
    for i, person in enumerate(values):
        if len(person) != _K or any(len(xy) != 2 for xy in person):
            raise BiposeError(f"{path}: person {i} has not {_K} joints of x, y; write each as [[x, y], ...]")
    return np.zeros((0, _K, 2))
