"""Archives from elsewhere, unpacked so that nothing lands outside the folder and nothing is left half done."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from bipose_lit.types import BiposeError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK = 1 << 20
_JUNK = ("__MACOSX", ".DS_Store")


class DamagedArchiveError(BiposeError):
    """An archive that is not what it should be, whatever the disk is like."""


def unpack(archive: Path, target: Path, top: str = "", reserved: Sequence[str] = ()) -> list[str]:
    """Unpacks a zip or tar archive into a folder beside what is there, by way of a temporary folder in it.

    Args:
        archive: the file.
        target: the folder; made where it is missing.
        top: outermost folder of the archive's paths; dropped where it is there.
        reserved: names in the target that no member may have or lie below.

    Returns:
        Names in the target that came from the archive, sorted.

    Raises:
        DamagedArchiveError: not a readable archive, an empty one, or a member that would leave the folder (an absolute path,
            "..", a link, a device) or has a reserved name. The message ends without advice.
        BiposeError: a full disk, or a file where the archive has a folder or the other way round; nothing of it stays either.
    """
    staging = target / f".{archive.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        for name, source in _members(archive):
            place = _place(archive, name, top)
            if place is None:
                continue
            if place.parts[0].casefold() in {word.casefold() for word in reserved}:
                raise DamagedArchiveError(f"{archive}: {name!r} would lie where downloads are kept; not unpacked")
            path = staging / place
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                shutil.copyfileobj(source, out, _CHUNK)
        found = sorted(p.name for p in staging.iterdir())
        if not found:
            raise DamagedArchiveError(f"{archive}: holds no file")
        _check_places(archive, staging, target)
        _merge(staging, target)
        return found
    except (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
        ValueError,
    ) as error:  # fmt: skip
        first = " ".join(str(error).split())
        raise DamagedArchiveError(f"{archive}: not a readable archive ({first})") from error
    except OSError as error:
        raise BiposeError(f"{archive}: cannot be unpacked into {target} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise DamagedArchiveError(f"{archive}: {info.filename!r} is a link or a device; not unpacked")
                with packed.open(info) as source:
                    yield info.filename, source
        return
    with tarfile.open(archive, "r:*") as packed_tar:
        for member in packed_tar:
            if member.isdir():
                continue
            source_tar = packed_tar.extractfile(member) if member.isreg() else None
            if source_tar is None:
                raise DamagedArchiveError(f"{archive}: {member.name!r} is a link or a device; not unpacked")
            yield member.name, source_tar


def _place(archive: Path, name: str, top: str) -> PurePosixPath | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name.split("/")[0]:
        raise DamagedArchiveError(f"{archive}: {name!r} would leave the folder; not unpacked")
    parts = [part for part in path.parts if part != "."]
    if any(part in _JUNK or part.startswith("._") for part in parts):
        return None
    kept = parts[1:] if top and parts[:1] == [top] else parts
    return PurePosixPath(*kept) if kept else None


def _check_places(archive: Path, source: Path, target: Path) -> None:
    """BiposeError where `_merge` would end half way: a file in the place of a folder or the other way round."""
    for path in source.rglob("*"):
        there = target / path.relative_to(source)
        if (there.is_symlink() or there.exists()) and path.is_dir() != there.is_dir():
            kinds = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
            raise BiposeError(f"{there}: is {kinds[1]} where {archive} has {kinds[0]}; move it and fetch again")


def _merge(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        there = target / path.name
        if path.is_dir() and there.is_dir():
            _merge(path, there)
        else:
            os.replace(path, there)
