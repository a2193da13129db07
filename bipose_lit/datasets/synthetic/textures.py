"""Procedural patterns shared by clothes, scenes and occluders. Colours are RGB, float32 in [0, 255]."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FABRICS = ("plain", "stripes", "bars", "checks", "dots", "noise", "blocks")
SURFACES = ("plain", "noise", "brick", "tiles", "planks", "stripes", "checks", "panels", "stone", "leaves")


def noise(rng: np.random.Generator, shape: tuple[int, ...], cell: float, octaves: int = 3) -> np.ndarray:
    """Value noise (height, width), float32 in about [-1, 1] with zero mean.

    Args:
        rng: source.
        shape: (height, width).
        cell: pixels of the coarsest grid cell.
        octaves: each halves the cell and the amplitude.
    """
    height, width = shape
    out = np.zeros((height, width), np.float32)
    for o in range(octaves):
        n = max(2, round(height * 2**o / cell)), max(2, round(width * 2**o / cell))
        grid = rng.uniform(-1, 1, n).astype(np.float32)
        layer = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        out += 0.5**o * layer
    return out


def colour(
    rng: np.random.Generator, saturation: tuple[float, float] = (0.0, 0.9), value: tuple[float, float] = (0.15, 0.95)
) -> np.ndarray:
    """(3,) RGB drawn in hue, saturation and value."""
    hue = rng.uniform(0, 1)
    s, v = rng.uniform(*saturation), rng.uniform(*value)
    ramp = np.clip(np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    return np.asarray(255 * v * (1 - s + s * ramp), dtype=np.float32)


def luminance(rgb: np.ndarray) -> float:
    """Rec. 601 luma of (3,), in [0, 255]."""
    return float(np.dot(rgb, (0.299, 0.587, 0.114)))


def contrasting(rng: np.random.Generator, base: np.ndarray, least: float = 60.0) -> np.ndarray:
    """(3,) RGB whose luma differs from that of `base` by at least `least`."""
    for _ in range(12):
        c = colour(rng)
        if abs(luminance(c) - luminance(base)) >= least:
            return c
    return np.full(3, 30.0 if luminance(base) > 127 else 225.0, np.float32)


def soft(x: np.ndarray, width: float) -> np.ndarray:
    """A step at 0 that rises over `width`."""
    return np.clip(x / width + 0.5, 0.0, 1.0)


def _wave(x: np.ndarray, duty: float, edge: float) -> np.ndarray:
    """1 over a share `duty` of each unit period, 0 else, with soft edges; `edge` in periods."""
    d = np.abs(x % 1.0 - 0.5)
    return soft(duty / 2 - d, edge)


@dataclass(frozen=True)
class Fabric:
    """A cloth's pattern.

    Attributes:
        kind: one of FABRICS.
        colours: (3, 3) ground, figure and accent, RGB.
        period: metres of one repeat.
        duty: share of the figure.
        seed: of the irregular kinds.
    """

    kind: str
    colours: np.ndarray
    period: float
    duty: float
    seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator, plain: float = 0.4) -> Fabric:
        """Draws a pattern; `plain` is the probability of a plain one."""
        weights = np.array([plain, *[(1 - plain) / 6] * 6])
        kind = str(rng.choice(FABRICS, p=weights))
        ground = colour(rng, (0.0, 0.95), (0.18, 0.97))
        figure = contrasting(rng, ground, 45.0)
        period = float(rng.uniform(0.045, 0.16))
        return cls(
            kind,
            np.stack([ground, figure, contrasting(rng, ground)]),
            period,
            float(rng.uniform(0.25, 0.6)),
            int(rng.integers(2**31)),
        )

    def paint(self, a: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Colours (h, w, 3) at cloth coordinates `a` (around) and `y` (along), metres."""
        p, q, edge = a / self.period, y / self.period, 0.1
        if self.kind == "plain":
            m = np.zeros_like(a)
        elif self.kind == "stripes":
            m = _wave(q, self.duty, edge)
        elif self.kind == "bars":
            m = _wave(p, self.duty, edge)
        elif self.kind == "checks":
            m = 0.5 * (_wave(p, 0.5, edge) + _wave(q, 0.5, edge))
        elif self.kind == "dots":
            shifted = p + 0.5 * (np.floor(q) % 2)
            m = soft(0.32 - np.hypot(shifted % 1 - 0.5, q % 1 - 0.5), 0.12)
        elif self.kind == "noise":
            n = noise(np.random.default_rng(self.seed), a.shape, cell=max(6.0, 220 * self.period), octaves=3)
            m = soft(n - 0.1, 0.15)
        else:
            m = soft(y - np.median(y) - 0.3 * self.period, 0.01)
        return np.asarray(self.colours[0] + (self.colours[1] - self.colours[0]) * m[..., None], dtype=np.float32)


def surface(
    rng: np.random.Generator, kind: str, height: int, width: int, metre: float, palette: np.ndarray | None = None
) -> np.ndarray:
    """A wall's, floor's or board's picture.

    Args:
        rng: source.
        kind: one of SURFACES.
        height: rows.
        width: columns.
        metre: pixels per metre.
        palette: (2, 3) colours; drawn if None.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    if palette is None:
        first = colour(rng, (0.0, 0.35) if rng.random() < 0.75 else (0.3, 0.7), (0.3, 0.95))
        palette = np.stack([first, first * rng.uniform(0.6, 0.85) if rng.random() < 0.7 else colour(rng, (0.0, 0.5))])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(metre)
    pixel = 1.0 / metre
    grain = noise(rng, (height, width), max(4.0, 0.25 * metre), 3) * rng.uniform(0.03, 0.10)
    value: np.ndarray = np.zeros((height, width), np.float32)  # multiplies the colour
    if kind in ("plain", "noise"):
        m = (
            np.zeros_like(x)
            if kind == "plain"
            else soft(noise(rng, (height, width), rng.uniform(0.2, 1.0) * metre, 4), 0.8)
        )
    elif kind in ("brick", "tiles", "stone"):
        w, h = {"brick": (0.24, 0.08), "tiles": (0.35, 0.35), "stone": (0.6, 0.35)}[kind]
        scale = rng.uniform(0.9, 1.6)
        w, h = w * scale, h * scale
        row = np.floor(y / h)
        shift = 0.0 if kind == "tiles" else 0.5 * (row % 2)
        column = np.floor(x / w + shift)
        joint = max(0.012, 1.2 * pixel)
        m = np.maximum(soft(joint / 2 - np.abs((y / h + 0.5) % 1 - 0.5) * h, pixel),
                       soft(joint / 2 - np.abs((x / w + shift + 0.5) % 1 - 0.5) * w, pixel))  # fmt: skip
        table = rng.uniform(-1, 1, (64, 64)).astype(np.float32)
        value = table[row.astype(int) % 64, column.astype(int) % 64] * np.float32(rng.uniform(0.04, 0.2))
    elif kind == "planks":
        w = rng.uniform(0.09, 0.22)
        column = np.floor(x / w).astype(int)
        m = soft(max(0.008, pixel) / 2 - np.abs((x / w + 0.5) % 1 - 0.5) * w, pixel)
        streak = noise(rng, (max(height // 12, 4), width), max(3.0, 0.05 * metre), 2)
        value = (
            cv2.resize(streak, (width, height)) * np.float32(0.12)
            + rng.uniform(-0.12, 0.12, 512).astype(np.float32)[column % 512]
        )
    elif kind in ("stripes", "checks"):
        p = rng.uniform(0.12, 0.6)
        m = (
            _wave(x / p, 0.5, pixel / p)
            if kind == "stripes"
            else np.abs(_wave(x / p, 0.5, pixel / p) - _wave(y / p, 0.5, pixel / p))
        )
    elif kind == "panels":
        w, h = rng.uniform(0.6, 1.4), rng.uniform(0.7, 2.2)
        d = np.minimum(np.abs((x / w + 0.5) % 1 - 0.5) * w, np.abs((y / h + 0.5) % 1 - 0.5) * h)
        m = soft(0.03 - np.abs(d - 0.08), 0.02)
    else:  # leaves: overlapping blobs of light and dark
        n = noise(rng, (height, width), rng.uniform(0.12, 0.3) * metre, 3)
        fine = noise(rng, (height, width), 0.06 * metre, 2)
        m, value = soft(n, 0.5), np.asarray(0.35 * fine + 0.25 * n)
    out = palette[0] + (palette[1] - palette[0]) * m[..., None]
    out = out * (1 + value + grain)[..., None]
    return np.asarray(np.clip(out, 0, 255), dtype=np.uint8)
