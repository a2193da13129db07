"""Captured motion: a BVH reader and the way from a file to a ``Motion`` (torch-free); the retarget is in ``bvh_retarget``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from bipose_lit.datasets.synthetic.body import Array, Motion, Proportions
from bipose_lit.datasets.synthetic.bvh_retarget import Skeleton, find_landmarks, retarget
from bipose_lit.types import BiposeError

_AXES: Final = {"X": 0, "Y": 1, "Z": 2}
_CHANNELS: Final = tuple(f"{axis}{kind}" for axis in _AXES for kind in ("position", "rotation"))
_LARGEST: Final = 1e9  # units and degrees
_MAX_PLACES: Final = (
    2**23
)  # frames times nodes, 100 bytes each: an hour and a half at 30 frames per second and 50 nodes


@dataclass(frozen=True)
class BvhClip:
    """A BVH file in world coordinates of its own unit, y up.

    Attributes:
        path: The file.
        names: The J nodes' names; an end site has its parent's name with "/end".
        parents: The J nodes' parents, -1 for the root.
        positions: (T, J, 3) in the file's unit.
        rotations: (T, J, 3, 3) orientation of each node in the world.
        rest: (J, 3) the nodes' places with every rotation zero.
        fps: Frames per second; a whole number where the file's frame time is one rounded to few digits.
    """

    path: Path
    names: tuple[str, ...]
    parents: tuple[int, ...]
    positions: Array
    rotations: Array
    rest: Array
    fps: float

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the last."""
        return (len(self.positions) - 1) / self.fps


@dataclass
class _Node:
    name: str
    parent: int
    offset: tuple[float, float, float] | None = None
    channels: tuple[str, ...] = ()


def _fail(path: Path, line: int, what: str) -> BiposeError:
    return BiposeError(f"{path}:{line}: {what}; the file is broken or no BVH file, get it again")


def _numbers(path: Path, line: int, words: list[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise _fail(path, line, f"expected numbers, found {_shown(' '.join(words))!r}") from None


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text.strip()[:40])


def _hierarchy(path: Path, lines: list[str]) -> tuple[list[_Node], int]:
    """The nodes, and the index of the line after MOTION."""
    nodes: list[_Node] = []
    stack: list[int] = []
    opened = -1
    for i, text in enumerate(lines):
        words, line = text.split(), i + 1
        if not words or (i == 0 and words[0].upper() == "HIERARCHY"):
            continue
        key = words[0].upper()
        if opened >= 0 and key != "{":
            raise _fail(path, line, f"expected '{{' after {_shown(nodes[opened].name)}, found {_shown(text)!r}")
        if key in ("ROOT", "JOINT") and len(words) >= 2:
            if key == "JOINT" and not stack:
                raise _fail(path, line, "a JOINT outside of a ROOT")
            nodes.append(_Node(" ".join(words[1:]), stack[-1] if stack else -1))
            opened = len(nodes) - 1
        elif key == "END" and stack:
            nodes.append(_Node(f"{nodes[stack[-1]].name}/end", stack[-1]))
            opened = len(nodes) - 1
        elif key == "{" and opened >= 0:
            stack.append(opened)
            opened = -1
        elif key == "}" and stack:
            if nodes[stack[-1]].offset is None:
                raise _fail(path, line, f"{_shown(nodes[stack[-1]].name)} has no OFFSET")
            stack.pop()
        elif key == "OFFSET" and stack and len(words) == 4:
            if nodes[stack[-1]].offset is not None:
                raise _fail(path, line, f"a second OFFSET of {_shown(nodes[stack[-1]].name)}")
            x, y, z = _numbers(path, line, words[1:])
            if not max(abs(x), abs(y), abs(z)) <= _LARGEST or x != x or y != y or z != z:
                raise _fail(path, line, "an offset that is not finite")
            nodes[stack[-1]].offset = (x, y, z)
        elif key == "CHANNELS" and stack and len(words) >= 2 and words[1] == str(len(words) - 2):
            unknown = [word for word in words[2:] if word.capitalize() not in _CHANNELS]
            if unknown:
                raise _fail(path, line, f"unknown channel {_shown(unknown[0])!r}")
            nodes[stack[-1]].channels = tuple(word.capitalize() for word in words[2:])
        elif key == "MOTION" and not stack and nodes:
            return nodes, i + 1
        else:
            raise _fail(path, line, f"unexpected {_shown(text)!r} in the hierarchy")
    raise _fail(path, len(lines), "ends before its MOTION part")


def _rotation(axis: int, degrees: Array) -> Array:
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    out = np.zeros((len(angle), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out[:, axis, axis] = 1.0
    out[:, i, i] = out[:, j, j] = c
    out[:, j, i], out[:, i, j] = s, -s
    return out


def load_bvh(path: str | Path) -> BvhClip:
    """Reads a BVH file.

    Args:
        path: The file; channels may stand in any order, and a joint may have positions of its own.

    Returns:
        The clip, with every node placed in the world.

    Raises:
        BiposeError: The file cannot be read, is cut short or is no BVH file; the message names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BiposeError(f"{path}: cannot be read ({error.strerror}); give an existing BVH file") from error
    if not lines:
        raise _fail(path, 1, "the file is empty")
    nodes, at = _hierarchy(path, lines)
    head: dict[str, tuple[float, int]] = {}
    for key, pattern in (("frames", r"\s*Frames\s*:\s*(\S+)\s*$"), ("time", r"\s*Frame\s+Time\s*:\s*(\S+)\s*$")):
        found = re.match(pattern, lines[at], re.IGNORECASE) if at < len(lines) else None
        if found is None:
            raise _fail(path, at + 1, "expected 'Frames: N'" if key == "frames" else "expected 'Frame Time: SECONDS'")
        head[key] = (_numbers(path, at + 1, [found[1]])[0], at + 1)
        at += 1
    (count, count_line), (time, time_line) = head["frames"], head["time"]
    if not 1 <= count <= _MAX_PLACES or count != int(count):
        raise _fail(path, count_line, f"{count:g} frames")
    if not 1e-4 <= time <= 1e3:
        raise _fail(path, time_line, f"a frame time of {time:g} s")
    if count * len(nodes) > _MAX_PLACES:
        raise _fail(path, count_line, f"{count:g} frames of {len(nodes)} nodes, more than fit into memory")
    width = sum(len(node.channels) for node in nodes)
    rows: list[list[float]] = []
    for i in range(at, len(lines)):
        words = lines[i].split()
        if not words:
            continue
        if len(rows) == int(count):
            raise _fail(path, i + 1, f"more rows than the {int(count)} frames it announces")
        if len(words) != width:
            raise _fail(path, i + 1, f"{len(words)} numbers in a frame where the hierarchy has {width} channels")
        rows.append(_numbers(path, i + 1, words))
    if len(rows) != int(count):
        raise _fail(path, len(lines), f"ends after {len(rows)} of {int(count)} frames")
    values = np.array(rows)
    odd = ~(np.abs(values) <= _LARGEST)
    if odd.any():
        raise _fail(path, at + 1 + int(np.argwhere(odd)[0, 0]), "a number that is not finite or not a person's")
    positions, rotations = _place(nodes, values)
    rest = np.zeros((len(nodes), 3))
    for j, node in enumerate(nodes):
        rest[j] = np.array(node.offset) + (rest[node.parent] if node.parent >= 0 else 0.0)
    names, parents = tuple(n.name for n in nodes), tuple(n.parent for n in nodes)
    return BvhClip(path, names, parents, positions, rotations, rest, _rate(time))


def _rate(time: float) -> float:
    """Frames per second; 120 for 0.0083333 s, whose own rate would drift by a frame in half an hour."""
    rate = 1.0 / time
    return float(round(rate)) if abs(rate - round(rate)) < 1e-4 * rate else rate


def _place(nodes: list[_Node], values: Array) -> tuple[Array, Array]:
    positions = np.empty((len(values), len(nodes), 3))
    rotations = np.empty((len(values), len(nodes), 3, 3))
    column = 0
    for j, node in enumerate(nodes):
        local = np.tile(np.eye(3), (len(values), 1, 1))
        shift = np.tile(np.array(node.offset), (len(values), 1))
        for name in node.channels:
            if name.endswith("position"):  # a position channel replaces the offset
                shift[:, _AXES[name[0]]] = values[:, column]
            else:
                local = local @ _rotation(_AXES[name[0]], values[:, column])
            column += 1
        if node.parent < 0:
            positions[:, j], rotations[:, j] = shift, local
        else:
            up = rotations[:, node.parent]
            positions[:, j] = positions[:, node.parent] + (up @ shift[..., None])[..., 0]
            rotations[:, j] = up @ local
    return positions, rotations


@lru_cache(maxsize=16)
def _cached(path: Path, changed: int, size: int) -> BvhClip:
    return load_bvh(path)


def _open(path: str | Path) -> BvhClip:
    path = Path(path)
    if not path.is_file():
        return load_bvh(path)  # which says what is wrong
    about = path.stat()
    return _cached(path, about.st_mtime_ns, about.st_size)


def first_frame(clip: BvhClip) -> int:
    """1 where the file opens with its rest pose, from which the person would jump into the motion, else 0."""
    if len(clip.positions) < 4:
        return 0
    around = clip.positions[:4] - clip.positions[:4, :1]
    step = np.linalg.norm(np.diff(around, axis=0), axis=-1).max(axis=1)
    return int(step[0] > 8 * step[1:].max() + 1e-6)


def frames_at(values: Array, at: Array) -> Array:
    """(N, ...) values between the frames of (T, ...), linearly, at (N,) places from 0 to T - 1; beyond these the outer frames."""
    at = at.clip(0, len(values) - 1)
    low = np.floor(at).astype(np.int64)
    part = (at - low).reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray(values[low] * (1 - part) + values[np.minimum(low + 1, len(values) - 1)] * part)


def clips_in(path: str | Path, frames: int, fps: float) -> list[float]:
    """Starts, in seconds, of the clips of ``frames`` frames that fit into a file side by side.

    Raises:
        BiposeError: As ``load_bvh``.
    """
    clip = _open(path)
    first = first_frame(clip) / clip.fps
    count = int(np.floor((clip.duration - first) * fps + 1 + 1e-6)) // frames
    return [first + i * frames / fps for i in range(count)]


def motion_from_bvh(path: str | Path, fps: float, frames: int, start_s: float = 0.0, proportions: Proportions | None = None,
                    rng: np.random.Generator | None = None) -> Motion:  # fmt: skip
    """Cuts a clip out of a BVH file and puts it on a body of ours.

    Args:
        path: The file.
        fps: Frames per second of the result; the file's are interpolated.
        frames: T.
        start_s: Where the clip begins.
        proportions: The person's size; None draws one, or takes the average person where ``rng`` is None.
        rng: Source of randomness for the size and the heading; None keeps the file's heading.

    Returns:
        The motion, on the ground, the pelvis of the middle frame over the origin; travel is scaled to our legs.

    Raises:
        BiposeError: A broken file, joints that cannot be told by name, or a clip beyond the file's end.
    """
    clip = _open(path)
    if proportions is None:
        proportions = Proportions.sample(rng) if rng is not None else Proportions()
    start = max(start_s, first_frame(clip) / clip.fps)
    at = (start + np.arange(frames) / fps) * clip.fps
    if frames < 1 or start_s < 0 or at[-1] > len(clip.positions) - 1 + 1e-3:
        raise BiposeError(f"{path}: {frames} frames at {fps:g} fps from {start_s:.2f} s do not fit into {clip.duration:.2f} s; "
                          "ask clips_in for the starts that do")  # fmt: skip
    skeleton = Skeleton(str(path), clip.names, clip.parents, clip.rest)
    landmarks = find_landmarks(skeleton)
    positions = frames_at(clip.positions, at)
    u, _, v = np.linalg.svd(frames_at(clip.rotations, at))
    heading = None if rng is None else float(rng.uniform(0, 2 * np.pi))
    return retarget(skeleton, landmarks, positions, u @ v, fps, proportions, heading, kind=f"bvh:{Path(path).stem}")
