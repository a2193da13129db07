"""One file over HTTP, gone on with where it was cut off, and checked.

pooch's HTTPDownloader does the transfer and pooch the checksums; what it lacks, going on with a partial file (RFC 9110, 14.2:
Range and If-Range), is added through the headers and a look at the response.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bipose_lit.datasets.catalogue_entry import Download
from bipose_lit.types import BiposeError

TRIES = 4
"""Requests in a row that bring nothing."""
WAIT = 2.0
"""Seconds before the second try; each further one waits twice as long."""
TIMEOUT = 60.0
CHUNK = 1 << 16
"""Bytes at a time; fewer than these are lost where a connection drops."""

ROUGH = 1_000_000
"""Published sizes in whole units of this many bytes are rounded."""

Report = Callable[[int, int], None]
"""Called with the bytes there are and the bytes there will be (0 unknown)."""


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
        raise disk_error(error, part) from error
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
    raise BiposeError(f"{problem}; {item.file} has {size_text(have)} so far; the same command goes on from there")


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
            response.raw.headers.pop("content-encoding", None)  # Apache's AddEncoding: the file itself is the archive
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
    have = part.stat().st_size
    return have == whole if whole else have >= least_size(item)


def least_size(item: Download) -> float:
    """Bytes below which a file must have been cut off, by its published size; 0 where a checksum tells or no size is known."""
    if item.checksum:
        return 0
    return item.size if item.size % ROUGH else 0.95 * item.size


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


def disk_error(error: OSError, part: Path) -> BiposeError:
    """An error of the disk as one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BiposeError(f"{part}: the disk is full; free some space, then the same command goes on from there")
    return BiposeError(f"{part}: cannot be written ({error.strerror or error}); choose another place with --root")


def size_text(count: int) -> str:
    """Bytes in the unit that suits them."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
