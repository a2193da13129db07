"""`bipose data check`: a folder against its reader's tree, its files, its labels and the published counts."""

from __future__ import annotations

import inspect
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bipose_lit.datasets.catalogue import find
from bipose_lit.datasets.catalogue_entry import OWN, DataSet
from bipose_lit.datasets.check_files import Files
from bipose_lit.datasets.check_labels import check_apart, check_labels
from bipose_lit.datasets.findings import Findings, pictures, progress, settled
from bipose_lit.datasets.index import PoseIndex, Reader
from bipose_lit.datasets.layouts import check_layout, closed, lacking
from bipose_lit.datasets.show import make_reader
from bipose_lit.datasets.usual import TOLD_OF_FILES, is_usual
from bipose_lit.store import atomic
from bipose_lit.types import ABSENT, OCCLUDED, AbsentSplitError, BiposeError

PIXELS = ("exist", "decode")
SPLITS = ("train", "val", "test")
SAMPLE = 0.5
"""Below this share of the published count a folder is called a sample."""


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
        limit: at most so many pictures or videos are decoded, with "decode" alone.
        skeleton: of video_json, a name or a YAML file.

    Raises:
        BiposeError: an unknown set, no such folder, one that the reader cannot make anything of, or a limit without "decode".
    """
    data = find(name)
    if pixels not in PIXELS:
        raise BiposeError(f"pixels {pixels!r} is none of {', '.join(PIXELS)}")
    if limit is not None and pixels != "decode":
        raise BiposeError(f"--limit {limit}: says how many pictures to decode; add --pixels decode")
    check_layout(data, root, "check")
    wrong: Findings = defaultdict(list)
    notes: Findings = defaultdict(list)
    for entry in lacking(data, root):
        told = wrong["needed but not there"] if entry.needed else notes["not there (the reader does without it)"]
        told.append(f"{entry.path} ({entry.about})")
    wrong["folders that cannot be read"] += closed(data, root)
    rows: list[Row] = []
    files = Files()
    seen: dict[str, PoseIndex] = {}
    for label, reader in _readers(data, root, skeleton):
        found: dict[str, PoseIndex] = {}
        for split in progress(SPLITS, f"reading {label}labels"):
            index = _index(reader, split, label, wrong, notes)
            if index is None:
                continue
            found[split] = index
            files.add(f"{label}{split}", index)
            rows.append(_row(f"{label}{split}", index))
            check_labels(f"{label}{split}", index, wrong, notes)
        check_apart(data, label, found, wrong, notes)
        if counts and found:
            _compare(data, label, rows, notes)
        seen.update({f"{label}{split}": index for split, index in found.items()})
    if not seen:
        wrong["splits that cannot be read"] += notes.pop("splits that are not here", [])
    files.look(data.layout(), pixels, limit, wrong, notes)
    return Report(data.name, str(root), tuple(rows), settled(wrong), settled(notes))


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
    except AbsentSplitError as error:
        notes["splits that are not here"].append(f"{label}{split}: {' '.join(str(error).split())}")
        return None
    except (BiposeError, OSError) as error:  # OSError: a file or folder that may not be read
        wrong["splits that cannot be read"].append(f"{label}{split}: {' '.join(str(error).split())}")
        return None
    for reason, places in index.skipped.items():
        if reason not in TOLD_OF_FILES:
            (notes if is_usual(reader, reason) else wrong)[f"reader: {reason}"] += [str(place) for place in places]
    return index


def _row(split: str, index: PoseIndex) -> Row:
    seen = {key for track in index.tracks for key in pictures(track)}
    labelled = sum(int((t.visible != ABSENT).sum()) for t in index.tracks)
    hidden = sum(int((t.visible == OCCLUDED).sum()) for t in index.tracks)
    persons = sum(len(t) for t in index.tracks)
    share = hidden / labelled if labelled else 0.0
    return Row(split, index.name, len(index.tracks), persons, len(seen), len(index.clusters), labelled, share)


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
