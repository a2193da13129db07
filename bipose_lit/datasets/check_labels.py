"""`bipose data check`: the labels of one split, and what two splits have in common."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.boxes import without_area
from bipose_lit.datasets.catalogue_entry import OWN, DataSet
from bipose_lit.datasets.findings import Findings, pictures, progress
from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.types import ABSENT

FARTHEST = 1e4
"""Pixels from the origin beyond which nothing lies in a picture of unknown size."""
MARGIN = 1.0
"""Pixels beside a box that count as in it, as joints are rounded and boxes are."""


def check_labels(split: str, index: PoseIndex, wrong: Findings, notes: Findings) -> None:
    """Boxes, joints and ids of one split."""
    K = len(index.skeleton)
    clips: set[str] = set()
    uids = np.concatenate([t.uid for t in index.tracks]) if index.tracks else np.zeros(0, np.int64)
    repeated = len(uids) - len(np.unique(uids))
    if repeated:
        wrong["annotation ids that are not unique"].append(f"{split}: {repeated}")
    for track in progress(index.tracks, f"looking through {split}"):
        T = len(track)
        if track.clip in clips:
            wrong["clips of one name"].append(f"{split}: {track.clip}")
        clips.add(track.clip)
        if track.joints.shape != (T, K, 2) or track.visible.shape != (T, K) or track.boxes.shape != (T, 4) or not T:
            wrong["labels of the wrong shape"].append(f"{track.clip}: {track.joints.shape}, {track.boxes.shape}")
            continue
        _places(track, wrong, notes)


def _places(track: Track, wrong: Findings, notes: Findings) -> None:
    present = track.visible != ABSENT
    joints, box = track.joints.astype(np.float64), track.boxes.astype(np.float64)
    finite = np.isfinite(joints).all(-1)
    _count(wrong, "joints that are not numbers", track, np.asarray(present & ~finite))
    bad = without_area(track.boxes)
    _count(wrong, "boxes without area", track, bad)
    low, high = (box[:, :2] - MARGIN)[:, None], (box[:, :2] + box[:, 2:] + MARGIN)[:, None]
    with np.errstate(invalid="ignore"):
        held = ((joints + 0.5 >= low) & (joints + 0.5 <= high)).all(-1)  # boxes are between edges, joints at centres
    empty = np.asarray(~bad & (present & finite).any(1) & ~(present & held).any(1))
    _count(wrong, "boxes that hold none of the person's joints", track, empty)
    if min(track.image_size) <= 0:
        with np.errstate(invalid="ignore"):
            _count(wrong, f"joints beyond {FARTHEST:,.0f} px", track, present & (np.abs(joints).max(-1) > FARTHEST))
            _count(wrong, f"boxes beyond {FARTHEST:,.0f} px", track, np.asarray((np.abs(box) > FARTHEST).any(1)))
        return
    edge = np.array(track.image_size, np.float64)
    with np.errstate(invalid="ignore"):
        outside = np.asarray(~bad & ((box[:, :2] >= edge) | (box[:, :2] + box[:, 2:] <= 0)).any(1))
        beyond = np.maximum(-0.5 - joints, joints - (edge - 0.5)).max(-1)
    _count(wrong, "boxes outside of the picture", track, outside)
    far = np.asarray(present & (beyond > edge.max() / 2))
    _count(wrong, "joints far outside of the picture", track, far)
    _count(notes, "joints outside of the picture", track, present & (beyond > 0) & ~far)


def _count(findings: Findings, reason: str, track: Track, fault: NDArray[np.bool_]) -> None:
    number = int(fault.sum())
    if number:
        where = f"frame {int(np.flatnonzero(fault.reshape(len(track), -1).any(1))[0])}"
        findings[reason].append(f"{track.clip} ({number}, the first in {where})")


def check_apart(data: DataSet, label: str, found: Mapping[str, PoseIndex], wrong: Findings, notes: Findings) -> None:
    """What two splits have in common: ids, files, and sources, which are a fault where the splits promise to share none."""
    splits = list(found)
    apart = data.apart or data.access == OWN
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            where = f"{label}{a} and {label}{b}"
            uids = [{int(u) for t in found[s].tracks for u in t.uid} for s in (a, b)]
            if both := uids[0] & uids[1]:
                wrong["annotation ids in two splits"].append(f"{where}: {len(both)}, as {min(both)}")
            names = [{name for t in found[s].tracks for name, _ in pictures(t)} for s in (a, b)]
            wrong["files in two splits"] += [f"{where}: {name}" for name in sorted(names[0] & names[1])]
            shared = sorted(set(found[a].clusters) & set(found[b].clusters))
            why = "sources in two splits" + ("" if apart else " (as the owners split it)")
            (wrong if apart else notes)[why] += [f"{where}: {source}" for source in shared]
