"""`bipose evaluate jhmdb` and `sub_jhmdb`: anybody's predictions by the published PCK (see `metrics.video_pck`).

The two differ in their lists of test clips alone: those in the folder splits, and those in sub_splits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets import puppet
from bipose_lit.datasets.jhmdb import JHMDB, SPLITS, ClipLabels, label_path, picture_size, read_labels
from bipose_lit.evaluate.clips import Predicted, folder_with, mended, read_predictions
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.metrics import video_pck
from bipose_lit.types import ABSENT, BiposeError

PARTS = ("face", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
"""What published tables list and average: not neck and belly (README of LSTM Pose Machines: 94.09 over all, 93.6 over these)."""
LISTS = {"jhmdb": "splits", "sub_jhmdb": "sub_splits"}
"""Folder of the lists, by protocol."""
BY_MASK, BY_JOINTS = "puppet mask", "box around the joints"
"""Where the size of a person, "bbox", comes from."""

_SIZE_NOTES = {
    BY_MASK: "bbox: the longer side of the box around the puppet mask, as published",
    BY_JOINTS: "bbox: the longer side of the box around the labelled joints, as this folder has no puppet masks; published "
    "numbers are by the box around the mask, which is larger: not to be compared with this one",
}
_COUNTS = ("clips", "frames", "joints", "frames_without_torso", "clips_without_labels", "clips_not_in_split")


@dataclass
class _Truth:
    """Labels of clips by name, read once for all splits, and the paths of their puppet masks."""

    root: Path
    labels: dict[str, ClipLabels] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)

    def add(self, action: str, clip: str) -> bool:
        """Reads a clip; False where it has no labels."""
        name, path = f"{action}/{clip}", label_path(self.root, action, clip)
        if name in self.labels:
            return True
        if not path.exists():
            return False
        self.labels[name], self.masks[name] = read_labels(path), puppet.mask_path(self.root, action, clip)
        return True

    def sizes(self) -> tuple[str, dict[str, NDArray[np.float64]]]:
        """Where the persons' sizes come from, and (T,) of them by clip, in pixels.

        Raises:
            BiposeError: a mask is damaged or of another clip; some clips or frames have masks and others do not.
        """
        there = {name for name, path in self.masks.items() if path.exists()}
        if not there:
            return BY_JOINTS, {
                name: video_pck.joint_size(found.joints, found.visible != ABSENT) for name, found in self.labels.items()
            }
        found = {}
        advice = f"get all of puppet_mask.zip, or move the folder {puppet.FOLDER} away to take the joints' boxes"
        for name, path in self.masks.items():
            if name not in there:
                raise BiposeError(
                    f"{path}: no such mask, though {len(there)} of {len(self.masks)} clips have one; {advice}"
                )
            action, clip = name.split("/", 1)
            corners = puppet.clip_corners(path, len(self.labels[name]), picture_size(self.root, action, clip))
            found[name] = video_pck.corner_size(corners)
            empty = np.flatnonzero(np.isnan(found[name]))
            if len(empty):
                raise BiposeError(f"{path}: no mask with an extent in frame {empty[0]} (counted from 0); {advice}")
        return BY_MASK, found


def evaluate(annotations: Path, predictions: Path, split: str | int = "1", protocol: str = "jhmdb") -> Outcome:
    """Scores predictions of whole clips.

    Predictions and labels are in the same pixels: those of the label files, in which the first pixel is 1.

    Args:
        annotations: the folder that holds joint_positions and the protocol's lists; where it has puppet_mask, sizes come from it.
        predictions: see `clips.read_predictions`; clips are named "CLASS/CLIP". It may be a folder with one such folder or file
            for each split: split1, split2, split3 (.json, .npz).
        split: "1", "2" or "3"; "all" for the mean of the three, each of which follows as "/split1" and so on.
        protocol: "jhmdb" or "sub_jhmdb", see `LISTS`.

    Raises:
        BiposeError: damaged labels or lists, no such lists, an unknown split, masks of some clips or frames alone, or predictions
            that do not fit.
    """
    if str(split) not in ("1", "2", "3", "all"):
        raise BiposeError(f"split {split!r} is none of 1, 2, 3, all")
    chosen = SPLITS if split == "all" else (int(split),)
    folder = _lists(annotations, protocol)
    truth, notes = _Truth(annotations), _notes(folder)
    readers = [JHMDB(annotations, number, splits_folder=folder) for number in chosen]
    tested = [_test_clips(truth, reader) for reader in readers]
    source, sizes = truth.sizes()
    counts = dict.fromkeys(_COUNTS, 0)
    counts["clips_without_labels"] = len({m for r in readers for m in r.members("test")}) - len(
        {c for t in tested for c in t}
    )
    predicted: list[Predicted] = []
    for clips, place in _sources(predictions, chosen, tested):
        scored = {c: truth.labels[c].visible != ABSENT for c in clips}
        predicted.append(read_predictions(place, scored, JHMDB.skeleton))
        counts["clips_not_in_split"] += predicted[-1].extra
    if len(predicted) < len(chosen):
        notes.append(
            "one set of predictions is scored on all splits: fair only if no split's test clips were trained on"
        )
    results = []
    for i, clips in enumerate(tested):
        joints = predicted[i if len(predicted) > 1 else 0].joints
        metrics, scored_counts = _score(truth, clips, joints, sizes)
        results.append(metrics)
        counts = {name: counts[name] + scored_counts.get(name, 0) for name in counts}
    metrics = results[0]
    if len(chosen) > 1:
        metrics = {name: float(np.mean([r[name] for r in results])) for name in metrics}
        for number, result in zip(chosen, results, strict=True):
            metrics |= {f"{name}/split{number}": result[name] for name in video_pck.BY_PART}
        notes.append(
            "the numbers without a split are plain means of the three splits, and so are those of joints; counts are sums"
        )
    notes.append(_SIZE_NOTES[source])
    if counts["clips_without_labels"]:
        notes.append(f"{counts['clips_without_labels']} listed clips have no joint positions and were left out")
    if counts["clips_not_in_split"]:
        notes.append(f"{counts['clips_not_in_split']} predicted clips are not among the test clips and were left out")
    notes += mended({clip: found.remarks for clip, found in truth.labels.items()})
    notes += dict.fromkeys(note for found in predicted for note in found.notes)
    return Outcome(
        protocol, counts, metrics, tuple(notes), {"split": str(split), "lists": folder, "person size": source}
    )


def _lists(annotations: Path, protocol: str) -> str:
    folder = LISTS[protocol]
    others = [p for p, name in LISTS.items() if p != protocol and (annotations / name).is_dir()]
    if not (annotations / folder).is_dir() and others:
        raise BiposeError(
            f"{annotations}: no folder {folder}, whose lists {protocol} scores; for those in {LISTS[others[0]]} say 'bipose "
            f"evaluate {others[0]}'"
        )
    folder_with(annotations, folder, "JHMDB")
    return folder


def _notes(folder: str) -> list[str]:
    return [
        f"test clips by the lists in {folder} ({'sub-JHMDB' if folder == 'sub_splits' else 'JHMDB, not sub-JHMDB'})",
        "coordinates of the predictions are those of the label files: the first pixel is 1, not 0",
        "pck is over all joints of all frames; joint_mean is the plain mean of the 15 joints, part_mean that of face, shoulder, "
        "elbow, wrist, hip, knee and ankle, as published tables have it",
        "torso: left shoulder to right hip",
    ]


def _sources(predictions: Path, chosen: tuple[int, ...], tested: list[list[str]]) -> list[tuple[list[str], Path]]:
    """What to read: the clips of each split from its own place, or those of all splits from one."""
    found = {
        n: next((p for p in (predictions / f"split{n}{s}" for s in ("", ".json", ".npz")) if p.exists()), None)
        for n in SPLITS
    }
    there = [path for path in found.values() if path is not None]
    if not there:
        return [(sorted({c for t in tested for c in t}), predictions)]
    places = []
    for number, clips in zip(chosen, tested, strict=True):
        place = found[number]
        if place is None:
            raise BiposeError(
                f"{predictions}: has {there[0].name}, but nothing for split{number}; predict its test clips"
            )
        places.append((clips, place))
    return places


def _test_clips(truth: _Truth, reader: JHMDB) -> list[str]:
    clips = [f"{action}/{clip}" for action, clip in reader.members("test") if truth.add(action, clip)]
    if not clips:
        folder = reader.root / reader.splits_folder
        raise BiposeError(f"{folder}: split {reader.split} has no test clips with labels; check the split lists")
    return clips


def _score(
    truth: _Truth,
    clips: list[str],
    predicted: dict[str, NDArray[np.float64]],
    sizes: dict[str, NDArray[np.float64]],
) -> tuple[dict[str, float], dict[str, int]]:
    joints = np.concatenate([truth.labels[clip].joints for clip in clips])
    labelled = np.concatenate([truth.labels[clip].visible for clip in clips]) != ABSENT
    by_name = {
        "bbox": np.concatenate([sizes[clip] for clip in clips]),
        "torso": video_pck.torso_size(joints, labelled, JHMDB.skeleton),
    }
    pred = np.concatenate([predicted[clip] for clip in clips])
    counts = {
        "clips": len(clips),
        "frames": len(joints),
        "joints": int(labelled.sum()),
        "frames_without_torso": int((np.isnan(by_name["torso"]) & labelled.any(axis=1)).sum()),
    }
    return video_pck.scores(pred, joints, labelled, by_name, JHMDB.skeleton, PARTS), counts
