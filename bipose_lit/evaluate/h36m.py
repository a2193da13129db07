"""Human3.6M's protocols for 3D poses: MPJPE, P-MPJPE, N-MPJPE and MPJVE in millimetres, as VideoPose3D prints them.

Labels and predictions are npz files with the same takes (`datasets.h36m_files.load_positions`): positions_3d by subject and
action, or plain arrays named SUBJECT/ACTION/positions_3d, each (T, 17, 3) or (T, 32, 3); or in both files a list of such arrays,
one per camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.h36m_files import UNITS, Key, as_positions, load_positions, name_of, typical_extent
from bipose_lit.datasets.safe_pickle import shown
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.metrics.pose3d import difference_errors, position_errors, procrustes_errors, scaled_errors
from bipose_lit.types import BiposeError

SUBJECTS = ("S9", "S11")
METRICS = ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve")
ROOT = skeletons.H36M.index("pelvis")

_LARGEST = 1e6  # millimetres: a prediction a kilometre away is a broken one
_NOTES = (
    "mm, mpjve mm per frame; mpjpe, n_mpjpe, mpjve relative to the pelvis, whose 0 counts among the 17 joints (as VideoPose3D)",
    "p_mpjpe: each frame aligned by rotation, translation and scale, no reflection; n_mpjpe: by scale alone",
    "all frames weigh the same; [action_mean] is the plain mean of the actions' means, which papers print",
)


def evaluate(
    annotations: Path, predictions: Path, subjects: Sequence[str] | None = None, unit: str | None = None
) -> Outcome:
    """Scores 3D predictions.

    Args:
        annotations: npz of labels; metres or millimetres, told by the persons' size.
        predictions: npz of the same subjects and actions; absolute or relative to the pelvis, in the labels' axes.
        subjects: which to score; default S9 and S11, or the one of them that the labels hold.
        unit: of the predictions, "m" or "mm"; default the labels' own.

    Returns:
        `mpjpe`, `mpjpe[action_mean]` and the same of `p_mpjpe`, `n_mpjpe`, `mpjve`; then "mpjpe/left_wrist", ... by joint and
        "mpjpe/action:Walking", ... by action, the first word of the files' names. Millimetres.

    Raises:
        BiposeError: a damaged file, a take without prediction, other numbers of frames or joints, or a unit that cannot be.
    """
    if unit is not None and unit not in UNITS:
        raise BiposeError(f"unit {unit!r} is none of {', '.join(UNITS)}")
    every = load_positions(annotations)
    usual = tuple(name for name in SUBJECTS if any(key[0] == name for key in every)) or SUBJECTS
    labels = _subjects(annotations, every, usual if subjects is None else tuple(subjects))
    given = load_positions(predictions)
    truth_scale = _label_scale(annotations, labels)
    scale = truth_scale if unit is None else UNITS[unit]
    for key in labels:
        if key not in given:
            raise BiposeError(
                f"{predictions}: has no prediction for {name_of(key)}; predict every take of these subjects"
            )
    _check_size(predictions, {k: given[k] for k in labels}, scale, labels, truth_scale)
    terms: dict[str, list[dict[str, NDArray[np.float64]]]] = {}
    frames = left_out = views = 0
    for key in sorted(labels):
        for view, (truth, pred) in enumerate(_views(annotations, labels[key], predictions, given[key], key)):
            suffix = f", camera {view}" if isinstance(labels[key], list | tuple) else ""
            found, missing = _score(pred * scale, truth * truth_scale, f"{predictions}: {name_of(key)}{suffix}")
            terms.setdefault(key[1].split(" ")[0], []).append(found)
            frames, left_out, views = frames + len(found["mpjpe"]), left_out + missing, views + 1
    if not frames:
        raise BiposeError(f"{annotations}: no frame of {', '.join(sorted({k[0] for k in labels}))} has all its labels")
    counts = {"subjects": len({k[0] for k in labels}), "takes": views, "frames": frames, "joints": len(skeletons.H36M)}
    extra = sum(key[0] in {k[0] for k in labels} and key not in labels for key in given)
    notes = list(_NOTES)
    if subjects is None and len(usual) < len(SUBJECTS):
        notes.append(f"{', '.join(usual)} alone: the labels hold no other of {', '.join(SUBJECTS)}")
    if left_out:
        counts["frames_left_out"] = left_out
        notes.append(f"{left_out} frames left out, as their labels are not finite")
    if extra:
        notes.append(f"{extra} predicted takes left out, as they have no labels")
    return Outcome("h36m", counts, _summary(terms), tuple(notes))


def _subjects(path: Path, takes: dict[Key, Any], wanted: tuple[str, ...]) -> dict[Key, Any]:
    present = {key[0] for key in takes}
    missing = [name for name in wanted if name not in present]
    if missing or not wanted:
        raise BiposeError(
            f"{path}: has no subject {', '.join(missing) or '(none was named)'}; it holds {shown(', '.join(sorted(present)))}, "
            "choose with --subjects"
        )
    return {key: value for key, value in takes.items() if key[0] in wanted}


def _label_scale(path: Path, labels: dict[Key, Any]) -> float:
    extent = typical_extent(labels, 1.0)
    for unit, low, high in (("m", 0.1, 10.0), ("mm", 100.0, 10_000.0)):
        if low <= extent <= high:
            return UNITS[unit]
    raise BiposeError(
        f"{path}: persons are {extent:.3g} units in size, which are neither metres nor millimetres; are these 3D positions?"
    )


def _check_size(path: Path, pred: dict[Key, Any], scale: float, labels: dict[Key, Any], truth_scale: float) -> None:
    ratio = typical_extent(pred, scale) / typical_extent(labels, truth_scale)
    if ratio > 50 or 0 < ratio < 1 / 50:  # all joints in one place is a bad prediction, not another unit
        other = next((u for u, factor in UNITS.items() if factor != scale), "mm")
        raise BiposeError(
            f"{path}: predicted persons have {ratio:.3g} times the labels' size; are they in {other}? Give --unit"
        )


def _views(
    annotations: Path, truth: Any, predictions: Path, pred: Any, key: Key
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    a, b = (list(v) if isinstance(v, list | tuple) else [v] for v in (truth, pred))
    if isinstance(truth, list | tuple) != isinstance(pred, list | tuple) or len(a) != len(b):
        raise BiposeError(f"{predictions}: {name_of(key)} has {len(b)} arrays where the labels have {len(a)}")
    out = []
    for one, other in zip(a, b, strict=True):
        label = as_positions(one, f"{annotations}: {name_of(key)}")
        guess = as_positions(other, f"{predictions}: {name_of(key)}")
        if len(label) != len(guess):
            raise BiposeError(
                f"{predictions}: {name_of(key)} has {len(guess)} frames where the labels have {len(label)}; predict each"
            )
        out.append((label, guess))
    return out


def _score(
    pred: NDArray[np.float64], truth: NDArray[np.float64], where: str
) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Terms (frames, K) of each metric in millimetres, and how many frames are left out."""
    with np.errstate(invalid="ignore"):
        good = np.asarray((np.abs(truth) < _LARGEST).all(axis=(1, 2)))
        usable = np.asarray((np.abs(pred) < _LARGEST).all(axis=(1, 2)) | ~good)
    if not usable.all():
        frame = int(np.flatnonzero(~usable)[0])
        raise BiposeError(
            f"{where}: frame {frame} holds numbers that are not finite or a kilometre away; predict every joint"
        )
    steps = good[1:] & good[:-1]
    safe, guess = (np.where(good[:, None, None], points, 0.0) for points in (truth, pred))
    return {
        "mpjpe": position_errors(guess[good], safe[good], ROOT),
        "p_mpjpe": procrustes_errors(guess[good], safe[good]),
        "n_mpjpe": scaled_errors(guess[good], safe[good], ROOT),
        "mpjve": difference_errors(guess, safe, 1, ROOT)[steps],
    }, int((~good).sum())


def _summary(terms: dict[str, list[dict[str, NDArray[np.float64]]]]) -> dict[str, float]:
    by_action = {
        action: {metric: np.concatenate([t[metric] for t in found]) for metric in METRICS}
        for action, found in terms.items()
    }
    whole: dict[str, float] = {}
    parts: dict[str, float] = {}
    for metric in METRICS:
        every = np.concatenate([found[metric] for found in by_action.values()])
        means = {action: _mean(found[metric]) for action, found in by_action.items()}
        scored = [value for value in means.values() if value == value]
        whole[metric] = _mean(every)
        whole[f"{metric}[action_mean]"] = float(np.mean(scored)) if scored else float("nan")
        for number, joint in enumerate(skeletons.H36M.joints):
            parts[f"{metric}/{joint}"] = _mean(every[:, number])
        parts.update({f"{metric}/action:{action}": value for action, value in means.items()})
    return whole | parts


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
