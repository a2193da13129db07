"""Opaque things in front of the person, with their coverage.

A track (where, how large, turned how, present when) is planned by whoever designs the clip; this module makes the
things and draws them. Coverage is measured in the drawn mask, so that visibility labels cannot disagree with pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from bipose_lit.datasets.synthetic.camera import Camera
from bipose_lit.datasets.synthetic.looks import SKIN
from bipose_lit.datasets.synthetic.textures import colour, contrasting, surface
from bipose_lit.types import BiposeError

KINDS = ("pole", "panel", "door", "bush", "box", "polygon", "board", "person")
_MARGIN = 2  # transparent pixels around a sprite, so that its edges stay smooth when it is warped
_SHIFT = 3


@dataclass(frozen=True)
class OccluderTrack:
    """Where an occluder is in each of T frames.

    Attributes:
        centre: (T, 2) pixels.
        scale: (T,) size relative to the occluder's own size in pixels.
        angle: (T,) radians, clockwise in the image.
        present: (T,) bool; where False nothing is drawn.
    """

    centre: np.ndarray
    scale: np.ndarray
    angle: np.ndarray
    present: np.ndarray

    def __post_init__(self) -> None:
        T = len(self.present)
        shapes = (self.centre.shape, self.scale.shape, self.angle.shape)
        if shapes != ((T, 2), (T,), (T,)):
            raise BiposeError(
                f"occluder track: centre, scale, angle have shapes {shapes}; give ({T}, 2), ({T},), ({T},)"
            )

    @classmethod
    def still(cls, centre: tuple[float, float], frames: int) -> OccluderTrack:
        """Stands at `centre` pixels in all frames."""
        place = np.tile(np.asarray(centre, dtype=np.float64), (frames, 1))
        return cls(place, np.ones(frames), np.zeros(frames), np.ones(frames, bool))

    @classmethod
    def anchored(cls, world: np.ndarray, cameras: Sequence[Camera], pixels_per_metre: float) -> OccluderTrack:
        """Follows world points under the cameras.

        Args:
            world: (3,) or (T, 3) centre of the occluder, metres.
            cameras: T cameras.
            pixels_per_metre: resolution of the occluder's own size.
        """
        points = np.broadcast_to(world, (len(cameras), 3))
        out = [cam.project(p) for cam, p in zip(cameras, points, strict=True)]
        depth = np.array([float(d) for _, d in out])
        ok = depth > 0.3
        centre = np.nan_to_num(np.array([p for p, _ in out]), nan=-1e4)
        focal = np.array([cam.K[0, 0] for cam in cameras])
        return cls(centre, focal / np.maximum(depth, 0.3) / pixels_per_metre, np.zeros(len(ok)), ok)


@dataclass(frozen=True)
class Occluder:
    """One thing.

    Attributes:
        kind: one of KINDS.
        sprite: (h, w, 4) uint8 RGB premultiplied with alpha; `_MARGIN` transparent pixels around.
        seed: what it was drawn from; texture and shape are functions of (kind, size, seed).
        track: where it is; None until planned.
    """

    kind: str
    sprite: np.ndarray
    seed: int
    track: OccluderTrack | None = None

    @classmethod
    def sample(cls, rng: np.random.Generator, size_px: tuple[float, float], kind: str | None = None) -> Occluder:
        """Draws a thing that fills a box of `size_px` = (width, height) pixels.

        Raises:
            BiposeError: unknown `kind`, or a box under 4 or over 2000 pixels.
        """
        seed = int(rng.integers(2**31))
        chosen = str(rng.choice(KINDS)) if kind is None else kind
        return cls.make(chosen, size_px, seed)

    @classmethod
    def make(cls, kind: str, size_px: tuple[float, float], seed: int) -> Occluder:
        """The thing of that kind, size and seed; see `sample`."""
        if kind not in KINDS:
            raise BiposeError(f"occluder kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
        w, h = (round(float(v)) for v in size_px)
        if not (4 <= w <= 2000 and 4 <= h <= 2000):
            raise BiposeError(f"occluder size {size_px} is out of range; give a width and height of 4 to 2000 pixels")
        rng = np.random.default_rng(seed)
        rgb, alpha = _PAINTERS[kind](rng, w, h)
        sprite = np.zeros((h + 2 * _MARGIN, w + 2 * _MARGIN, 4), np.uint8)
        inner = sprite[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        inner[..., 3] = alpha
        inner[..., :3] = (np.clip(rgb, 0, 255) * (alpha[..., None] / 255.0) + 0.5).astype(np.uint8)
        return cls(kind, sprite, seed)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels at scale 1."""
        h, w = self.sprite.shape[:2]
        return w - 2 * _MARGIN, h - 2 * _MARGIN

    def on(self, track: OccluderTrack) -> Occluder:
        """The same thing on another track."""
        return replace(self, track=track)


def draw_occluders(
    frame: np.ndarray, occluders: Sequence[Occluder], t: int, shutter: float = 0.0, shadow: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the occluders of frame `t` over a picture, later ones in front.

    Args:
        frame: (H, W, 3) uint8 RGB; left as it is.
        occluders: things with tracks.
        t: frame.
        shutter: open time in frames, for motion blur.
        shadow: darkness of the soft shadow each throws on what is behind, in [0, 1].

    Returns:
        The picture (H, W, 3) uint8 and the coverage (H, W) float32 in [0, 1].

    Raises:
        BiposeError: an occluder has no track, or its track ends before frame `t`.
    """
    out = frame.copy()
    alpha = np.zeros(frame.shape[:2], np.float32)
    for o in occluders:
        if o.track is None or t >= len(o.track.present):
            raise BiposeError(f"occluder {o.kind!r} has no track for frame {t}; plan one of the clip's length")
        if o.track.present[t]:
            _draw(out, alpha, o, t, shutter, shadow)
    return out, alpha


def _draw(image: np.ndarray, alpha: np.ndarray, o: Occluder, t: int, shutter: float, shadow: float) -> None:
    assert o.track is not None
    H, W = alpha.shape
    h, w = o.sprite.shape[:2]
    k, a = float(o.track.scale[t]), float(o.track.angle[t])
    turn = k * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    corner = np.array([(w - 1) / 2, (h - 1) / 2])
    centre = o.track.centre[t]
    step = _velocity(o.track, t) * shutter
    reach = np.abs(turn) @ (corner + 1) + np.abs(step) / 2 + 8
    x0, y0 = np.clip(np.floor(centre - reach), 0, (W, H)).astype(int)
    x1, y1 = np.clip(np.ceil(centre + reach) + 1, 0, (W, H)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    n = int(np.clip(np.ceil(np.linalg.norm(step) / 1.5), 1, 7))
    layer = np.zeros((y1 - y0, x1 - x0, 4), np.float32)
    for i in range(n):
        place = centre + step * ((i + 0.5) / n - 0.5) - (x0, y0)
        M = np.concatenate([turn, (place - turn @ corner)[:, None]], 1)
        layer += cv2.warpAffine(o.sprite, M, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    layer /= n
    cover = layer[..., 3] / 255.0
    area = image[y0:y1, x0:x1]
    kept = 1.0 - cover
    if shadow > 0:
        fall = cv2.blur(cv2.warpAffine(cover, np.array([[1, 0, 4], [0, 1, 3]], np.float32), (x1 - x0, y1 - y0)), (9, 9))
        kept = kept * (1.0 - shadow * fall)
    area[:] = (area * kept[..., None] + layer[..., :3] + 0.5).clip(0, 255).astype(np.uint8)
    part = alpha[y0:y1, x0:x1]
    part[:] = 1.0 - (1.0 - part) * (1.0 - cover)


def _velocity(track: OccluderTrack, t: int) -> np.ndarray:
    T = len(track.present)
    before = t - 1 if t > 0 and track.present[t - 1] else t
    after = t + 1 if t + 1 < T and track.present[t + 1] else t
    if after == before:
        return np.zeros(2)
    return np.asarray((track.centre[after] - track.centre[before]) / (after - before))


Painted = tuple[np.ndarray, np.ndarray]


def _fill(w: int, h: int, polygons: Sequence[np.ndarray]) -> np.ndarray:
    """Anti-aliased union (h, w) uint8 of polygons in pixels."""
    mask = np.zeros((h, w), np.uint8)
    for p in polygons:
        cv2.fillPoly(mask, [np.round(np.asarray(p) * 2**_SHIFT).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return mask


def _metre(rng: np.random.Generator, h: int) -> float:
    return h / float(rng.uniform(0.8, 2.0))


def _full(w: int, h: int) -> np.ndarray:
    return np.full((h, w), 255, np.uint8)


def _pole(rng: np.random.Generator, w: int, h: int) -> Painted:
    x = np.linspace(-1, 1, w)
    light = 0.45 + 0.75 * np.exp(-(((x - rng.uniform(-0.5, 0.3)) / 0.6) ** 2))
    kind = str(rng.choice(["plain", "noise", "planks", "stone"]))
    rgb = surface(rng, kind, h, w, _metre(rng, h)) * light[None, :, None]
    if rng.random() < 0.4:
        bands = ((np.arange(h) / max(w * rng.uniform(0.8, 2.0), 3.0)) % 2 < 1)[:, None, None]
        rgb = np.where(bands, rgb, colour(rng) * light[None, :, None])
    return rgb, _full(w, h)


def _framed(rng: np.random.Generator, w: int, h: int, kinds: Sequence[str]) -> np.ndarray:
    rgb = surface(rng, str(rng.choice(kinds)), h, w, _metre(rng, h)).astype(np.float32)
    edge = max(2, round(0.04 * min(w, h)))
    frame = colour(rng, (0.0, 0.6))
    cv2.rectangle(rgb, (0, 0), (w - 1, h - 1), tuple(map(float, frame)), 2 * edge)
    return rgb * np.linspace(1.08, 0.86, h)[:, None, None]


def _panel(rng: np.random.Generator, w: int, h: int) -> Painted:
    return _framed(rng, w, h, ("plain", "noise", "stripes", "tiles", "brick", "planks")), _full(w, h)


def _door(rng: np.random.Generator, w: int, h: int) -> Painted:
    rgb = _framed(rng, w, h, ("panels", "planks"))
    cv2.circle(
        rgb, (int(w * 0.88), int(h * 0.52)), max(2, round(0.03 * min(w, h))), (215.0, 200.0, 120.0), -1, cv2.LINE_AA
    )
    return rgb, _full(w, h)


def _bush(rng: np.random.Generator, w: int, h: int) -> Painted:
    mask = np.zeros((h, w), np.uint8)
    r = 0.16 * min(w, h)
    cv2.ellipse(
        mask, (w // 2, h // 2), (max(1, int(w / 2 - r)), max(1, int(h / 2 - r))), 0, 0, 360, 255, -1, cv2.LINE_AA
    )
    for a in np.linspace(0, 2 * np.pi, 26, endpoint=False) + rng.uniform(-0.1, 0.1, 26):
        q = r * rng.uniform(0.5, 1.0)
        at = (
            w / 2 + (w / 2 - q) * np.cos(a) * rng.uniform(0.86, 1.0),
            h / 2 + (h / 2 - q) * np.sin(a) * rng.uniform(0.86, 1.0),
        )
        cv2.circle(mask, (int(at[0]), int(at[1])), max(1, int(q)), 255, -1, cv2.LINE_AA)
    green = np.array([62, 100, 44]) * rng.uniform(0.5, 1.5) + rng.normal(0, 14, 3)
    rgb = surface(rng, "leaves", h, w, 90.0, np.stack([green, green * 0.45])).astype(np.float32)
    for _ in range(60):
        at = (int(rng.uniform(0, w)), int(rng.uniform(0, h)))
        c = np.clip(green * rng.uniform(0.4, 1.6), 0, 255)
        axes = (max(1, int(0.06 * min(w, h))), max(1, int(0.03 * min(w, h))))
        cv2.ellipse(rgb, at, axes, float(rng.uniform(0, 180)), 0, 360, tuple(map(float, c)), -1, cv2.LINE_AA)
    return rgb * np.linspace(1.15, 0.7, h)[:, None, None], mask


def _box(rng: np.random.Generator, w: int, h: int) -> Painted:
    top = int(h * rng.uniform(0.1, 0.25))
    lean = w * rng.uniform(0.08, 0.2)
    mask = _fill(
        w, h, [np.array([(0, top), (lean, 0), (w - 1, 0), (w - 1, h - top), (w - 1 - lean, h - 1), (0, h - 1)])]
    )
    rgb = surface(rng, str(rng.choice(["plain", "planks", "noise", "checks"])), h, w, _metre(rng, h)).astype(np.float32)
    lid = _fill(w, h, [np.array([(0, top), (lean, 0), (w - 1, 0), (w - 1 - lean, top)])]) / 255.0
    flank = _fill(w, h, [np.array([(w - 1 - lean, top), (w - 1, 0), (w - 1, h - top), (w - 1 - lean, h - 1)])]) / 255.0
    return rgb * (1 + 0.25 * lid - 0.4 * flank)[..., None], mask


def _polygon(rng: np.random.Generator, w: int, h: int) -> Painted:
    n = int(rng.integers(5, 10))
    a = np.sort(rng.uniform(0, 2 * np.pi / n, n) + np.arange(n) * 2 * np.pi / n)
    r = rng.uniform(0.72, 1.0, n)
    p = np.stack([r * np.cos(a), r * np.sin(a)], 1)
    p = (p - p.min(0)) / np.ptp(p, axis=0) * (w - 1, h - 1)
    rgb = surface(rng, str(rng.choice(["plain", "noise", "stripes", "checks", "tiles"])), h, w, _metre(rng, h))
    return rgb * np.linspace(1.1, 0.8, w)[None, :, None], _fill(w, h, [p])


def _board(rng: np.random.Generator, w: int, h: int) -> Painted:
    r = 0.15 * min(w, h)
    mask = _fill(
        w,
        h,
        [
            np.array(
                [
                    (r, 0),
                    (w - 1 - r, 0),
                    (w - 1, r),
                    (w - 1, h - 1 - r),
                    (w - 1 - r, h - 1),
                    (r, h - 1),
                    (0, h - 1 - r),
                    (0, r),
                ]
            )
        ],
    )
    ground = colour(rng)
    rgb = np.broadcast_to(ground, (h, w, 3)).astype(np.float32).copy()
    for _ in range(int(rng.integers(2, 6))):
        c = tuple(map(float, contrasting(rng, ground, 40.0)))
        a, b = (tuple(int(v) for v in rng.uniform(0, 1, 2) * (w, h)) for _ in range(2))
        if rng.random() < 0.5:
            cv2.line(rgb, a, b, c, max(1, int(0.1 * min(w, h))), cv2.LINE_AA)
        else:
            cv2.circle(rgb, a, max(2, int(rng.uniform(0.1, 0.3) * min(w, h))), c, -1, cv2.LINE_AA)
    return rgb, mask


def _person(rng: np.random.Generator, w: int, h: int) -> Painted:
    """Somebody who passes close to the camera: head, trunk with arms, legs, filling the box."""
    rgb = np.zeros((h, w, 3), np.float32)
    mask = np.zeros((h, w), np.uint8)
    skin = SKIN[rng.integers(len(SKIN))]
    hair, top, low = colour(rng, (0.1, 0.5), (0.05, 0.4)), colour(rng), colour(rng, (0, 0.6), (0.1, 0.7))
    cx = (w - 1) / 2

    def shape(points: Sequence[tuple[float, float]], c: np.ndarray) -> None:
        p = np.array([(cx + x * w / 2, y * (h - 1)) for x, y in points])
        part = _fill(w, h, [p])
        mask[:] = np.maximum(mask, part)
        rgb[:] += (c - rgb) * (part[..., None] > 0)

    for s in (-1.0, 1.0):
        shape(
            [(s * 0.02, 0.5), (s * 0.62, 0.5), (s * 0.55, 0.75), (s * 0.45, 1.0), (s * 0.12, 1.0), (s * 0.08, 0.75)],
            low * (1 if s > 0 else 0.85),
        )
        shape(
            [
                (s * 0.5, 0.16),
                (s * 0.9, 0.22),
                (s * 1.0, 0.4),
                (s * 0.92, 0.55),
                (s * 0.7, 0.55),
                (s * 0.72, 0.38),
                (s * 0.5, 0.28),
            ],
            top * 0.82,
        )
        shape([(s * 0.92, 0.53), (s * 0.9, 0.6), (s * 0.74, 0.6), (s * 0.7, 0.53)], skin)
    shape(
        [
            (-0.25, 0.145),
            (0.25, 0.145),
            (0.72, 0.18),
            (0.68, 0.3),
            (0.6, 0.54),
            (-0.6, 0.54),
            (-0.68, 0.3),
            (-0.72, 0.18),
        ],
        top,
    )
    shape([(-0.16, 0.1), (0.16, 0.1), (0.2, 0.16), (-0.2, 0.16)], skin * 0.85)
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    shape([(0.32 * np.cos(a), 0.07 + 0.07 * np.sin(a)) for a in turn], hair)
    if rng.random() < 0.5:
        shape([(0.26 * np.cos(a), 0.085 + 0.052 * np.sin(a)) for a in turn], skin)
    fold = surface(rng, "noise", h, w, 60.0, np.array([[255.0] * 3, [205.0] * 3])) / 255.0
    return rgb * fold * np.linspace(1.05, 0.75, w)[None, :, None], mask


_PAINTERS = {
    "pole": _pole,
    "panel": _panel,
    "door": _door,
    "bush": _bush,
    "box": _box,
    "polygon": _polygon,
    "board": _board,
    "person": _person,
}
