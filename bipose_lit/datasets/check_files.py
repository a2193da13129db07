"""`bipose data check`: the pictures and videos that labels name."""

from __future__ import annotations

import fnmatch
import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from bipose_lit.datasets.damage import read_strictly
from bipose_lit.datasets.findings import Findings, progress
from bipose_lit.datasets.frames import FolderFrames, NoFrames, VideoFrames, decode_video
from bipose_lit.datasets.index import Entry, PoseIndex
from bipose_lit.datasets.layouts import pattern
from bipose_lit.datasets.video_json import VideoPiece
from bipose_lit.types import BiposeError

LABELS_ALONE = "splits without any picture, labels alone can be looked at and scored"

_PEEK = 4096


class Files:
    """The files that tracks name, by split."""

    def __init__(self) -> None:
        self.root = Path()
        self.sizes: dict[str, tuple[int, int]] = {}
        self.videos: dict[str, int] = {}
        self.splits: dict[str, set[str]] = defaultdict(set)
        self.none: set[str] = set()

    def add(self, split: str, index: PoseIndex) -> None:
        """Notes the files of a split; "split1/train" is compared with other splits of "split1/"."""
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

    def look(self, layout: Iterable[Entry], pixels: str, limit: int | None, wrong: Findings, notes: Findings) -> None:
        """Whether they are there, are no copies of another split's and, with "decode", whole.

        Args:
            layout: of the data set: a split may lack all pictures of a kind that may be missing.
            pixels: "exist" or "decode".
            limit: at most so many are decoded.
            wrong: is added to.
            notes: is added to.
        """
        if self.none and not self.splits:
            notes["no pictures in this set"].append("it is for lifting from 2D to 3D")
        there, closed = self._there()
        wrong["folders that cannot be read"] += [f"{folder} ({reason})" for folder, reason in sorted(closed.items())]
        missing = {n for n in self.sizes if n not in there and os.path.dirname(n) not in closed}
        entries, partly = tuple(layout), set[str]()
        for split, names in self.splits.items():
            if not names <= missing:
                partly |= names & missing
            elif all(_optional(entries, name) for name in names):
                notes[LABELS_ALONE].append(f"{split}: {len(names):,} files, as {min(names)}")
            else:
                wrong["splits without any picture"].append(f"{split}: {len(names):,} files, as {min(names)}")
        wrong["pictures that are not there"] += sorted(partly)
        wrong["empty files"] += sorted(name for name, size in there.items() if not size)
        notes["pictures of unknown size"] += sorted(name for name in there if min(self.sizes[name]) <= 0)
        whole = sorted(name for name, size in there.items() if size)
        self._copies({name: there[name] for name in whole}, wrong)
        if pixels == "decode":
            self._decode(_spread(whole, limit), wrong)
            if limit is not None and limit < len(whole):
                notes["not all pictures were decoded"].append(f"{limit:,} of {len(whole):,}")

    def _there(self) -> tuple[dict[str, int], dict[str, str]]:
        """Bytes of the files that are there, one look per folder, and the folders that cannot be looked into, with the reason."""
        folders: dict[str, list[str]] = defaultdict(list)
        for name in self.sizes:
            folders[os.path.dirname(name)].append(name)
        found: dict[str, int] = {}
        closed: dict[str, str] = {}
        for folder, names in folders.items():
            try:
                with os.scandir(self.root / folder) as entries:
                    held = {e.name: e.stat().st_size for e in entries if e.is_file()}
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                closed[folder] = error.strerror or str(error)
                continue
            found.update({n: held[base] for n in names if (base := os.path.basename(n)) in held})
        return found, closed

    def _copies(self, sizes: Mapping[str, int], wrong: Findings) -> None:
        """Files of two splits with the same bytes: of one size, then by their middle, then whole."""
        known: dict[tuple[str, bool], bytes] = {}

        def digest(name: str, whole: bool) -> bytes:
            if (name, whole) not in known:
                known[name, whole] = _digest(self.root / name, sizes[name], whole)
            return known[name, whole]

        groups: dict[str, list[str]] = defaultdict(list)
        for split in self.splits:
            groups[split.rpartition("/")[0]].append(split)
        for splits in groups.values():
            member = {name: split for split in splits for name in sorted(self.splits[split]) if name in sizes}
            alike = _classes([list(member)], member, lambda name: sizes[name])
            alike = _classes(progress(alike, "comparing files of two splits"), member, lambda name: digest(name, False))
            for names in _classes(alike, member, lambda name: digest(name, True)):
                first = names[0]
                wrong["copies of a picture in two splits"] += [
                    f"{member[first]} and {member[name]}: {first} and {name}"
                    for name in names
                    if member[name] != member[first]
                ]

    def _decode(self, names: Sequence[str], wrong: Findings) -> None:
        for name in progress(names, "decoding"):
            try:
                if name in self.videos:
                    frames = decode_video(self.root / name)
                    image, count = frames[0], len(frames)
                    if count < self.videos[name]:
                        wrong["videos with too few frames"].append(
                            f"{name}: {count} decode, {self.videos[name]} are expected"
                        )
                else:
                    image = read_strictly(self.root / name)
            except BiposeError as error:
                wrong["pictures that cannot be read"].append(str(error).removeprefix(f"{self.root}{os.sep}"))
                continue
            size = (image.shape[1], image.shape[0])
            if size != self.sizes[name] and min(self.sizes[name]) > 0:
                said = "{}x{}".format(*self.sizes[name])
                wrong["pictures of another size than the labels say"].append(f"{name}: {size[0]}x{size[1]}, not {said}")


def _optional(layout: Iterable[Entry], name: str) -> bool:
    """Whether a picture is of a kind that a data set's folder may lack."""
    folder = os.path.dirname(name)
    kinds = [entry for entry in layout if fnmatch.fnmatchcase(folder, os.path.dirname(pattern(entry.path)))]
    return bool(kinds) and not any(entry.needed for entry in kinds)


def _classes(
    groups: Iterable[Sequence[str]], member: Mapping[str, str], key: Callable[[str], object]
) -> list[list[str]]:
    """The groups divided by a key of their names; those that are of two splits."""
    parts: list[list[str]] = []
    for names in groups:
        found: dict[object, list[str]] = defaultdict(list)
        for name in names:
            found[key(name)].append(name)
        parts += [part for part in found.values() if len({member[name] for name in part}) > 1]
    return parts


def _digest(path: Path, size: int, whole: bool) -> bytes:
    """Of 4 KiB in the middle of a file or of all of it; of its name where it cannot be read, which is told elsewhere."""
    try:
        with path.open("rb") as file:
            if whole:
                return hashlib.file_digest(file, "blake2b").digest()
            file.seek(max(0, (size - _PEEK) // 2))
            return hashlib.blake2b(file.read(_PEEK)).digest()
    except OSError:
        return str(path).encode()


def _spread(names: Sequence[str], limit: int | None) -> list[str]:
    if limit is None or limit >= len(names):
        return list(names)
    return [names[math.floor(i * len(names) / limit)] for i in range(limit)]
