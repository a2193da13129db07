"""Augmentation of pixels, the same for all frames of a clip: colour, noise, blur, cut-outs, pasted occluders. Nothing moves.

A `Pixels` is any callable from crops (T, H, W, 3) and a seed to crops; it must be a pure function of both.
"""

from __future__ import annotations

import math
import os
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.transforms import PIXELS, Image, generator
from bipose_lit.types import BiposeError

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC


class Pixels:
    """Base class of pixel augmentations."""

    def __call__(self, clip: Image, seed: int) -> Image:
        """Crops (T, H, W, 3) RGB uint8 to the same shape; may write into `clip`."""
        raise NotImplementedError


class ColourJitter(Pixels):
    """Brightness, contrast, saturation and hue as one 3x4 colour matrix per clip, several times faster than albumentations.

    Args:
        brightness: factor within 1 +- this.
        contrast: factor about mid-grey within 1 +- this.
        saturation: factor about the luma within 1 +- this.
        hue: rotation of the chroma plane, +- degrees.
        probability: share of clips that are changed.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 10.0,
        probability: float = 0.8,
    ) -> None:
        if min(brightness, contrast, saturation, hue) < 0 or max(brightness, contrast, saturation) > 1:
            raise ValueError("colour jitter: brightness, contrast and saturation lie in 0..1, hue is not negative")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.probability = probability

    def matrix(self, seed: int) -> NDArray[np.float64]:
        """The (3, 4) map of RGB for a seed; the identity where the clip is left alone."""
        rng = generator(seed, PIXELS)
        u = 2 * rng.random(4) - 1
        if rng.random() >= self.probability:
            return np.eye(3, 4)
        brightness, contrast, saturation = 1 + u[:3] * (self.brightness, self.contrast, self.saturation)
        angle = math.radians(u[3] * self.hue)
        turn = np.eye(3)
        turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        hue = np.linalg.solve(_TO_YIQ, turn @ _TO_YIQ)
        grey = np.tile(_LUMA, (3, 1))
        colour = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * grey) @ hue
        return np.concatenate([colour, np.full((3, 1), 127.5 * (1 - contrast))], axis=1)

    def __call__(self, clip: Image, seed: int) -> Image:
        frames, height, width, _ = clip.shape
        flat = clip.reshape(frames * height, width, 3)
        return np.asarray(cv2.transform(flat, self.matrix(seed)), np.uint8).reshape(clip.shape)


_STAY = ("CoarseDropout", "GridDropout", "PixelDropout", "XYMasking")
"""Transforms that albumentations counts among the spatial ones although no pixel moves."""


class Albumentations(Pixels):
    """Pixel transforms of albumentations 2.0, drawn once per clip from the seed.

    Args:
        ops: transforms in order, by class name with their arguments, e.g.
            {"GaussNoise": {"std_range": [0.02, 0.1], "p": 0.3}, "MotionBlur": {"p": 0.2}, "CoarseDropout": {"p": 0.5}}.

    Raises:
        BiposeError: an unknown transform, arguments that it does not take, or one that moves pixels: geometry belongs to
            `Augmentation`, which moves the joints along.
    """

    def __init__(self, ops: dict[str, dict[str, Any]]) -> None:
        self.ops = {name: dict(arguments or {}) for name, arguments in ops.items()}
        self._transforms: list[Any] | None = None
        self._built()

    def _built(self) -> list[Any]:
        if self._transforms is None:
            # Its import asks a package index for news unless told not to; it also takes seconds, hence the late import.
            os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
            import albumentations

            self._transforms = []
            for name, arguments in self.ops.items():
                kind = getattr(albumentations, name, None)
                if not isinstance(kind, type) or not issubclass(kind, albumentations.BasicTransform):
                    raise BiposeError(f"pixels: albumentations {albumentations.__version__} has no transform {name}")
                if not issubclass(kind, albumentations.ImageOnlyTransform) and name not in _STAY:
                    raise BiposeError(
                        f"pixels: {name} moves pixels; use the augmentation's scale, rotation, shift and flip"
                    )
                try:
                    made = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
                except (TypeError, ValueError) as error:
                    raise BiposeError(
                        f"pixels: {name} does not take {arguments}: {' '.join(str(error).split())}"
                    ) from error
                unknown = set(arguments) - set(made.get_transform_init_args_names()) - {"p"}
                if unknown:  # albumentations only warns about them
                    raise BiposeError(f"pixels: {name} has no argument {', '.join(sorted(unknown))}")
                # One Compose each: a shared seed would give all transforms the same random numbers.
                self._transforms.append(albumentations.Compose([made]))
        return self._transforms

    def __getstate__(self) -> dict[str, Any]:
        return {"ops": self.ops, "_transforms": None}

    def __call__(self, clip: Image, seed: int) -> Image:
        transforms = self._built()
        seeds = generator(seed, PIXELS).integers(2**31, size=len(transforms))
        for transform, own in zip(transforms, seeds, strict=True):
            transform.set_random_seed(int(own))
            clip = transform(images=clip)["images"]
        return np.ascontiguousarray(clip, dtype=np.uint8)


class InTurn(Pixels):
    """Several pixel augmentations one after the other.

    Args:
        first: applied first.
        then: applied to the result.
    """

    def __init__(self, first: Pixels, then: Pixels) -> None:
        self.first, self.then = first, then

    def __call__(self, clip: Image, seed: int) -> Image:
        seeds = generator(seed, PIXELS, 1).integers(2**63, size=2)
        return self.then(self.first(clip, int(seeds[0])), int(seeds[1]))


class Occluders:
    """Opaque textured shapes that drift across the crop, independent of the person; joints under them become OCCLUDED.

    Onset, speed and shape are random; how long one stays is log-normal with a median of 14 frames and nine tenths under 56, as
    hidden runs last in real video at 25 to 30 frames per second.

    Args:
        probability: share of clips with occluders at all.
        count: largest number in one clip (uniform from 1).
        size: smallest and largest side in units of the crop's width.
        speed: largest displacement per frame in units of the crop's width.
        median: median duration in frames.
    """

    def __init__(
        self,
        probability: float = 0.5,
        count: int = 2,
        size: tuple[float, float] = (0.15, 0.4),
        speed: float = 0.02,
        median: float = 14.0,
    ) -> None:
        if not 0 <= probability <= 1 or count < 1 or not 0 < size[0] <= size[1] or speed < 0 or median <= 0:
            raise ValueError(
                "occluders: probability in 0..1, count >= 1, 0 < smallest <= largest size, speed >= 0, median > 0"
            )
        self.probability, self.count, self.size, self.speed, self.median = probability, count, size, speed, median

    def paste(
        self,
        clip: Image,
        joints: NDArray[np.float32],
        frames: NDArray[np.int64],
        length: int,
        rng: np.random.Generator,
    ) -> NDArray[np.bool_]:
        """Draws into `clip` (T, H, W, 3), the given frames of a track with `length` frames.

        Args:
            clip: crops, changed in place.
            joints: (T, K, 2) crop pixels.
            frames: (T,) frame numbers; the occluders' paths depend on the track alone, so parts of a track fit together.
            length: frames of the whole track.
            rng: random numbers.

        Returns:
            (T, K): True where a joint lies under an occluder.
        """
        hidden = np.zeros(joints.shape[:2], dtype=bool)
        if rng.random() >= self.probability:
            return hidden
        height, width = clip.shape[1:3]
        spread = math.log(4.0) / 1.2816  # 56 / 14 at the normal's 90% quantile
        for _ in range(int(rng.integers(1, self.count + 1))):
            duration = self.median * math.exp(spread * rng.standard_normal())
            onset = rng.uniform(-duration, length)
            outline = self._outline(rng) * width
            centre = rng.uniform((0, 0), (width, height))
            velocity = rng.uniform(-self.speed, self.speed, 2) * width
            texture = _texture(rng, (width, height))
            for t, frame in enumerate(frames):
                if not onset <= frame < onset + duration:
                    continue
                polygon = outline + centre + velocity * (frame - onset - duration / 2)
                mask = np.zeros((height, width), np.uint8)
                cv2.fillConvexPoly(mask, np.round(polygon * 16).astype(np.int32), 1, shift=4)
                cv2.copyTo(texture, mask, clip[t])
                at = np.round(joints[t]).astype(np.int64)
                inside = ((at >= 0) & (at < (width, height))).all(axis=1)
                hidden[t, inside] |= mask[at[inside, 1], at[inside, 0]] > 0
        return hidden

    def _outline(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """A turned rectangle or ellipse about the origin, (P, 2), in units of the crop's width."""
        half = rng.uniform(*self.size, 2) / 2
        if rng.random() < 0.5:
            shape = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        else:
            angle = np.linspace(0, 2 * math.pi, 24, endpoint=False)
            shape = np.stack([np.cos(angle), np.sin(angle)], axis=1) * half
        turn = rng.uniform(0, math.pi)
        cos, sin = math.cos(turn), math.sin(turn)
        return np.asarray(shape @ np.array([[cos, sin], [-sin, cos]]))


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """A base colour with blotches and grain."""
    coarse = rng.uniform(30, 225, 3) + rng.normal(0, 30, (6, 6, 3))
    smooth = cv2.resize(coarse.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255), np.uint8)


__all__ = ["Albumentations", "ColourJitter", "InTurn", "Occluders", "Pixels"]
