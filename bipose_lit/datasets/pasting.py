"""Things pasted over frames, and which pixels they cover: one computation for pictures and labels, which so agree."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.cutouts import Things
from bipose_lit.datasets.index import FrameSource
from bipose_lit.datasets.synthetic.occluders import OccluderTrack

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """A thing in a clip.

    Attributes:
        thing: its number in the split's `Things`.
        level: of the sprite.
        mirrored: left and right of the sprite exchanged.
        tint: factors on red, green and blue, at most 1.
        track: where it is; `scale` counts against the sprite of that level.
    """

    thing: int
    level: int
    mirrored: bool
    tint: tuple[float, float, float]
    track: OccluderTrack


@dataclass(frozen=True)
class Cover:
    """Where a piece meets a picture in one frame.

    Attributes:
        rows, columns: of the picture.
        alpha: (rows, columns) uint8.
        x, y: (rows, columns) float32, the place in the sprite that each pixel shows.
    """

    rows: slice
    columns: slice
    alpha: Image
    x: NDArray[np.float32]
    y: NDArray[np.float32]

    @property
    def clear(self) -> Floats:
        """Share of each pixel that stays clear."""
        return 1.0 - self.alpha / 255.0


def into_sprite(
    centre: Floats, scale: Floats, angle: Floats, mirrored: bool | Bools, size: tuple[int | Floats, int | Floats]
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """The affine from a picture to a sprite of that width and height: x = a X + (b Y + c), y = d X + (e Y + f).

    Args:
        centre: (..., 2) of the sprite in the picture.
        scale: (...) pixels of the picture to one of the sprite.
        angle: (...) radians, clockwise in the picture.
        mirrored: left and right of the sprite exchanged; one for all, or (...).
        size: of the sprite; likewise.
    """
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    side = np.where(mirrored, -1.0, 1.0)
    a, b = side * cos, side * sin
    c = (size[0] - 1) / 2 - (a * centre[..., 0] + b * centre[..., 1])
    f = (size[1] - 1) / 2 - (cos * centre[..., 1] - sin * centre[..., 0])
    return a, b, c, -sin, cos, f


def alpha_at(things: Things, piece: Piece, places: NDArray[np.integer]) -> Image:
    """(T, K) uint8 alpha of a piece at pixels (T, K, 2) of all its frames: the numbers that `cover` gives."""
    path, sprite = piece.track, things.alpha(piece.thing, piece.level)
    height, width = sprite.shape
    a, b, c, d, e, f = (
        v[:, None] for v in into_sprite(path.centre, path.scale, path.angle, piece.mirrored, (width, height))
    )
    X, Y = places[..., 0], places[..., 1]
    # Far away is as good as just outside, and fits into any number type.
    x, y = np.clip(a * X + (b * Y + c), -8, width + 8), np.clip(d * X + (e * Y + f), -8, height + 8)
    found = np.zeros(X.shape, np.uint8)
    for first in range(0, len(X), _ROWS):
        part = slice(first, first + _ROWS)
        found[part] = _sampled(sprite, x[part].astype(np.float32), y[part].astype(np.float32))
    found[~path.present] = 0
    return found


def cover(things: Things, piece: Piece, frame: int, size: tuple[int, int]) -> Cover | None:
    """What a piece covers of a picture of that width and height; None if nothing.

    A pixel's alpha is the same number whatever the picture's size.
    """
    path = piece.track
    if not path.present[frame]:
        return None
    sprite = things.alpha(piece.thing, piece.level)
    height, width = sprite.shape
    scale, angle, centre = float(path.scale[frame]), float(path.angle[frame]), path.centre[frame]
    cos, sin = abs(math.cos(angle)) * scale, abs(math.sin(angle)) * scale
    reach = np.array([cos * width + sin * height, sin * width + cos * height]) / 2 + 1
    (left, top), (right, bottom) = np.floor(centre - reach), np.ceil(centre + reach) + 1
    x0, y0, x1, y1 = (int(v) for v in (max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])))
    if x1 <= x0 or y1 <= y0:
        return None
    a, b, c, d, e, f = into_sprite(centre, path.scale[frame], path.angle[frame], piece.mirrored, (width, height))
    X, Y = np.arange(x0, x1), np.arange(y0, y1)[:, None]
    x, y = (a * X + (b * Y + c)).astype(np.float32), (d * X + (e * Y + f)).astype(np.float32)
    return Cover(slice(y0, y1), slice(x0, x1), _sampled(sprite, x, y), x, y)


_ROWS = 30_000  # OpenCV takes fewer than 2^15 of them


def _sampled(picture: Image, x: NDArray[np.float32], y: NDArray[np.float32]) -> Image:
    return np.asarray(
        cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0), np.uint8
    )


class OccludedFrames:
    """Frames with things pasted in; a `FrameSource`.

    Args:
        source: the frames behind.
        things: of the split.
        pieces: later ones in front.
        options: told by the fingerprint beside all these.
    """

    def __init__(self, source: FrameSource, things: Things, pieces: Sequence[Piece], options: str = "") -> None:
        self.source, self.things, self.pieces, self.options = source, things, tuple(pieces), options

    def __len__(self) -> int:
        return len(self.source)

    def read(self, frames: Sequence[int]) -> list[Image]:
        """RGB images (H, W, 3); the source's own arrays are left as they are.

        Raises:
            BiposeError: the source's own, or a picture that a thing is made of cannot be read.
        """
        images = self.source.read(frames)
        sprites: dict[int, Image] = {}
        return [self._pasted(image, int(frame), sprites) for image, frame in zip(images, frames, strict=True)]

    def fingerprint(self) -> str:
        """Changes with the source's files, the options, the things and their paths."""
        digest = hashlib.blake2b(f"{self.source.fingerprint()} {self.things.fingerprint()}".encode(), digest_size=16)
        digest.update(self.options.encode())
        for piece in self.pieces:
            digest.update(repr((piece.thing, piece.level, piece.mirrored, piece.tint)).encode())
            for array in (piece.track.centre, piece.track.scale, piece.track.angle, piece.track.present):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def coverage(self, frame: int, size: tuple[int, int]) -> Floats:
        """(H, W) share of each pixel that is covered, in [0, 1]; a joint in a pixel with 0.5 or more is hidden.

        Args:
            frame: number in the track.
            size: width and height of the picture.
        """
        clear = np.ones((size[1], size[0]))
        for piece in self.pieces:
            met = cover(self.things, piece, frame, size)
            if met is not None:
                clear[met.rows, met.columns] *= met.clear
        return 1 - clear

    def _pasted(self, image: Image, frame: int, sprites: dict[int, Image]) -> Image:
        out: Image | None = None
        for number, piece in enumerate(self.pieces):
            met = cover(self.things, piece, frame, (image.shape[1], image.shape[0]))
            if met is None or not met.alpha.any():
                continue
            out = image.copy() if out is None else out
            part = out[met.rows, met.columns]
            if number not in sprites:
                sprites[number] = cv2.multiply(self.things.sprite(piece.thing, piece.level).rgb, (*piece.tint, 1.0))
            rgb = _sampled(sprites[number], met.x, met.y)
            behind = cv2.multiply(part, cv2.merge([255 - met.alpha] * 3), scale=1 / 255)
            part[:] = cv2.add(behind, rgb)  # premultiplied, so their sum never exceeds 255 by more than rounding
        return image if out is None else out


__all__ = ["Cover", "OccludedFrames", "Piece", "alpha_at", "cover", "into_sprite"]
