"""The owners' own label file of MPII Human Pose, mpii_human_pose_v1_u12_1.mat (in the archive ..._u12_2.zip), and its video map.

    RELEASE.annolist(i).image.name          picture
    RELEASE.annolist(i).vididx              video it was taken from
    RELEASE.annolist(i).annorect(r)         persons: x1, y1, x2, y2 (head box), scale, objpos.x, objpos.y,
                                            annopoints.point(k).{id, x, y, is_visible}, id from 0
    RELEASE.img_train(i)                    1: labels are public; 0: test picture, whose joints are withheld
    RELEASE.single_person{i}                numbers r of persons that stand apart from others

    mpii_human_pose_v1_sequences_keyframes.mat: annolist_keyframes(i).image.name, "STEM/NNNNNNNN.jpg": the folder of frames around
    picture STEM.jpg and the frame in it that is the picture.

Written after the owners' description and published readers of it, and tested on files made in that layout; the release itself
was not at hand. `is_visible` comes as a number or as text and is empty for neck and head top, which the head box gave: seen.
A person without annopoints is in the picture, but nobody labelled the joints.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.mpii_files import (
    Floats,
    People,
    Skipped,
    centre_and_scale,
    head_size,
    image_name,
    mat_arrays,
    settle,
)
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

NAMES: Final = ("mpii_human_pose_v1_u12_1.mat", "mpii_human_pose_v1_u12_2.mat")
FOLDERS: Final = ("", "annot", "mpii_human_pose_v1_u12_2", "mpii_human_pose_v1_u12_1")
NO_JOINTS: Final = "persons without joints"
KEYFRAMES: Final = "mpii_human_pose_v1_sequences_keyframes.mat"

_K: Final = len(skeletons.MPII)


def find_release(root: Path) -> Path | None:
    """The owners' label file in a folder or where its archive puts it; None if it is not there."""
    places = (root / folder / name for folder in FOLDERS for name in NAMES)
    return next((path for path in places if path.is_file()), None)


def read_release(path: Path, single: bool = False) -> People:
    """All labelled persons of the training pictures, in the file's order. The cluster is "video N", "" where none is known.

    Args:
        path: the .mat.
        single: only those who stand apart from others (`single_person`).

    Raises:
        BiposeError: not this file, or nobody labelled in it.
    """
    release = _records(mat_arrays(path, ("RELEASE",))["RELEASE"])
    if not release:
        raise BiposeError(f"{path}: RELEASE is not a structure; is it MPII's label file?")
    pictures = _records(_field(release[0], "annolist"))
    trains = _field(release[0], "img_train").ravel()
    apart = _field(release[0], "single_person").ravel()
    if not pictures or len(trains) != len(pictures) or (single and len(apart) != len(pictures)):
        raise BiposeError(
            f"{path}: annolist, img_train and single_person have {len(pictures)}, {len(trains)} and {len(apart)} entries, "
            "expected as many of each; copy or download it again"
        )
    skipped: Skipped = defaultdict(list)
    rows: list[tuple[str, int, str, Floats, NDArray[np.uint8], Floats, float, Floats]] = []
    for i, picture in enumerate(pictures):
        if _number(trains[i]) != 1:
            continue
        name = _text(_nested(picture, "image", "name"))
        if not image_name(name):
            skipped["names that cannot be a picture's"].append(f"annolist({i + 1})")
            continue
        video = _number(_field(picture, "vididx"))
        cluster = f"video {int(video)}" if 0 < video < 1e9 else ""
        alone = {_number(v) for v in np.asarray(apart[i]).ravel()} if single else set()
        for number, person in enumerate(_records(_field(picture, "annorect"))):
            if single and number + 1 not in alone:
                continue
            at = f"{name}/{number}"
            found = _points(person)
            if found is None:
                skipped[NO_JOINTS].append(at)
            elif isinstance(found, str):
                skipped[found].append(at)
            else:
                box = np.array([[_number(_field(person, f"{axis}{k}")) for axis in "xy"] for k in (1, 2)])
                objpos = np.array([_number(_nested(person, "objpos", axis)) for axis in "xy"])
                rows.append((name, number, cluster, *found, objpos, _number(_field(person, "scale")), box))
    if not rows:
        why = "; ".join(f"{reason}: {len(where)}" for reason, where in skipped.items())
        raise BiposeError(f"{path}: nobody is labelled in it ({why or 'no training picture'}); download it again")
    names, ordinals, clusters, places, marks, objpos_, scales, boxes = zip(*rows, strict=True)
    who = [f"{name}/{number}" for name, number in zip(names, ordinals, strict=True)]
    joints, visible = settle(np.stack(places), np.stack(marks), who, skipped)
    centre, scale = centre_and_scale(np.stack(objpos_), np.array(scales, np.float64))
    return People(
        row=np.arange(len(rows)),
        image=names,
        person=ordinals,
        joints=joints,
        visible=visible,
        centre=centre,
        scale=scale,
        head=head_size(np.stack(boxes)),
        cluster=clusters,
        skipped=dict(skipped),
    )


def read_keyframes(path: Path) -> dict[str, str]:
    """For each picture's stem the name of its frame: {"015601864": "00000023.jpg", ...}.

    Raises:
        BiposeError: not this file, or no entry can be read.
    """
    found: dict[str, str] = {}
    for entry in _records(mat_arrays(path, ("annolist_keyframes",))["annolist_keyframes"]):
        match = re.fullmatch(r"([\w-]{1,100})/(\d{1,12}\.\w{1,8})", _text(_nested(entry, "image", "name")), re.ASCII)
        if match:
            found[match[1]] = match[2]
    if not found:
        raise BiposeError(f"{path}: names no frame as STEM/NNNNNNNN.jpg; download it again")
    return found


def _points(person: Any) -> tuple[Floats, NDArray[np.uint8]] | str | None:
    """Joints and visibilities of one person; None if it has no points; a reason if they make no sense."""
    joints, visible = np.full((_K, 2), np.nan), np.full(_K, ABSENT, np.uint8)
    given = _field(person, "annopoints")
    value = _nested(person, "annopoints", "point") if _records(given) else given
    points = _records(value)
    if not points:
        return "joints that are not points" if value.size else None
    for point in points:
        number = _number(_field(point, "id"))
        if number not in range(_K):
            return f"joint numbers outside 0 to {_K - 1}"
        k = int(number)
        if visible[k] != ABSENT:
            return "joints labelled twice"
        joints[k] = _number(_field(point, "x")), _number(_field(point, "y"))
        visible[k] = OCCLUDED if _number(_field(point, "is_visible")) == 0 else VISIBLE
    return joints, visible


def _records(value: NDArray[Any]) -> list[Any]:
    """The structures of a structure array (or of cells that hold them); none of anything else."""
    if value.dtype.names is not None:
        return list(value.ravel())
    if value.dtype.kind == "O":
        return [record for cell in value.ravel() for record in _inner(cell)]
    return []


def _inner(cell: Any) -> Iterator[Any]:
    if isinstance(cell, np.ndarray) and cell.dtype.names is not None:
        yield from cell.ravel()


def _field(record: Any, name: str) -> NDArray[Any]:
    """A field of a structure as an array; empty if it is missing."""
    names = getattr(getattr(record, "dtype", None), "names", None) or ()
    return np.asarray(record[name]) if name in names else np.empty(0)


def _nested(record: Any, *names: str) -> NDArray[Any]:
    """A field of the first structure in a field of ...; empty if one of them is missing."""
    for name in names[:-1]:
        inner = _records(_field(record, name))
        if not inner:
            return np.empty(0)
        record = inner[0]
    return _field(record, names[-1])


def _number(value: Any) -> float:
    """One number, or text that is one; NaN for anything else."""
    array = np.asarray(value)
    while array.dtype.kind == "O" and array.size == 1 and isinstance(array.item(), np.ndarray):
        array = array.item()
    if array.size != 1 or array.dtype.kind not in "fiubUS":
        return float("nan")
    try:
        return float(array.item())
    except (ValueError, OverflowError):
        return float("nan")


def _text(value: NDArray[Any]) -> str:
    while value.dtype.kind == "O" and value.size == 1 and isinstance(value.item(), np.ndarray):
        value = value.item()
    return str(value.item()) if value.size == 1 and value.dtype.kind == "U" else ""
