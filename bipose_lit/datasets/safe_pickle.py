"""Pickles of containers, numbers, text and numpy arrays, read by a small machine that calls nothing that they name.

The instructions are decoded by `pickletools.genops`. Any global but those that numpy's arrays are made of is refused by name,
as is any instruction that such files do not need; sizes are compared with the bytes at hand before anything is allocated. A
pickle may put one thing into many places, so that a small file stands for a huge tree: what is read is counted by places.

Formats: pickle protocols 0 to 4 (PEP 307, PEP 3154); numpy's state of arrays as of `ndarray.__reduce__` and `dtype.__reduce__`.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_OPERATIONS = 500_000
"""Instructions of one pickle; Human3.6M's 2D detections of all cameras have about 30,000."""
MAX_DEPTH = 8
"""Containers within containers."""
MAX_THINGS, MAX_SHARED, MAX_TIMES = 5_000, 2**26, 16
"""What a file with shared things may stand for: so many things in containers, so many bytes of arrays and text; or so many times
its own. Human3.6M's files share nothing; predictions may have one array for four cameras."""

_MAX_DIMENSIONS = 16
_DTYPE: Final = re.compile(r"([<>|=]?)(b1|[iu][1248]|f[248]|[US][1-9][0-9]{0,5}|O[48]?)")


class BrokenError(Exception):
    """A pickle or an array that is refused; the message completes 'PATH: NAME ...'."""


def shown(value: object, limit: int = 120) -> str:
    """Text from a file as it can stand in a message: on one line, printable, at most `limit` long; containers by their size."""
    if isinstance(value, tuple) and len(value) <= _MAX_DIMENSIONS and all(type(n) is int and n < 2**60 for n in value):
        whole = str(value)  # a shape
    elif isinstance(value, dict | list | tuple | set):
        whole = f"a {type(value).__name__} of {len(value)}"
    elif isinstance(value, bytes):
        whole = f"{len(value)} bytes"
    elif isinstance(value, np.ndarray):
        whole = f"an array {value.shape}"
    elif isinstance(value, int) and abs(value) >= 2**200:
        whole = "a number of many digits"  # more than 4,300 are an error of Python's
    else:
        whole = str(value)
    text = "".join(c if c.isprintable() else "?" for c in whole[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def element_type(code: str) -> np.dtype[Any]:
    found = _DTYPE.fullmatch(code)
    if found is None:
        raise BrokenError(f"has the element type {shown(code, 20)!r}; numbers, truth values or text are expected")
    return np.dtype(object) if found[2].startswith("O") else np.dtype(code)


def filled(data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool) -> NDArray[Any]:
    if len(shape) > _MAX_DIMENSIONS or math.prod(shape) * dtype.itemsize != len(data):
        raise BrokenError(
            f"has {len(data)} bytes of data, which do not fill the shape {shown(shape, 60)}; get the file again"
        )
    try:
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    except (ValueError, OverflowError) as error:  # no elements, but another dimension beyond what numpy counts
        raise BrokenError(f"has the shape {shown(shape, 60)}, which numpy does not take; get the file again") from error


class _Mark:
    """The pickle machine's mark, and whatever else stands for one thing: compared by identity."""


_MARK: Final = _Mark()
_NDARRAY: Final = _Mark()


class _Texts:
    """Bytes that stand as text, as Python 2 and protocol 2 have them. Each is made once: a pickle may ask again and again."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[str, bytes]] = {}  # the text too, lest another one gets its id

    def bytes_of(self, value: Any) -> bytes:
        if isinstance(value, str):
            if id(value) not in self._made:
                try:
                    self._made[id(value)] = value, value.encode("latin1")
                except UnicodeEncodeError:
                    raise BrokenError("holds an array without its data; refused") from None
            return self._made[id(value)][1]
        if not isinstance(value, bytes):
            raise BrokenError("holds an array without its data; refused")
        return value


class _Dtype:
    def __init__(self, code: str) -> None:
        self.dtype = element_type(code)

    def build(self, state: Any, _: _Texts) -> None:
        match state:
            case (3, str(order), None, None, None, int(size), int(), int()) if order in ("<", ">", "|", "="):
                if size not in (-1, self.dtype.itemsize):
                    raise BrokenError("describes an element type that contradicts itself; refused")
                self.dtype = self.dtype if order == "|" else self.dtype.newbyteorder(order)  # type: ignore[arg-type]
            case _:
                raise BrokenError("describes an element type that is not plain; refused")


class _Array:
    def __init__(self) -> None:
        self.value: Any = None  # an array, or for one of objects the list of them

    def build(self, state: Any, texts: _Texts) -> None:
        match state:
            case (1, tuple(shape), _Dtype(dtype=dtype), bool(fortran), data) if self.value is None:
                if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**60 for n in shape):
                    raise BrokenError("holds an array whose shape is none; refused")
            case _:
                raise BrokenError("holds an array whose state is not numpy's; refused")
        if not dtype.hasobject:
            self.value = filled(texts.bytes_of(data), dtype, shape, fortran)
        elif not isinstance(data, list) or len(shape) > 1 or math.prod(shape) != len(data):
            raise BrokenError("holds an array of objects that is not a plain list; refused")
        else:
            self.value = data if shape else _Single(data[0])


class _Single:
    def __init__(self, value: Any) -> None:
        self.value = value


def _reconstruct(_: _Texts, *args: Any) -> _Array:
    if len(args) != 3 or args[0] is not _NDARRAY:
        raise BrokenError("asks for a kind of array that is not numpy's own; refused")
    return _Array()


def _makeelement_type(_: _Texts, *args: Any) -> _Dtype:
    if not 1 <= len(args) <= 3 or not isinstance(args[0], str):
        raise BrokenError("describes an element type that is not plain; refused")
    return _Dtype(args[0])


def _scalar(texts: _Texts, *args: Any) -> Any:
    if len(args) != 2 or not isinstance(args[0], _Dtype) or args[0].dtype.hasobject:
        raise BrokenError("holds a number whose state is not numpy's; refused")
    return filled(texts.bytes_of(args[1]), args[0].dtype, (), False).item()


def _encode(texts: _Texts, *args: Any) -> bytes:  # how protocol 2, which has no bytes, stores them
    if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", "latin-1"):
        raise BrokenError("holds text in place of bytes; refused")
    return texts.bytes_of(args[0])


def _no_bytes(_: _Texts, *args: Any) -> bytes:
    if args:
        raise BrokenError("makes bytes of something; refused")
    return b""


_KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _makeelement_type,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    ("_codecs", "encode"): _encode,
    **{(module, "bytes"): _no_bytes for module in ("__builtin__", "builtins")},
}
_CALLS: Final[tuple[Callable[..., Any], ...]] = (_reconstruct, _makeelement_type, _scalar, _encode, _no_bytes)


def _known(module: Any, name: Any) -> Any:
    if (module, name) not in _KNOWN:
        raise BrokenError(f"asks for {shown(f'{module}.{name}', 80)}; refused, as a file of poses needs no such thing")
    return _KNOWN[module, name]


_VALUES: Final = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
     "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
)  # fmt: skip
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def unpickle(data: bytes) -> Any:
    """What a pickle of containers, numbers, text and numpy arrays holds; nothing that it names is called.

    Arrays come read-only, those of objects as lists, and an array that wraps one object as that object.

    Raises:
        BrokenError: damaged, too large, or holding anything else.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    texts = _Texts()
    try:
        for count, (op, arg, _) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPERATIONS:
                raise BrokenError(f"has a pickle of more than {MAX_OPERATIONS:,} steps; refused")
            if op.name == "STOP":
                (value,) = stack
                return _unshared(value, len(data))
            _step(op.name, arg, stack, memo, texts)
    except BrokenError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise BrokenError("holds a damaged pickle; copy or download the file again") from error
    raise BrokenError("holds a pickle that is cut short; copy or download the file again")


def _step(name: str, arg: Any, stack: list[Any], memo: dict[int, Any], texts: _Texts) -> None:
    if name in _VALUES:
        stack.append(arg)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in ("PROTO", "FRAME"):
        pass
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[arg] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[arg])
    elif name == "POP":
        stack.pop()
    elif name in ("EMPTY_LIST", "EMPTY_DICT"):
        stack.append([] if name == "EMPTY_LIST" else {})
    elif name in ("TUPLE", "LIST", "DICT"):
        items = _since_mark(stack)
        stack.append(tuple(items) if name == "TUPLE" else items if name == "LIST" else _put({}, items))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        size = int(name[-1])
        if len(stack) < size:
            raise IndexError
        items = stack[-size:]
        del stack[-size:]
        stack.append(tuple(items))
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        if not isinstance(stack[-1], list):
            raise TypeError
        stack[-1].extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else _since_mark(stack)
        _put(stack[-1], items)
    elif name in ("GLOBAL", "INST"):
        module, _, attribute = arg.partition(" ")
        found = _known(module, attribute)
        if name == "INST":
            raise BrokenError("holds the pickle instruction INST; refused")
        stack.append(found)
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise TypeError
        stack.append(_known(module, attribute))
    elif name == "REDUCE":
        args, function = stack.pop(), stack.pop()
        if not isinstance(args, tuple) or not any(function is known for known in _CALLS):
            raise BrokenError("calls something that is no part of an array; refused")
        stack.append(function(texts, *args))
    elif name == "BUILD":
        state = stack.pop()
        if not isinstance(stack[-1], _Array | _Dtype):
            raise BrokenError("sets the state of something that is no array; refused")
        stack[-1].build(state, texts)
    else:
        raise BrokenError(f"holds the pickle instruction {name}; refused, as a file of poses needs no such thing")


def _since_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1
    while stack[at] is not _MARK:  # IndexError where there is none
        at -= 1
        if at < 0:
            raise IndexError
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _put(target: Any, items: list[Any]) -> dict[Any, Any]:
    if not isinstance(target, dict) or len(items) % 2:
        raise TypeError
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Others may be costly to hash or hold themselves, and large integers can be chosen so that all have one hash.
        if not isinstance(key, str | int) or (isinstance(key, int) and not abs(key) < 2**60):
            raise BrokenError("holds a dict with keys that are neither text nor integers below 2^60; refused")
        target[key] = value
    return target


@dataclass(frozen=True)
class _Branch:
    """A value, how many things and bytes it stands for, and how many containers deep it is."""

    value: Any
    things: int = 1
    size: int = 0
    depth: int = 0


def _unshared(value: Any, size: int) -> Any:
    tree = _Tree()
    found = tree.resolve(value, MAX_DEPTH)
    if found.things > max(MAX_THINGS, MAX_TIMES * tree.own) or found.size > max(MAX_SHARED, MAX_TIMES * size):
        raise BrokenError(
            "holds one thing in many places, together far more than the file has; save a copy of it at each place"
        )
    return found.value


class _Tree:
    """Puts arrays in the place of what stood for them; looks into every container once, counts it as often as it stands."""

    def __init__(self) -> None:
        self.own = 1
        self._done: dict[int, _Branch] = {}

    def resolve(self, value: Any, levels: int) -> _Branch:
        if value is None or isinstance(value, bool | int | float):
            return _Branch(value)
        if isinstance(value, str | bytes):
            return _Branch(value, size=len(value))
        if isinstance(value, np.ndarray):
            return _Branch(value, size=value.nbytes)
        found = self._done.get(id(value))
        if levels == 0 or (found is not None and found.depth > levels):
            raise BrokenError(f"holds containers nested more than {MAX_DEPTH} deep; refused")
        if found is None:
            found = self._done[id(value)] = self._look(value, levels - 1)
        return found

    def _look(self, value: Any, levels: int) -> _Branch:
        if isinstance(value, dict):
            parts = [self.resolve(item, levels) for item in value.values()]
            out: Any = dict(zip(value, (p.value for p in parts), strict=True))
        elif isinstance(value, list | tuple):
            parts = [self.resolve(item, levels) for item in value]
            out = type(value)(p.value for p in parts)
        elif isinstance(value, _Single) or (isinstance(value, _Array) and value.value is not None):
            parts = [self.resolve(value.value, levels)]
            out = parts[0].value
        else:
            raise BrokenError("holds something that is neither data nor a whole array; refused")
        self.own += len(parts)
        depth = max((p.depth for p in parts), default=0)
        return _Branch(out, 1 + sum(p.things for p in parts), sum(p.size for p in parts), 1 + depth)
