"""Human3.6M's protocols for 3D poses in millimetres: MPJPE, P-MPJPE, N-MPJPE, and MPJVE, acceleration error and jitter.

Labels and predictions are npz files with the same takes (`datasets.h36m_files.load_positions`): positions_3d by subject and
action, or plain arrays named SUBJECT/ACTION/positions_3d, each (T, 17, 3) or (T, 32, 3); or by view, as a list of such arrays
or one (views, T, 17, 3). The official file has one array per take, in the world's axes; models that lift 2D poses predict in the
axes of each camera. `cameras` then moves the labels there.

All errors are of poses relative to the pelvis, in predictions and labels, as most papers have it. VideoPose3D's `run.py`
subtracts it from labels alone: that is "mpjpe[as_given]". Its other numbers are of predictions as given, too (equal where they
have the pelvis at 0), and its MPJVE weighs the mean of a view's T - 1 steps with T, where here every step weighs the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.cameras import View, load_cameras, of_subject, to_camera
from bipose_lit.datasets.h36m_files import (
    UNITS,
    Key,
    action_of,
    as_positions,
    as_views,
    load_positions,
    name_of,
    typical_extent,
    unit_of,
)
from bipose_lit.datasets.safe_pickle import shown
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.metrics.pose3d import (
    difference_errors,
    difference_sizes,
    mean,
    position_errors,
    procrustes_errors,
    relative,
    scaled_errors,
)
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]
Terms = dict[str, Floats]

SUBJECTS = ("S9", "S11")
METRICS = ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "accel_error", "jitter")
AS_GIVEN = "mpjpe[as_given]"
ROOT = skeletons.H36M.index("pelvis")

_LARGEST = 1e6  # millimetres: a prediction a kilometre away is a broken one
_OTHER_SIZE = 5.0  # times as large or small as the label: another unit
_COLLAPSED = 1e-6  # all joints in one place: a bad prediction in any unit
_OTHER_AXES = 5.0  # mpjpe by p_mpjpe; good predictions have 1.3
_NOTES = (
    "mm, mpjve mm per frame, accel_error mm per frame^2, jitter (of the predictions alone) mm per frame^3; all but p_mpjpe "
    "relative to the pelvis, whose 0 counts among the 17 joints",
    "p_mpjpe: each frame aligned by rotation, translation and scale, no reflection; n_mpjpe: by scale alone",
    "mpjpe[as_given]: the pelvis subtracted from the labels alone, as VideoPose3D prints it; for root-relative predictions",
    "all frames weigh the same (VideoPose3D weighs a view's mean mpjve by its frames); [action_mean] is the plain mean of the "
    "actions' means, which papers print",
)


def evaluate(
    annotations: Path,
    predictions: Path,
    subjects: Sequence[str] | None = None,
    unit: str | None = None,
    cameras: Path | None = None,
) -> Outcome:
    """Scores 3D predictions.

    Args:
        annotations: npz of labels; metres or millimetres, told by the persons' size.
        predictions: npz of the same subjects and actions; absolute or relative to the pelvis.
        subjects: which to score; default S9 and S11, or the one of them that the labels hold.
        unit: of the predictions, "m" or "mm"; default the labels' own.
        cameras: JSON of the subjects' cameras (`datasets.cameras`): the labels, an array per take in the world's axes, are moved
            into the axes of each, for which there are then as many predictions, in the file's order. Default: predictions are in
            the labels' own axes.

    Returns:
        `mpjpe`, `mpjpe[action_mean]` and the same of `p_mpjpe`, `n_mpjpe`, `mpjve`, `accel_error`, `jitter`, also
        `mpjpe[as_given]` and `mpjpe[as_given,action_mean]`; then "mpjpe/left_wrist", ... by joint and "mpjpe/action:Walking",
        ... by action. Millimetres.

    Raises:
        BiposeError: a damaged file, a take without prediction, other numbers of views, frames or joints, or another unit.
    """
    if unit is not None and unit not in UNITS:
        raise BiposeError(f"unit {unit!r} is none of {', '.join(UNITS)}")
    every = load_positions(annotations)
    usual = tuple(name for name in SUBJECTS if any(key[0] == name for key in every)) or SUBJECTS
    labels = _subjects(annotations, every, usual if subjects is None else tuple(subjects))
    given = load_positions(predictions)
    truth_unit = _label_unit(annotations, labels)
    pred_unit = truth_unit if unit is None else unit
    for key in labels:
        if key not in given:
            raise BiposeError(
                f"{predictions}: has no prediction for {name_of(key)}; predict every take of these subjects"
            )
    _check_size(predictions, {k: given[k] for k in labels}, pred_unit, labels, truth_unit)
    places = None if cameras is None else load_cameras(cameras)
    terms: dict[str, list[Terms]] = {}
    frames = left_out = views = 0
    for key in sorted(labels):
        seen_by = None
        if places is not None and not (seen_by := of_subject(places, key[0])):
            raise BiposeError(f"{cameras}: no cameras of {shown(key[0], 40)}; add them, or under '*' those of all")
        pairs = _views(annotations, labels[key], predictions, given[key], key, seen_by, cameras)
        for number, (truth, pred) in enumerate(pairs):
            where = _where(predictions, key, number, len(pairs))
            truth = truth * UNITS[truth_unit]
            if seen_by is not None:
                truth = to_camera(seen_by[number].camera, truth)
            found, missing = _score(pred * UNITS[pred_unit], truth, where)
            terms.setdefault(action_of(key[1]), []).append(found)
            frames, left_out, views = frames + len(found["mpjpe"]), left_out + missing, views + 1
    chosen = sorted({key[0] for key in labels}, key=lambda name: (len(name), name))
    if not frames:
        raise BiposeError(f"{annotations}: no frame of {', '.join(chosen)} has all its labels")
    counts = {
        "subjects": len(chosen),
        "takes": len(labels),
        "views": views,
        "frames": frames,
        "joints": len(skeletons.H36M),
    }
    metrics = _summary(terms)
    notes = list(_NOTES)
    if metrics["mpjpe"] > max(_OTHER_AXES * metrics["p_mpjpe"], 1.0):
        advice = (
            "" if places is not None else "; models that lift 2D poses predict in those of a camera: give --cameras"
        )
        notes.append(f"mpjpe is more than {_OTHER_AXES:g} times p_mpjpe: are predictions in other axes?{advice}")
    if subjects is None and len(usual) < len(SUBJECTS):
        notes.append(f"{', '.join(usual)} alone: the labels hold no other of {', '.join(SUBJECTS)}")
    if left_out:
        counts["frames_left_out"] = left_out
        notes.append(f"{left_out} frames left out, as their labels are not finite")
    extra = sum(key[0] in chosen and key not in labels for key in given)
    if extra:
        notes.append(f"{extra} predicted takes left out, as they have no labels")
    about = {
        "subjects": " and ".join(chosen),
        "unit": f"mm (labels in {truth_unit}, predictions in {pred_unit})",
        "axes": "the labels' own" if cameras is None else f"each camera's, by {cameras.name}",
    }
    return Outcome("h36m", counts, metrics, tuple(notes), about)


def _where(path: Path, key: Key, view: int, views: int) -> str:
    return f"{path}: {name_of(key)}{f', view {view}' if views > 1 else ''}"


def _subjects(path: Path, takes: dict[Key, Any], wanted: tuple[str, ...]) -> dict[Key, Any]:
    present = {key[0] for key in takes}
    missing = [name for name in wanted if name not in present]
    if missing or not wanted:
        raise BiposeError(
            f"{path}: has no subject {', '.join(missing) or '(none was named)'}; it holds {shown(', '.join(sorted(present)))}, "
            "choose with --subjects"
        )
    return {key: value for key, value in takes.items() if key[0] in wanted}


def _label_unit(path: Path, labels: dict[Key, Any]) -> str:
    extent = typical_extent(labels)
    unit = unit_of(extent)
    if unit is None:
        raise BiposeError(
            f"{path}: persons are {_short(extent)} units in size, which fits neither metres nor millimetres; "
            "are these 3D positions, and in metres?"
        )
    return unit


def _check_size(path: Path, pred: dict[Key, Any], unit: str, labels: dict[Key, Any], truth_unit: str) -> None:
    bare = typical_extent(pred) / (typical_extent(labels) * UNITS[truth_unit])

    def fits(name: str) -> bool:
        return 1 / _OTHER_SIZE <= bare * UNITS[name] <= _OTHER_SIZE

    ratio = bare * UNITS[unit]
    if fits(unit) or not ratio > _COLLAPSED:  # NaN: every prediction is broken, which its own message tells
        return
    other = next((name for name in UNITS if fits(name)), None)
    raise BiposeError(
        f"{path}: predicted persons are {_short(ratio)} times as large as the labelled ones"
        + (f"; give --unit {other}" if other else ", which fits neither m nor mm; store the predictions in metres")
    )


def _short(number: float) -> str:
    return f"{float(f'{number:.3g}'):g}"


def _views(
    annotations: Path,
    truth: Any,
    predictions: Path,
    pred: Any,
    key: Key,
    seen_by: Sequence[View] | None,
    cameras: Path | None,
) -> list[tuple[Floats, Floats]]:
    """Labels and predictions (T, 17, 3) by view, each in its file's unit and axes."""
    a, b = as_views(truth), as_views(pred)
    has = f"{predictions}: {name_of(key)} has arrays of {len(b)} views, and"
    if seen_by is not None and cameras is not None:
        if len(a) != 1:
            raise BiposeError(
                f"{annotations}: {name_of(key)} has arrays of {len(a)} views already; leave --cameras out"
            )
        if len(b) != len(seen_by):
            raise BiposeError(f"{has} {cameras.name} {len(seen_by)} cameras of {key[0]}; predict each, in its order")
        a = a * len(b)
    elif len(a) != len(b) and len(a) == 1:
        raise BiposeError(f"{has} the labels one array in the world; give --cameras, to move the labels to each view")
    elif len(a) != len(b):
        raise BiposeError(f"{has} the labels of {len(a)}; predict each, in its order")
    out = []
    for number, (one, other) in enumerate(zip(a, b, strict=True)):
        label = as_positions(one, _where(annotations, key, number, len(a)))
        guess = as_positions(other, where := _where(predictions, key, number, len(a)))
        if len(label) != len(guess):
            raise BiposeError(f"{where} has {len(guess)} frames where the labels have {len(label)}; predict each")
        out.append((label, guess))
    return out


def _score(pred: Floats, truth: Floats, where: str) -> tuple[Terms, int]:
    """Terms (frames, K) of each metric in millimetres, and how many frames are left out."""
    with np.errstate(invalid="ignore"):
        good = np.asarray((np.abs(truth) < _LARGEST).all(axis=(1, 2)))
        usable = np.asarray((np.abs(pred) < _LARGEST).all(axis=(1, 2)) | ~good)
    if not usable.all():
        frame = int(np.flatnonzero(~usable)[0])
        raise BiposeError(
            f"{where}: frame {frame} holds numbers that are not finite or a kilometre away; predict every joint"
        )
    label, guess = (np.where(good[:, None, None], points, 0.0) for points in (truth, pred))

    def steps(order: int) -> NDArray[np.bool_]:
        """Which differences reach over good frames alone."""
        T = max(len(good) - order, 0)
        return np.asarray(np.logical_and.reduce([good[i : i + T] for i in range(order + 1)]))

    return {
        "mpjpe": position_errors(guess[good], label[good], ROOT),
        AS_GIVEN: position_errors(guess[good], relative(label[good], ROOT)),
        "p_mpjpe": procrustes_errors(guess[good], label[good]),
        "n_mpjpe": scaled_errors(guess[good], label[good], ROOT),
        "mpjve": difference_errors(guess, label, 1, ROOT)[steps(1)],
        "accel_error": difference_errors(guess, label, 2, ROOT)[steps(2)],
        "jitter": difference_sizes(guess, 3, ROOT)[steps(3)],
    }, int((~good).sum())


def _summary(terms: Mapping[str, Sequence[Terms]]) -> dict[str, float]:
    whole: dict[str, float] = {}
    parts: dict[str, float] = {}
    for metric in (METRICS[0], AS_GIVEN, *METRICS[1:]):
        by_action = {action: np.concatenate([t[metric] for t in found]) for action, found in terms.items()}
        every = np.concatenate(list(by_action.values()))
        means = {action: mean(found) for action, found in by_action.items()}
        scored = [value for value in means.values() if value == value]
        whole[metric] = mean(every)
        name = f"{metric}[action_mean]" if metric != AS_GIVEN else f"{AS_GIVEN[:-1]},action_mean]"
        whole[name] = float(np.mean(scored)) if scored else float("nan")
        if metric != AS_GIVEN:
            for number, joint in enumerate(skeletons.H36M.joints):
                parts[f"{metric}/{joint}"] = mean(every[:, number])
            parts.update({f"{metric}/action:{action}": value for action, value in means.items()})
    return whole | parts
