"""`bipose evaluate jhmdb`: anybody's predictions on JHMDB or sub-JHMDB by the published PCK (see `metrics.video_pck`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets import puppet
from bipose_lit.datasets.jhmdb import JHMDB, SPLITS, ClipLabels, label_path, read_labels
from bipose_lit.evaluate.clips import mended, read_predictions
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.metrics import video_pck
from bipose_lit.types import ABSENT, BiposeError

PARTS = ("face", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
"""What published tables list and average: not neck and belly (README of LSTM Pose Machines: 94.09 over all, 93.6 over these)."""


@dataclass
class _Truth:
    """Labels of clips by name, read once for all splits, and the sizes by puppet mask (NaN where there is none)."""

    root: Path
    labels: dict[str, ClipLabels] = field(default_factory=dict)
    masked: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, action: str, clip: str) -> bool:
        """Reads a clip; False where it has no labels."""
        name, path = f"{action}/{clip}", label_path(self.root, action, clip)
        if name in self.labels:
            return True
        if not path.exists():
            return False
        found = read_labels(path)
        sizes = np.full(len(found), np.nan)
        mask = puppet.mask_path(self.root, action, clip)
        if mask.exists():
            there = video_pck.corner_size(puppet.mask_corners(mask)[0])[: len(found)]
            sizes[: len(there)] = there
        self.labels[name], self.masked[name] = found, sizes
        return True


def evaluate(annotations: Path, predictions: Path, split: str | int = "1") -> Outcome:
    """Scores predictions of whole clips.

    Predictions and labels are in the same pixels: those of the label files, in which the first pixel is 1.

    Args:
        annotations: the folder that holds joint_positions and splits; where it has sub_splits, those lists (sub-JHMDB) are taken.
        predictions: see `clips.read_predictions`; clips are named "CLASS/CLIP". For "all" it may be a folder with one such folder
            or file for each split: split1, split2, split3 (.json, .npz).
        split: "1", "2" or "3"; "all" for the mean of the three, each of which follows as "/split1" and so on.

    Raises:
        BiposeError: damaged labels or lists, an unknown split, or predictions that do not fit.
    """
    if str(split) not in ("1", "2", "3", "all"):
        raise BiposeError(f"split {split!r} is none of 1, 2, 3, all")
    chosen = SPLITS if split == "all" else (int(split),)
    folder = "sub_splits" if (annotations / "sub_splits").is_dir() else "splits"
    truth, notes = _Truth(annotations), _notes(folder)
    readers = [JHMDB(annotations, number, splits_folder=folder) for number in chosen]
    tested = [_test_clips(truth, reader) for reader in readers]
    counts = dict.fromkeys(_COUNTS, 0)
    counts["clips_without_labels"] = len({m for r in readers for m in r.members("test")}) - len(
        {c for t in tested for c in t}
    )
    predicted = []
    for clips, source in _sources(predictions, tested):
        found, extra = read_predictions(source, {c: len(truth.labels[c]) for c in clips}, len(JHMDB.skeleton))
        predicted.append(found)
        counts["clips_not_in_split"] += extra
    if len(predicted) < len(chosen):
        notes.append(
            "one set of predictions is scored on all splits: fair only if no split's test clips were trained on"
        )
        predicted *= len(chosen)
    results = []
    for clips, pred in zip(tested, predicted, strict=True):
        metrics, scored = _score(truth, clips, pred)
        results.append(metrics)
        counts = {name: counts[name] + scored.get(name, 0) for name in counts}
    metrics = results[0]
    if len(chosen) > 1:
        metrics = {name: float(np.mean([r[name] for r in results])) for name in metrics}
        for number, result in zip(chosen, results, strict=True):
            metrics |= {f"{name}/split{number}": result[name] for name in video_pck.BY_PART}
        notes.append(
            "the numbers without a split are plain means of the three splits, and so are those of joints; counts are sums"
        )
    notes.append(
        f"bbox: the longer side of the box around the puppet mask in {counts['frames_by_mask']:,} frames (outermost pixels, as "
        f"published), around the labelled joints in {counts['frames_by_joints']:,} that have no mask (smaller, so stricter)"
    )
    if counts["clips_without_labels"]:
        notes.append(f"{counts['clips_without_labels']} listed clips have no joint positions and were left out")
    if counts["clips_not_in_split"]:
        notes.append(f"{counts['clips_not_in_split']} predicted clips are not among the test clips and were left out")
    notes += mended({clip: found.remarks for clip, found in truth.labels.items()})
    return Outcome("jhmdb", counts, metrics, tuple(notes))


_COUNTS = (
    "clips", "frames", "joints", "frames_by_mask", "frames_by_joints", "frames_without_torso", "clips_without_labels",
    "clips_not_in_split",
)  # fmt: skip


def _notes(folder: str) -> list[str]:
    return [
        f"test clips by the lists in {folder} ({'sub-JHMDB' if folder == 'sub_splits' else 'JHMDB, not sub-JHMDB'})",
        "coordinates of the predictions are those of the label files: the first pixel is 1, not 0",
        "pck is over all joints of all frames; joint_mean is the plain mean of the 15 joints, part_mean that of face, shoulder, "
        "elbow, wrist, hip, knee and ankle, as published tables have it",
        "torso: left shoulder to right hip",
    ]


def _sources(predictions: Path, tested: list[list[str]]) -> list[tuple[list[str], Path]]:
    """What to read: the clips of each split from its own place, or those of all splits from one."""
    if len(tested) == 1:
        return [(tested[0], predictions)]
    found = [
        next((p for p in (predictions / f"split{n}{s}" for s in ("", ".json", ".npz")) if p.exists()), None)
        for n in SPLITS
    ]
    there = [path for path in found if path is not None]
    if there and len(there) < len(SPLITS):
        raise BiposeError(
            f"{predictions}: has {there[0].name}, but not predictions for all of split1, split2 and split3"
        )
    return list(zip(tested, there, strict=True)) if there else [(sorted({c for t in tested for c in t}), predictions)]


def _test_clips(truth: _Truth, reader: JHMDB) -> list[str]:
    clips = [f"{action}/{clip}" for action, clip in reader.members("test") if truth.add(action, clip)]
    if not clips:
        folder = reader.root / reader.splits_folder
        raise BiposeError(f"{folder}: split {reader.split} has no test clips with labels; check the split lists")
    return clips


def _score(
    truth: _Truth, clips: list[str], predicted: dict[str, NDArray[np.float64]]
) -> tuple[dict[str, float], dict[str, int]]:
    joints = np.concatenate([truth.labels[clip].joints for clip in clips])
    labelled = np.concatenate([truth.labels[clip].visible for clip in clips]) != ABSENT
    masked = np.concatenate([truth.masked[clip] for clip in clips])
    unmasked = np.isnan(masked)
    sizes = {
        "bbox": np.where(unmasked, video_pck.joint_size(joints, labelled), masked),
        "torso": video_pck.torso_size(joints, labelled, JHMDB.skeleton),
    }
    pred = np.concatenate([predicted[clip] for clip in clips])
    counts = {
        "clips": len(clips),
        "frames": len(joints),
        "joints": int(labelled.sum()),
        "frames_by_mask": int((~unmasked).sum()),
        "frames_by_joints": int(unmasked.sum()),
        "frames_without_torso": int((np.isnan(sizes["torso"]) & labelled.any(axis=1)).sum()),
    }
    return video_pck.scores(pred, joints, labelled, sizes, JHMDB.skeleton, PARTS), counts
