"""PoseTrack18 (Andriluka et al. 2018): 15 joints of many persons in videos.

Tree:
    images/{train,val}/SEQ/000000.jpg      all frames of a sequence
    annotations/{train,val}/SEQ.json       labels: see `posetrack_json`

The labels' test set is withheld; published numbers are those of val, so "test" is val here, and "val" is a share of the
train sequences, held out by tens of neighbouring numbers, as neighbours may be from one video (the cluster stays the sequence:
nothing tells the video). Training sequences have labels in 30 consecutive frames, val sequences also in every fourth frame
beside them.
The third number of a keypoint is 0 or 1: VISIBLE or ABSENT. The two ears are slots that are never labelled.

Pixels and labels are taken as they are in the files, boxes too. Persons count in AP as `bipose evaluate posetrack18` counts them:
one without a head box is labelled, and no prediction can match it; one without a usable id gets an id of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from bipose_lit import skeletons
from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets.frames import FolderFrames, image_size
from bipose_lit.datasets.index import Entry, PoseIndex, Track
from bipose_lit.datasets.json_labels import told
from bipose_lit.datasets.labels import hold_out, make_uids
from bipose_lit.datasets.posetrack_json import Detection, Person, read_detections
from bipose_lit.datasets.posetrack_sequences import (
    Sequence,
    Skipped,
    around,
    frame_names,
    load_sequences,
    neighbourhoods,
    person_box,
    runs,
    scored_frames,
)
from bipose_lit.metrics.posetrack import head_size
from bipose_lit.metrics.posetrack_scoring import PoseTrackScoring
from bipose_lit.types import ABSENT, NORMS, VISIBLE, AbsentSplitError, BiposeError

BOX_RULES = ("gt-box", "det-box")
MOST_NEIGHBOURS = 100

Made = Iterator[tuple[Track, list[int]]]
"""Tracks, each with the position of its frames among the scored ones, -1 for frames that are not scored."""


class PoseTrack18:
    """Reader of PoseTrack18's layout.

    Args:
        root: the folder that the labels' `file_name`s are relative to (labels alone can be indexed; reading pixels then
            fails and names the missing file).
        box_rule: "gt-box", the labels' own boxes; or "det-box", persons as detected in the labelled frames of "test". These
            have no labels, so all but AP is undefined; "train" and "val" keep the labels' boxes, and their names say so.
        annotations: label files relative to the root, {split} standing for train or val; a file of several sequences, as
            "annotations/posetrack18_{split}.json", does as well.
        detections: person detections in COCO's result format, relative to the root.
        neighbours: 0 gives tracks that are runs of consecutive labelled frames of one person. n > 0 gives a clip for
            each person in each labelled frame: up to n frames to either side, as far as the folder has them, all with the
            same box, the one in the middle alone being labelled and scored.
        min_score: detections below it are left out; comparisons on det-box need the same (mmpose: 0.4 or all).
        val_fraction: share of the train sequences that validates.
        strict: False leaves out damaged label files.

    Raises:
        BiposeError: the folder is not there, or an argument is out of range.
    """

    skeleton = skeletons.POSETRACK18
    layout: ClassVar[tuple[Entry, ...]] = (
        Entry("annotations/val/SEQ.json", "labels of a sequence"),
        Entry("annotations/train/SEQ.json", "labels of a sequence to train on", needed=False),
        Entry("images/val/SEQ/NNNNNN.jpg", "frames"),
        Entry("images/train/SEQ/NNNNNN.jpg", "frames to train on", needed=False),
        Entry("annotations/posetrack18_val_human_detections.json", "persons as detected, for det-box", needed=False),
    )

    def __init__(
        self,
        root: str | Path,
        box_rule: str = "gt-box",
        annotations: str = "annotations/{split}/*.json",
        detections: str = "annotations/posetrack18_val_human_detections.json",
        neighbours: int = 0,
        min_score: float = 0.0,
        val_fraction: float = 0.1,
        strict: bool = True,
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if not 0 <= val_fraction < 1 or not 0 <= min_score <= 1:
            raise BiposeError(f"val_fraction {val_fraction} and min_score {min_score} must be from 0 to 1")
        if not 0 <= neighbours <= MOST_NEIGHBOURS:
            raise BiposeError(f"neighbours {neighbours} must be from 0 to {MOST_NEIGHBOURS}")
        if not self.root.is_dir():
            raise BiposeError(f"{self.root}: no such folder; name where PoseTrack18 lies")
        self.box_rule, self.annotations, self.detections = box_rule, annotations, detections
        self.neighbours, self.min_score, self.val_fraction, self.strict = neighbours, min_score, val_fraction, strict
        self._read: dict[str, tuple[dict[str, Sequence], dict[str, Skipped]]] = {}

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" (a share of the train sequences) or "test" (the official val).

        Raises:
            BiposeError: a missing or damaged label file, an unknown or an empty split.
        """
        if split not in ("train", "val", "test"):
            raise BiposeError(f"split {split!r} is none of train, val, test")
        sequences, faults = self._sequences("val" if split == "test" else "train")
        if split != "test":
            near = neighbourhoods(sequences)
            held = hold_out(near.values(), self.val_fraction)
            sequences = {title: s for title, s in sequences.items() if (near[title] in held) == (split == "val")}
        skipped: Skipped = defaultdict(list)
        for title in ("", *sequences):
            for reason, where in faults.get(title, {}).items():
                skipped[reason] += where
        rule = self.box_rule if split == "test" else "gt-box"
        frames, places = scored_frames(sequences.values())
        make = self._detected if rule == "det-box" else self._labelled
        made = list(make(sequences, places, skipped))
        if not made:
            hint = "raise val_fraction" if split == "val" else "check the label files"
            kind = BiposeError if sequences else AbsentSplitError
            raise kind(f"{self.root}: no labelled person in the {split} split; {hint}{told(skipped)}")
        tracks = tuple(track for track, _ in made)
        uid = np.concatenate([track.uid for track in tracks])
        if len(np.unique(uid)) != len(uid):
            raise BiposeError(f"{self.root}: annotation ids of the {split} split repeat; mend the label files")
        scoring = PoseTrackScoring(
            frames,
            uid,
            np.array([place for _, scored in made for place in scored], np.int64),
            np.concatenate([np.full(len(track), track.box_score) for track in tracks]),
        )
        name = f"posetrack18/{split}[{rule}]"
        return PoseIndex(name, self.skeleton, rule, split, tracks, dict(skipped), scoring)

    def _sequences(self, folder: str) -> tuple[dict[str, Sequence], dict[str, Skipped]]:
        if folder not in self._read:
            pattern = self.annotations.replace("{split}", folder)
            found = load_sequences(self.root, pattern, self.strict)
            if not found[0]:
                part = "train, and val, which is a share of it," if folder == "train" else "test, the official val,"
                lost = [where for places in found[1].get("", {}).values() for where in places]
                why = f"all {len(lost)} label files are damaged, as {lost[0]}" if lost else f"no {pattern}"
                kind = BiposeError if lost else AbsentSplitError
                raise kind(f"{self.root}: {why}; {part} cannot be had without these labels")
            self._read[folder] = found
        return self._read[folder]

    def _labelled(self, sequences: dict[str, Sequence], places: dict[int, int], skipped: Skipped) -> Made:
        known: set[int] = set()
        for sequence in sequences.values():
            numbers = {picture.id: number for number, picture in sequence.pictures.items()}
            size, names = self._size(sequence), self._names(sequence)
            for clip, run in runs(sequence, self.neighbours > 0, known, skipped):
                centre = numbers[run[0].image]
                whole = range(centre, centre + len(run))
                frames = around(centre, names, self.neighbours) if self.neighbours else whole
                persons = {numbers[person.image]: person for person in run}
                track = self._track(f"{sequence.title}/{clip}", sequence, frames, names, persons, size, skipped)
                yield track, [places[persons[n].image] if n in persons else -1 for n in frames]

    def _track(
        self,
        clip: str,
        sequence: Sequence,
        frames: range,
        names: dict[int, str],
        persons: dict[int, Person],
        size: tuple[int, int],
        skipped: Skipped,
    ) -> Track:
        """A track of frames of which `persons`, by frame number, are labelled: all, or the one in the middle."""
        T, K = len(frames), len(self.skeleton)
        joints, visible = np.zeros((T, K, 2), np.float32), np.full((T, K), ABSENT, np.uint8)
        boxes, head = np.zeros((T, 4), np.float32), np.full(T, np.nan)
        uid = make_uids(f"{clip} neighbours", T) if self.neighbours else np.zeros(T, np.int64)
        if self.neighbours:
            boxes[:] = person_box(next(iter(persons.values())), skipped)
        for t, number in enumerate(frames):
            if (person := persons.get(number)) is None:
                continue
            visible[t] = np.where(person.seen, VISIBLE, ABSENT)
            joints[t] = np.where(person.seen[:, None], person.xy, 0)
            if not self.neighbours:
                boxes[t] = person_box(person, skipped)
            head[t], uid[t] = head_size(person.head), person.id
        norms = rules.track_norms(joints, visible, self.skeleton, boxes, rules.clip_box(joints, visible))
        norms[:, NORMS.index("head")] = np.where(head > 0, head, np.nan)
        return Track(
            clip=clip,
            cluster=sequence.title,
            frames=FolderFrames(self.root, tuple(_name(sequence, n, names) for n in frames)),
            joints=joints,
            visible=visible,
            boxes=boxes,
            norms=norms,
            uid=uid,
            image_size=size,
        )

    def _detected(self, sequences: dict[str, Sequence], places: dict[int, int], skipped: Skipped) -> Made:
        path = self.root / self.detections
        found, faults = read_detections(path)
        for reason, where in faults:
            skipped[reason].append(where)
        by_image: dict[int, list[Detection]] = defaultdict(list)
        for detection in found:
            if detection.image in places and detection.score >= self.min_score:
                by_image[detection.image].append(detection)
        if not by_image:
            raise BiposeError(
                f"{path}: no detection in a labelled frame from min_score {self.min_score} on; check both"
            )
        K = len(self.skeleton)
        for sequence in sequences.values():
            size, names = self._size(sequence), self._names(sequence)
            for number, picture in sequence.pictures.items():
                for detection in by_image.get(picture.id, ()):
                    clip = f"{sequence.title}/detection{detection.rank}/{number:06d}"
                    frames = around(number, names, self.neighbours)
                    T = len(frames)
                    track = Track(
                        clip=clip,
                        cluster=sequence.title,
                        frames=FolderFrames(self.root, tuple(_name(sequence, n, names) for n in frames)),
                        joints=np.zeros((T, K, 2), np.float32),
                        visible=np.full((T, K), ABSENT, np.uint8),
                        boxes=np.repeat(detection.box[None].astype(np.float32), T, axis=0),
                        norms=np.full((T, len(NORMS)), np.nan, np.float32),
                        uid=make_uids(clip, T),
                        image_size=size,
                        box_score=detection.score,
                    )
                    yield track, [places[picture.id] if n == number else -1 for n in frames]

    def _names(self, sequence: Sequence) -> dict[int, str]:
        return frame_names(self.root, sequence) if self.neighbours else {}

    def _size(self, sequence: Sequence) -> tuple[int, int]:
        """Width and height as the labels or else the first labelled picture have them; 0, 0 where neither does."""
        sizes = [picture.size for picture in sequence.pictures.values() if picture.size != (0, 0)]
        if sizes or not sequence.persons:
            return sizes[0] if sizes else (0, 0)
        try:
            return image_size(self.root / sequence.pictures[next(iter(sequence.persons))].name)
        except BiposeError:  # told when the picture is read
            return 0, 0


def _name(sequence: Sequence, number: int, names: dict[int, str]) -> str:
    return sequence.pictures[number].name if number in sequence.pictures else names[number]
