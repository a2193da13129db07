"""Pictures of things to paste in front of people: drawn ones, or cut-outs from PNG files (from other clips: see `patches`).

A `Things` is a small set of sprites of one split, each in a few sizes, made when first used. What one split shows no other
split does, so that no model learns the occluders of its test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.frames import read_image
from bipose_lit.datasets.synthetic.occluders import KINDS, Occluder
from bipose_lit.datasets.transforms import OCCLUDERS, generator
from bipose_lit.types import BiposeError

Image = NDArray[np.uint8]

SPLITS = ("train", "val", "test")
COUNT = 48
"""Things of a split."""

BASE, LEVELS = 128, range(-2, 2)
"""Longer side of a sprite in pixels at level 0; each level doubles it."""

MARGIN = 2
"""Transparent pixels around a sprite, so that its edges stay smooth when it is warped."""

LARGEST = 4096
"""Longest side of a PNG file in pixels."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# width by height, stature (factor on the size, for things that are larger than what they hide), tilt in degrees
_SHAPES = {
    "pole": ((0.09, 0.2), 2.2, 4.0), "panel": ((0.6, 1.6), 1.0, 12.0), "door": ((0.4, 0.55), 1.6, 3.0),
    "bush": ((0.8, 1.6), 1.2, 10.0), "box": ((0.8, 1.5), 1.0, 10.0), "polygon": ((0.7, 1.4), 1.0, 180.0),
    "board": ((0.6, 1.5), 1.0, 30.0), "person": ((0.36, 0.46), 1.7, 6.0),
}  # fmt: skip


@dataclass(frozen=True)
class Sprite:
    """A thing's picture.

    Attributes:
        rgb: (h, w, 3) uint8, premultiplied with alpha.
        alpha: (h, w) uint8, 255 opaque; the outermost `MARGIN` pixels are 0.
    """

    rgb: Image
    alpha: Image


class Things:
    """Things of one split, by number.

    Attributes:
        extents: of each thing, width and height as shares of the longer side.
        stature: of each thing, the factor on the size that is asked for.
        tilt: of each thing, the largest turn in degrees that suits it.
    """

    def __init__(
        self, extents: Sequence[tuple[float, float]], stature: Sequence[float], tilt: Sequence[float], identity: str
    ) -> None:
        self.extents, self.stature, self.tilt = tuple(extents), tuple(stature), tuple(tilt)
        self._identity = identity
        self._kept: dict[tuple[int, int], Sprite] = {}
        self._measures: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None = None
        self._outlines: tuple[NDArray[np.bool_], NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        return len(self.extents)

    def __getstate__(self) -> dict[str, object]:
        return {
            **self.__dict__,
            "_kept": {},
            "_outlines": None,
        }  # sprites are cheaper to make again than to send to a worker

    def sprite(self, number: int, level: int) -> Sprite:
        """The thing at a level of `LEVELS`.

        Raises:
            BiposeError: a picture that it is made of cannot be read.
        """
        if (number, level) not in self._kept:
            self._kept[number, level] = self._make(number, level)
        return self._kept[number, level]

    def alpha(self, number: int, level: int) -> Image:
        """The sprite's alpha alone; never reads a frame of the data set."""
        return self.sprite(number, level).alpha

    def measures(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """`extents` (N, 2), `stature` (N,) and `tilt` (N,), the last in radians."""
        if self._measures is None:
            self._measures = np.array(self.extents), np.array(self.stature), np.radians(self.tilt)
        return self._measures

    def outlines(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """What the smallest sprites hide, (N, S, S) with each in the upper left corner, and their width and height (N, 2)."""
        if self._outlines is None:
            side = round(BASE * 2.0 ** LEVELS[0]) + 2 * MARGIN
            found, sizes = np.zeros((len(self), side, side), bool), np.zeros((len(self), 2))
            for number in range(len(self)):
                alpha = self.alpha(number, LEVELS[0])
                height, width = alpha.shape
                found[number, :height, :width], sizes[number] = alpha > 127, (width, height)
            self._outlines = found, sizes
        return self._outlines

    def fitting(self, cluster: str) -> NDArray[np.int64]:
        """Numbers of the things for a clip of this source: as many for every clip, and of the same outlines in the same order."""
        return np.arange(len(self))

    def fingerprint(self) -> str:
        """Changes when any thing changes."""
        return self._identity

    def _make(self, number: int, level: int) -> Sprite:
        raise NotImplementedError

    def _pixels(self, number: int, level: int) -> tuple[int, int]:
        longest = BASE * 2.0**level
        width, height = (max(4, round(longest * share)) for share in self.extents[number])
        return width, height


class Drawn(Things):
    """Painted poles, panels, doors, bushes, boxes, polygons, boards and passers-by, as in the synthetic set.

    Args:
        split: of the data set; each has its own.
        seed: another seed gives other things.
        count: how many.
    """

    def __init__(self, split: str, seed: int, count: int = COUNT) -> None:
        rng = generator(seed, OCCLUDERS, SPLITS.index(split))
        self._kinds = [KINDS[i] for _ in range(-(-count // len(KINDS))) for i in rng.permutation(len(KINDS))][:count]
        ratios = [float(np.exp(rng.uniform(*np.log(_SHAPES[kind][0])))) for kind in self._kinds]
        self._seeds = [int(s) for s in rng.integers(2**31, size=count)]
        super().__init__(
            [(min(r, 1.0), min(1 / r, 1.0)) for r in ratios],
            [_SHAPES[kind][1] for kind in self._kinds],
            [_SHAPES[kind][2] for kind in self._kinds],
            name_hash(repr(("drawn", split, seed, count))),
        )

    def _make(self, number: int, level: int) -> Sprite:
        return _painted(self._kinds[number], self._pixels(number, level), self._seeds[number])


@lru_cache(maxsize=512)  # painting takes 5 to 20 ms; the things of two splits
def _painted(kind: str, size: tuple[int, int], seed: int) -> Sprite:
    made = Occluder.make(kind, size, seed)
    return Sprite(made.sprite[..., :3].copy(), made.sprite[..., 3].copy())


class Cutouts(Things):
    """Cut-outs: PNG files with an alpha channel. Opaque are pixels with alpha 0.5 (128 of 255) or more.

    Three or more files are shared out to the splits by the hash of their names (a fifth to test, a fifth to val, the rest
    to train); fewer serve all splits. Of more than `COUNT` files of a split the first by that hash are used.

    Args:
        folder: of the files (*.png; its sub-folders are not searched).
        split: of the data set.

    Raises:
        BiposeError: no such folder, no PNG file in it, or one that is damaged, larger than `LARGEST`, or has no alpha channel
            or no opaque pixel.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        folder = Path(folder)
        try:
            found = [p for p in folder.iterdir() if p.suffix.lower() == ".png"]
        except OSError as error:
            raise BiposeError(
                f"{folder}: cannot read the folder of cut-outs ({error.strerror}); check the path"
            ) from error
        if not found:
            raise BiposeError(f"{folder}: holds no PNG file; cut-outs are PNG files with an alpha channel")
        ranked = sorted(found, key=lambda p: (name_hash(p.name), p.name))
        if len(ranked) >= len(SPLITS):
            fifth = -(-len(ranked) // 5)
            ranked = {"test": ranked[:fifth], "val": ranked[fifth : 2 * fifth], "train": ranked[2 * fifth :]}[split]
        self._pictures = [load_cutout(path) for path in ranked[:COUNT]]
        digest = hashlib.blake2b(digest_size=16)
        for path, picture in zip(ranked, self._pictures, strict=False):
            digest.update(repr((path.name, picture.shape)).encode() + picture.tobytes())
        sizes = [(p.shape[1], p.shape[0]) for p in self._pictures]
        super().__init__(
            [(w / max(w, h), h / max(w, h)) for w, h in sizes],
            [1.0] * len(sizes),
            [8.0] * len(sizes),
            name_hash(f"cutouts {digest.hexdigest()}"),
        )

    def _make(self, number: int, level: int) -> Sprite:
        picture = self._pictures[number]
        size = self._pixels(number, level)
        straight, alpha = picture[..., :3], np.ascontiguousarray(picture[..., 3])
        smaller = size[0] < picture.shape[1]
        scaled = cv2.resize(
            np.dstack([premultiplied(straight, alpha), alpha]),
            size,
            interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
        )
        framed = np.pad(np.asarray(scaled, np.uint8), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
        return Sprite(framed[..., :3].copy(), framed[..., 3].copy())


def load_cutout(path: Path) -> Image:
    """A PNG file with alpha as (h, w, 4) uint8 RGBA, not premultiplied, trimmed to what is not fully transparent.

    Raises:
        BiposeError: see `Cutouts`.
    """
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the cut-out ({error.strerror}); check the folder") from error
    if not head.startswith(_SIGNATURE) or len(head) < 24:
        raise BiposeError(f"{path}: not a PNG file; cut-outs are PNG files with an alpha channel")
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if not (0 < width <= LARGEST and 0 < height <= LARGEST):  # before anything is allocated for it
        raise BiposeError(f"{path}: {width} x {height} pixels; a cut-out has 1 to {LARGEST} on each side")
    read_image(path)  # says what is damaged
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        raise BiposeError(f"{path}: has no alpha channel; save the cut-out as RGBA")
    if picture.dtype == np.uint16:
        picture = picture >> 8
    rgba: Image = np.asarray(cv2.cvtColor(np.asarray(picture, np.uint8), cv2.COLOR_BGRA2RGBA), np.uint8)
    if not (rgba[..., 3] >= 128).any():
        raise BiposeError(f"{path}: no pixel has alpha 0.5 or more, so it would hide nothing; leave it out")
    rows, columns = (np.flatnonzero((rgba[..., 3] > 0).any(axis=axis)) for axis in (1, 0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()


def premultiplied(rgb: Image, alpha: Image) -> Image:
    """(h, w, 3) colours times (h, w) alpha."""
    return np.asarray((rgb.astype(np.uint16) * alpha[..., None] + 127) // 255, np.uint8)


def name_hash(text: str) -> str:
    """32 hexadecimal digits that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


__all__ = ["Cutouts", "Drawn", "Sprite", "Things", "load_cutout", "name_hash", "premultiplied"]
