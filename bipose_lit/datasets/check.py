"""`bipose data check`: a folder against its reader's tree, its files, its labels and the published counts."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.boxes import without_area
from bipose_lit.datasets.catalogue import find
from bipose_lit.datasets.catalogue_entry import OWN, DataSet
from bipose_lit.datasets.frames import FolderFrames, NoFrames, VideoFrames, decode_video, read_image
from bipose_lit.datasets.index import PoseIndex, Reader, Track
from bipose_lit.datasets.layouts import check_layout, lacking
from bipose_lit.datasets.show import make_reader
from bipose_lit.datasets.video_json import VideoPiece
from bipose_lit.store import atomic
from bipose_lit.types import ABSENT, OCCLUDED, BiposeError

PIXELS = ("exist", "decode")
SPLITS = ("train", "val", "test")
SAMPLE = 0.5
"""Below this share of the published count a folder is called a sample."""

Findings = dict[str, list[str]]
T = TypeVar("T")

_USUAL = re.compile(
    r"^(crowds|no labelled joint|no joint positions|head size|never in front|boxes (missing at the end|without area|outside)"
    r"|persons (without (a labelled joint|joints$|area)|of a category)|detections: of another|nframes|fewer frames around"
    r"|no centre or scale|(no|frames without) puppet mask|annotations: no (area|keypoints)|pictures that are not on this disk)"
    r"|estimated|neck to head top"
)
"""What readers leave out or mend in sound official files; everything else that they tell is a fault of these files."""

_ABSENT = re.compile(r"\bno such|: no |has no |there is no|withhold|nothing to hold out")
"""What readers say of a split that is not in the folder, as opposed to one that is damaged."""


@dataclass(frozen=True)
class Row:
    """One split as its reader sees it.

    Attributes:
        split: its name, after the variant where the set has several ("split2/test").
        name: of the index.
        clips: tracks.
        persons: persons in frames, over all tracks.
        pictures: different pictures, frames of videos included.
        sources: independent ones.
        labelled: joints.
        hidden: share of them that is labelled but hidden.
    """

    split: str
    name: str
    clips: int
    persons: int
    pictures: int
    sources: int
    labelled: int
    hidden: float


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        name: of the data set.
        root: the folder.
        rows: the splits that could be read.
        wrong: faults, {"reason": ["where", ...]}.
        notes: what is good to know, likewise.
    """

    name: str
    root: str
    rows: tuple[Row, ...]
    wrong: Findings = field(default_factory=dict)
    notes: Findings = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes all of it as JSON; BiposeError where that is not possible."""
        try:
            with atomic(path, "w") as handle:
                handle.write(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise BiposeError(f"{path}: cannot write the report ({error.strerror}); choose another place") from error


def check(
    name: str,
    root: Path,
    pixels: str = "exist",
    counts: bool = True,
    limit: int | None = None,
    skeleton: str | None = None,
) -> Report:
    """Reads all splits of a data set and looks through them.

    Args:
        name: of the catalogue.
        root: its folder.
        pixels: "exist": every picture's file is there and not empty; "decode": it is read as well, whole, and has the size that
            the labels say.
        counts: compare with the published ones.
        limit: at most so many pictures or videos are decoded.
        skeleton: of video_json, a name or a YAML file.

    Raises:
        BiposeError: an unknown set, no such folder, or one that the reader cannot make anything of.
    """
    data = find(name)
    if pixels not in PIXELS:
        raise BiposeError(f"pixels {pixels!r} is none of {', '.join(PIXELS)}")
    check_layout(data, root, "check")
    wrong: Findings = defaultdict(list)
    notes: Findings = defaultdict(list)
    for entry in lacking(data, root):
        told = wrong["needed but not there"] if entry.needed else notes["not there (the reader does without it)"]
        told.append(f"{entry.path} ({entry.about})")
    rows: list[Row] = []
    files = _Files()
    seen: dict[str, PoseIndex] = {}
    for label, reader in _readers(data, root, skeleton):
        found: dict[str, PoseIndex] = {}
        for split in _progress(SPLITS, f"reading {label}labels"):
            index = _index(reader, split, label, wrong, notes)
            if index is None:
                continue
            found[split] = index
            files.add(f"{label}{split}", index)
            rows.append(_row(f"{label}{split}", index))
            _labels(f"{label}{split}", index, wrong, notes)
        _apart(data, label, found, wrong, notes)
        if counts and found:
            _compare(data, label, rows, notes)
        seen.update({f"{label}{split}": index for split, index in found.items()})
    if not seen:
        wrong["splits that cannot be read"] += notes.pop("splits that are not here", [])
    files.look(pixels, limit, wrong, notes)
    return Report(data.name, str(root), tuple(rows), _settled(wrong), _settled(notes))


def _readers(data: DataSet, root: Path, skeleton: str | None) -> Iterator[tuple[str, Reader]]:
    """The set's reader, one for each official split number where it has such."""
    if "split" not in inspect.signature(data.reader_class()).parameters or data.access == OWN:
        yield "", make_reader(data, root, skeleton, box_jitter=0.0)
        return
    for number in (1, 2, 3):
        yield f"split{number}/", make_reader(data, root, skeleton, box_jitter=0.0, split=number)


def _index(reader: Reader, split: str, label: str, wrong: Findings, notes: Findings) -> PoseIndex | None:
    try:
        index = reader.index(split)
    except BiposeError as error:
        told = " ".join(str(error).split())
        (notes["splits that are not here"] if _ABSENT.search(told) else wrong["splits that cannot be read"]).append(
            f"{label}{split}: {told}"
        )
        return None
    for reason, places in index.skipped.items():
        target = notes if _USUAL.search(reason) else wrong
        target[f"reader: {reason}"] += [str(place) for place in places]
    return index


def _row(split: str, index: PoseIndex) -> Row:
    pictures = {key for track in index.tracks for key in _pictures(track)}
    labelled = sum(int((t.visible != ABSENT).sum()) for t in index.tracks)
    hidden = sum(int((t.visible == OCCLUDED).sum()) for t in index.tracks)
    persons = sum(len(t) for t in index.tracks)
    share = hidden / labelled if labelled else 0.0
    return Row(split, index.name, len(index.tracks), persons, len(pictures), len(index.clusters), labelled, share)


def _pictures(track: Track) -> Iterator[tuple[str, int]]:
    match track.frames:
        case FolderFrames(_, names):
            yield from ((name, 0) for name in names)
        case VideoFrames(_, name, count):
            yield from ((name, t) for t in range(count))
        case VideoPiece(video, start, step, count):
            yield from ((video.name, start + step * t) for t in range(count))


def _labels(split: str, index: PoseIndex, wrong: Findings, notes: Findings) -> None:
    """Boxes, joints and ids of one split."""
    K = len(index.skeleton)
    clips: set[str] = set()
    uids = np.concatenate([t.uid for t in index.tracks]) if index.tracks else np.zeros(0, np.int64)
    repeated = len(uids) - len(np.unique(uids))
    if repeated:
        wrong["annotation ids that are not unique"].append(f"{split}: {repeated}")
    for track in _progress(index.tracks, f"looking through {split}"):
        T = len(track)
        if track.clip in clips:
            wrong["clips of one name"].append(f"{split}: {track.clip}")
        clips.add(track.clip)
        if track.joints.shape != (T, K, 2) or track.visible.shape != (T, K) or track.boxes.shape != (T, 4) or not T:
            wrong["labels of the wrong shape"].append(f"{track.clip}: {track.joints.shape}, {track.boxes.shape}")
            continue
        width, height = track.image_size
        present = track.visible != ABSENT
        joints = track.joints.astype(np.float64)
        _count(wrong, "joints that are not numbers", track, np.asarray(present & ~np.isfinite(joints).all(-1)))
        box = track.boxes.astype(np.float64)
        bad = without_area(track.boxes)
        _count(wrong, "boxes without area", track, bad)
        if min(width, height) <= 0:
            notes["pictures of unknown size"].append(track.clip)
            continue
        edge = np.array([width, height], np.float64)
        with np.errstate(invalid="ignore"):
            outside = np.asarray(~bad & ((box[:, :2] >= edge) | (box[:, :2] + box[:, 2:] <= 0)).any(1))
            beyond = np.maximum(-0.5 - joints, joints - (edge - 0.5)).max(-1)
        _count(wrong, "boxes outside of the picture", track, outside)
        far = np.asarray(present & (beyond > edge.max() / 2))
        _count(wrong, "joints far outside of the picture", track, far)
        _count(notes, "joints outside of the picture", track, present & (beyond > 0) & ~far)


def _count(findings: Findings, reason: str, track: Track, fault: NDArray[np.bool_]) -> None:
    number = int(fault.sum())
    if number:
        where = f"frame {int(np.flatnonzero(fault.reshape(len(track), -1).any(1))[0])}"
        findings[reason].append(f"{track.clip} ({number}, the first in {where})")


def _apart(data: DataSet, label: str, found: dict[str, PoseIndex], wrong: Findings, notes: Findings) -> None:
    """What two splits have in common."""
    splits = list(found)
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            where = f"{label}{a} and {label}{b}"
            uids = [{int(u) for t in found[s].tracks for u in t.uid} for s in (a, b)]
            if both := uids[0] & uids[1]:
                wrong["annotation ids in two splits"].append(f"{where}: {len(both)}, as {min(both)}")
            pictures = [{key for t in found[s].tracks for key, _ in _pictures(t)} for s in (a, b)]
            wrong["files in two splits"] += [f"{where}: {name}" for name in sorted(pictures[0] & pictures[1])]
            shared = sorted(set(found[a].clusters) & set(found[b].clusters))
            told = wrong if data.access == OWN else notes
            why = "sources in two splits" + ("" if data.access == OWN else " (as the owners split it)")
            told[why] += [f"{where}: {source}" for source in shared]


def _compare(data: DataSet, label: str, rows: Sequence[Row], notes: Findings) -> None:
    by_split = {row.split.removeprefix(label): row for row in rows if row.split.startswith(label)}
    for splits, published in data.published.items():
        parts = [by_split[s] for s in splits.split("+") if s in by_split]
        if not parts:
            continue
        for what, expected in published.items():
            found = sum(int(getattr(row, what)) for row in parts)
            line = f"{label}{splits}: {found:,} {what}, published {expected:,}"
            if found == expected:
                notes["counts as published"].append(line)
            elif found < SAMPLE * expected:
                notes["a sample of the set"].append(line)
            else:
                notes["counts that differ from the published ones"].append(line)


class _Files:
    """The pictures and videos that tracks name."""

    def __init__(self) -> None:
        self.root = Path()
        self.sizes: dict[str, tuple[int, int]] = {}
        self.videos: dict[str, int] = {}
        self.splits: dict[str, set[str]] = defaultdict(set)
        self.none: set[str] = set()

    def add(self, split: str, index: PoseIndex) -> None:
        for track in index.tracks:
            source, last = track.frames, len(track)
            if isinstance(source, VideoPiece):
                last, source = source.start + source.step * (len(track) - 1) + 1, source.video
            if isinstance(source, FolderFrames):
                self.root = source.root
                for name in source.names[: len(track)]:
                    self.sizes[name] = track.image_size
                    self.splits[split].add(name)
            elif isinstance(source, VideoFrames):
                self.root = source.root
                self.videos[source.name] = max(self.videos.get(source.name, 0), last)
                self.sizes[source.name] = track.image_size
                self.splits[split].add(source.name)
            elif isinstance(source, NoFrames):
                self.none.add(split)

    def look(self, pixels: str, limit: int | None, wrong: Findings, notes: Findings) -> None:
        """Whether they are there and, with "decode", whole."""
        if self.none and not self.splits:
            notes["no pictures in this set"].append("it is for lifting from 2D to 3D")
        there = self._there()
        missing = set(self.sizes) - set(there)
        if self.sizes and not there:
            first = min(missing)
            notes["no pictures here"].append(
                f"{len(missing):,} files, as {first}: labels alone can be looked at and scored"
            )
            return
        for split, names in self.splits.items():
            if names <= missing:
                wrong["splits without any picture"].append(f"{split}: {len(names):,} files, as {min(names)}")
                missing -= names
        wrong["pictures that are not there"] += sorted(missing)
        wrong["empty files"] += sorted(name for name, size in there.items() if not size)
        if pixels == "decode":
            whole = sorted(name for name, size in there.items() if size)
            self._decode(_spread(whole, limit), wrong, notes)
            if limit is not None and limit < len(whole):
                notes["not all pictures were decoded"].append(f"{limit:,} of {len(whole):,}")

    def _there(self) -> dict[str, int]:
        """Bytes of the files that are there, one look per folder."""
        folders: dict[str, list[str]] = defaultdict(list)
        for name in self.sizes:
            folders[os.path.dirname(name)].append(name)
        found: dict[str, int] = {}
        for folder, names in folders.items():
            try:
                with os.scandir(self.root / folder) as entries:
                    held = {e.name: e.stat().st_size for e in entries if e.is_file()}
            except OSError:
                continue
            found.update({n: held[base] for n in names if (base := os.path.basename(n)) in held})
        return found

    def _decode(self, names: Sequence[str], wrong: Findings, notes: Findings) -> None:
        for name in _progress(names, "decoding"):
            try:
                if name in self.videos:
                    frames = decode_video(self.root / name)
                    image, count = frames[0], len(frames)
                    if count < self.videos[name]:
                        wrong["videos with too few frames"].append(
                            f"{name}: {count} decode, {self.videos[name]} are expected"
                        )
                else:
                    image = read_image(self.root / name)
            except BiposeError as error:
                wrong["pictures that cannot be read"].append(str(error).removeprefix(f"{self.root}{os.sep}"))
                continue
            size = (image.shape[1], image.shape[0])
            if size != self.sizes[name] and min(self.sizes[name]) > 0:
                said = "{}x{}".format(*self.sizes[name])
                wrong["pictures of another size than the labels say"].append(f"{name}: {size[0]}x{size[1]}, not {said}")


def _spread(names: Sequence[str], limit: int | None) -> list[str]:
    if limit is None or limit >= len(names):
        return list(names)
    return [names[math.floor(i * len(names) / limit)] for i in range(limit)]


def _settled(findings: Findings) -> Findings:
    """Without empty reasons and repeated places."""
    return {reason: list(dict.fromkeys(places)) for reason, places in findings.items() if places}


def _progress(items: Iterable[T], text: str) -> Iterable[T]:
    """The items; on a terminal with a bar, on stderr."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(list(items), description=text, console=Console(stderr=True), transient=True)
