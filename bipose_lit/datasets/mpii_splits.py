"""Who may be in which split of MPII Human Pose: pictures of one video, and pictures that the published validation list has.

The owners took several pictures of most videos, and their file names the video of each; the lists that go round (Newell's,
HRNet's) do not. Lists keep the owners' order, as `index` of Newell's h5 shows, and there pictures of one video mostly follow one
another. So runs of `BLOCK` neighbouring entries are held out together, and mostly only the videos at the two ends of a run lie on
both sides. The cluster of a picture stays its name, as nothing tells the video.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.json_labels import FAULTS
from bipose_lit.datasets.mpii_files import People, h5_names, json_entries, names_beside
from bipose_lit.types import BiposeError

BLOCK: Final = 50
"""Entries of a list that are held out together; a twentieth of lists of fewer than 1,000."""

LISTS: Final = ("valid.json", "valid.h5", "valid_images.txt", "mpii_val.json")
"""The published validation list in the forms in which it goes round."""

_K: Final = len(skeletons.MPII)


class _Named(msgspec.Struct):
    image: str


class _Labelled(msgspec.Struct):
    joints: list[list[float]]
    joints_vis: list[float | bool]


def sources(people: People) -> list[str]:
    """(N,) what is held out as a whole: the cluster where the file names one, else a run of neighbours in the list.

    A picture belongs to the run of its first person. Runs go by the position in the file, so that a person who is left out
    moves nobody.
    """
    count = int(people.row[-1]) + 1 if len(people) else 0
    size = min(BLOCK, max(1, count // 20))
    first: dict[str, int] = {}
    for image, row in zip(people.image, people.row.tolist(), strict=True):
        first.setdefault(image, row)
    return [
        cluster or f"block {first[image] // size}" for cluster, image in zip(people.cluster, people.image, strict=True)
    ]


def published_lists(folders: Iterable[Path]) -> list[Path]:
    """The published validation list, in all forms in which it lies in some folders."""
    return [path for folder in dict.fromkeys(folders) for name in LISTS if (path := folder / name).is_file()]


def listed_pictures(path: Path) -> frozenset[str]:
    """File names of the pictures that a list names, those of entries that are no usable person included.

    Args:
        path: a list in HRNet's json or Newell's h5, or a text file with a name a line.

    Raises:
        BiposeError: not such a list, or it names no picture.
    """
    if path.suffix == ".json":
        names = []
        for raw in json_entries(path):
            try:
                names.append(msgspec.json.decode(raw, type=_Named).image)
            except FAULTS:
                continue
    else:
        names = h5_names(path) if path.suffix == ".h5" else names_beside(path)
    if not names:
        raise BiposeError(f"{path}: names no picture; copy or download it again, or remove it")
    return frozenset(names)


def has_labels(path: Path) -> bool:
    """Whether a json list is there and has a person with 16 joints, one of them labelled (HRNet's test.json has none).

    Raises:
        BiposeError: not a JSON list.
    """
    if not path.is_file():
        return False
    for raw in json_entries(path):
        try:
            entry = msgspec.json.decode(raw, type=_Labelled)
        except FAULTS:
            continue
        if len(entry.joints) == len(entry.joints_vis) == _K and any(mark == 1 for mark in entry.joints_vis):
            return True
    return False


def of_listed_videos(people: People, listed: frozenset[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) whether a person's picture is listed, and whether it is of a video of which a picture is listed (those included)."""
    own = np.array([image in listed for image in people.image], bool)
    videos = {cluster for cluster, hit in zip(people.cluster, own, strict=True) if hit and cluster}
    return own, own | np.array([cluster in videos for cluster in people.cluster], bool)
