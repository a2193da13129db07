"""PoseTrack18's JSON files: labels of a sequence (or several), predictions and detections, checked before anyone counts.

A file is {"images": [...], "annotations": [...], "categories": [...]}, like COCO's, with `keypoints` of 17 slots (x, y, 0 or
1), `bbox`, `bbox_head` and `track_id`; images have `file_name` (images/val/SEQ/000000.jpg) and, where a region was not
labelled, the polygons `ignore_regions_x`, `ignore_regions_y`. What counts as a joint follows poseval's `convert.py`: all but
those of which x, y and the third number are 0. Joints are found by the categories' names where the file has them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.json_labels import FAULTS, read_json, why
from bipose_lit.metrics.posetrack import JOINTS
from bipose_lit.skeletons import POSETRACK18
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]
T = TypeVar("T")
Bools = NDArray[np.bool_]

LIMIT = 1e6
"""Pixels; larger coordinates in labels are damage."""

_MAX_ID = 2**62
_WHAT = "PoseTrack18's JSON"
NO_HEAD = "persons without a head box, kept as labelled, no prediction can match them"
NO_TRACK = "persons without a usable track id, kept as a track of their own"


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: float | None = None
    height: float | None = None
    ignore_regions_x: list[list[float]] | None = None
    ignore_regions_y: list[list[float]] | None = None


class _Category(msgspec.Struct):
    keypoints: list[str] | None = None


class _LabelFile(msgspec.Struct):
    images: list[_Image]
    annotations: list[msgspec.Raw]
    categories: list[_Category] | None = None


class _Label(msgspec.Struct):
    image_id: int
    keypoints: list[float]
    id: Any = None  # what AP does not need must not cost the person
    track_id: Any = None
    bbox: Any = None
    bbox_head: Any = None


class _ResultImage(msgspec.Struct):
    id: int


class _ResultFile(msgspec.Struct):
    images: list[_ResultImage]
    annotations: list[msgspec.Raw]
    categories: list[_Category] | None = None


class _Result(msgspec.Struct):
    image_id: int
    keypoints: list[float]
    scores: list[float] | None = None


class _Detection(msgspec.Struct):
    image_id: int
    bbox: list[float]
    score: float
    category_id: int = 1


@dataclass(frozen=True)
class Picture:
    """An image of a label file.

    Attributes:
        id: the data set's, e.g. 10128340000.
        name: path relative to the data set's root.
        number: of the frame, from its name.
        size: width and height in pixels; 0, 0 where the file does not say.
        regions: ignore regions, (V, 2) corners each.
    """

    id: int
    name: str
    number: int
    size: tuple[int, int]
    regions: tuple[Floats, ...]

    @property
    def sequence(self) -> str:
        """The frames' folder relative to the root, e.g. "images/val/012834_mpii_test"."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class Person:
    """A labelled person in an image; 17 slots as in `skeletons.POSETRACK18`.

    Attributes:
        image: the image's id.
        where: for messages.
        id: annotation id; -1 where the file has none, or one out of range.
        track: track id; None where the file has none, or none that is usable.
        xy: (17, 2) original pixels.
        seen: (17,) the third number is not 0.
        there: (17,) the joint counts as labelled in poseval: x, y and the third number are not all 0.
        box: (4,) x, y, w, h; None where the file has none, or one out of all bounds.
        head: (4,) x, y, w, h of the head's box; NaN where the file has none: the person counts as labelled and cannot be matched.
        remarks: what was wrong with a person who is kept.
    """

    image: int
    where: str
    id: int
    track: int | None
    xy: Floats
    seen: Bools
    there: Bools
    box: Floats | None
    head: Floats
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """What a label file holds.

    Attributes:
        path: of the file.
        pictures: by image id, in the file's order.
        persons: in the file's order.
        faults: (reason, where) of persons that were left out as they cannot be read.
    """

    path: Path
    pictures: dict[int, Picture]
    persons: tuple[Person, ...]
    faults: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Found:
    """A predicted person: (17, 2) pixels, (17,) whether the joint is there, (17,) scores."""

    xy: Floats
    there: Bools
    score: Floats


@dataclass(frozen=True)
class Results:
    """What a file of predictions holds: the images that it speaks of, and the persons of each in the file's order."""

    path: Path
    images: frozenset[int]
    persons: dict[int, list[Found]] = field(default_factory=dict)


@dataclass(frozen=True)
class Detection:
    """A detected person: image id, (4,) x, y, w, h, score, and how many of the file's detections in the image came before."""

    image: int
    box: Floats
    score: float
    rank: int


def read_labels(path: Path) -> Labels:
    """A label file; persons that cannot be read are left out and told in `Labels.faults`.

    Raises:
        BiposeError: no such file, not this format, a repeated or unusable image.
    """
    content = _read(path, _LabelFile)
    pictures: dict[int, Picture] = {}
    for image in content.images:
        if image.id in pictures:
            raise BiposeError(f"{path}: image id {image.id} is there twice; mend the file")
        pictures[image.id] = _picture(path, image)
    columns, count = _columns(path, content.categories)
    persons: list[Person] = []
    faults: list[tuple[str, str]] = []
    for position, raw in enumerate(content.annotations):
        where = f"{path.name} annotations[{position}]"
        person = _person(raw, where, pictures, columns, count)
        if isinstance(person, str):
            faults.append((person, where))
        else:
            persons.append(person)
    return Labels(path, pictures, tuple(persons), tuple(faults))


def read_results(path: Path) -> Results:
    """A file of predictions.

    Raises:
        BiposeError: no such file, not this format, a person without scores, of an image that `images` does not list, with
            the wrong number of keypoints or scores, or with a number that is not finite.
    """
    content = _read(path, _ResultFile)
    images = frozenset(image.id for image in content.images)
    columns, count = _columns(path, content.categories)
    persons: dict[int, list[Found]] = {}
    for position, raw in enumerate(content.annotations):
        where = f"{path}: annotations[{position}]"
        try:
            result = msgspec.json.decode(raw, type=_Result)
        except FAULTS as error:
            raise BiposeError(f"{where} is not readable ({why(error)}); mend the predictions") from error
        if result.image_id not in images:
            raise BiposeError(
                f"{where} has image_id {result.image_id}, which images does not list; mend the predictions"
            )
        if not result.scores:
            raise BiposeError(f"{where} has no scores; give one score per keypoint slot, as AP ranks joints by them")
        if len(result.keypoints) != 3 * count or len(result.scores) != count:
            raise BiposeError(
                f"{where} has {len(result.keypoints)} numbers in keypoints and {len(result.scores)} scores, "
                f"expected {3 * count} and {count}"
            )
        values, score = np.array(result.keypoints).reshape(count, 3), np.array(result.scores)
        if not np.isfinite(values).all() or not np.isfinite(score).all():
            raise BiposeError(f"{where} holds a number that is not finite; mend the predictions")
        there = (values != 0).any(axis=1)
        persons.setdefault(result.image_id, []).append(
            Found(_spread(values[:, :2], columns), _spread(there, columns), _spread(score, columns))
        )
    return Results(path, images, persons)


def read_detections(path: Path) -> tuple[list[Detection], list[tuple[str, str]]]:
    """A file of person detections: a list of {"image_id", "category_id", "bbox", "score"}.

    Returns:
        The persons, and (reason, where) of what was left out.

    Raises:
        BiposeError: no such file, or not a list.
    """
    found: list[Detection] = []
    faults: list[tuple[str, str]] = []
    ranks: dict[int, int] = {}
    for position, raw in enumerate(read_json(path, list[msgspec.Raw], "a list of detections")):
        where = f"{path.name} [{position}]"
        try:
            detection = msgspec.json.decode(raw, type=_Detection)
        except FAULTS:
            faults.append(("detections that cannot be read", where))
            continue
        rank = ranks[detection.image_id] = ranks.get(detection.image_id, -1) + 1
        box = _box(detection.bbox)
        if detection.category_id != 1:
            faults.append(("detections of other things than persons", where))
        elif box is None or not (box[2:] > 0).all():
            faults.append(("detections without a usable box", where))
        elif not 0 <= detection.score <= 1:
            faults.append(("detections with a score that is not from 0 to 1", where))
        else:
            found.append(Detection(detection.image_id, box, detection.score, rank))
    return found, faults


def frame_number(name: str) -> int | None:
    """The number of a frame from its file's name, "images/val/SEQ/000012.jpg" -> 12; None where it has none."""
    match = re.fullmatch(r"(?:.*/)?(\d{1,9})\.\w+", name, re.ASCII)
    return int(match[1]) if match else None


def _read(path: Path, kind: type[T]) -> T:
    try:
        return read_json(path, kind, _WHAT)
    except BiposeError as error:
        try:
            old = "annolist" in read_json(path, dict[str, msgspec.Raw], _WHAT)
        except BiposeError:
            old = False
        if not old:
            raise
        raise BiposeError(f"{path}: has annolist, as PoseTrack17's files; convert it to PoseTrack18's JSON") from error


def _picture(path: Path, image: _Image) -> Picture:
    number, parts = frame_number(image.file_name), image.file_name.split("/")
    usual = image.file_name.isprintable() and "\\" not in image.file_name and not {"", ".", ".."} & set(parts)
    if number is None or len(parts) < 2 or not usual:
        raise BiposeError(f"{path}: file_name {image.file_name!r:.200} is not like images/val/SEQ/000000.jpg")
    if not 0 <= image.id < _MAX_ID:
        raise BiposeError(f"{path}: image id {image.id} is out of range; mend the file")
    xs, ys = image.ignore_regions_x or [], image.ignore_regions_y or []
    if [len(x) for x in xs] != [len(y) for y in ys]:
        raise BiposeError(f"{path}: ignore regions of image {image.id} have more x than y or fewer; mend the file")
    regions = tuple(np.array([x, y], np.float64).T for x, y in zip(xs, ys, strict=True))
    if not all(_usual(region) for region in regions):
        raise BiposeError(f"{path}: an ignore region of image {image.id} is out of all bounds; mend the file")
    width, height = image.width or 0, image.height or 0
    size = (int(width), int(height)) if 1 <= width <= LIMIT and 1 <= height <= LIMIT else (0, 0)
    return Picture(image.id, image.file_name, number, size, regions)


def _person(
    raw: msgspec.Raw, where: str, pictures: dict[int, Picture], columns: NDArray[np.int64], count: int
) -> Person | str:
    """The person, or why there is none."""
    try:
        label = msgspec.json.decode(raw, type=_Label)
    except FAULTS:
        return "persons that cannot be read"
    if label.image_id not in pictures:
        return "persons of images that the file does not list"
    if len(label.keypoints) != 3 * count:
        return "persons with a wrong number of keypoints"
    values = np.array(label.keypoints).reshape(count, 3)
    if not _usual(values) or not np.isin(values[:, 2], (0, 1, 2)).all():
        return "persons with keypoints out of all bounds"
    head, number, track = _box(label.bbox_head), _number(label.id), _number(label.track_id)
    remarks = []
    if head is None:
        remarks.append(NO_HEAD)
    if track is None and label.track_id is not None:
        remarks.append(NO_TRACK)
    return Person(
        image=label.image_id,
        where=where if number is None else f"{where} (id {number})",
        id=number if number is not None and number >= 0 else -1,
        track=track,
        xy=_spread(values[:, :2], columns),
        seen=_spread(values[:, 2] != 0, columns),
        there=_spread((values != 0).any(axis=1), columns),
        box=_box(label.bbox),
        head=np.full(4, np.nan) if head is None else head,
        remarks=tuple(remarks),
    )


def _usual(values: Floats) -> bool:
    return bool(np.isfinite(values).all() and (np.abs(values) <= LIMIT).all())


def _number(value: Any) -> int | None:
    """A whole number that fits; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_ID else None


def _box(numbers: Any) -> Floats | None:
    """(4,) x, y, w, h; None for anything else."""
    if not isinstance(numbers, list) or len(numbers) != 4 or any(type(n) not in (int, float) for n in numbers):
        return None
    box = np.array(numbers, np.float64)
    return box if _usual(box) else None


def _columns(path: Path, categories: Sequence[_Category] | None) -> tuple[NDArray[np.int64], int]:
    """(17,) where the file has each slot's joint, -1 for nowhere; and how many joints a person has in the file."""
    names = next((c.keypoints for c in categories or () if c.keypoints), list(POSETRACK18.joints))
    missing = [joint for joint in JOINTS if names.count(joint) != 1]
    if missing:
        raise BiposeError(f"{path}: its category lacks the joint {missing[0]}, or has it twice; is it PoseTrack18's?")
    return np.array([names.index(j) if j in names else -1 for j in POSETRACK18.joints], np.int64), len(names)


def _spread(values: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[Any]:
    """Rows in the skeleton's order; 0 or False where the file has none."""
    chosen = values[columns]
    chosen[columns < 0] = 0
    return chosen
