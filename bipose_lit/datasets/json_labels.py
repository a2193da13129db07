"""Label files in JSON: typed decoding whose errors say where; records one by one, so that a broken one costs only itself.

msgspec skips what a type does not name without building it, and takes a number out of range (1e400) for a fault. NaN and
Infinity, which some tools write, are not JSON.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from bipose_lit.types import BiposeError

Skipped = dict[str, list[str]]
"""What was left out or mended: {"reason": ["where", ...]}, as `PoseIndex.skipped`."""
FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a record may raise; `why` puts it into words."""

T = TypeVar("T")
R = TypeVar("R", bound=Struct)


def read_json(path: Path, kind: type[T], what: str) -> T:
    """A JSON file of a given type; with `Raw` for the parts that are to be decoded later.

    Args:
        path: of the file.
        kind: type for msgspec.
        what: the file should be, for the message.

    Raises:
        BiposeError: missing, no JSON, or of another structure.
    """
    try:
        if not path.is_file():
            known = "not a file" if path.exists() else "no such label file"
            raise BiposeError(f"{path}: {known}; check the data set's folder")
        data = path.read_bytes()
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the labels ({error.strerror}); check the file") from error
    if data.startswith(b"\xef\xbb\xbf"):  # the mark that some editors put before UTF-8
        data = data[3:]
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise BiposeError(f"{path}: is not {what} ({why(error)}); check the file") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BiposeError(f"{path}: {_malformed(data, error)}") from error
    except RecursionError as error:
        raise BiposeError(f"{path}: is nested too deeply to be {what}; check the file") from error


def decode_each(raws: list[Raw], kind: type[R], what: str, skipped: Skipped) -> list[tuple[int, R]]:
    """The records of a list that are of the type, with their positions; the others go to `skipped`.

    Raises:
        BiposeError: there are records, and none is of the type (without the path, which the caller puts before it).
    """
    decode = msgspec.json.Decoder(kind).decode
    found: list[tuple[int, R]] = []
    first = ""
    for position, raw in enumerate(raws):
        try:
            found.append((position, decode(raw)))
        except FAULTS as error:
            reason = f"{what}: {why(error)}"
            first = first or f"{what}[{position}]: {why(error)}"
            skipped.setdefault(reason, []).append(f"{what}[{position}]")
    if raws and not found:
        raise BiposeError(f"none of the {len(raws)} {what} can be used; the first: {first}")
    return found


def inside(name: str) -> bool:
    """Whether a file name stays below the folder that it is relative to."""
    parts = re.split(r"[/\\]", name)
    return bool(name) and "\0" not in name and ".." not in parts and parts[0] != "" and not re.match(r"[A-Za-z]:", name)


def why(error: Exception) -> str:
    """A msgspec error as a reason: the place first, positions in lists left out, so that equal faults have one reason."""
    if isinstance(error, UnicodeDecodeError):
        return "text is not UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return "text is damaged"
    return _sorted_out(str(error))


@lru_cache(maxsize=1000)
def _sorted_out(message: str) -> str:
    text, _, place = message.replace("`", "").partition(" - at $")
    place = re.sub(r"\[(\d+|\.\.\.)\]", "[]", place.strip().lstrip("."))
    text = text[:1].lower() + text[1:]
    return f"{place}: {text}" if place else text


def _malformed(data: bytes, error: Exception) -> str:
    if not data:
        return "the file is empty; copy or download it again"
    if data.startswith(b"\x1f\x8b"):
        return "is a gzip archive; unpack it first"
    at = re.search(r"\(byte (\d+)\)", str(error))
    if at is None:
        return "JSON that ends too early or holds damaged text; copy or download it again"
    near = data[max(0, int(at[1]) - 9) : int(at[1]) + 9]
    if re.search(rb"NaN|Infinity", data[max(0, int(at[1]) - 9) : int(at[1]) + 9]):
        word = "NaN" if b"NaN" in near else "Infinity"
        return f"holds {word} at byte {at[1]}, which is not JSON; write a number, or leave the annotation out"
    return f"not JSON from byte {at[1]} on; copy or download it again"


def in_file(skipped: Skipped, name: str) -> Skipped:
    """The same with the label file's name before each place."""
    return {reason: [f"{name}: {place}" for place in places] for reason, places in skipped.items()}


def mended(reason: str) -> bool:
    """Whether a reason tells what was done to a record that is used; else it was left out."""
    return re.search(r"(box used|taken as [a-z ]+|widened)$", reason) is not None


def told(skipped: Skipped, most: int = 3) -> str:
    """What was left out, and then what was mended, for the message of an error; "" for nothing.

    Of each the first `most` reasons, each with its first place.
    """
    text = ""
    for what, is_mend in (("left out", False), ("mended", True)):
        lines = [f"{reason}: {places[0]}" for reason, places in skipped.items() if places and mended(reason) == is_mend]
        text += f"; {what}: {'; '.join(lines[:most])}" if lines else ""
    return text
