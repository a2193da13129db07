"""What readers of label files share: MATLAB files, annotation ids, sources of clips, held-out clusters."""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from bipose_lit.types import BiposeError

MAX_FRAMES = 4096
"""Frames that one clip's annotation ids have room for."""


def load_mat(path: Path, required: Iterable[str]) -> dict[str, Any]:
    """A MATLAB file as a dict.

    Raises:
        BiposeError: missing, damaged, or without one of the required variables.
    """
    try:
        content: dict[str, Any] = scipy.io.loadmat(str(path))
    except FileNotFoundError as error:
        raise BiposeError(f"{path}: no such label file; check the data set's folder") from error
    except (
        OSError, EOFError, ValueError, TypeError, IndexError, KeyError, NotImplementedError, zlib.error,
        scipy.io.matlab.MatReadError,
    ) as error:  # fmt: skip
        raise BiposeError(f"{path}: not a readable MATLAB file; copy or download it again") from error
    missing = [name for name in required if name not in content]
    if missing:
        raise BiposeError(f"{path}: lacks the variable {', '.join(missing)}; is it this data set's label file?")
    return content


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
