"""`bipose data fetch`: downloads that go on where they were cut off, are checked, and are unpacked safely.

pooch's HTTPDownloader does the transfer and pooch the checksums; what it lacks, going on with a partial file (RFC 9110, 14.2:
Range and If-Range), is added through the headers and a look at the response.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bipose_lit.datasets.catalogue import CATALOGUE, find
from bipose_lit.datasets.catalogue_entry import OPEN, OWN, DataSet, Download
from bipose_lit.datasets.unpack import unpack
from bipose_lit.store import atomic
from bipose_lit.types import BiposeError

DOWNLOADS = "downloads"
"""Folder of the archives within a set's folder; they may be deleted when they are unpacked."""

TRIES = 4
"""Requests in a row that bring nothing."""
WAIT = 2.0
"""Seconds before the second try; each further one waits twice as long."""
TIMEOUT = 60.0
CHUNK = 1 << 16
"""Bytes at a time; fewer than these are lost where a connection drops."""

Report = Callable[[int, int], None]
"""Called with the bytes there are and the bytes there will be (0 unknown)."""


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
        BiposeError: an unknown set or file, a set that asks for terms or a request first, no consent, too little space, or a
            download that failed (what came stays, and the same command goes on from there).
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
        print(describe(data))
        return
    todo = [item for item in chosen if not _done(folder, item)]
    for item in chosen:
        if item not in todo:
            print(f"{item.file}: already there")
    if not todo:
        print(f"{folder}: complete; 'bipose data check {data.name} {folder}' looks through it")
        return
    _ask(todo, folder, yes)
    _check_space(folder, sum(_needed(folder, item) for item in todo))
    for item in todo:
        with _Progress(item.file) as report:
            path = download(item, folder / DOWNLOADS, report)
        print(f"{path}: {_size(path.stat().st_size)}{', checksum right' if item.checksum else ', no checksum known'}")
        _place(item, path, folder)
    print(f"{folder}: done; next 'bipose data check {data.name} {folder}'")


def describe(data: DataSet) -> str:
    """The files of a set as text, a line each."""
    lines = []
    for item in data.downloads:
        size = _size(item.size) if item.size else "size unknown"
        note = " (only when named with --only)" if item.extra else ""
        lines.append(
            f"  {item.file}: {item.about}, {size}, {item.checksum or 'no checksum published'}{note}\n    {item.url}"
        )
    return "\n".join(lines)


def overview() -> str:
    """All sets and how they are had, a line each."""
    return "\n".join(f"  {d.name:<15} {d.access:<14} {d.title} ({d.home})" for d in CATALOGUE.values())


def download(item: Download, folder: Path, report: Report | None = None) -> Path:
    """One file, complete and with the right checksum, in `folder`.

    What has come is kept as FILE.part and gone on with; a file with another checksum than was published is kept as FILE.bad.

    Raises:
        BiposeError: as `fetch`.
    """
    target, part = folder / item.file, folder / f"{item.file}.part"
    if target.exists():
        if (found := _wrong(item, target)) is not None:
            raise BiposeError(
                f"{target}: the checksum is {found}, published is {item.checksum}; remove it and fetch again"
            )
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _transfer(item, part, report or (lambda *_: None))
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()
        found = _wrong(item, part)
        arrived = target if found is None else folder / f"{item.file}.bad"
        part.replace(arrived)
        _tag_file(part).unlink(missing_ok=True)
    except OSError as error:
        raise _disk_error(error, part) from error
    if found is not None:
        raise BiposeError(
            f"{item.url}: the checksum is {found}, published is {item.checksum}; kept as {arrived}. Fetch again; if it is the "
            "same once more, the owner has changed the file"
        )
    return target


def _transfer(item: Download, part: Path, report: Report) -> None:
    import requests

    host = urlsplit(item.url).hostname or item.url
    early = f"{host}: the connection ended early"
    fails, had = 0, -1
    while fails < TRIES:
        if fails:
            time.sleep(WAIT * 2 ** (fails - 1))
        try:
            if _request(item, part, report):
                return
            problem = early
        except requests.exceptions.SSLError as error:
            raise BiposeError(f"{item.url}: the certificate of {host} is not valid; try again later") from error
        except requests.exceptions.HTTPError as error:
            answer = error.response
            assert answer is not None
            status = answer.status_code
            if status == 416:  # nothing follows what we have: it is all there is, or no part of it
                if answer.headers.get("Content-Range", "") == f"bytes */{part.stat().st_size}":
                    return
                _tag_file(part).unlink(missing_ok=True)
                part.unlink(missing_ok=True)
            if status in (404, 410):
                raise BiposeError(
                    f"{item.url}: not there ({status}); look at the set's home for its new place"
                ) from error
            if status in (401, 403):
                raise BiposeError(
                    f"{item.url}: refused ({status}); look at the set's home for what it asks for"
                ) from error
            if status < 500 and status not in (416, 429):
                raise BiposeError(f"{item.url}: the server answers {status} {answer.reason}") from error
            problem = f"{host}: the server answers {status} {answer.reason}"
        except requests.exceptions.RequestException as error:
            if isinstance(error, requests.exceptions.ConnectionError) and "NameResolution" in str(error):
                problem = f"{host}: the name is unknown here (no network?)"
            elif isinstance(error, requests.exceptions.Timeout):
                problem = f"{host}: no answer within {TIMEOUT:g} s"
            elif isinstance(error, requests.exceptions.ConnectionError) and not isinstance(
                error, requests.exceptions.ChunkedEncodingError
            ):
                problem = f"{host}: cannot be reached"
            else:
                problem = early
        have = part.stat().st_size if part.exists() else 0
        fails, had = (1 if have > had else fails + 1), max(had, have)  # a line that drops often still gets there
    raise BiposeError(f"{problem}; {item.file} has {_size(have)} so far; the same command goes on from there")


def _request(item: Download, part: Path, report: Report) -> bool:
    """One request, from where `part` ends; True if the file is complete."""
    import pooch

    start = part.stat().st_size if part.exists() else 0
    tag = _tag_file(part).read_text(encoding="utf-8") if start and _tag_file(part).exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag:
            headers["If-Range"] = tag  # another file by now is sent whole
    whole = 0
    with part.open("ab") as handle:

        def look(response: Any, **_: Any) -> None:
            nonlocal whole
            told = response.headers
            if response.status_code not in (200, 206):
                return
            if told.get("Content-Type", "").startswith("text/html") and not item.file.endswith((".html", ".htm")):
                raise BiposeError(f"{item.url}: answers with a page, not with a file; look at the set's home")
            if response.status_code == 200:
                handle.truncate(0)  # the server sends all of it
                whole = int(told.get("Content-Length") or 0)
            else:
                span = told.get("Content-Range", "")
                first, _, all_of_it = span.removeprefix("bytes ").replace("-", "/", 1).partition("/")
                if first.strip() != str(start):
                    raise BiposeError(f"{item.url}: the server sends another part than asked for; remove {part}")
                size = all_of_it.rpartition("/")[2]
                whole = int(size) if size.isdigit() else 0
            known = told.get("ETag", "")
            known = known if known and not known.startswith("W/") else told.get("Last-Modified", "")
            _tag_file(part).write_text(known, encoding="utf-8")

        class Bar:
            """What pooch takes for a progress bar."""

            total = 0

            def update(self, _: int) -> None:
                report(handle.tell(), whole)

            def reset(self) -> None: ...

            def close(self) -> None: ...

        loader = pooch.HTTPDownloader(
            Bar(), chunk_size=CHUNK, headers=headers, hooks={"response": look}, timeout=TIMEOUT
        )
        loader(item.url, handle, None)
    return not whole or part.stat().st_size == whole


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _wrong(item: Download, path: Path) -> str | None:
    """The file's checksum where it is not the published one."""
    import pooch

    if not item.checksum:
        return None
    kind, _, expected = item.checksum.partition(":")
    found = pooch.file_hash(str(path), alg=kind)
    return None if found == expected.lower() else f"{kind}:{found}"


def _disk_error(error: OSError, part: Path) -> BiposeError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BiposeError(f"{part}: the disk is full; free some space, then the same command goes on from there")
    return BiposeError(f"{part}: cannot be written ({error.strerror or error}); choose another place with --root")


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
        names = [f"{item.into}/{name}".lstrip("/") for name in unpack(path, into, item.top)]
    else:
        shutil.copyfile(path, folder / path.name)
        names = [path.name]
    with atomic(_mark(folder, item)) as handle:
        handle.write(json.dumps({"url": item.url, "size": path.stat().st_size, "names": names}) + "\n")


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
            f"{folder}: about {_size(need)} are needed to download and unpack, {_size(free)} are free; choose another "
            "place with --root or fewer files with --only"
        )


def _ask(todo: Sequence[Download], folder: Path, yes: bool) -> None:
    total, unknown = sum(item.size for item in todo), sum(not item.size for item in todo)
    what = f"{len(todo)} files, {_size(total)}{f' and {unknown} of unknown size' if unknown else ''}, to {folder}"
    if yes:
        print(f"downloading {what}")
    elif not sys.stdin.isatty():
        raise BiposeError(f"nothing is downloaded without consent: add --yes to get {what}")
    elif input(f"download {what}? You accept the terms above. [y/N] ").strip().lower() not in ("y", "yes"):
        raise BiposeError("nothing was downloaded")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


class _Progress:
    """A bar on a terminal, nothing elsewhere."""

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

    def __enter__(self) -> Report:
        self.bar.start()
        return lambda have, whole: self.bar.update(self.task, completed=have, total=whole or None)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
