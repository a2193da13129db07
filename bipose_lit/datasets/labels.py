"""What readers of label files share: MATLAB files and what is in them, frames by number, annotation ids, sources of clips."""

from __future__ import annotations

import hashlib
import math
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.matfile import LARGEST_FILE, DamagedError, Foreign, parse_mat
from bipose_lit.types import ABSENT, BiposeError

MAX_FRAMES = 4096
"""Frames that one clip's annotation ids have room for."""

UNLIKE = "labels and frames differ in number, common start used"
"""A reason for `PoseIndex.skipped`."""

MOST_NUMBERS = 2**24
"""Numbers that a variable of labels or predictions may hold."""

LARGEST = 1e6
"""Pixels: a joint or corner farther out is a slip of whoever wrote the file, and no place."""


def read_bytes(path: Path, limit: int) -> bytes:
    """A label file's content, if it is a file and not larger than a limit.

    Raises:
        BiposeError: missing, no plain file, larger, or not to be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BiposeError(f"{path}: is not a file; check the data set's folder")
        if found.st_size > limit:
            raise BiposeError(f"{path}: {found.st_size:,} bytes, at most {limit:,} are read; is it the right file?")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BiposeError(f"{path}: no such label file; check the data set's folder") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise BiposeError(f"{path}: cannot read the file ({reason}); check the data set's folder") from error


def load_mat(path: Path, required: Iterable[str]) -> dict[str, Any]:
    """The variables of a MATLAB file (version 5, as `save -v7` and `scipy.io.savemat` write it); see `matfile`.

    Raises:
        BiposeError: missing, damaged, too large, of another version, or without one of the required variables.
    """
    try:
        content = parse_mat(read_bytes(path, LARGEST_FILE))
    except DamagedError as error:
        raise BiposeError(f"{path}: not a readable MATLAB file ({error}); {error.advice}") from error
    missing = [name for name in required if name not in content]
    if missing:
        raise BiposeError(f"{path}: lacks the variable {', '.join(missing)}; is it this data set's label file?")
    return content


def numbers(path: Path, content: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """A variable as float64, in the shape of the file.

    Args:
        path: named in the error.
        content: what `load_mat` gave.
        name: a variable that is there.

    Raises:
        BiposeError: text, cells, structs, complex numbers or another thing, or more numbers than `MOST_NUMBERS`.
    """
    value = content[name]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        if value.size > MOST_NUMBERS:
            raise BiposeError(f"{path}: {name} holds {value.size:,} numbers; is it this data set's label file?")
        return value.astype(np.float64)
    raise BiposeError(f"{path}: {name} is {_kind(value)}, expected numbers; is it this data set's label file?")


def number(path: Path, content: Mapping[str, Any], name: str) -> float:
    """A variable that holds one finite number. BiposeError where it does not."""
    value = numbers(path, content, name)
    if value.size != 1 or not np.isfinite(value).all():
        shown = value.ravel()[0] if value.size == 1 else f"of shape {value.shape}"
        raise BiposeError(f"{path}: {name} is {shown}, expected one number; mend or download the file again")
    return float(value.item())


def text(path: Path, content: Mapping[str, Any], name: str) -> str:
    """A variable that holds one line of text, "" where it is missing or empty. BiposeError where it is another thing."""
    value = content.get(name, "")
    while isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:  # a cell with a text
        value = value.item()
    if isinstance(value, np.ndarray) and value.size == 0:
        return ""
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = str(value.ravel()[0])
    if not isinstance(value, str) or (value and not is_name(value)):
        shown = f"{value[:40]!r}" if isinstance(value, str) else _kind(value)
        raise BiposeError(f"{path}: {name} is {shown}, expected a short text; mend or download the file again")
    return value


def without_place(error: BiposeError, path: Path) -> str:
    """What an error says, without the path that it begins with."""
    return str(error).removeprefix(f"{path}: ")


def is_name(word: str) -> bool:
    """Whether a word can name a clip, an action or a source: one to 200 printable characters."""
    return 0 < len(word) <= 200 and word.isprintable()


def frame_rate(path: Path, content: Mapping[str, Any], remarks: dict[str, str]) -> float:
    """`fps` of a label file, 0 (unknown) where it is missing, or not a usable number, which is then remarked."""
    if "fps" not in content:
        return 0.0
    try:
        value = number(path, content, "fps")
    except BiposeError:
        value = -1.0
    if 0 <= value <= LARGEST:
        return value
    remarks["frame rate not usable, taken as unknown"] = ""
    return 0.0


def drop_unusable(
    places: NDArray[np.float64], visible: NDArray[np.uint8], remarks: dict[str, str]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Takes joints as absent that are not finite or farther out than `LARGEST`, and remarks how many.

    Args:
        places: (T, K, 2) pixels, 1-based, as in the file.
        visible: (T, K) ABSENT, OCCLUDED or VISIBLE.
        remarks: reason -> detail, is added to.

    Returns:
        places, 0 where absent, and visible.
    """
    finite = np.isfinite(places).all(axis=-1)
    near = (np.abs(places - 1) <= LARGEST).all(axis=-1)
    labelled = visible != ABSENT
    for reason, wrong in (
        ("joints not finite, taken as absent", labelled & ~finite),
        (f"joints more than {LARGEST:,.0f} px away, taken as absent", labelled & finite & ~near),
    ):
        if wrong.any():
            remarks[reason] = str(int(wrong.sum()))
    kept: NDArray[np.uint8] = np.where(near, visible, ABSENT).astype(np.uint8)
    return np.where((kept != ABSENT)[..., None], places, 0.0), kept


@dataclass(frozen=True)
class Paired:
    """Pictures of a clip that belong to its first labels.

    Attributes:
        names: file names, one a label from the first one on; empty where no pair is certain.
        reason: why these are not as many as the labels, or why there are further pictures; "" where all is as it should be.
        detail: the numbers, or which file is missing.
    """

    names: tuple[str, ...]
    reason: str = ""
    detail: str = ""


def pair_frames(names: Sequence[str], labelled: int) -> Paired:
    """Finds the picture of each labelled frame by the number in its name, so that a missing one shifts no label onto another.

    Frames are numbered from 1, as in the official files, or from 0 if there is exactly one for each label. At a gap the clip
    ends, since a track is of consecutive frames and starts with the first.

    Args:
        names: of the files, at least one.
        labelled: frames with labels.
    """
    found: dict[int, str] = {}
    for name in names:
        digits = re.search(r"(\d{1,9})\.\w+$", name, re.ASCII)
        if digits is None or found.setdefault(int(digits[1]), name) != name:
            return Paired((), "pictures without a number of their own, clip left out", name)
    first = 0 if 0 in found else 1
    run = next(n for n in range(len(found) + 1) if first + n not in found)
    if first == 0 and (run, len(found)) != (labelled, labelled):
        return Paired(
            (), "pictures numbered from 0 and not one for each label, clip left out", _amounts(labelled, found)
        )
    kept = tuple(found[first + n] for n in range(min(run, labelled)))
    if run < labelled and max(found) > run:
        sample = names[0]
        digits = re.search(r"(\d{1,9})(\.\w+)$", sample, re.ASCII)
        assert digits is not None
        gap = f"no {sample[: digits.start()]}{run + 1:0{len(digits[1])}d}{digits[2]}"
        if not run:
            return Paired((), "the first picture is missing, clip left out", gap)
        return Paired(kept, "a picture is missing, clip cut before it", f"{gap}, {run} of {labelled} frames kept")
    if run != labelled or len(found) != labelled:
        return Paired(kept, UNLIKE, _amounts(labelled, found))
    return Paired(kept)


def _amounts(labelled: int, found: Mapping[int, str]) -> str:
    return f"{labelled} labels, {len(found)} frames"


def _kind(value: object) -> str:
    if isinstance(value, Foreign):
        return f"a {value.kind}" if value.kind[0] != "o" else f"an {value.kind}"
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    if value.dtype.names:
        return "a struct"
    return {"U": "text", "O": "cells", "c": "complex numbers"}.get(value.dtype.kind, f"of type {value.dtype}")


def make_uids(clip: str, frames: int) -> NDArray[np.int64]:
    """(T,) annotation ids from the clip's name: 48 bits of its BLAKE2b hash, then 12 bits of the frame number.

    Raises:
        BiposeError: a clip of more than `MAX_FRAMES` frames.
    """
    if frames > MAX_FRAMES:
        raise BiposeError(f"clip {clip}: {frames} frames, the limit is {MAX_FRAMES}; cut it into shorter clips")
    return (int.from_bytes(_hash(clip, 6), "big") << 12) + np.arange(frames, dtype=np.int64)


def check_uids(clips: Iterable[str]) -> None:
    """Raises BiposeError where two clips' names share their 48-bit hash (or the same name is listed twice)."""
    seen: dict[bytes, str] = {}
    for clip in clips:
        digest = _hash(clip, 6)
        if digest in seen:
            raise BiposeError(f"clips {seen[digest]} and {clip} have the same id; rename one of them")
        seen[digest] = clip


def hold_out(clusters: Iterable[str], fraction: float) -> frozenset[str]:
    """The clusters to validate on: the share `fraction`, rounded up, that comes first by the hash of their names.

    At least one and never all, where there are two or more; none where fraction is 0.
    """
    ranked = sorted(set(clusters), key=lambda name: (_hash(f"val:{name}", 8), name))
    return frozenset(ranked[: min(math.ceil(fraction * len(ranked)), len(ranked) - 1)])


def source_title(clip: str, action: str) -> str:
    """The title of a clip's source: its name without the numbered suffix and, where it has them, HMDB's tags.

    HMDB names are TITLE_ACTION_bodyparts_camera_people_view_quality_NUMBER; clips of one TITLE come from one video,
    whatever the tags. "Torwarttraining_catch_u_cm_np1_le_bad_6" -> "Torwarttraining", "scene00012_0" -> "scene00012".
    """
    tagged = re.fullmatch(rf"(.+?)_{re.escape(action)}(_[a-z]{{1,3}}){{2}}_np\d(_[a-z]{{2,3}}){{2}}_\d+", clip)
    return tagged[1] if tagged else re.sub(r"_\d+$", "", clip)


def _hash(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
