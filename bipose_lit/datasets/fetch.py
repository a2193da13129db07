"""`bipose data fetch`: downloads that go on where they were cut off, are checked, and are unpacked safely."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bipose_lit.datasets.catalogue import CATALOGUE, find
from bipose_lit.datasets.catalogue_entry import OPEN, OWN, DataSet, Download
from bipose_lit.datasets.transfer import ROUGH, disk_error, download, size_text
from bipose_lit.datasets.unpack import DamagedArchiveError, unpack
from bipose_lit.store import atomic
from bipose_lit.types import BiposeError

DOWNLOADS = "downloads"
"""Folder of the archives within a set's folder; they may be deleted when they are unpacked."""


def fetch(
    name: str, root: Path | None = None, only: Sequence[str] = (), listing: bool = False, yes: bool = False
) -> None:
    """Downloads and unpacks a data set, or says how it is had.

    Args:
        name: of the catalogue.
        root: the set's folder; default as the recipes have it.
        only: names of files; default all but the extra ones.
        listing: print what there is and end.
        yes: do not ask.

    Raises:
        BiposeError: an unknown set or file, a set that asks for terms or a request first, no consent, too little space, another
            fetch into the same folder, or a download that failed (what came stays, and the same command goes on from there).
    """
    data = find(name)
    folder = root or Path(data.folder)
    print(f"{data.title}: {data.home}\nterms: {data.licence}")
    if data.access != OPEN:
        print(f"where to: {folder}, in the tree of data/{data.card}.md")
        why = "is made by you" if data.access == OWN else f"is not for plain download ({data.access})"
        raise BiposeError(f"{data.name} {why}: {data.how}")
    chosen = _chosen(data, only)
    if listing:
        print(describe(chosen if only else data.downloads))
        return
    todo = [item for item in chosen if not _done(folder, item)]
    for item in chosen:
        if item not in todo:
            print(f"{item.file}: already there")
    if not todo:
        whole = all(item in chosen or _done(folder, item) for item in data.downloads if not item.extra)
        what = "complete" if whole else "what was asked for is there, other files of the set are not"
        print(f"{folder}: {what}; 'bipose data check {data.name} {folder}' looks through it")
        return
    _ask(todo, folder, yes)
    with _alone(folder):
        _check_space(folder, sum(_needed(folder, item) for item in todo))
        for item in todo:
            with _Progress(item.file) as bar:
                path = download(item, folder / DOWNLOADS, bar.report)
            print(f"{path}: {size_text(path.stat().st_size)}, {_verified(item, bar.whole)}")
            _place(item, path, folder)
    print(f"{folder}: done; next 'bipose data check {data.name} {folder}'")


def describe(items: Sequence[Download]) -> str:
    """Files of a set as text, a line each."""
    lines = []
    for item in items:
        size = size_text(item.size) if item.size else "size unknown"
        note = " (only when named with --only)" if item.extra else ""
        lines.append(
            f"  {item.file}: {item.about}, {size}, {item.checksum or 'no checksum published'}{note}\n    {item.url}"
        )
    return "\n".join(lines)


def overview() -> str:
    """All sets and how they are had, a line each."""
    return "\n".join(f"  {d.name:<15} {d.access:<14} {d.title} ({d.home})" for d in CATALOGUE.values())


def _chosen(data: DataSet, only: Sequence[str]) -> list[Download]:
    known = {item.file: item for item in data.downloads}
    for name in only:
        if name not in known:
            raise BiposeError(f"{data.name} has no file {name!r}; it has {', '.join(known)}")
    return [item for item in data.downloads if (item.file in only if only else not item.extra)]


def _place(item: Download, path: Path, folder: Path) -> None:
    names = [f"{DOWNLOADS}/{path.name}"]
    if item.into is not None:
        into = folder / item.into
        print(f"  unpacking into {into}")
        try:
            found = unpack(path, into, item.top, (DOWNLOADS,))
        except DamagedArchiveError as error:
            if item.checksum:
                raise BiposeError(f"{error}, though its checksum is right; look at the set's home") from error
            bad = path.with_name(f"{path.name}.bad")
            path.replace(bad)
            raise BiposeError(
                f"{error}; kept as {bad}. Fetch again; if it is the same once more, the owner's file is not as it was"
            ) from error
        names = [f"{item.into}/{name}".lstrip("/") for name in found]
    else:
        names = [path.name]
    try:
        if item.into is None:
            shutil.copyfile(path, folder / path.name)
        with atomic(_mark(folder, item)) as handle:
            handle.write(json.dumps({"url": item.url, "size": path.stat().st_size, "names": names}) + "\n")
    except OSError as error:
        raise disk_error(error, folder / path.name) from error


def _mark(folder: Path, item: Download) -> Path:
    return folder / DOWNLOADS / f"{item.file}.done"


def _done(folder: Path, item: Download) -> bool:
    try:
        names = json.loads(_mark(folder, item).read_text(encoding="utf-8"))["names"]
        return bool(names) and all((folder / str(name)).exists() for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _needed(folder: Path, item: Download) -> int:
    size = item.size or _remote_size(item)
    there = sum(p.stat().st_size for s in ("", ".part") if (p := folder / DOWNLOADS / f"{item.file}{s}").exists())
    return max(size - there, 0) + int(1.1 * size)  # pictures hardly shrink in archives; a file that stays is copied


def _remote_size(item: Download) -> int:
    import requests

    try:
        answer = requests.head(item.url, timeout=10, allow_redirects=True, headers={"Accept-Encoding": "identity"})
        return int(answer.headers.get("Content-Length") or 0) if answer.ok else 0
    except (requests.exceptions.RequestException, ValueError):
        return 0  # the download itself will say what is wrong


def _check_space(folder: Path, need: int) -> None:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if need > free:
        raise BiposeError(
            f"{folder}: about {size_text(need)} are needed to download and unpack, {size_text(free)} are free; choose another "
            "place with --root or fewer files with --only"
        )


def _ask(todo: Sequence[Download], folder: Path, yes: bool) -> None:
    what = f"{_amount(todo)}, to {folder}"
    if yes:
        print(f"downloading {what}")
    elif not sys.stdin.isatty():
        raise BiposeError(f"nothing is downloaded without consent: add --yes to get {what}")
    elif input(f"download {what}? You accept the terms above. [y/N] ").strip().lower() not in ("y", "yes"):
        raise BiposeError("nothing was downloaded")


def _amount(items: Sequence[Download]) -> str:
    """ "3 files, 2.1 MB and 1 of unknown size"."""
    total, unknown = sum(item.size for item in items), sum(not item.size for item in items)
    files = f"{len(items)} file{'s' if len(items) != 1 else ''}"
    if unknown == len(items):
        return f"{files} of unknown size"
    return f"{files}, {size_text(total)}{f' and {unknown} of unknown size' if unknown else ''}"


def _verified(item: Download, whole: int) -> str:
    """What is known of a file that came; `whole` is the length that the server told, 0 for none."""
    if item.checksum:
        return "checksum right"
    if whole:
        return "no checksum known, as long as the server said"
    if item.size:
        return f"no checksum known, {'about ' if not item.size % ROUGH else ''}as long as published"
    return "no checksum known, size unknown: not verified"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps another process from fetching into the same folder; the kernel frees the lock however this one ends."""
    place = folder / DOWNLOADS / ".lock"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("w")
    except OSError as error:
        raise disk_error(error, place) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BiposeError(
                f"{folder}: another 'bipose data fetch' is at work in it; wait until it has ended"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield


class _Progress:
    """A bar on a terminal, nothing elsewhere; remembers the length that was told."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task(name, total=None)
        self.whole = 0

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def report(self, have: int, whole: int) -> None:
        """As `transfer.Report`."""
        self.whole = whole
        self.bar.update(self.task, completed=have, total=whole or None)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
