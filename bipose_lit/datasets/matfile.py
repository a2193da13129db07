"""MATLAB files of version 5 (also called v6 and v7), read without trust in what they say.

scipy's reader takes types and counts from the file as they are: one changed byte can end the process with a segmentation
fault, or make it ask for gigabytes. This one compares each size with the bytes that are there, and knows one way to fail. What
a small file can grow to has limits as well, all of them checked before anything is built: bytes when inflated, letters, fields,
nested values, bytes of numbers.

Only damage to the structure makes a file unreadable. A variable that is whole but of a kind that label files do not use (an
object, a sparse matrix, text in no known encoding) is a `Foreign`, so that whoever asks for another one still gets it.

Source of the format: MathWorks, "MAT-File Format" (level 5; level 4 to recognise it). Values are those of `scipy.io.loadmat`,
numbers as arrays of two dimensions or more, text as an array of strings with one entry per row, cells as arrays of objects,
structs as record arrays of objects; but numbers have the type of their MATLAB class, where scipy gives the one that they are
stored in (whole doubles as uint8), and of such kinds as above there is nothing but the name.
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
MAX_LETTERS = 2**20
"""Letters of one text; a longer one is a `Foreign`."""
MAX_FIELDS = 4096
"""Fields of a struct; one with more is a `Foreign`."""

_RATIO, _LARGEST = 64, 2**30  # content may have so many times the file's bytes, and never more than that
_INFLATED, _NUMBERS = 64 * 2**20, 256 * 2**20  # bytes that even a small file may come to
_VALUES, _MOST_VALUES = (
    2**17,
    2**23,
)  # nested values: one per byte of the file; the largest label file (MPII's) has 3 million
_ALL_LETTERS = 4 * MAX_LETTERS
_DEPTH, _DIMENSIONS, _NAME_LENGTH = 32, 16, 64
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NAMES, _WHOLE = (1, 2, 16), (5, 6)  # MathWorks: int8 and int32; others write UTF-8 and uint32 as well
_UTF8 = 16
_UNITS = {1: "u1", 2: "u1", 4: "u2", 17: "u2", 6: "u4", 18: "u4"}  # of text: Latin-1, UTF-16, UTF-32
_CELL, _STRUCT, _CHAR, _SINGLE, _OPAQUE = 1, 2, 4, 7, 17
_NUMERIC = {
    code: np.dtype(name) for code, name in enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), 6)
}
_FOREIGN = {3: "object", 5: "sparse matrix", 16: "function", 17: "object", 18: "object"}
_EMPTY = np.zeros((0, 0))
_EMPTY.flags.writeable = False


class DamagedError(ValueError):
    """The bytes are not a MATLAB file that can be read; the message says why, in a few words.

    Attributes:
        advice: what to do about it.
    """

    def __init__(self, message: str, advice: str = "copy or download it again") -> None:
        super().__init__(message)
        self.advice = advice


@dataclass(frozen=True)
class Foreign:
    """A variable whose content is not read; `kind` says what it is: "object", "sparse matrix", "text in no known encoding"."""

    kind: str


@dataclass
class _Left:
    """What a file may still come to."""

    inflated: int
    numbers: int
    values: int
    letters: int


def parse_mat(data: bytes) -> dict[str, Any]:
    """The variables of a MATLAB file of version 5, from its content.

    Raises:
        DamagedError: not such a file, cut, damaged, or one that comes to far more than its size.
    """
    order = _byte_order(data)
    found: dict[str, Any] = {}
    left = _Left(
        inflated=min(max(_INFLATED, _RATIO * len(data)), _LARGEST),
        numbers=min(max(_NUMBERS, _RATIO * len(data)), _LARGEST),
        values=min(max(_VALUES, len(data)), _MOST_VALUES),
        letters=max(_ALL_LETTERS, len(data)),
    )
    at = 128
    while len(data) - at >= 8:
        kind, body, at = _element(data, at, order)
        if kind == _COMPRESSED:
            inflated = _inflate(body, left.inflated)
            left.inflated -= len(inflated)
            kind, body, _ = _element(inflated, 0, order)
        if kind != _MATRIX:
            raise DamagedError(f"a variable of type {kind}")
        name, value = _Matrix(order, left).read(body, 0)
        if name in found:
            raise DamagedError(f"the variable {name[:_NAME_LENGTH]} occurs twice")
        if name:  # the nameless one holds what belongs to objects and functions
            found[name] = value
    if data[at:].strip(b"\x00"):
        raise DamagedError("cut short")
    return found


def _byte_order(data: bytes) -> str:
    """ "<" or ">", from the header."""
    if data.startswith(b"\x89HDF\r\n\x1a\n") or data[512:520] == b"\x89HDF\r\n\x1a\n":
        raise DamagedError("saved as v7.3", "save it again with '-v7'")
    if _is_version_4(data):
        raise DamagedError("saved as version 4", "save it again with '-v7'")
    if len(data) < 128:
        raise DamagedError("shorter than a header")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack(order + "H", data[124:126])[0] != 0x0100:
        raise DamagedError("no header of a version 5 file", "copy or download it again, or save it again with '-v7'")
    return order


def _is_version_4(data: bytes) -> bool:
    """Whether the first 20 bytes are the header of a level 4 variable: type MOPT, rows, columns, imaginary, length of the name.

    Of the type's decimal digits M tells the machine (0 to 4), O is 0, P the precision (0 to 5), T the kind (0 to 2).
    """
    if len(data) < 20:
        return False
    for order in "<>":
        kind, rows, columns, imaginary, name = struct.unpack(order + "5i", data[:20])
        _, nothing, precision, sort = (kind // 10**n % 10 for n in (3, 2, 1, 0))
        sound = 0 <= kind < 5000 and not nothing and precision <= 5 and sort <= 2
        if sound and min(rows, columns) >= 0 and imaginary in (0, 1) and 0 < name <= 256:
            return True
    return False


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
    """Reads one array and what lies inside it; `order` is the byte order, `left` what the file may still come to."""

    def __init__(self, order: str, left: _Left) -> None:
        self.order, self.left = order, left
        self._usual = struct.Struct(order + "IIIIIIiiII")
        self._stored = {kind: np.dtype(order + name) for kind, name in _STORED.items()}

    def read(self, body: memoryview, depth: int) -> tuple[str, Any]:
        """Name and value."""
        if depth > _DEPTH:
            raise DamagedError(f"nested more than {_DEPTH} deep")
        if not len(body):
            return "", _EMPTY
        name, code, word, shape, at = self._head(body)
        if code == _OPAQUE:
            return name, Foreign("object")
        if min(shape) < 0 or math.prod(max(n, 1) for n in shape) > 2**31:
            raise DamagedError(f"an array of shape {shape}")
        if code in _NUMERIC:
            return name, self._numbers(body, at, shape, code, word)
        if code == _CHAR:
            return name, self._text(body, at, shape)
        if code == _CELL:
            return name, self._cells(body, at, shape, depth)
        if code == _STRUCT:
            return name, self._records(body, at, shape, depth)
        return name, Foreign(_FOREIGN.get(code, f"thing of class {code}"))

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
        if kind not in _WHOLE or len(sizes) % 4 or not 8 <= len(sizes) <= 4 * _DIMENSIONS:
            raise DamagedError("an array without dimensions")
        shape = struct.unpack(f"{self.order}{len(sizes) // 4}i", sizes)
        name, at = self._name(body, at)
        return name, word & 0xFF, word, shape, at

    def _name(self, body: memoryview, at: int) -> tuple[str, int]:
        kind, text, at = _element(body, at, self.order)
        if kind not in _NAMES or len(text) > 4 * _NAME_LENGTH:
            raise DamagedError("an array without a name")
        return _short_text(kind, bytes(text)), at

    def _numbers(
        self, body: memoryview, at: int, shape: tuple[int, ...], code: int, word: int
    ) -> NDArray[Any] | Foreign:
        is_complex = bool(word & 0x0800)
        # Stored in as little as a byte each, they grow to what their class needs.
        size = math.prod(shape) * (1 + is_complex) * max(_NUMERIC[code].itemsize, 8 * (is_complex and code != _SINGLE))
        if size > self.left.numbers:
            return Foreign(f"array of {size:,} bytes, more than are read")
        self.left.numbers -= size
        real, at = self._plain(body, at, shape, code)
        if is_complex:
            imaginary, _ = self._plain(body, at, shape, code)
            found = np.empty(real.shape, "c8" if code == _SINGLE else "c16", order="F")
            found.real, found.imag = real, imaginary
            return found
        return real.astype(np.bool_) if word & 0x0200 else real

    def _plain(self, body: memoryview, at: int, shape: tuple[int, ...], code: int) -> tuple[NDArray[Any], int]:
        kind, content, at = _element(body, at, self.order)
        dtype, wanted = self._stored.get(kind), _NUMERIC[code]
        if dtype is None or (dtype.kind == "f" and wanted.kind != "f"):
            raise DamagedError(f"numbers of type {kind}")
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise DamagedError(f"an array of shape {shape} with {len(content)} bytes")
        stored = np.frombuffer(content, dtype)  # MATLAB stores whole numbers in the smallest type that holds them
        if code == _SINGLE:
            with np.errstate(all="ignore"):  # a double too large for a single is infinite, as in MATLAB
                return stored.astype(wanted).reshape(shape, order="F"), at
        found = stored.astype(wanted)
        if wanted.kind != "f" and not np.can_cast(dtype, wanted) and not np.array_equal(found, stored):
            raise DamagedError(f"numbers beyond the range of {wanted}")
        return found.reshape(shape, order="F"), at

    def _text(self, body: memoryview, at: int, shape: tuple[int, ...]) -> NDArray[Any] | Foreign:
        """One string a row. Letters are counted as MATLAB does, in units of UTF-16, or as scipy writes them, in code points."""
        kind, content, _ = _element(body, at, self.order)
        letters = math.prod(shape)
        if letters > min(MAX_LETTERS, self.left.letters) or len(content) > 4 * letters:
            return Foreign(f"text of {letters:,} letters in {len(content):,} bytes")
        self.left.letters -= letters
        try:
            codes = self._codes(kind, bytes(content), letters)
            if codes is None or len(codes) != letters:
                return Foreign("text of another length than its shape says")
            if not letters:
                return np.zeros(0, "U1")
            rows = np.ascontiguousarray(codes.reshape(shape, order="F").reshape(-1, shape[-1]), np.uint32)
            if ((rows >= 0xD800) & (rows < 0xE000)).any():  # halves of letters beyond the first 65,536
                return np.array([row.astype("<u2").tobytes().decode("utf-16-le") for row in rows]).reshape(shape[:-1])
            if rows.max() > 0x10FFFF:
                return Foreign("text in no known encoding")
            return rows.view(f"U{shape[-1]}").reshape(shape[:-1])
        except UnicodeDecodeError:
            return Foreign("text in no known encoding")

    def _codes(self, kind: int, content: bytes, letters: int) -> NDArray[Any] | None:
        """Code points, or units of UTF-16; None for another type or half a unit."""
        if kind == _UTF8:
            text = content.decode("utf-8")
            points = np.frombuffer(text.encode("utf-32-le"), "<u4")
            return points if len(points) == letters else np.frombuffer(text.encode("utf-16-le"), "<u2")
        if kind not in _UNITS:
            return None
        dtype = np.dtype(self.order + _UNITS[kind])
        return None if len(content) % dtype.itemsize else np.frombuffer(content, dtype)

    def _cells(self, body: memoryview, at: int, shape: tuple[int, ...], depth: int) -> NDArray[Any]:
        values, _ = self._nested(body, at, math.prod(shape), depth)
        return _objects(values).reshape(shape, order="F")

    def _records(self, body: memoryview, at: int, shape: tuple[int, ...], depth: int) -> NDArray[Any] | Foreign:
        kind, length, at = _element(body, at, self.order)
        width = struct.unpack(self.order + "i", length)[0] if kind in _WHOLE and len(length) == 4 else 0
        kind, block, at = _element(body, at, self.order)
        if kind not in _NAMES or not 0 < width <= _NAME_LENGTH or len(block) % width:
            return Foreign("struct without names of fields")
        if len(block) // width > MAX_FIELDS:
            return Foreign(f"struct of {len(block) // width:,} fields")
        names = [bytes(block[i : i + width]).split(b"\x00")[0] for i in range(0, len(block), width)]
        fields = [_short_text(kind, name) for name in names]
        if not fields:
            return Foreign("struct without fields")
        if "" in fields or len(set(fields)) != len(fields):
            return Foreign("struct with fields of the same name or of none")
        self._take(len(fields))  # the array's type is built of them, be it empty
        count = math.prod(shape)
        values, _ = self._nested(body, at, count * len(fields), depth)
        found = np.empty(count, dtype=[(field, object) for field in fields])
        for i, field in enumerate(fields):
            found[field] = _objects(values[i :: len(fields)])
        return found.reshape(shape, order="F")

    def _nested(self, body: memoryview, at: int, count: int, depth: int) -> tuple[list[Any], int]:
        if count > (len(body) - at) // 8:  # each takes a tag at least
            raise DamagedError(f"{count} values in {len(body) - at} bytes")
        self._take(count)
        values = []
        for _ in range(count):
            kind, content, at = _element(body, at, self.order)
            if kind != _MATRIX:
                raise DamagedError(f"a value of type {kind}")
            values.append(self.read(content, depth + 1)[1])
        return values, at

    def _take(self, count: int) -> None:
        if count > self.left.values:
            raise DamagedError("more values in cells and structs than a file of its size can need")
        self.left.values -= count


def _short_text(kind: int, text: bytes) -> str:
    """A name; UTF-8 that is damaged keeps what can be read."""
    return text.decode("utf-8", "replace") if kind == _UTF8 else text.decode("latin-1")


def _objects(values: list[Any]) -> NDArray[Any]:
    """A one-dimensional array of objects, whatever they are."""
    found = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        found[i] = value
    return found
