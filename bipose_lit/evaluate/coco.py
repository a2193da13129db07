"""`bipose evaluate coco`: a results file against labels in COCO's layout.

Formats: "Data format" and "Results format" of cocodataset.org, keypoint detection. A result's score is taken as it is; how a
top-down network makes it of box and joints is `metrics.coco_scoring.person_scores`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from bipose_lit.datasets import coco_json
from bipose_lit.datasets.coco_json import CocoFile, differing, read_coco
from bipose_lit.datasets.json_labels import FAULTS, read_json, why
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.metrics.coco import MAX_DETECTIONS, precision_recall
from bipose_lit.metrics.coco_engines import find_engine
from bipose_lit.metrics.coco_scoring import crop_areas, suppress, take
from bipose_lit.metrics.instances import Detected, Truth
from bipose_lit.skeletons import COCO, Skeleton, find_skeleton
from bipose_lit.types import BiposeError

LIMIT = 1e9
"""Largest coordinate in pixels; what lies beyond is a fault of the file."""

_Id = Annotated[int, Meta(ge=0, le=2**62 - 1)]


class _Result(Struct):
    image_id: _Id
    category_id: _Id
    keypoints: list[float]
    score: float
    bbox: list[float] | None = None


@dataclass(frozen=True)
class Results:
    """A results file.

    Attributes:
        detected: in the file's order.
        boxes: (D, 4) x, y, w, h where the first result has a `bbox`; else None.
    """

    detected: Detected
    boxes: NDArray[np.float64] | None

    @property
    def area(self) -> NDArray[np.float64] | None:
        """(D,) of the boxes, as pycocotools takes it."""
        return None if self.boxes is None else self.boxes[:, 2] * self.boxes[:, 3]


def evaluate(
    annotations: Path,
    predictions: Path,
    engine: str = "bipose",
    oks: float = 0.5,
    min_score: float = 0.5,
    nms: float | None = None,
    skeleton: str | None = None,
) -> Outcome:
    """COCO's ten numbers, and precision and recall at one OKS and one score.

    Scored are the categories that the labels list, as in pycocotools; where they list none, all that annotations name.

    Args:
        annotations: labels in COCO's layout.
        predictions: a json with a list of {image_id, category_id, keypoints [x, y, confidence, ...], score}.
        engine: "bipose", "pycocotools" or "faster-coco-eval"; they agree.
        oks: similarity of a match, for precision and recall.
        min_score: of the detections that count for precision and recall.
        nms: OKS above which the lower of two detections is removed first, with the area of the crops of the results' boxes
            as in runs (`crop_areas`), or without boxes with that of the joints' extent, which removes fewer; None for results
            that are thinned already.
        skeleton: name or YAML file of a skeleton with sigmas; None for COCO's 17 joints.

    Raises:
        BiposeError: files that are missing, damaged or do not belong together, a skeleton without sigmas, an option out of
            range, an engine that is unknown or not installed.
    """
    judge = find_engine(engine)
    if nms is not None and not 0 < nms <= 1:
        raise BiposeError(f"nms {nms:g}: is an OKS, above 0 and at most 1; change it, or leave it out")
    chosen = COCO if skeleton is None else find_skeleton(skeleton)
    if not chosen.sigmas:
        raise BiposeError(
            f"skeleton {chosen.name} has no sigmas, which OKS needs; name a YAML file that has joints and sigmas"
        )
    labels = read_coco(annotations, len(chosen))
    _check_joints(annotations, labels, chosen, skeleton is None)
    truth = labels.truth if not labels.listed else coco_json.take(labels.truth, categories=labels.listed)
    unlisted = _unlisted(labels)
    scored = int((~truth.ignore).sum())
    if not scored:
        raise BiposeError(
            f"{annotations}: holds no labelled person that counts{f', and {unlisted}' if unlisted else ''}; name the labels of "
            "a split with persons"
        )
    results = read_results(predictions, len(chosen))
    detected, area = results.detected, results.area
    strange = ~np.isin(detected.image, truth.images)
    if strange.any():
        raise BiposeError(
            f"{predictions}: {int(strange.sum()):,} of {len(detected):,} results are of images that {annotations} does not "
            f"have, first image_id {int(detected.image[strange][0])}; name the labels of the same split"
        )
    counts = {"images": len(truth.images), "persons": scored, "crowds_and_unlabelled": len(truth) - scored}
    counts["detections"] = len(detected)
    notes = _notes(engine, results, labels, chosen, nms, unlisted)
    if nms is not None:
        kept = suppress(detected, chosen.sigmas, nms, None if results.boxes is None else crop_areas(results.boxes))
        counts["doubles_removed"] = len(detected) - len(kept)
        detected, area = take(detected, kept), None if area is None else area[kept]
    beyond = _beyond(truth, detected)
    counts |= {name: n for name, n in beyond.items() if n}
    single = precision_recall(truth, detected, chosen.sigmas, oks, min_score, area)
    for name, count in (("true_positives", "tp"), ("false_positives", "fp"), ("misses", "fn")):
        counts[name] = int(single.pop(count))
    about = {"labels": annotations.name, "engine": engine, "skeleton": chosen.name}
    about["OKS-NMS"] = "none" if nms is None else f"{nms:g}"
    return Outcome("coco", counts, {**judge(truth, detected, chosen.sigmas, area), **single}, notes, about)


def read_results(path: Path, joints: int) -> Results:
    """A results file in COCO's layout.

    Args:
        path: the json.
        joints: K.

    Raises:
        BiposeError: no such file, no JSON (NaN and Infinity are none), or a result that is broken, with its place.
    """
    if not path.is_file():
        raise BiposeError(f"{path}: no such results file; name a json with a list of results")
    raws = read_json(path, list[Raw], "a list of results: image_id, category_id, keypoints, score")
    decode = msgspec.json.Decoder(_Result).decode
    ids, scores, triples, places = array("q"), array("d"), array("d"), array("d")
    boxed = False
    for position, raw in enumerate(raws):
        try:
            result = decode(raw)
        except FAULTS as error:
            raise BiposeError(f"{path}: result [{position}]: {why(error)}; mend or leave out this result") from error
        if len(result.keypoints) != 3 * joints:
            raise BiposeError(
                f"{path}: result [{position}]: keypoints are {len(result.keypoints)} numbers, expected {3 * joints} "
                f"({joints} joints); name the skeleton, or mend this result"
            )
        box = result.bbox
        boxed = bool(box) if position == 0 else boxed
        if boxed:
            if box is None or len(box) != 4 or not all(math.isfinite(v) and abs(v) <= LIMIT for v in box):
                raise BiposeError(
                    f"{path}: result [{position}]: bbox is not x, y, w, h as in the first result; give it to all or to none"
                )
            places.fromlist(box)
        ids.append(result.image_id)
        ids.append(result.category_id)
        scores.append(result.score)
        triples.fromlist(result.keypoints)
    numbers = np.array(ids, np.int64).reshape(-1, 2)
    found = np.array(triples, np.float64).reshape(len(raws), joints, 3)
    score = np.array(scores, np.float64)
    bad = ~np.isfinite(score) | ~np.isfinite(found).all(axis=(1, 2)) | (np.abs(found[..., :2]) > LIMIT).any(axis=(1, 2))
    if bad.any():
        raise BiposeError(
            f"{path}: result [{int(np.argmax(bad))}]: numbers that are not finite or beyond {LIMIT:g} pixels; "
            f"mend or leave out {int(bad.sum()):,} such results"
        )
    detected = Detected(numbers[:, 0].copy(), numbers[:, 1].copy(), found[..., :2].copy(), found[..., 2].copy(), score)
    return Results(detected, np.array(places, np.float64).reshape(-1, 4) if boxed else None)


def _check_joints(path: Path, labels: CocoFile, skeleton: Skeleton, usual: bool) -> None:
    """Sigmas belong to joints: other sets have 17 joints too."""
    if fault := differing(labels.joint_names, skeleton.joints):
        if usual:
            raise BiposeError(
                f"{path}: its joints are not COCO's 17 ({fault}); name a skeleton that has sigmas for them"
            )
        raise BiposeError(
            f"{path}: {fault} {skeleton.name}; name the skeleton of these labels, its joints in their order"
        )


def _unlisted(labels: CocoFile) -> str:
    """What of the labels is left out as it is of no listed category, in words."""
    strange = labels.truth.category[~np.isin(labels.truth.category, np.array(labels.listed, np.int64))]
    if not labels.listed or not len(strange):
        return ""
    kinds = [str(c) for c in np.unique(strange).tolist()]
    named = f"{', '.join(kinds[:3])} and {len(kinds) - 3} more" if len(kinds) > 3 else " and ".join(kinds)
    return f"{len(strange):,} annotations of categories that are not listed, {named}"


def _beyond(truth: Truth, detected: Detected) -> dict[str, int]:
    """Detections that count nowhere: of categories without labels, and beyond the limit of an image and category."""
    known = np.isin(detected.category, truth.category)
    pairs = np.stack([detected.image[known], detected.category[known]], axis=1)
    order = np.lexsort(pairs.T)
    changes = np.flatnonzero((np.diff(pairs[order], axis=0) != 0).any(axis=1)) + 1
    sizes = np.diff(np.r_[0, changes, len(order)])
    return {
        "detections_of_other_categories": int((~known).sum()),
        f"detections_beyond_{MAX_DETECTIONS}_an_image": int(np.maximum(sizes - MAX_DETECTIONS, 0).sum()),
    }


def _notes(
    engine: str, results: Results, labels: CocoFile, skeleton: Skeleton, nms: float | None, unlisted: str
) -> tuple[str, ...]:
    extent = "around its joints" if results.boxes is None else "that it names"
    lines: list[str] = [
        f"engine {engine}; COCO's definitions: at most {MAX_DETECTIONS} detections an image, crowds and persons without "
        "labelled joints neither hit nor miss",
        "the source of the person boxes is not in the file: tell whether they were detected or ground truth (about 3 AP apart)",
        f"an unmatched detection belongs to an area range by the box {extent}, as in pycocotools",
        "precision, recall and f1 are at one similarity and one score; AP and AR are over all",
    ]
    score = results.detected.score
    if nms is not None and results.boxes is None:
        lines.append(
            "OKS-NMS takes the extent of the predicted joints, as the results have no bbox: it removes fewer than the reference "
            "code and runs, which take the crops' area"
        )
    if len(score) > 1 and not np.ptp(score):
        lines.append(f"all results have the score {score[0]:g}: AP ranks them by their place in the file")
    if not labels.joint_names:
        lines.append(f"the labels do not name their joints: taken to be those of {skeleton.name}, in its order")
    if not labels.listed:
        lines.append("the labels list no categories, so all count; pycocotools would score none")
    if unlisted:
        lines.append(f"labels: {unlisted}, left out, as pycocotools does")
    return (*lines, *_left_out(labels.skipped))


def _left_out(skipped: dict[str, list[str]]) -> Sequence[str]:
    return [f"labels: {reason}: {len(places):,}, first {places[0]}" for reason, places in skipped.items() if places]
