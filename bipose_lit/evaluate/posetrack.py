"""`bipose evaluate posetrack18`: PoseTrack's AP of files of predictions, as poseval counts it (see `metrics.posetrack`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bipose_lit.datasets.posetrack_json import NO_HEAD, Labels, Person, Results, read_labels, read_results
from bipose_lit.datasets.posetrack_sequences import scored_frame
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.metrics.posetrack import SCORED, Frame, joint_ap
from bipose_lit.types import BiposeError

NOTES = (
    "ap: mean of the 15 joints' AP, poseval's Total as a fraction; a group (head, shoulder, ...) is the mean of its joints",
    "a joint fits within 0.5 head sizes (0.6 x the head box's diagonal); persons are matched by PCKh, not by OKS",
    "frames without a labelled person are left out, and joints inside ignore regions",
)


def evaluate(annotations: Path, predictions: Path) -> Outcome:
    """Scores predictions in PoseTrack18's format.

    Args:
        annotations: a folder of label files SEQ.json, or one file (of a sequence or of several).
        predictions: a folder of files of the same names, or one file that has all images. Like the labels: {"images",
            "annotations"} with `image_id`, `keypoints` of 17 slots and `scores`, one per slot.

    Returns:
        "ap", then "ap/GROUP" and "ap/JOINT", fractions of 1.

    Raises:
        BiposeError: a missing or damaged file, a labelled person that cannot be read, nobody with a head box, a prediction
            without scores, or a labelled image that the predictions do not list.
    """
    paths = [annotations]
    if annotations.is_dir():
        paths = sorted(path for path in annotations.glob("*.json") if path.is_file())
        if not paths:
            raise BiposeError(f"{annotations}: no label file SEQ.json in this folder")
    frames: list[Frame] = []
    listed: dict[int, Path] = {}
    headless = 0
    counts = {"sequences": 0, "images": 0, "persons": 0, "predicted_persons": 0}
    whole = read_results(predictions) if not predictions.is_dir() else None
    total = _persons(whole) if whole else 0
    for path in paths:
        labels = read_labels(path)
        if labels.faults:
            reason, where = labels.faults[0]
            raise BiposeError(
                f"{path.parent / where}: {len(labels.faults)} labels cannot be scored: {reason}; mend them"
            )
        for i in labels.pictures:
            if listed.setdefault(i, path) != path:
                raise BiposeError(f"{path} and {listed[i]} both list image {i}; evaluate one of them")
        results = whole or read_results(_partner(path, predictions))
        total += 0 if whole else _persons(results)
        found = list(_frames(labels, results))
        frames += found
        counts["sequences"] += len({picture.sequence for picture in labels.pictures.values()})
        counts["images"] += len(found)
        counts["persons"] += len(labels.persons)
        headless += sum(NO_HEAD in person.remarks for person in labels.persons)
        counts["predicted_persons"] += sum(len(frame.pred) for frame in found)
    if not frames:
        raise BiposeError(f"{annotations}: no labelled person; the owners withhold the labels of the test set")
    if headless == counts["persons"]:
        raise BiposeError(
            f"{annotations}: no labelled person has a head box (bbox_head), which AP needs; is it PoseTrack18's?"
        )
    result = joint_ap(frames)
    counts |= {"joints": int(result.labels.sum()), "predicted_joints": int(result.predictions.sum())}
    notes = list(NOTES)
    if undefined := int(np.isnan(result.ap).sum()):
        notes.append(f"{undefined} joints are predicted but never labelled: they have no AP and are left out of ap")
    if headless:
        notes.append(f"{headless} {NO_HEAD}")
    if unused := total - counts["predicted_persons"]:
        notes.append(f"{unused} predicted persons are in images without a labelled person: left out")
    return Outcome("posetrack18", counts, result.metrics(), tuple(notes))


def _persons(results: Results) -> int:
    return sum(map(len, results.persons.values()))


def _partner(path: Path, predictions: Path) -> Path:
    partner = predictions / path.name
    if not partner.is_file():
        raise BiposeError(
            f"{partner}: no such file of predictions; every sequence needs one, of the name of its labels"
        )
    return partner


def _frames(labels: Labels, results: Results) -> Iterator[Frame]:
    persons: dict[int, list[Person]] = {}
    for person in labels.persons:
        persons.setdefault(person.image, []).append(person)
    for i, picture in labels.pictures.items():
        if i not in persons:
            continue
        if i not in results.images:
            raise BiposeError(f"{results.path}: images lacks {i} ({picture.name}), which is labelled in {labels.path}")
        frame, found = scored_frame(persons[i], picture), results.persons.get(i, [])
        if found:
            frame = replace(
                frame,
                pred=np.array([person.xy for person in found])[:, SCORED],
                predicted=np.array([person.there for person in found])[:, SCORED],
                score=np.array([person.score for person in found])[:, SCORED],
            )
        yield frame
