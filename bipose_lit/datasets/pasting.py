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
        matrix: (2, 3) from the sprite's pixels to those of `alpha`.
    """

    rows: slice
    columns: slice
    alpha: Image
    matrix: Floats

    @property
    def clear(self) -> Floats:
        """Share of each pixel that stays clear."""
        return 1.0 - self.alpha / 255.0


def cover(things: Things, piece: Piece, frame: int, size: tuple[int, int]) -> Cover | None:
    """What a piece covers of a picture of that width and height; None if nothing.

    A pixel's alpha is the same number whatever the picture's size: the sprite is warped to a window that depends on the piece
    alone, then cut. (Other windows would round the matrix otherwise.)
    """
    if not piece.track.present[frame]:
        return None
    sprite = things.alpha(piece.thing, piece.level)
    k, a = float(piece.track.scale[frame]), float(piece.track.angle[frame])
    turn = k * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    if piece.mirrored:
        turn[:, 0] *= -1
    half = np.array([(sprite.shape[1] - 1) / 2, (sprite.shape[0] - 1) / 2])
    reach, centre = np.abs(turn) @ (half + 1), piece.track.centre[frame]
    left, top = (int(v) for v in np.floor(centre - reach))
    right, bottom = (int(v) + 1 for v in np.ceil(centre + reach))
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    if x1 <= x0 or y1 <= y0:
        return None
    matrix = np.concatenate([turn, (centre - (left, top) - turn @ half)[:, None]], axis=1)
    window = cv2.warpAffine(sprite, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    part = np.ascontiguousarray(window[y0 - top : y1 - top, x0 - left : x1 - left], np.uint8)
    matrix[:, 2] += (left - x0, top - y0)
    return Cover(slice(y0, y1), slice(x0, x1), part, matrix)


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
            rgb = cv2.warpAffine(sprites[number], met.matrix, (part.shape[1], part.shape[0]), flags=cv2.INTER_LINEAR)
            behind = cv2.multiply(part, cv2.merge([255 - met.alpha] * 3), scale=1 / 255)
            part[:] = cv2.add(behind, rgb)  # premultiplied, so their sum never exceeds 255 by more than rounding
        return image if out is None else out


__all__ = ["Cover", "OccludedFrames", "Piece", "cover"]
