"""PoseTrack18's label files put together: videos with their pictures and persons, and the frames that AP is counted over."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets.labels import make_uids, without_place
from bipose_lit.datasets.posetrack_json import Labels, Person, Picture, frame_number, read_labels
from bipose_lit.metrics.posetrack import SCORED, Frame, head_size
from bipose_lit.types import BiposeError

Skipped = dict[str, list[str]]

_NUMBERED = re.compile(r"(\d+)\d(?!\d)", re.ASCII)
_FEWEST = 10


@dataclass(frozen=True)
class Sequence:
    """A video.

    Attributes:
        folder: of its frames, relative to the root.
        pictures: by frame number, in order.
        persons: by frame number, in the order of the label file; frames without a person are not there.
    """

    folder: str
    pictures: dict[int, Picture]
    persons: dict[int, list[Person]]

    @property
    def title(self) -> str:
        """The folder's own name, e.g. "012834_mpii_test"."""
        return self.folder.rpartition("/")[2]


def load_sequences(root: Path, pattern: str, strict: bool) -> tuple[dict[str, Sequence], dict[str, Skipped]]:
    """All sequences of the label files that match a pattern, by title in order, and what was left out by title.

    Faults of a damaged file, and those in a file of several sequences, stand under "".

    Args:
        root: the data set's folder.
        pattern: of label files, relative to it.
        strict: False leaves out damaged files.

    Raises:
        BiposeError: no such files, a damaged one, or pictures that two of them list.
    """
    try:
        paths = sorted(path for path in root.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError, IndexError, OSError) as error:
        raise BiposeError(f"annotations {pattern!r}: not a pattern relative to {root}") from error
    faults: dict[str, Skipped] = defaultdict(lambda: defaultdict(list))
    found: dict[str, Sequence] = {}
    listed: dict[int, Path] = {}
    for path in paths:
        try:
            labels = read_labels(path)
        except BiposeError as error:
            if strict:
                raise
            faults[""]["damaged label files"].append(f"{path.name} ({without_place(error, path)})")
            continue
        for i in labels.pictures:
            if listed.setdefault(i, path) != path:
                raise BiposeError(f"{path} and {listed[i]} both list image {i}; choose label files by `annotations`")
        titles = _add(labels, found)
        remarks = [(reason, person.where) for person in labels.persons for reason in person.remarks]
        for reason, where in (*labels.faults, *remarks):
            faults[next(iter(titles)) if len(titles) == 1 else ""][reason].append(where)
    ordered = {}
    for title in sorted(found):
        sequence = found[title]
        pictures = {number: sequence.pictures[number] for number in sorted(sequence.pictures)}
        persons = {number: sequence.persons[number] for number in pictures if number in sequence.persons}
        ordered[title] = Sequence(sequence.folder, pictures, persons)
    return ordered, faults


def _add(labels: Labels, found: dict[str, Sequence]) -> set[str]:
    titles = set()
    for picture in labels.pictures.values():
        fresh = Sequence(picture.sequence, {}, {})
        sequence = found.setdefault(fresh.title, fresh)
        if sequence.folder != fresh.folder or picture.number in sequence.pictures:
            raise BiposeError(f"{labels.path}: frame {picture.name} is there twice, or its sequence in two folders")
        sequence.pictures[picture.number] = picture
        titles.add(fresh.title)
    for person in labels.persons:
        picture = labels.pictures[person.image]
        title = picture.sequence.rpartition("/")[2]
        found[title].persons.setdefault(picture.number, []).append(person)
    return titles


def neighbourhoods(titles: Iterable[str]) -> dict[str, str]:
    """By title, what is held out as a whole: the sequences whose numbers share all but the last digit.

    The numbers are those of MPII's pictures, of which neighbours are mostly from one video. Where that gives fewer than ten, each
    sequence stands for itself.
    """
    found = {title: match[1] if (match := _NUMBERED.match(title)) else title for title in titles}
    return found if len(set(found.values())) >= _FEWEST else {title: title for title in found}


def scored_frame(persons: Iterable[Person], picture: Picture) -> Frame:
    """A labelled frame for `metrics.posetrack`, without predictions."""
    everyone = list(persons)
    return Frame(
        joints=np.array([p.xy for p in everyone]).reshape(-1, len(SCORED) + 2, 2)[:, SCORED],
        labelled=np.array([p.there for p in everyone], bool).reshape(-1, len(SCORED) + 2)[:, SCORED],
        head=head_size(np.array([p.head for p in everyone]).reshape(-1, 4)),
        regions=picture.regions,
    )


def scored_frames(sequences: Iterable[Sequence]) -> tuple[list[Frame], dict[int, int]]:
    """The labelled frames of some sequences in order, and the position of each by its image id."""
    frames: list[Frame] = []
    places: dict[int, int] = {}
    for sequence in sequences:
        for number, persons in sequence.persons.items():
            picture = sequence.pictures[number]
            places[picture.id] = len(frames)
            frames.append(scored_frame(persons, picture))
    return frames, places


def runs(sequence: Sequence, single: bool, known: set[int], skipped: Skipped) -> Iterator[tuple[str, list[Person]]]:
    """(name, one person in consecutive frames), by track and time.

    A person without a usable annotation id, or with one that was met before, gets another, made of its place in the file: AP
    counts it all the same.

    Args:
        sequence: the video.
        single: every frame by itself.
        known: annotation ids that were met, is added to.
        skipped: persons that cannot be used, or of whom something is made up; is added to.
    """
    tracks: dict[str, dict[int, Person]] = {}
    for number, persons in sequence.persons.items():
        for labelled in persons:
            person = labelled
            if not person.seen.any():
                skipped.setdefault("persons without a labelled joint", []).append(person.where)
                continue
            if person.id < 0 or person.id in known:
                lacks = "without a usable annotation id" if person.id < 0 else "whose annotation id was there before"
                skipped.setdefault(f"persons {lacks}, kept under another", []).append(person.where)
                person = replace(person, id=int(make_uids(f"{sequence.title}/{person.where}", 1)[0]))
            name = f"person{person.track}" if person.track is not None else f"id{person.id}"
            if number in tracks.get(name, {}):
                skipped.setdefault(
                    "persons whose track is in the frame twice, kept as a track of their own", []
                ).append(person.where)
                name = f"id{person.id}"
            known.add(person.id)
            tracks.setdefault(name, {})[number] = person
    for name, members in tracks.items():
        run: list[Person] = []
        first = before = -2
        for number, person in members.items():  # in order of time, as sequences are
            if run and (single or number != before + 1):
                yield f"{name}/{first:06d}", run
                run = []
            first = number if not run else first
            run.append(person)
            before = number
        yield f"{name}/{first:06d}", run


def person_box(person: Person, skipped: Skipped) -> rules.Boxes:
    """(4,) the person's own box, else one around the joints and the head."""
    if person.box is not None:
        own = person.box.astype(np.float32)
        if not rules.without_area(own[None])[0]:
            return own
    skipped.setdefault("boxes without area, one around joints and head used", []).append(person.where)
    points = person.xy[person.seen]
    x, y, w, h = person.head  # fmin and fmax pass over the NaN of a head box that is not there
    low = np.fmin(points.min(axis=0) - 0.5, [min(x, x + w), min(y, y + h)])
    high = np.fmax(points.max(axis=0) + 0.5, [max(x, x + w), max(y, y + h)])
    return np.concatenate([low + 0.5, high - low]).astype(np.float32)


def frame_names(root: Path, sequence: Sequence) -> dict[int, str]:
    """Frames by number, relative to the root: those in the sequence's folder, or those listed where there is no folder."""
    try:
        found = sorted(path.name for path in (root / sequence.folder).iterdir())
    except OSError:
        found = []
    names = {}
    for name in found:
        number = frame_number(name) if name.lower().endswith((".jpg", ".jpeg", ".png")) else None
        if number is not None:
            names[number] = f"{sequence.folder}/{name}"
    return names or {number: picture.name for number, picture in sequence.pictures.items()}


def around(number: int, names: dict[int, str], count: int) -> range:
    """Frame numbers from at most `count` before to `count` after a frame, as far as they follow one another."""
    first = last = number
    while first > number - count and first - 1 in names:
        first -= 1
    while last < number + count and last + 1 in names:
        last += 1
    return range(first, last + 1)
