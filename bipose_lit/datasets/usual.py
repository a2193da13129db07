"""What readers leave out or mend in sound official files, by reader: all else that they tell is a fault of these files.

Reasons stand here word for word, so that a new one counts as a fault until somebody has looked at it; a test holds that each
is one that readers tell.
"""

from __future__ import annotations

from collections.abc import Mapping

from bipose_lit.datasets.index import Reader

_LIST = "published validation list"
_COCO_LAYOUT = frozenset(
    {
        "annotations: no area, 0.53 of the box used",
        "annotations: no keypoints, taken as not labelled",
    }
)
_MPII = frozenset(
    {
        "head size unknown, not in PCKh",
        "head sizes from neck to head top, no head box known: the measure is named estimated_head",
        "no centre or scale, the joints' box used",
        "no labelled joint",
        "persons without joints",
        f"{_LIST} is not here, so its pictures are in train and val: scoring it after training on this file leaks",
        f"{_LIST}: its pictures and others of their videos, left out of train and val",
    }
)

USUAL: Mapping[str, frozenset[str]] = {
    "COCO": _COCO_LAYOUT
    | {
        "crowds",
        "persons of a category without joints",
        "persons without a labelled joint",
        "persons without area",
    },
    "VideoJSON": _COCO_LAYOUT
    | {
        "annotations: a category_id without joints",
        "annotations: a crowd",
        "annotations: no bbox, the labelled joints' box used",
        "neighbouring labels are *",
        "no labelled joint",
    },
    "MPII": _MPII,
    "MPIISequences": _MPII | {"fewer frames around the picture, shorter clip", "pictures without frames"},
    "PennAction": frozenset(
        {
            "boxes missing at the end, last one repeated",
            "boxes without area, the joints' box used",
            "no labelled joint",
            "nframes is not the number of labelled frames, the latter used",
        }
    ),
    "JHMDB": frozenset(
        {
            "frames without puppet mask, the joints' box used",
            "no labelled joint",
            "no puppet mask, the joints' box used",
        }
    ),
    "PoseTrack18": frozenset(
        {
            "boxes without area, one around joints and head used",
            "persons without a labelled joint",
        }
    ),
    # Detections of some videos go on after the last position (VideoPose3D's run.py, where both are cut alike).
    "H36M": frozenset(
        {
            "never in front of the camera",
            "no labelled joint",
            "positions and detections differ in number, common start used",
        }
    ),
    "Mocap": frozenset(
        {
            "first frame is the rest pose, left out",
            "head_top estimated, as the file has no node for it",
            "never in front of the camera",
        }
    ),
}
"""Reasons in `PoseIndex.skipped` by the name of the reader's class; one that ends in * goes on with numbers."""

TOLD_OF_FILES = frozenset({"pictures that are not on this disk, kept without their size"})
"""Reasons that `data check` tells itself when it looks for the files."""


def is_usual(reader: Reader, reason: str) -> bool:
    """Whether a reason of `PoseIndex.skipped` is none to worry about in this reader's format."""
    usual = USUAL.get(type(reader).__name__, frozenset())
    return reason in usual or any(word[-1] == "*" and reason.startswith(word[:-1]) for word in usual)
