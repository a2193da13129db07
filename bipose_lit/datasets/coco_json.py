"""JSON labels in COCO's layout as arrays: persons, images, and the video fields that some sets add.

Format: "Data format" of cocodataset.org, keypoint detection; `ignore` as COCOeval of pycocotools computes it. Fields read:

    images       id, file_name, width, height; optional: video_id or vid_id, frame_id or frame_index, fps, cluster
    annotations  id, image_id, keypoints [x, y, v, ...], bbox [x, y, w, h], area, num_keypoints, iscrowd, category_id;
                 optional: track_id, bbox_head
    categories   id, keypoints (joint names)
    videos       id, file_name; optional: fps

All else is skipped without being built, above all the polygons in `segmentation`: the 240 MB of person_keypoints_train2017.json
are decoded record by record straight into arrays. What a broken record gets is a line in `CocoFile.skipped`.
"""

from __future__ import annotations

import math
import reprlib
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from bipose_lit.datasets import json_labels
from bipose_lit.datasets.index_cache import Arrays, cached, source_digest
from bipose_lit.datasets.json_labels import FAULTS, Skipped, decode_each, inside, read_json, why
from bipose_lit.metrics.instances import Truth
from bipose_lit.types import ABSENT, BiposeError

LIMIT = 1e6
"""Largest coordinate or size of a box in pixels; what lies beyond is a fault of the file."""
MAX_ID = 2**62 - 1
AREA_OF_BOX = 0.53
"""Usual ratio of a person's segment to the box (as xtcocotools has it), for labels without `area`."""
NO_AREA = f"annotations: no area, {AREA_OF_BOX} of the box used"
"""Reason in `CocoFile.skipped`."""
VERSION = source_digest(__file__, json_labels.__file__)
"""Of the cached arrays: other code may read a file otherwise."""

Id = Annotated[int, Meta(ge=0, le=MAX_ID)]
_Side = Annotated[int, Meta(ge=1, le=int(LIMIT))]
_Rate = Annotated[float, Meta(ge=0, le=10000)]


class _File(Struct):
    images: list[Raw]
    annotations: list[Raw]
    categories: list[Raw] = []
    videos: list[Raw] = []


class _Image(Struct):
    id: Id
    file_name: str = ""
    width: _Side | None = None
    height: _Side | None = None
    video_id: Id | str | None = None
    vid_id: Id | str | None = None
    frame_id: Id | None = None
    frame_index: Id | None = None
    fps: _Rate | None = None
    cluster: Id | str | None = None


class _Person(Struct):
    id: Id
    image_id: Id
    category_id: Id | None = None
    keypoints: list[float] | None = None
    num_keypoints: Id | None = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: bool | Annotated[int, Meta(ge=0, le=1)] | None = None
    track_id: Id | None = None
    bbox_head: list[float] | None = None


class _Category(Struct):
    id: Id
    keypoints: list[str] | None = None


class _Video(Struct):
    id: Id | str
    file_name: str
    fps: _Rate | None = None


@dataclass(frozen=True)
class CocoFile:
    """A label file; I images, G persons, K joints. Video fields are "" or -1 where the file has none.

    Attributes:
        truth: the persons as in the file, with crowds and those without a labelled joint; images in the file's order.
        names: (I,) `file_name`, "" where there is none.
        sizes: (I, 2) width and height; 0 where there is none.
        joint_names: of the first category that lists some, else empty.
        categories: ids of the categories that list joints, (1,) where none does.
        listed: ids of all categories.
        skipped: what was left out or mended: {"reason": ["annotations[7] (id 12)", ...]}.
        video: (I,) `video_id` or `vid_id` as text.
        frame: (I,) `frame_id` or `frame_index`.
        fps: (I,) 0 where there is none.
        cluster: (I,) the image's independent source, where the file names it.
        videos: by id as text, `file_name` and fps (0 where there is none).
        num_keypoints: (G,) as in the file, else counted.
        track: (G,) `track_id`.
        head: (G, 4) `bbox_head`, NaN where there is none.
    """

    truth: Truth
    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    joint_names: tuple[str, ...]
    categories: tuple[int, ...]
    listed: tuple[int, ...]
    skipped: Skipped
    video: tuple[str, ...]
    frame: NDArray[np.int64]
    fps: NDArray[np.float64]
    cluster: tuple[str, ...]
    videos: dict[str, tuple[str, float]]
    num_keypoints: NDArray[np.int64]
    track: NDArray[np.int64]
    head: NDArray[np.float64]


def read_coco(path: str | Path, joints: int, cache: bool = True) -> CocoFile:
    """A label file in COCO's layout.

    A person without `bbox` gets the tight box around the labelled joints, without `area` 0.53 of the box, without
    `num_keypoints` the count of the labelled joints; an empty list is as good as none. Each is told in `skipped`, but the last.
    Without `category_id` a person is of the one category that the file lists, or of category 1.

    Args:
        path: the json.
        joints: K; persons with another number of joints are left out.
        cache: keep the arrays of a big file on disk (`index_cache`).

    Raises:
        BiposeError: no such file, no JSON (NaN and Infinity are none), another structure, or not one usable image or
            annotation among those that it lists.
    """
    path = Path(path)
    if not cache:
        return _read(path, joints)
    return cached(path, f"coco-{joints}", VERSION, lambda: _read(path, joints), _pack, _unpack)


def take(truth: Truth, images: NDArray[np.bool_] | None = None, categories: Sequence[int] | None = None) -> Truth:
    """The persons of some images and categories only; `images` (I,) True for those that stay; None for all."""
    kept = truth.images if images is None else truth.images[images]
    rows = np.isin(truth.image, kept)
    if categories is not None:
        rows &= np.isin(truth.category, np.array(categories, np.int64))
    persons = {
        name: getattr(truth, name)[rows]
        for name in ("id", "image", "category", "joints", "visible", "boxes", "area", "crowd", "ignore")
    }
    return Truth(images=kept, **persons)


def differing(names: Sequence[str], joints: Sequence[str]) -> str:
    """Where the joints that labels name differ from a skeleton's, for a message; "" where they do not, or labels name none.

    Capitals, and blanks and hyphens in the place of "_", do not matter.
    """
    plain = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in names]
    if not plain or plain == list(joints):
        return ""
    at = next((i for i, (a, b) in enumerate(zip(plain, joints, strict=False)) if a != b), min(len(plain), len(joints)))
    there, here = (reprlib.repr(j[at]) if at < len(j) else "missing" for j in (names, joints))
    return f"joint {at} is {there} in the labels and {here} in the skeleton"


def _read(path: Path, joints: int) -> CocoFile:
    content = read_json(path, _File, "a label file in COCO's layout")
    skipped: Skipped = defaultdict(list)
    try:
        images = _images(content.images, skipped)
        videos = {}
        for position, video in decode_each(content.videos, _Video, "videos", skipped):
            if not inside(video.file_name):
                skipped["videos: file_name is no path below the folder"].append(f"videos[{position}]")
            else:
                videos[str(video.id)] = (video.file_name, video.fps or 0.0)
        categories = [c for _, c in decode_each(content.categories, _Category, "categories", skipped)]
        listed = tuple(dict.fromkeys(c.id for c in categories))
        usual = listed[0] if len(listed) == 1 else 1
        persons = _persons(content.annotations, joints, images["id"], usual, skipped)
    except BiposeError as error:
        raise BiposeError(f"{path}: {error}") from error
    truth, further = persons
    jointed = [c for c in categories if c.keypoints]
    return CocoFile(
        truth=truth,
        names=images["names"],
        sizes=images["sizes"],
        joint_names=tuple(jointed[0].keypoints or ()) if jointed else (),
        categories=tuple(dict.fromkeys(c.id for c in jointed)) or (1,),
        listed=listed,
        skipped=dict(skipped),
        video=images["video"],
        frame=images["frame"],
        fps=images["fps"],
        cluster=images["cluster"],
        videos=videos,
        **further,
    )


def _images(raws: list[Raw], skipped: Skipped) -> dict[str, Any]:
    kept: dict[int, _Image] = {}
    for position, image in decode_each(raws, _Image, "images", skipped):
        where = f"images[{position}] (id {image.id})"
        if image.id in kept:
            skipped["images: id is there twice, the first one used"].append(where)
        elif image.file_name and not inside(image.file_name):
            skipped["images: file_name is no path below the folder"].append(where)
        else:
            kept[image.id] = image
    if raws and not kept:
        reason, places = next(iter(skipped.items()))
        raise BiposeError(f"none of the {len(raws)} images can be used; {reason}: {places[0]}")
    found = kept.values()
    return {
        "id": np.fromiter(kept, np.int64, len(kept)),
        "names": tuple(i.file_name for i in found),
        "sizes": np.array([(i.width or 0, i.height or 0) for i in found], np.int64).reshape(-1, 2),
        "video": tuple(_text(i.video_id if i.video_id is not None else i.vid_id) for i in found),
        "frame": np.array([_first(i.frame_id, i.frame_index) for i in found], np.int64),
        "fps": np.array([i.fps or 0.0 for i in found], np.float64),
        "cluster": tuple(_text(i.cluster) for i in found),
    }


@dataclass
class _Columns:
    """Persons as they are read, in growing buffers: a file of many empty records must not reserve room for joints."""

    numbers: array[int] = field(
        default_factory=lambda: array("q")
    )  # id, image, category, num_keypoints, track, position
    triples: array[float] = field(default_factory=lambda: array("d"))
    places: array[float] = field(default_factory=lambda: array("d"))  # bbox, bbox_head, area, crowd


def _columns(raws: list[Raw], K: int, category: int, skipped: Skipped) -> _Columns:
    found, unlabelled, unknown = _Columns(), [0.0] * (3 * K), [math.nan] * 4
    numbers, triples, places = found.numbers.fromlist, found.triples.fromlist, found.places.fromlist
    decode = msgspec.json.Decoder(_Person).decode
    for position, raw in enumerate(raws):
        try:
            person = decode(raw)
        except FAULTS as error:
            skipped[f"annotations: {why(error)}"].append(f"annotations[{position}]")
            continue
        if fault := _shape_fault(person, K):
            skipped[f"annotations: {fault}"].append(f"annotations[{position}] (id {person.id})")
            continue
        if not person.keypoints:
            skipped["annotations: no keypoints, taken as not labelled"].append(
                f"annotations[{position}] (id {person.id})"
            )
        triples(person.keypoints or unlabelled)
        area = math.nan if person.area is None else person.area
        places([*(person.bbox or unknown), *(person.bbox_head or unknown), area, float(person.iscrowd or 0)])
        count, track = _first(person.num_keypoints), _first(person.track_id)
        of = category if person.category_id is None else person.category_id
        numbers([person.id, person.image_id, of, count, track, position])
    return found


def _persons(
    raws: list[Raw], K: int, images: NDArray[np.int64], category: int, skipped: Skipped
) -> tuple[Truth, dict[str, NDArray[Any]]]:
    columns = _columns(raws, K, category, skipped)
    numbers = np.frombuffer(columns.numbers, np.int64).reshape(-1, 6)
    xyv = np.frombuffer(columns.triples).reshape(-1, K, 3)
    places = np.frombuffer(columns.places).reshape(-1, 10)
    boxes, head, area = places[:, :4].copy(), places[:, 4:8], places[:, 8].copy()
    labelled = xyv[:, :, 2] != ABSENT

    def tell(reason: str, rows: NDArray[np.bool_]) -> None:
        if rows.any():
            skipped[f"annotations: {reason}"] += [f"annotations[{n[5]}] (id {n[0]})" for n in numbers[rows].tolist()]

    unboxed = np.isnan(boxes).any(axis=1)
    around = unboxed & labelled.any(axis=1)
    if around.any():
        shown, xy = labelled[around][..., None], xyv[around][..., :2]
        low, high = np.where(shown, xy, np.inf).min(axis=1), np.where(shown, xy, -np.inf).max(axis=1)
        boxes[around] = np.concatenate([low, high - low + 1], axis=1)
    bad, repeated = np.zeros((2, len(numbers)), np.bool_)
    for reason, mask in (
        ("image_id is not among the images", ~np.isin(numbers[:, 1], images)),
        ("keypoints beyond a million pixels", (np.abs(xyv[:, :, :2]) > LIMIT).any(axis=(1, 2))),
        ("keypoints hold a visibility that is none of 0, 1, 2", ~np.isin(xyv[:, :, 2], (0, 1, 2)).all(axis=1)),
        ("neither bbox nor labelled joints", unboxed & ~around),
        ("bbox beyond a million pixels", (np.abs(boxes) > LIMIT).any(axis=1)),
        ("bbox of negative size", (boxes[:, 2:] < 0).any(axis=1)),
        ("bbox_head beyond a million pixels", (np.abs(head) > LIMIT).any(axis=1)),
        ("bbox_head of negative size", (head[:, 2:] < 0).any(axis=1)),
        ("area is negative or beyond a million pixels squared", (area < 0) | (area > LIMIT**2)),
    ):
        tell(reason, mask & ~bad)
        bad |= mask
    good = np.flatnonzero(~bad)
    _, first = np.unique(numbers[good, 0], return_index=True)
    repeated[np.delete(good, first)] = True
    tell("id is there twice, the first one used", repeated)
    good = good[np.sort(first)]
    if len(raws) and not len(good):
        reason, where = next((r, w) for r, w in skipped.items() if r.startswith("annotations"))
        raise BiposeError(f"none of the {len(raws)} annotations can be used; {reason}: {where[0]}")
    usable = np.isin(np.arange(len(numbers)), good)
    tell("no bbox, the labelled joints' box used", around & usable)
    guessed = np.isnan(area) & usable
    tell(NO_AREA.removeprefix("annotations: "), guessed)
    area[guessed] = AREA_OF_BOX * boxes[guessed, 2] * boxes[guessed, 3]
    numbers = numbers[good]
    count, crowd = numbers[:, 3].copy(), places[good, 9] != 0
    count[count < 0] = labelled[good].sum(axis=1)[count < 0]
    truth = Truth(
        images=images, id=numbers[:, 0].copy(), image=numbers[:, 1].copy(), category=numbers[:, 2].copy(),
        joints=xyv[good, :, :2], visible=xyv[good, :, 2].astype(np.uint8), boxes=boxes[good], area=area[good],
        crowd=crowd, ignore=crowd | (count == 0),
    )  # fmt: skip
    return truth, {"num_keypoints": count, "track": numbers[:, 4].copy(), "head": head[good]}


def _shape_fault(person: _Person, joints: int) -> str:
    if person.keypoints and len(person.keypoints) != 3 * joints:
        return f"keypoints are {len(person.keypoints)} numbers, expected {3 * joints} ({joints} joints)"
    for name, box in (("bbox", person.bbox), ("bbox_head", person.bbox_head)):
        if box and len(box) != 4:
            return f"{name} is {len(box)} numbers, expected 4"
    return ""


def _text(value: int | str | None) -> str:
    return "" if value is None else str(value)


def _first(*values: int | None) -> int:
    return next((v for v in values if v is not None), -1)


_PERSONS = ("id", "image", "category", "joints", "visible", "boxes", "area", "crowd", "ignore")
_FURTHER = ("sizes", "frame", "fps", "num_keypoints", "track", "head")
_TEXTS = ("names", "joint_names", "categories", "listed", "skipped", "video", "cluster", "videos")


class _Texts(Struct):
    names: tuple[str, ...]
    joint_names: tuple[str, ...]
    categories: tuple[int, ...]
    listed: tuple[int, ...]
    skipped: dict[str, list[str]]
    video: tuple[str, ...]
    cluster: tuple[str, ...]
    videos: dict[str, tuple[str, float]]


def _pack(file: CocoFile) -> Arrays:
    texts = msgspec.json.encode(_Texts(**{name: getattr(file, name) for name in _TEXTS}))
    arrays: Arrays = {name: getattr(file.truth, name) for name in ("images", *_PERSONS)}
    return {**arrays, **{name: getattr(file, name) for name in _FURTHER}, "texts": np.frombuffer(texts, np.uint8)}


def _unpack(arrays: Arrays) -> CocoFile:
    texts = msgspec.json.decode(arrays["texts"].tobytes(), type=_Texts)
    truth = Truth(**{name: arrays[name] for name in ("images", *_PERSONS)})
    further: dict[str, Any] = {name: arrays[name] for name in _FURTHER}
    if not len(texts.names) == len(truth.images) == len(further["sizes"]) or len(truth.joints) != len(further["track"]):
        raise ValueError("arrays that do not fit together")
    return CocoFile(truth=truth, **{name: getattr(texts, name) for name in _TEXTS}, **further)
