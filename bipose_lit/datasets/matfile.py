"""MATLAB files of version 5 (also called v6 and v7), read without trust in what they say.

scipy's reader takes types and counts from the file as they are: one changed byte can end the process with a segmentation
fault, or make it ask for gigabytes. Label files are small and simple, so this reader checks every size against the bytes
that are there, inflates no more than a limit, and knows one way to fail.

Source of the format: MathWorks, "MAT-File Format" (level 5). Values have the form in which `scipy.io.loadmat` gives them:
numbers as arrays of two dimensions or more, text as an array of strings with one entry per row, cells as arrays of objects,
structs as record arrays of objects.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_FILE = 512 * 2**20
"""Bytes of a file that are read."""

_SMALL, _RATIO = 64 * 2**20, 64  # what a file may inflate to: 64 MiB, or so many times its own size
_DEPTH, _DIMENSIONS, _NAME_LENGTH = 32, 16, 64
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR, _SINGLE, _OPAQUE = 1, 2, 4, 7, 17
_NUMERIC = {
    code: np.dtype(name) for code, name in enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), 6)
}
_FOREIGN = {3: "object", 5: "sparse matrix", 16: "function", 17: "object", 18: "object"}


class DamagedError(ValueError):
    """The bytes are not a MATLAB file that can be read; the message says why, in a few words."""


@dataclass(frozen=True)
class Foreign:
    """A variable of a kind that label files do not use: an object, a sparse matrix, a function."""

    kind: str


def parse_mat(data: bytes) -> dict[str, Any]:
    """The variables of a MATLAB file of version 5, from its content.

    Raises:
        DamagedError: not such a file, cut, damaged, or one that inflates to far more than its size.
    """
    if data.startswith(b"\x89HDF\r\n\x1a\n") or data[512:520] == b"\x89HDF\r\n\x1a\n":
        raise DamagedError("saved as v7.3; save it with '-v7'")
    if len(data) < 128:
        raise DamagedError("shorter than a header")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack(order + "H", data[124:126])[0] != 0x0100:
        raise DamagedError("no header of a version 5 file; save it with '-v7'")
    found: dict[str, Any] = {}
    at, left = 128, max(_SMALL, _RATIO * len(data))
    while len(data) - at >= 8:
        kind, body, at = _element(data, at, order)
        if kind == _COMPRESSED:
            inflated = _inflate(body, left)
            left -= len(inflated)
            kind, body, _ = _element(inflated, 0, order)
        if kind != _MATRIX:
            raise DamagedError(f"a variable of type {kind}")
        name, value = _Matrix(order).read(body, 0)
        if name in found:
            raise DamagedError(f"the variable {name[:_NAME_LENGTH]} occurs twice")
        if name:  # the nameless one holds what belongs to objects and functions
            found[name] = value
    if data[at:].strip(b"\x00"):
        raise DamagedError("cut short")
    return found


def _element(data: bytes | memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Type and content of the element at an offset, and where the next one starts."""
    if at + 8 > len(data):
        raise DamagedError("cut short")
    kind, size = struct.unpack_from(order + "II", data, at)
    if kind >> 16:  # up to four bytes of content inside the tag
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise DamagedError("a small element of more than 4 bytes")
        return kind, memoryview(data)[at + 4 : at + 4 + size], at + 8
    end = at + 8 + size
    if end > len(data):
        raise DamagedError("cut short")
    content = memoryview(data)[at + 8 : end]
    return kind, content, end if kind == _COMPRESSED else min(end + -size % 8, len(data))


def _inflate(body: memoryview, limit: int) -> bytes:
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(body, limit + 1)
    except zlib.error as error:
        raise DamagedError("damaged compression") from error
    if len(found) > limit:
        raise DamagedError("inflates to far more than its size")
    if not engine.eof:
        raise DamagedError("cut short")
    return found


class _Matrix:
    """Reads one array and what lies inside it; `order` is the byte order."""

    def __init__(self, order: str) -> None:
        self.order = order
        self._usual = struct.Struct(order + "IIIIIIiiII")
        self._stored = {kind: np.dtype(order + name) for kind, name in _STORED.items()}

    def read(self, body: memoryview, depth: int) -> tuple[str, Any]:
        """Name and value."""
        if depth > _DEPTH:
            raise DamagedError(f"nested more than {_DEPTH} deep")
        if not len(body):
            return "", np.zeros((0, 0))
        name, code, word, shape, at = self._head(body)
        if code == _OPAQUE:
            return name, Foreign("object")
        if min(shape) < 0 or math.prod(max(n, 1) for n in shape) > 2**31:
            raise DamagedError(f"an array of shape {shape}")
        if code in _FOREIGN:
            return name, Foreign(_FOREIGN[code])
        if code in _NUMERIC:
            return name, self._numbers(body, at, shape, code, word)
        if code == _CHAR:
            return name, self._text(body, at, shape)
        if code == _CELL:
            return name, self._cells(body, at, shape, depth)
        if code == _STRUCT:
            return name, self._records(body, at, shape, depth)
        raise DamagedError(f"an array of class {code}")

    def _head(self, body: memoryview) -> tuple[str, int, int, tuple[int, ...], int]:
        """Name, class, flags, shape, and where the content starts."""
        if (
            len(body) >= self._usual.size
        ):  # two dimensions and no name, as nearly all values of cells and structs: one step
            a, b, word, _, c, d, rows, columns, e, f = self._usual.unpack_from(body)
            if (a, b, c, d, e, f) == (6, 8, 5, 8, 1, 0) and word & 0xFF != _OPAQUE:
                return "", word & 0xFF, word, (rows, columns), self._usual.size
        kind, flags, at = _element(body, 0, self.order)
        if kind != 6 or len(flags) != 8:
            raise DamagedError("an array without flags")
        (word,) = struct.unpack_from(self.order + "I", flags)
        if word & 0xFF == _OPAQUE:  # has no dimensions
            return self._name(body, at)[0], _OPAQUE, word, (), at
        kind, sizes, at = _element(body, at, self.order)
        if kind != 5 or len(sizes) % 4 or not 8 <= len(sizes) <= 4 * _DIMENSIONS:
            raise DamagedError("an array without dimensions")
        shape = struct.unpack(f"{self.order}{len(sizes) // 4}i", sizes)
        name, at = self._name(body, at)
        return name, word & 0xFF, word, shape, at

    def _name(self, body: memoryview, at: int) -> tuple[str, int]:
        kind, text, at = _element(body, at, self.order)
        if kind not in (1, 2) or len(text) > 4 * _NAME_LENGTH:
            raise DamagedError("an array without a name")
        return bytes(text).decode("latin-1"), at

    def _numbers(self, body: memoryview, at: int, shape: tuple[int, ...], code: int, word: int) -> NDArray[Any]:
        real, at = self._plain(body, at, shape, code)
        if word & 0x0800:
            imaginary, _ = self._plain(body, at, shape, code)
            return np.asarray(real + 1j * imaginary.astype(np.float64))
        return real.astype(np.bool_) if word & 0x0200 else real

    def _plain(self, body: memoryview, at: int, shape: tuple[int, ...], code: int) -> tuple[NDArray[Any], int]:
        kind, content, at = _element(body, at, self.order)
        dtype = self._stored.get(kind)  # MATLAB saves whole numbers in the smallest type that holds them
        if dtype is None or (dtype.kind == "f" and _NUMERIC[code].kind != "f"):
            raise DamagedError(f"numbers of type {kind}")
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise DamagedError(f"an array of shape {shape} with {len(content)} bytes")
        found = np.frombuffer(content, dtype)
        if code == _SINGLE:
            with np.errstate(all="ignore"):  # a double too large for a single is infinite, as in MATLAB
                return found.astype("f4").reshape(shape, order="F"), at
        return found.astype(_NUMERIC[code]).reshape(shape, order="F"), at

    def _text(self, body: memoryview, at: int, shape: tuple[int, ...]) -> NDArray[Any]:
        kind, content, _ = _element(body, at, self.order)
        if kind not in _TEXT:
            raise DamagedError(f"text of type {kind}")
        codec = _TEXT[kind] + ({"<": "-le", ">": "-be"}[self.order] if _TEXT[kind] in ("utf-16", "utf-32") else "")
        try:
            text = bytes(content).decode(codec)
        except UnicodeDecodeError as error:
            raise DamagedError("text in no known encoding") from error
        if len(text) != math.prod(shape):
            raise DamagedError(f"text of shape {shape} with {len(text)} letters")
        if not text:
            return np.zeros(0, "U1")
        rows = np.array(list(text), "U1").reshape(shape, order="F").reshape(-1, shape[-1])
        return np.array(["".join(row) for row in rows]).reshape(shape[:-1])

    def _cells(self, body: memoryview, at: int, shape: tuple[int, ...], depth: int) -> NDArray[Any]:
        values, _ = self._nested(body, at, math.prod(shape), depth)
        return _objects(values).reshape(shape, order="F")

    def _records(self, body: memoryview, at: int, shape: tuple[int, ...], depth: int) -> NDArray[Any] | Foreign:
        kind, length, at = _element(body, at, self.order)
        width = struct.unpack(self.order + "i", length)[0] if kind == 5 and len(length) == 4 else 0
        kind, block, at = _element(body, at, self.order)
        if kind not in (1, 2) or not 0 < width <= _NAME_LENGTH or len(block) % width:
            raise DamagedError("a struct without fields")
        parts = [bytes(block[i : i + width]).split(b"\x00")[0] for i in range(0, len(block), width)]
        fields = [part.decode("latin-1") for part in parts]
        if not fields:
            return Foreign("struct without fields")
        if "" in fields or len(set(fields)) != len(fields):
            raise DamagedError("a struct with fields of the same name or of none")
        count = math.prod(shape)
        values, _ = self._nested(body, at, count * len(fields), depth)
        found = np.empty(count, dtype=[(field, object) for field in fields])
        for i, field in enumerate(fields):
            found[field] = _objects(values[i :: len(fields)])
        return found.reshape(shape, order="F")

    def _nested(self, body: memoryview, at: int, count: int, depth: int) -> tuple[list[Any], int]:
        if count > (len(body) - at) // 8:  # each takes a tag at least
            raise DamagedError(f"{count} values in {len(body) - at} bytes")
        values = []
        for _ in range(count):
            kind, content, at = _element(body, at, self.order)
            if kind != _MATRIX:
                raise DamagedError(f"a value of type {kind}")
            values.append(self.read(content, depth + 1)[1])
        return values, at


def _objects(values: list[Any]) -> NDArray[Any]:
    """A one-dimensional array of objects, whatever they are."""
    found = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        found[i] = value
    return found
