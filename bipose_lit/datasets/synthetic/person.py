"""Draws the articulated person: anti-aliased, motion-blurred, lit; and tells which joints the body itself hides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bipose_lit.datasets.synthetic.anatomy import build_body
from bipose_lit.datasets.synthetic.body import JOINTS
from bipose_lit.datasets.synthetic.camera import Camera, MotionLike
from bipose_lit.datasets.synthetic.looks import Look
from bipose_lit.datasets.synthetic.paint import paint
from bipose_lit.datasets.synthetic.raster import first_surface, rasterise
from bipose_lit.datasets.synthetic.shapes import rest_pose

OTHER_GAP, OWN_GAP = 0.12, 0.20
"""Metres behind the visible surface at which a joint counts as hidden: of another body region, of its own region.

Joints lie up to about 0.13 m inside their own region, which therefore hides them only where the trunk is seen edge-on."""

# Sub-pixel offsets of the samples: n-rooks patterns, shuffled so that time and place are not correlated.
_JITTER = {
    3: ((-1 / 3, 0.0), (1 / 3, -1 / 3), (0.0, 1 / 3)),
    4: ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375)),
    6: ((-5 / 12, -1 / 12), (1 / 4, 5 / 12), (-1 / 12, -1 / 4), (1 / 12, 1 / 4), (-1 / 4, -5 / 12), (5 / 12, 1 / 12)),
}


@dataclass(frozen=True)
class Light:
    """A key light and an ambient dome.

    Attributes:
        direction: (3,) unit vector TOWARDS the key light.
        key, ambient: (3,) RGB factors; a white surface that faces the key has key + ambient.
        shadow: darkness of cast shadows in [0, 1].
    """

    direction: np.ndarray
    key: np.ndarray
    ambient: np.ndarray
    shadow: float


def _allowed_gap(regions: Sequence[str]) -> np.ndarray:
    """(22, regions) metres that a joint may lie behind the surface of a region and still count as seen."""
    gap = np.full((len(JOINTS), len(regions)), OTHER_GAP)
    for j, name in enumerate(JOINTS):
        side, _, part = name.partition("_")
        if part in ("shoulder", "elbow", "wrist", "hand"):
            own = {f"{side}_arm"} | ({"torso"} if part == "shoulder" else set())
        elif part in ("hip", "knee", "ankle", "toe"):
            own = {f"{side}_leg", "skirt"} | ({"torso"} if part == "hip" else set())
        elif name in ("neck", "head", "head_top"):
            own = {"head"} | ({"torso"} if name == "neck" else set())
        else:
            own = {"torso", "skirt"} | ({"left_leg", "right_leg"} if name == "pelvis" else set())
        for r, region in enumerate(regions):
            if region in own:
                gap[j, r] = OWN_GAP
            elif region == "gear" and (name in ("pelvis", "spine", "chest") or part == "hip"):
                gap[j, r] = np.inf  # what hangs on the trunk hides no joint inside it
    return gap


class Person:
    """A clip's person, ready to be drawn frame by frame.

    Args:
        motion: T frames.
        look: appearance.
        cameras: T cameras.
        light: illumination.
        samples: renderings averaged per frame in space and time (3, 4 or 6); None chooses by speed.
    """

    def __init__(
        self, motion: MotionLike, look: Look, cameras: Sequence[Camera], light: Light, samples: int | None = None
    ) -> None:
        self.cameras, self.light, self.samples = cameras, light, samples
        rest = rest_pose(motion.positions, motion.frames)
        self.mesh = build_body(rest, look.build)
        self.atlas = paint(self.mesh, look, rest)
        self.faces = self.mesh.faces.astype(np.int32)
        self.points, normals = self.mesh.pose(motion.positions, motion.frames, rest)
        T, V = self.points.shape[:2]
        self.screen = np.empty((T, V, 3), np.float32)
        self.shade = np.empty((T, V, 4), np.float32)
        self.shade[..., :2] = self.mesh.uv
        for f, cam in enumerate(cameras):
            pixels, depth = cam.project(self.points[f])
            self.screen[f, :, :2] = np.nan_to_num(pixels, nan=-1e4)
            self.screen[f, :, 2] = depth
            view = cam.centre.astype(np.float32) - self.points[f]
            view /= np.linalg.norm(view, axis=-1, keepdims=True)
            n = normals[f]
            facing = np.abs((n * view).sum(-1))
            lambert = n @ light.direction.astype(np.float32)
            rim = (1 - facing) ** 3 * (0.5 + 0.5 * lambert)
            self.shade[f, :, 2] = np.clip((lambert + 0.15) / 1.15, 0, 1) + 0.35 * rim
            self.shade[f, :, 3] = (0.86 + 0.22 * n[:, 1]) * (0.78 + 0.22 * facing)
        self._allowed = _allowed_gap(self.mesh.regions)

    def _at(self, f: int, offset: float) -> np.ndarray:
        """Screen vertices at `offset` frames from frame `f`: linear between frames, extended at the clip's ends."""
        here = self.screen[f]
        T = len(self.screen)
        if T == 1 or offset == 0:
            return np.asarray(here)
        step = 1 if offset > 0 else -1
        other = f + step
        if not 0 <= other < T:
            step, other = -step, f - step
        return np.asarray(here + np.float32(offset / step) * (self.screen[other] - here))

    def draw(self, f: int, shutter: float) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
        """The person in frame `f` while the shutter is open for `shutter` frames, centred on the frame's time.

        Returns:
            The region's origin (x, y), its premultiplied colours (h, w, 3) float32 and coverage (h, w) float32; an empty
            region where the person is out of view.
        """
        W, H = self.cameras[f].size
        samples = self.samples or self._samples(f, shutter)
        jitter = np.array(_JITTER[samples], np.float32)
        times = ((np.arange(samples) + 0.5) / samples - 0.5) * shutter
        screen = np.stack([self._at(f, float(s)) for s in times])
        screen[..., :2] -= jitter[:, None]
        ok = screen[..., 2] > 0.1
        empty = (0, 0), np.zeros((0, 0, 3), np.float32), np.zeros((0, 0), np.float32)
        if not ok.any():
            return empty
        lo = screen[..., :2][ok].min(0)
        hi = screen[..., :2][ok].max(0)
        x0, y0 = int(np.clip(np.floor(lo[0]), 0, W)), int(np.clip(np.floor(lo[1]), 0, H))
        x1, y1 = int(np.clip(np.ceil(hi[0]) + 1, 0, W)), int(np.clip(np.ceil(hi[1]) + 1, 0, H))
        w, h = x1 - x0, y1 - y0
        if w <= 0 or h <= 0:
            return empty
        out = rasterise(screen, self.faces, self.shade[f], (x0, y0), (w, h))
        colour = sample_atlas(self.atlas, out.values[:, 0], out.values[:, 1])
        light = np.outer(out.values[:, 2], self.light.key.astype(np.float32))
        light += np.outer(out.values[:, 3], self.light.ambient.astype(np.float32))
        colour *= light
        total = np.zeros((h * w, 3), np.float32)
        cover = np.zeros(h * w, np.float32)
        ends = np.searchsorted(out.pixel, np.arange(1, samples + 1) * (h * w))
        start = 0
        for s, end in enumerate(ends):
            at = out.pixel[start:end] - s * h * w
            total[at] += colour[start:end]
            cover[at] += 1
            start = end
        return (x0, y0), total.reshape(h, w, 3) / samples, cover.reshape(h, w) / samples

    def _samples(self, f: int, shutter: float) -> int:
        T = len(self.screen)
        if T == 1:
            return 4
        g = f + 1 if f + 1 < T else f - 1
        speed = np.abs(self.screen[g, ::7, :2] - self.screen[f, ::7, :2]).max() * shutter
        return 4 if speed < 9 else 6

    def self_occluded(self, f: int, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """(22,) whether each joint lies behind the body's own visible surface; see OTHER_GAP and OWN_GAP.

        Args:
            f: frame.
            pixels: (22, 2) projected joints.
            depth: (22,) metres.
        """
        surface = first_surface(self.screen[f], self.faces, self.mesh.region, len(self.mesh.regions), pixels)
        return np.asarray((depth[:, None] - surface > self._allowed).any(1))


def sample_atlas(atlas: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear colours (N, 3) float32 at atlas pixels `u`, `v` (N,)."""
    n = len(u)
    columns = 256
    rows = -(-n // columns)
    if rows == 0:
        return np.zeros((0, 3), np.float32)
    maps = np.zeros((2, rows * columns), np.float32)
    maps[0, :n], maps[1, :n] = u, v
    mu, mv = maps.reshape(2, rows, columns)
    out = cv2.remap(atlas, mu, mv, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out.reshape(-1, 3)[:n])
