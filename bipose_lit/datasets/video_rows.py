"""Labelled persons in the frames of videos: what a row is, which rows are one track, and which source they are from."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bipose_lit.datasets.coco_json import CocoFile
from bipose_lit.datasets.json_labels import Skipped


@dataclass(frozen=True)
class Row:
    """A labelled person in a frame; `name` is "" in a video file, `cluster` the image's source."""

    person: int
    image: int
    video: str
    track: int
    frame: int
    size: tuple[int, int]
    name: str
    fps: float
    cluster: str

    @property
    def moving(self) -> bool:
        """Part of a track; else a still."""
        return bool(self.video) and self.track >= 0 and self.frame >= 0

    def follows(self, last: Row, step: int) -> bool:
        """Whether it continues the track that `last` is in."""
        mine, before = ((r.video, r.track, r.size, bool(r.name)) for r in (self, last))
        return self.moving and mine == before and self.frame - last.frame == step


def tell_steps(rows: list[Row], step: int, skipped: Skipped) -> None:
    """Tells the tracks whose labels mostly are not so many frames apart: each of them would be many, of one frame each."""
    frames: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in rows:
        if row.moving:
            frames[row.video, row.track].append(row.frame)
    for (video, track), at in frames.items():
        gaps = Counter(b - a for a, b in pairwise(at) if b > a)
        most = max(gaps.values(), default=0)
        if most and gaps[step] < most:
            gap = min(g for g, count in gaps.items() if count == most)
            apart = f"{gap} frame{'s' if gap > 1 else ''} apart"
            reason = f"neighbouring labels are {apart}, step is {step}: give step {gap}"
            skipped.setdefault(reason, []).append(f"video {video}, track {track}")


def state_of(path: Path) -> tuple[Path, int, int]:
    """What tells whether a file has changed; a file that is not there is told by who reads it."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return path, -1, -1
    return path, found.st_size, found.st_mtime_ns


def clip_name(file: CocoFile, rows: list[Row]) -> str:
    """The clip's name."""
    first = rows[0]
    if first.moving:
        return f"{first.video}/{first.track}-{first.frame:05d}"
    return f"{file.truth.images[first.image]}/{file.truth.id[first.person]}"


def sources(file: CocoFile) -> list[str]:
    """(I,) the source of each image: by files, since numbers begin anew in another split's file."""
    stems: dict[str, set[str]] = defaultdict(set)
    for video, name in zip(file.video, file.names, strict=True):
        if video and name:
            stems[video].add(name.rpartition(".")[0].rstrip("0123456789").rstrip("/_. -"))
    shared = Counter(stem for found in stems.values() for stem in found)
    found = []
    for own, video, name, image in zip(file.cluster, file.video, file.names, file.truth.images.tolist(), strict=True):
        source = name or f"image {image}"
        if video in file.videos:
            source = file.videos[video][0]
        elif video:
            stem = next(iter(stems[video])) if len(stems[video]) == 1 else ""
            source = stem if stem and shared[stem] == 1 else f"video {video}"
        found.append(own or source)
    return found
