"""Trees of data sets: as text for people, and looked for in folders."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bipose_lit.datasets.catalogue import CATALOGUE
from bipose_lit.datasets.catalogue_entry import DataSet
from bipose_lit.datasets.index import Entry
from bipose_lit.types import BiposeError


def pattern(path: str) -> str:
    """The glob of an entry's path: words in capitals, {..} and ... stand for anything."""
    found = re.sub(r"\{[^}]*\}|(?<![A-Za-z])[A-Z]{2,}(?![a-z])|(?<=[a-z])N(?=[./]|$)|\.\.\.", "*", path).rstrip("/")
    return re.sub(r"\*(_\*)+", "*", found)


def missing(root: Path, layout: Iterable[Entry], depth: int = 3) -> list[Entry]:
    """Entries of which a folder holds nothing; a file of a kind that may lie anywhere is looked for `depth` folders deep."""

    def there(path: str) -> bool:
        glob = pattern(path)
        anywhere = glob.startswith("*") and "/" not in glob
        return any(_holds(root, "*/" * deep + glob) for deep in range(depth if anywhere else 1))

    return [entry for entry in layout if not there(entry.path)]


def _holds(root: Path, glob: str) -> bool:
    with contextlib.suppress(OSError):  # a folder that may not be read holds nothing for us; `closed` tells of it
        return next(iter(root.glob(glob)), None) is not None
    return False


def closed(data: DataSet, root: Path) -> list[str]:
    """Folders of a set's tree that are there and cannot be looked into, each with the reason."""
    found: dict[str, str] = {}
    for entry in data.layout():
        *folders, _ = entry.path.split("/")
        for depth in range(len(folders)):
            part = "/".join(folders[: depth + 1])
            if pattern(part) != part:
                break
            try:
                os.scandir(root / part).close()
            except (FileNotFoundError, NotADirectoryError):
                break
            except OSError as error:
                found[part] = error.strerror or str(error)
                break
    return [f"{folder} ({reason})" for folder, reason in found.items()]


def lacking(data: DataSet, root: Path, depth: int = 3) -> list[Entry]:
    """Entries of a set's tree of which a folder holds nothing, nor anything that the set takes instead."""
    found = missing(root, data.layout(), depth)
    if data.either:
        kinds = [e for e in data.layout() if any(fnmatch.fnmatchcase(glob, pattern(e.path)) for glob in data.either)]
        folders = {os.path.dirname(entry.path) for entry in kinds} - {
            ""
        }  # what is in these may lie beside them as well
        found = [
            entry
            for entry in found
            if entry not in kinds
            and not (os.path.dirname(entry.path) in folders and _holds(root, pattern(os.path.basename(entry.path))))
        ]
        if not any(_holds(root, glob) for glob in data.either):
            found.append(Entry(" or ".join(entry.path for entry in kinds), "labels"))
    for globs in data.files.values():
        if any(_holds(root, glob) for glob in globs):
            found = [entry for entry in found if not any(fnmatch.fnmatch(entry.path, glob) for glob in globs)]
    return found


def recognise(root: Path) -> list[str]:
    """Names of the sets all of whose needed entries are in a folder."""
    found = []
    for data in CATALOGUE.values():
        if not any(entry.needed for entry in lacking(data, root, 1)):
            found.append(data.name)
    return found


def tree(layout: Sequence[Entry], top: str) -> str:
    """A layout as an indented tree, a line per file or folder.

    Args:
        layout: the entries; a common folder is written once.
        top: name of the set's folder.
    """
    lines: list[tuple[str, str]] = [(f"{top}/", "")]
    open_folders: list[str] = []
    for entry in layout:
        *folders, name = entry.path.rstrip("/").split("/")
        same = 0
        while same < min(len(folders), len(open_folders)) and folders[same] == open_folders[same]:
            same += 1
        lines += [(f"{'  ' * (depth + 1)}{folders[depth]}/", "") for depth in range(same, len(folders))]
        open_folders = folders
        slash = "/" if entry.path.endswith("/") else ""
        optional = "" if entry.needed else " (may be missing)"
        lines.append((f"{'  ' * (len(folders) + 1)}{name}{slash}", f"{entry.about}{optional}"))
    width = max(len(left) for left, _ in lines)
    return "\n".join(f"{left:<{width}}   {right}".rstrip() for left, right in lines)


def check_layout(data: DataSet, root: Path, verb: str) -> None:
    """Complains of a folder that is not there or is another set's.

    Args:
        data: the set that was named.
        root: the folder.
        verb: of the command, for the advice ("show", "check").

    Raises:
        BiposeError: says which set's layout it is, or what the folder lacks.
    """
    if not root.is_dir():
        what = "is no folder" if root.exists() else "no such folder"
        raise BiposeError(f"{root}: {what}; give the folder of the data set ('bipose data fetch {data.name}' says how)")
    if not any(entry.needed for entry in lacking(data, root)):
        return
    try:
        empty = not any(root.iterdir())
    except OSError as error:
        raise BiposeError(f"{root}: the folder cannot be read ({error.strerror}); change its permissions") from error
    if empty:
        raise BiposeError(f"{root}: the folder is empty; 'bipose data fetch {data.name}' says how the set is had")
    inner = root / data.folder.rpartition("/")[2]
    for place in (inner, root / data.name):
        if place.is_dir() and not any(entry.needed for entry in lacking(data, place)):
            raise BiposeError(f"{root}: {data.name} lies deeper; say 'bipose data {verb} {data.name} {place}'")
    if others := recognise(root):
        if CATALOGUE[others[0]].card == data.card:  # sets that share a folder: what it lacks can be added
            told = ", ".join(entry.path for entry in lacking(data, root) if entry.needed)
            raise BiposeError(
                f"{root}: holds {others[0]}, but no {told}; 'bipose data fetch {data.name}' says how it is had"
            )
        raise BiposeError(
            f"{root}: this is the layout of {others[0]}, not of {data.name}; say 'bipose data {verb} {others[0]} {root}'"
        )
