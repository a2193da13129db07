"""From light to file: shutter, focus, exposure, white balance, vignette, sensor noise (no compression)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Imaging:
    """A clip's picture quality; the defaults change nothing.

    Attributes:
        shutter: time the shutter is open, in frames (0.5 is a 180 degree shutter); 0 is no motion blur.
        gain: exposure; balance: (3,) white balance; gamma: exponent applied to [0, 1] values.
        vignette: darkening in the corners, in [0, 1].
        defocus: Gaussian standard deviation in pixels.
        read_noise: standard deviation in grey levels in the dark.
        shot_noise: grey levels of variance per grey level of signal.
    """

    shutter: float = 0.0
    gain: float = 1.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    vignette: float = 0.0
    defocus: float = 0.0
    read_noise: float = 0.0
    shot_noise: float = 0.0

    @classmethod
    def none(cls) -> Imaging:
        """A perfect camera."""
        return cls()


def sample_imaging(rng: np.random.Generator) -> Imaging:
    """Draws a camera: mostly good light, one clip in six dark and noisy; deterministic given `rng`."""
    dark = rng.random() < 1 / 6
    shutter = float(rng.choice([0.0, rng.uniform(0.1, 0.35), rng.uniform(0.35, 0.6)], p=[0.15, 0.45, 0.4]))
    gain = float(rng.uniform(0.5, 0.72) if dark else rng.uniform(0.85, 1.12))
    warm, green = rng.normal(0, 0.045), rng.normal(0, 0.015)
    return Imaging(
        shutter=shutter,
        gain=gain,
        balance=(float(1 + warm), float(1 + green), float(1 - warm)),
        gamma=float(np.exp(rng.normal(0, 0.10))),
        vignette=float(max(0.0, rng.uniform(-0.15, 0.35))),
        defocus=float(max(0.0, rng.uniform(-0.6, 0.9))),
        read_noise=float(rng.uniform(2.0, 6.0) if dark else rng.uniform(0.3, 2.5)),
        shot_noise=float(rng.uniform(0.10, 0.45) if dark else rng.uniform(0.0, 0.12)),
    )


def streak(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Blurs along a straight line.

    Args:
        image: (H, W, 3) uint8.
        motion: (2,) pixels that the picture moves while the shutter is open.
    """
    length = float(np.hypot(*motion))
    if length < 0.6:
        return image
    n = int(np.ceil(length)) | 1
    half = n // 2 + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for s in (np.arange(4 * n) + 0.5) / (4 * n) - 0.5:
        x, y = half + s * motion[0], half + s * motion[1]
        i, j = int(np.floor(x)), int(np.floor(y))
        a, b = x - i, y - j
        kernel[j : j + 2, i : i + 2] += np.outer([1 - b, b], [1 - a, a]).astype(np.float32)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE))


class Sensor:
    """Applies an `Imaging` to the frames of one clip.

    Noise is cut from one field per clip at a fresh random place, mirrored at random: as good as new noise for any frame
    by itself and an order of magnitude cheaper.

    Args:
        imaging: picture quality.
        size: (width, height) pixels.
        rng: source of the noise.
    """

    def __init__(self, imaging: Imaging, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.imaging, self.size = imaging, size
        W, H = size
        level = np.arange(256) / 255.0
        curve = np.clip(level[:, None] * imaging.gain * np.array(imaging.balance), 0, 1) ** imaging.gamma
        self._curve = (curve * 255 + 0.5).astype(np.uint8)[None]
        self._plain = bool((self._curve == np.arange(256, dtype=np.uint8)[None, :, None]).all())
        sigma = np.sqrt(imaging.read_noise**2 + imaging.shot_noise * np.arange(256)).astype(np.float32)
        self._sigma = sigma[None]
        x = (np.arange(W) - (W - 1) / 2) / (W / 2)
        y = (np.arange(H) - (H - 1) / 2) / (H / 2)
        fall = 1 - imaging.vignette * (x[None] ** 2 + y[:, None] ** 2) / 2
        self._fall = np.repeat(fall[..., None], 3, 2).astype(np.float32)
        self._rng = rng
        self._noisy = imaging.read_noise > 0 or imaging.shot_noise > 0
        if self._noisy:
            self._field = rng.standard_normal((H + 48, W + 64, 3), dtype=np.float32)

    def develop(self, image: np.ndarray) -> np.ndarray:
        """The recorded frame (H, W, 3) uint8 of a picture (H, W, 3) uint8; call once per frame, in order."""
        im = self.imaging
        W, H = self.size
        if im.defocus > 0.15:
            image = cv2.GaussianBlur(image, (0, 0), im.defocus)
        if im.vignette > 0:
            image = cv2.multiply(image, self._fall, dtype=cv2.CV_8U)
        if not self._plain:
            image = cv2.LUT(image, self._curve)
        if self._noisy:
            y, x, fy, fx = (int(v) for v in self._rng.integers((49, 65, 2, 2)))
            field = self._field[y : y + H, x : x + W][:: 1 - 2 * fy, :: 1 - 2 * fx]
            sigma = cv2.LUT(image, self._sigma)
            image = cv2.add(image, cv2.multiply(sigma, np.ascontiguousarray(field)), dtype=cv2.CV_8U)
        return np.asarray(image)
