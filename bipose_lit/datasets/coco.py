"""COCO keypoints 2017 (Lin et al. 2014): 17 joints of persons in single images.

Tree:
    annotations/person_keypoints_{train,val}2017.json    as `coco_json` says
    {train,val}2017/000000000139.jpg

Splits: COCO publishes labels of train2017 and val2017, and numbers are published on val2017. So "test" is val2017, and "val" a
share of train2017 held out by image; see the argument `test`. An image is known by its `file_name`, so two splits that list one
name share a source; labels whose names begin anew in each file tell their images apart by the field `cluster`.

Coordinates: the labels count pixels from 0, so joints are taken as they are (a pixel's centre is at its number), and predictions
are compared in the file's own numbers, as pycocotools does.

Boxes: as in the reference code of Simple Baselines (Xiao et al. 2018, lib/dataset/coco.py), which most published numbers share.
Persons whose `area` is not positive are left out; a labelled box x, y, w, h gets the corners x1 = max(0, x), y1 = max(0, y),
x2 = min(width - 1, x1 + max(0, w - 1)), y2 = min(height - 1, y1 + max(0, h - 1)), and the person is left out where x2 < x1 or
y2 < y1. Corners are centres of pixels there, so in this package's edge coordinates the box is x1 + 0.5, y1 + 0.5, x2 - x1,
y2 - y1. A detector's box is not clipped there; it is moved by the same half pixel. A side below one pixel becomes one, about the
same centre; that of a labelled box is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.boxes import track_norms
from bipose_lit.datasets.coco_json import LIMIT, CocoFile, Id, differing, read_coco, take
from bipose_lit.datasets.frames import FolderFrames
from bipose_lit.datasets.index import Entry, PoseIndex, Track
from bipose_lit.datasets.json_labels import Skipped, decode_each, in_file, read_json, told
from bipose_lit.datasets.labels import hold_out
from bipose_lit.datasets.scenes import SceneIndex, make_scenes
from bipose_lit.metrics.coco_scoring import CocoScoring, crop_areas
from bipose_lit.types import ABSENT, NORMS, AbsentSplitError, BiposeError

BOX_RULES = ("gt-box", "det-box")
TESTS = ("auto", "val2017", "test2017")
_ORDINAL_BITS, _DETECTED = 24, 1 << 62
_MAX_IMAGE = 1 << 38  # that a detection's id has room for

# image, category, box, score; tracks, image, category, box score
_Boxes = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
_Found = tuple[list[Track], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


class _Detection(msgspec.Struct):
    image_id: Id
    bbox: list[float]
    score: float
    category_id: Id | None = None


class COCO:
    """Reader of COCO's keypoint labels; a still is a track of one frame.

    Tracks are the persons of the categories that list joints, no crowds, with num_keypoints > 0 and a joint that is labelled.
    Their `uid` is the annotation's id. Norms: bbox and clip, the longer side of the box as labelled; area, the root of the
    labelled area; torso; no head. `index(...).scoring` is COCO's AP over all images of the split and all labels of the
    categories that list joints.

    Args:
        root: the folder that holds `annotations` and the folders of images (labels alone can be indexed).
        box_rule: "gt-box", the labelled boxes; "det-box", a detector's: tracks have no labels then, `box_score` is the
            detector's and `uid` is 2^62 + image id x 2^24 + number of the box in its image, in the file's order. Whatever is
            made of train2017 has labelled boxes under either rule, as there is no training without labels.
        detections: for "det-box", a json list of image_id, category_id, bbox, score, as
            COCO_val2017_detections_AP_H_56_person.json; relative to root or absolute, {split} stands for val or test.
        annotations: label files relative to root; {split} stands for train, val or test.
        images: folders of images relative to root, likewise.
        test: "val2017": "test" is val2017 and "val" is held out of train2017. "test2017": a set with labels for all three
            (bipose's own synthetic stills; COCO's are not public), each split its file. "auto": the latter if there is a
            label file for test, else the former.
        val_fraction: share of the training images (of the sources, where images name a `cluster`) that is held out; 0 trains
            on all of train2017, and there is no "val".
        min_score: detections below it are not used.
        nms: for the scoring, OKS above which the lower of two predictions is dropped; null keeps all. OKS between predictions
            takes the area of the box widened to 3:4 and by 1.25, as the reference code does (`crop_areas`).
        strict: no effect here: a split has one label file, so that a damaged one is an error either way.
        cache: keep the arrays of big label files on disk (`index_cache`).
        name: first part of the index's name.

    Raises:
        BiposeError: the folder is not in this layout, or an argument is out of range.
    """

    skeleton = skeletons.COCO
    layout: tuple[Entry, ...] = (
        Entry("annotations/person_keypoints_train2017.json", "persons, boxes and joints to train on"),
        Entry("annotations/person_keypoints_val2017.json", "the same for scoring"),
        Entry("train2017/NNNNNNNNNNNN.jpg", "training images", needed=False),
        Entry("val2017/NNNNNNNNNNNN.jpg", "images for scoring", needed=False),
    )

    def __init__(
        self,
        root: str | Path,
        box_rule: str = "gt-box",
        detections: str | Path | None = None,
        annotations: str = "annotations/person_keypoints_{split}2017.json",
        images: str = "{split}2017",
        test: str = "auto",
        val_fraction: float = 0.05,
        min_score: float = 0.0,
        nms: float | None = 0.9,
        strict: bool = True,
        cache: bool = True,
        name: str = "coco",
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if box_rule == "det-box" and not detections:
            raise BiposeError("box_rule det-box needs detections: a json list of image_id, category_id, bbox, score")
        if test not in TESTS:
            raise BiposeError(f"test {test!r} is none of {', '.join(TESTS)}")
        if not 0 <= val_fraction < 1:
            raise BiposeError(f"val_fraction {val_fraction} must be at least 0 and below 1")
        if not abs(min_score) < np.inf or (nms is not None and not 0 <= nms <= 1):
            raise BiposeError(f"min_score {min_score} must be a number and nms {nms} null or from 0 to 1")
        if "{split}" not in annotations:
            raise BiposeError(f"annotations {annotations!r} must hold {{split}}, or all splits would be the same file")
        if not self.root.is_dir():
            raise BiposeError(f"{self.root}: no such folder; give the one that holds annotations, train2017, val2017")
        self.annotations, self.images = annotations, images.rstrip("/")
        if not any(self._place(part).is_file() for part in ("train", "val", "test")):
            raise BiposeError(f"{self._place('train')}: no such label file; give the folder of COCO's official layout")
        self.box_rule, self.detections, self.min_score = box_rule, detections, min_score
        self.val_fraction, self.nms, self.strict, self.cache, self.name = val_fraction, nms, strict, cache, name
        self.test = test if test != "auto" else "test2017" if self._place("test").is_file() else "val2017"
        self._read: dict[str, CocoFile] = {}

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            AbsentSplitError: no label file for it, or nothing to hold out.
            BiposeError: a damaged label file, an unknown or an empty split.
        """
        part, file, chosen, name = self._chosen(split)
        held = split == "val" and part == "train"
        skipped = {reason: list(places) for reason, places in file.skipped.items()}
        detected = self.box_rule == "det-box" and part != "train"
        found = self._detected(file, part, chosen, skipped) if detected else self._labelled(file, part, chosen, skipped)
        tracks, image, category, score = found
        boxes = np.array([t.boxes[0] for t in tracks], np.float64).reshape(-1, 4)
        if not tracks:
            what = "detection on an image" if detected else "person with a labelled joint"
            where = f"{self._place(part)}: no {what} in the split {split}"
            if held and self._labelled(file, part, ~chosen, {})[0]:
                raise AbsentSplitError(f"{where}; raise val_fraction")
            raise BiposeError(f"{where}{told(skipped)}")
        rule = "det-box" if detected else "gt-box"
        scoring = CocoScoring(
            truth=take(file.truth, chosen, file.categories), uid=np.array([int(t.uid[0]) for t in tracks], np.int64), image=image,
            category=category, box_score=score, sigmas=self.skeleton.sigmas, nms=self.nms, area=crop_areas(boxes),
        )  # fmt: skip
        places = in_file(skipped, self._place(part).name)
        if detected:
            found_in = Path(str(self.detections)).name.replace("{split}", part)
            places |= in_file({r: p for r, p in skipped.items() if r.startswith("detections")}, found_in)
        return PoseIndex(f"{self.name}/{name}[{rule}]", self.skeleton, rule, split, tuple(tracks), places, scoring)

    def scenes(self, split: str) -> SceneIndex:
        """Whole images of "train", "val" or "test" with all their people; boxes, rules for them and `nms` play no part.

        Raises:
            AbsentSplitError: no label file for it, or nothing to hold out.
            BiposeError: a damaged label file, an unknown or an empty split.
        """
        part, file, chosen, name = self._chosen(split)
        return make_scenes(
            file, chosen, self.skeleton, split, f"{self.name}/{name}", self._place(part), self.root,
            self.images.replace("{split}", part), _clusters(file),
        )  # fmt: skip

    def labels(self, part: str) -> CocoFile:
        """The label file of "train", "val" or "test" (COCO's parts, not the splits made of them); read once.

        Raises:
            AbsentSplitError: no such file.
            BiposeError: a damaged file, or one with other joints.
        """
        if part not in self._read:
            path = self._place(part)
            if not path.exists():
                raise AbsentSplitError(f"{path}: no such label file; check the data set's folder")
            file = read_coco(path, len(self.skeleton), self.cache)
            if fault := differing(file.joint_names, self.skeleton.joints):
                raise BiposeError(
                    f"{path}: its joints are not COCO's 17 ({fault}); use the reader video_json with a skeleton"
                )
            self._read[part] = file
        return self._read[part]

    def _place(self, part: str) -> Path:
        return self.root / self.annotations.replace("{split}", part)

    def _chosen(self, split: str) -> tuple[str, CocoFile, NDArray[np.bool_], str]:
        """COCO's part that a split is made of, its labels, (I,) the images of the split, and the split's name."""
        if split not in ("train", "val", "test"):
            raise BiposeError(f"split {split!r} is none of train, val, test")
        part = split if self.test == "test2017" else {"train": "train", "val": "train", "test": "val"}[split]
        file = self.labels(part)
        chosen, name = self._share(file, part, split)
        if split == "val" and part == "train" and len(chosen) and not chosen.any():
            raise AbsentSplitError(f"{self._place(part)}: no image to hold out for the split val; raise val_fraction")
        return part, file, chosen, name

    def _share(self, file: CocoFile, part: str, split: str) -> tuple[NDArray[np.bool_], str]:
        """(I,) the images of the split, and its name: that of the whole file's folder, or of the split made of it."""
        whole = np.ones(len(file.names), np.bool_)
        if part != "train" or self.test == "test2017" or (split == "train" and self.val_fraction == 0):
            return whole, self.images.replace("{split}", part).rpartition("/")[2]
        clusters = _clusters(file)
        held = hold_out(clusters, self.val_fraction)
        inner = np.fromiter((c in held for c in clusters), np.bool_, len(clusters))
        return (inner if split == "val" else ~inner), split

    def _labelled(self, file: CocoFile, part: str, chosen: NDArray[np.bool_], skipped: Skipped) -> _Found:
        truth, size = file.truth, file.sizes
        at = _positions(truth.images, truth.image)
        width, height = size[at].T.astype(np.float64)
        corner = np.maximum(truth.boxes[:, :2], 0)
        last = np.stack([width, height], axis=1) - 1
        far = np.minimum(last, corner + np.maximum(truth.boxes[:, 2:] - 1, 0))
        labelled = (truth.visible != ABSENT).any(axis=1)
        kept = chosen[at]
        for reason, fault in (
            ("crowds", truth.crowd),
            ("persons of a category without joints", ~np.isin(truth.category, file.categories)),
            ("persons without a labelled joint", truth.ignore | ~labelled),
            ("persons without area", truth.area <= 0),
            ("persons of an image without width and height", width <= 0),
            ("persons of an image without file_name", np.array([n == "" for n in file.names], np.bool_)[at]),
            ("boxes outside of the image", (far < corner).any(axis=1)),
        ):
            _count(skipped, reason, truth.id[kept & fault])
            kept &= ~fault
        rows = np.flatnonzero(kept)
        rows = rows[np.lexsort((truth.id[rows], at[rows]))]
        thin = ((far - corner)[rows] < 1).any(axis=1)
        _count(skipped, "boxes below one pixel, widened", truth.id[rows][thin])
        sides = np.maximum((far - corner)[rows], 1)
        boxes = np.concatenate([(corner + far)[rows] / 2 + 0.5 - sides / 2, sides], axis=1).astype(np.float32)
        visible = truth.visible[rows]
        joints = np.where(visible[..., None] != ABSENT, truth.joints[rows], 0).astype(np.float32)
        own = truth.boxes[rows].astype(np.float32)
        norms = track_norms(joints, visible, self.skeleton, own, np.full(4, np.nan))
        norms[:, NORMS.index("clip")] = norms[:, NORMS.index("bbox")]  # the clip is the still
        norms[:, NORMS.index("area")] = np.maximum(np.sqrt(truth.area[rows]), 1e-3)  # a divisor
        score = np.ones(len(rows))
        uid = truth.id[rows]
        clips = [f"{i}/{g}" for i, g in zip(truth.image[rows].tolist(), uid.tolist(), strict=True)]
        tracks = self._tracks(file, part, at[rows], clips, joints, visible, boxes, norms, uid, score)
        return tracks, truth.image[rows], truth.category[rows], score

    def _detected(self, file: CocoFile, part: str, chosen: NDArray[np.bool_], skipped: Skipped) -> _Found:
        found = self._detections(part, file.categories[0] if len(file.categories) == 1 else 1, skipped)
        images, known = file.truth.images, np.isin(found[0], file.truth.images)
        unscored = ~np.isin(file.truth.category, file.categories) & np.isin(file.truth.image, images[chosen])
        _count(skipped, "persons of a category without joints", file.truth.id[unscored])
        _count(skipped, "detections: image_id is not among the images", found[0][~known])
        # Sorted by image; the number of a box in its image does not depend on what is left out below.
        order = np.flatnonzero(known)[np.argsort(found[0][known], kind="stable")]
        image, category, boxes, score = found[0][order], found[1][order], found[2][order], found[3][order]
        _, first, sizes = np.unique(image, return_index=True, return_counts=True)
        ordinal = np.arange(len(image)) - np.repeat(first, sizes)
        at = _positions(images, image)
        kept = chosen[at] & (score >= self.min_score)
        nameless = np.array([n == "" for n in file.names], np.bool_)[at] | (file.sizes[at, 0] <= 0)
        for reason, fault in (
            ("detections: of another category", ~np.isin(category, file.categories)),
            ("detections: boxes without area", (boxes[:, 2:] <= 0).any(axis=1)),
            ("detections: of an image without file_name, width and height", nameless),
            ("detections: image id or number of boxes is too large", (image >= _MAX_IMAGE) | (ordinal >> _ORDINAL_BITS > 0)),
        ):  # fmt: skip
            _count(skipped, reason, image[kept & fault])
            kept &= ~fault
        rows = np.flatnonzero(kept)
        rows = rows[np.lexsort((ordinal[rows], at[rows]))]
        N, K = len(rows), len(self.skeleton)
        uid = _DETECTED | (image[rows] << _ORDINAL_BITS) | ordinal[rows]
        clips = [f"{i}/box{n}" for i, n in zip(image[rows].tolist(), ordinal[rows].tolist(), strict=True)]
        sides = np.maximum(boxes[rows, 2:], 1)
        centre = boxes[rows, :2] + boxes[rows, 2:] / 2 + 0.5
        moved = np.concatenate([centre - sides / 2, sides], axis=1).astype(np.float32)
        joints, visible = np.zeros((N, K, 2), np.float32), np.zeros((N, K), np.uint8)
        norms = np.full((N, len(NORMS)), np.nan, np.float32)
        tracks = self._tracks(file, part, at[rows], clips, joints, visible, moved, norms, uid, score[rows])
        return tracks, image[rows], category[rows], score[rows]

    def _detections(self, part: str, category: int, skipped: Skipped) -> _Boxes:
        path = self.root / str(self.detections).replace("{split}", part)
        raws = read_json(path, list[msgspec.Raw], "a list of detections")
        try:
            found = decode_each(raws, _Detection, "detections", skipped)
        except BiposeError as error:
            raise BiposeError(f"{path}: {error}") from error
        good = []
        for position, box in found:
            if len(box.bbox) != 4 or max(map(abs, (*box.bbox, box.score))) > LIMIT:
                skipped.setdefault("detections: bbox is not four numbers within a million pixels", []).append(
                    f"detections[{position}]"
                )
            else:
                good.append(box)
        kinds = [category if b.category_id is None else b.category_id for b in good]
        return (
            np.array([b.image_id for b in good], np.int64), np.array(kinds, np.int64),
            np.array([b.bbox for b in good], np.float64).reshape(-1, 4), np.array([b.score for b in good], np.float64),
        )  # fmt: skip

    def _tracks(
        self, file: CocoFile, part: str, at: NDArray[np.int64], clips: Sequence[str], joints: NDArray[np.float32],
        visible: NDArray[np.uint8], boxes: NDArray[np.float32], norms: NDArray[np.float32], uid: NDArray[np.int64],
        score: NDArray[np.float64],
    ) -> list[Track]:  # fmt: skip
        folder, clusters = self.images.replace("{split}", part), _clusters(file)
        sizes, tracks = file.sizes.tolist(), []
        for i, (image, clip, confidence) in enumerate(zip(at.tolist(), clips, score.tolist(), strict=True)):
            one = slice(i, i + 1)
            name = f"{folder}/{file.names[image]}" if folder else file.names[image]
            tracks.append(
                Track(
                    clip=clip, cluster=clusters[image], frames=FolderFrames(self.root, (name,)), joints=joints[one],
                    visible=visible[one], boxes=boxes[one], norms=norms[one], uid=uid[one],
                    image_size=(sizes[image][0], sizes[image][1]), box_score=confidence,
                )
            )  # fmt: skip
        return tracks


def _clusters(file: CocoFile) -> list[str]:
    ids = file.truth.images.tolist()
    return [c or name or f"image {i}" for c, name, i in zip(file.cluster, file.names, ids, strict=True)]


def _positions(images: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each wanted id, all of them known, is in `images`."""
    order = np.argsort(images)
    return np.asarray(order[np.searchsorted(images, wanted, sorter=order)], np.int64)


def _count(skipped: Skipped, reason: str, ids: NDArray[np.int64]) -> None:
    """Tells what the rules leave out, which is much of COCO, by its number and the first id."""
    if len(ids):
        skipped.setdefault(reason, []).append(f"{len(ids)} (the first is {ids[0]})")
