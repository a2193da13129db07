"""npz files, those with pickled objects too, read without running a pickle.

VideoPose3D keeps Human3.6M as a pickled dict in an object array (`np.savez(file, positions_3d={...})`), which numpy reads with
`allow_pickle=True` only; and whoever writes such a file decides what that runs. Here pickles go to `safe_pickle`, and sizes are
compared with the bytes at hand before anything is allocated. Format: `numpy.lib.format` (npy 1.0 to 3.0).
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

from bipose_lit.datasets.safe_pickle import BrokenError, element_type, filled, shown, unpickle
from bipose_lit.types import BiposeError

_MOST, _RATIO = 2**30, 2
"""What a file may unpack to: 1 GiB, or twice its own size. Constant predictions shrink a thousandfold: no ratio tells a bomb."""
# Possessive, since a header may have 65,000 blanks.
_HEADER: Final = re.compile(
    r"\s*+\{\s*+'descr'\s*+:\s*+'([^']{1,16})'\s*+,\s*+'fortran_order'\s*+:\s*+(True|False)\s*+,"
    r"\s*+'shape'\s*+:\s*+\(([0-9L, ]{0,400})\)\s*+,?+\s*+\}\s*+"
)


def names_in(path: Path) -> tuple[str, ...]:
    """Names of the arrays of an npz file, in its order.

    Raises:
        BiposeError: missing, or not an npz file.
    """
    with _opened(path) as archive:
        return tuple(_names(path, archive))


def read_npz(path: Path, names: tuple[str, ...] | None = None, objects: bool = False) -> dict[str, Any]:
    """Arrays of an npz file.

    Args:
        path: the file.
        names: which; None for all.
        objects: take arrays of pickled objects too. They come as plain dicts, lists, tuples, numbers, text and read-only numpy
            arrays; an array that wraps one object as that object.

    Raises:
        BiposeError: missing, damaged, no npz file, lacks a name, unpacks to more than 1 GiB (and more than twice its size), or
            holds objects that are not asked for or that are none of the above.
    """
    out: dict[str, Any] = {}
    with _opened(path) as archive:
        members = _names(path, archive)
        for name in members if names is None else names:
            if name not in members:
                found = ", ".join(list(members)[:8]) or "nothing"
                raise BiposeError(f"{path}: has no array {name}; it holds {shown(found)}")
            try:
                out[name] = _array(_read(path, archive, members[name]), objects)
            except BrokenError as error:
                raise BiposeError(f"{path}: {shown(name)} {error}") from error
            except MemoryError as error:
                size = members[name].file_size / 2**20
                raise BiposeError(
                    f"{path}: {shown(name)} needs {size:.1f} MiB of memory, which are not free; close other programs"
                ) from error
    return out


_ZIP_ERRORS = (
    OSError, EOFError, ValueError, RuntimeError, IndexError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise BiposeError(f"{path}: no such file; check the data set's folder") from error
    except _ZIP_ERRORS as error:
        raise BiposeError(f"{path}: not a readable npz file; copy or download it again") from error


def _names(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    out: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for info in archive.infolist():
        if not info.filename.endswith(".npy"):
            continue
        name = info.filename.removesuffix(".npy")
        if name in out:
            raise BiposeError(f"{path}: holds {shown(name)} twice; write it again")
        out[name] = info
        total += info.file_size
    if total > max(_MOST, _RATIO * path.stat().st_size):
        raise BiposeError(
            f"{path}: unpacks to {total / 2**30:.1f} GiB, at most 1 GiB is read; store it with numpy.savez (not compressed), "
            "as float32, or as several files"
        )
    return out


def _read(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BrokenError("is packed in a way that numpy does not use; write the file again with numpy.savez")
    try:
        with archive.open(info) as file:  # archive.read() would unpack up to 2 GiB before it trims
            return file.read(info.file_size)  # never more than the size that `_names` added up
    except _ZIP_ERRORS as error:
        raise BrokenError("is damaged or cut short; copy or download the file again") from error


def _array(data: bytes, objects: bool) -> Any:
    major = data[6:7]
    width = 2 if major == b"\x01" else 4
    if data[:6] != b"\x93NUMPY" or major not in (b"\x01", b"\x02", b"\x03") or len(data) < 8 + width:
        raise BrokenError("is no numpy array; copy or download the file again")
    start = 8 + width
    end = start + int.from_bytes(data[8:start], "little")
    header = _HEADER.fullmatch(data[start:end].decode("latin1")) if end - start <= 65536 else None
    if header is None or end > len(data):
        raise BrokenError("has no readable header; copy or download the file again")
    dtype = element_type(header[1])
    shape = tuple(int(word) for word in re.findall(r"[0-9]+", header[3]))  # Python 2 wrote 3L
    if dtype.hasobject:
        if not objects:
            raise BrokenError("holds pickled objects, which are not read here; store plain arrays instead")
        value = unpickle(data[end:])
        if isinstance(value, list) and math.prod(shape) != len(value):
            raise BrokenError("has another shape than its header says; write the file again")
        return value
    return filled(memoryview(data)[end:], dtype, shape, header[2] == "True")
