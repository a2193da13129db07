"""Pickles of containers, numbers, text and numpy arrays, read by a small machine that calls nothing that they name.

The instructions are decoded by `pickletools.genops`. Any global but those that numpy's arrays are made of is refused by name,
as is any instruction that such files do not need; sizes are compared with the bytes at hand before anything is allocated.

Formats: pickle protocols 0 to 4 (PEP 307, PEP 3154); numpy's state of arrays as of `ndarray.__reduce__` and `dtype.__reduce__`.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_OPERATIONS = 500_000
"""Instructions of one pickle; Human3.6M's 2D detections of all cameras have about 30,000."""
MAX_DEPTH = 8
"""Containers within containers."""

_MAX_DIMENSIONS = 16
_DTYPE: Final = re.compile(r"([<>|=]?)(b1|[iu][1248]|f[248]|[US][1-9][0-9]{0,5}|O[48]?)")


class BrokenError(Exception):
    """A pickle or an array that is refused; the message completes 'PATH: NAME ...'."""


def shown(value: object, limit: int = 120) -> str:
    """Text from a file as it can stand in a message: on one line, printable, not longer than `limit`."""
    try:
        whole = str(value)
    except (RecursionError, ValueError):  # nested too deeply, or an integer of too many digits
        whole = f"a {type(value).__name__}"
    text = "".join(c if c.isprintable() else "?" for c in whole[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def element_type(code: str) -> np.dtype[Any]:
    found = _DTYPE.fullmatch(code)
    if found is None:
        raise BrokenError(f"has the element type {shown(code, 20)!r}; numbers, truth values or text are expected")
    return np.dtype(object) if found[2].startswith("O") else np.dtype(code)


def filled(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool) -> NDArray[Any]:
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


class _Dtype:
    def __init__(self, code: str) -> None:
        self.dtype = element_type(code)

    def build(self, state: Any) -> None:
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

    def build(self, state: Any) -> None:
        match state:
            case (1, tuple(shape), _Dtype(dtype=dtype), bool(fortran), data) if self.value is None:
                if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**60 for n in shape):
                    raise BrokenError("holds an array whose shape is none; refused")
            case _:
                raise BrokenError("holds an array whose state is not numpy's; refused")
        if not dtype.hasobject:
            self.value = filled(_bytes(data), dtype, shape, fortran)
        elif not isinstance(data, list) or len(shape) > 1 or math.prod(shape) != len(data):
            raise BrokenError("holds an array of objects that is not a plain list; refused")
        else:
            self.value = data if shape else _Single(data[0])


class _Single:
    def __init__(self, value: Any) -> None:
        self.value = value


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):  # as Python 2 wrote it
        try:
            return value.encode("latin1")
        except UnicodeEncodeError:
            pass
    if not isinstance(value, bytes):
        raise BrokenError("holds an array without its data; refused")
    return value


def _reconstruct(*args: Any) -> _Array:
    if len(args) != 3 or args[0] is not _NDARRAY:
        raise BrokenError("asks for a kind of array that is not numpy's own; refused")
    return _Array()


def _makeelement_type(*args: Any) -> _Dtype:
    if not 1 <= len(args) <= 3 or not isinstance(args[0], str):
        raise BrokenError("describes an element type that is not plain; refused")
    return _Dtype(args[0])


def _scalar(*args: Any) -> Any:
    if len(args) != 2 or not isinstance(args[0], _Dtype) or args[0].dtype.hasobject:
        raise BrokenError("holds a number whose state is not numpy's; refused")
    return filled(_bytes(args[1]), args[0].dtype, (), False).item()


def _encode(*args: Any) -> bytes:  # how protocol 2, which has no bytes, stores them
    if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", "latin-1"):
        raise BrokenError("holds text in place of bytes; refused")
    return _bytes(args[0])


def _no_bytes(*args: Any) -> bytes:
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
    try:
        for count, (op, arg, _) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPERATIONS:
                raise BrokenError(f"has a pickle of more than {MAX_OPERATIONS:,} steps; refused")
            if op.name == "STOP":
                (value,) = stack
                return _resolve(value, MAX_DEPTH, {})
            _step(op.name, arg, stack, memo)
    except BrokenError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise BrokenError("holds a damaged pickle; copy or download the file again") from error
    raise BrokenError("holds a pickle that is cut short; copy or download the file again")


def _step(name: str, arg: Any, stack: list[Any], memo: dict[int, Any]) -> None:
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
        stack.append(function(*args))
    elif name == "BUILD":
        state = stack.pop()
        if not isinstance(stack[-1], _Array | _Dtype):
            raise BrokenError("sets the state of something that is no array; refused")
        stack[-1].build(state)
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
        if not isinstance(key, str | int):  # others may be costly to hash, or hold themselves
            raise BrokenError("holds a dict with keys that are neither text nor integers; refused")
        target[key] = value
    return target


def _resolve(value: Any, depth: int, done: dict[int, Any]) -> Any:
    """Puts arrays in the place of what stood for them; every container once, so that shared ones cost nothing."""
    if value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
        return value
    if depth == 0:
        raise BrokenError(f"holds containers nested more than {MAX_DEPTH} deep; refused")
    if id(value) not in done:
        out: Any
        if isinstance(value, dict):
            out = {key: _resolve(item, depth - 1, done) for key, item in value.items()}
        elif isinstance(value, list | tuple):
            out = type(value)(_resolve(item, depth - 1, done) for item in value)
        elif isinstance(value, _Single) or (isinstance(value, _Array) and value.value is not None):
            out = _resolve(value.value, depth - 1, done)
        else:
            raise BrokenError("holds something that is neither data nor a whole array; refused")
        done[id(value)] = out
    return done[id(value)]
