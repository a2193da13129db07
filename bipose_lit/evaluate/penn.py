"""`bipose evaluate penn`: anybody's predictions on Penn Action by the published PCK (see `metrics.video_pck`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bipose_lit.datasets.penn import MARKS, PennAction, label_files, read_labels
from bipose_lit.evaluate.clips import folder_with, mended, read_predictions
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.metrics import video_pck
from bipose_lit.types import ABSENT, BiposeError


def evaluate(annotations: Path, predictions: Path, split: str = "test") -> Outcome:
    """Scores predictions of whole clips.

    Predictions and labels are in the same pixels: those of the label files, in which the first pixel is 1.

    Args:
        annotations: the folder that holds labels/NNNN.mat.
        predictions: see `clips.read_predictions`; clips are named as the label files, "0001".
        split: "test", "train", "val" (clips that the labels mark so, which the official ones do not) or "all".

    Raises:
        BiposeError: damaged labels, an empty or unknown split, or predictions that do not fit.
    """
    skeleton = PennAction.skeleton
    if split != "all" and split not in MARKS:
        raise BiposeError(f"split {split!r} is none of {', '.join(MARKS)}, all")
    folder_with(annotations, "labels", "Penn Action")
    read = {path.stem: read_labels(path) for path in label_files(annotations)}
    labels = {clip: found for clip, found in read.items() if split == "all" or found.mark == MARKS[split]}
    if not labels:
        raise BiposeError(f"{annotations / 'labels'}: no clip of the split {split}; choose another")
    predicted = read_predictions(predictions, {c: found.visible != ABSENT for c, found in labels.items()}, skeleton)

    joints = np.concatenate([found.joints for found in labels.values()])
    labelled = np.concatenate([found.visible for found in labels.values()]) != ABSENT
    boxed = video_pck.corner_size(np.concatenate([found.corners for found in labels.values()]))
    unboxed = np.isnan(boxed)
    sizes = {
        "bbox": np.where(unboxed, video_pck.joint_size(joints, labelled), boxed),
        "torso": video_pck.torso_size(joints, labelled, skeleton),
    }
    metrics = video_pck.scores(np.concatenate([predicted.joints[c] for c in labels]), joints, labelled, sizes, skeleton)
    counts = {
        "clips": len(labels),
        "frames": len(joints),
        "joints": int(labelled.sum()),
        "joints_not_visible": int((~labelled).sum()),
        "frames_without_torso": int((np.isnan(sizes["torso"]) & labelled.any(axis=1)).sum()),
        "frames_without_box": int(unboxed.sum()),
        "clips_not_in_split": predicted.extra,
    }
    notes = [
        "coordinates of the predictions are those of the label files: the first pixel is 1, not 0",
        "bbox: max(x2 - x1, y2 - y1) of the frame's labelled box, as published; joints that are not visible do not count",
        "torso: left shoulder to right hip, where both are visible (LSTM Pose Machines' code: right shoulder to left hip)",
        "pck is over all joints of all frames, as LSTM Pose Machines prints it; joint_mean is the plain mean of the 13 joints",
    ]
    notes += mended({clip: found.remarks for clip, found in labels.items()})
    if counts["frames_without_box"]:
        notes.append(
            f"{counts['frames_without_box']} frames have no labelled box with an extent: the joints' box is used"
        )
    if predicted.extra:
        notes.append(f"{predicted.extra} predicted clips are not in the split {split} and were left out")
    notes += predicted.notes
    return Outcome("penn", counts, metrics, tuple(notes), {"split": split, "person size": "labelled box"})
