"""Scenes: a room or a place outdoors around the person, with things in it, all anchored in the world.

The ground and up to four one-sided walls are textured planes drawn by homography, so they move rightly under the
camera; boxes stand before the walls; what would stand in front of the person is left out (occluders have their own
module and their own labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from bipose_lit.datasets.synthetic.camera import Camera
from bipose_lit.datasets.synthetic.distractors import Distractor, sample_distractor
from bipose_lit.datasets.synthetic.person import Light
from bipose_lit.datasets.synthetic.textures import colour, noise, surface
from bipose_lit.datasets.synthetic.vistas import sample_wall

Y = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Plane:
    """A textured parallelogram: origin + a u + b v for a, b in [0, 1]; `u` and `v` in metres.

    Attributes:
        origin, u, v: (3,) metres; the texture's first pixel is at the origin, its rows run along v.
        texture: (h, w, 3) uint8 RGB.
        one_sided: drawn only when seen from the side to which cross(v, u) points.
    """

    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    texture: np.ndarray
    one_sided: bool = True

    @cached_property
    def normal(self) -> np.ndarray:
        return np.cross(self.v, self.u)


@dataclass(frozen=True)
class Box:
    """An upright box: centre of its foot (3,), size (3,) metres, heading in radians, texture of each visible face."""

    foot: np.ndarray
    size: np.ndarray
    heading: float
    texture: np.ndarray

    def planes(self) -> list[Plane]:
        c, s = np.cos(self.heading), np.sin(self.heading)
        ax, az = np.array([c, 0, -s]), np.array([s, 0, c])
        w, h, d = self.size
        out = []
        for n, along, half, width in ((az, ax, d, w), (-az, -ax, d, w), (ax, -az, w, d), (-ax, az, w, d)):
            start = self.foot + n * half / 2 - along * width / 2 + Y * h
            out.append(Plane(start, along * width, -Y * h, self.texture))
        top = self.foot + Y * h - ax * w / 2 - az * d / 2
        out.append(Plane(top, ax * w, az * d, self.texture))
        return out


@dataclass(frozen=True)
class Scene:
    """A place; the person's mean position on the ground is its origin.

    Attributes:
        light: illumination.
        ground: (h, w, 3) uint8 texture of a square of `ground_size` metres.
        walls: four textures, each (h, w, 3) uint8, `wall_size` (width, height) metres.
        distance: (4,) metres from the origin to the walls.
        heading: turn of the walls, radians.
        backdrop: (3,) RGB where there is neither wall nor ground.
        outdoors: whether the walls are vistas.
        boxes: things on the ground.
        distractors: things that move.
    """

    light: Light
    ground: np.ndarray
    ground_size: float
    walls: list[np.ndarray]
    wall_height: float
    distance: np.ndarray
    heading: float
    backdrop: np.ndarray
    outdoors: bool = False
    boxes: list[Box] = field(default_factory=list)
    distractors: list[Distractor] = field(default_factory=list)


def sample_light(rng: np.random.Generator, outdoors: bool) -> Light:
    """A key light 30 to 75 degrees high from any side, warm or cool, with its ambient dome."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(32, 75))
    direction = np.array([np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])
    warmth = rng.normal(0, 0.05)
    balance = np.array([1 + warmth, 1.0, 1 - warmth])
    key = rng.uniform(0.45, 0.85) if outdoors else rng.uniform(0.30, 0.65)
    ambient = np.clip(1.2 - key + rng.normal(0, 0.05), 0.48, 0.85)
    return Light(
        direction,
        key * balance,
        ambient * (2 - balance),
        float(rng.uniform(0.35, 0.65) if outdoors else rng.uniform(0.15, 0.45)),
    )


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draws a place with its light, walls, ground, things and moving distractors; deterministic given `rng`."""
    outdoors = bool(rng.random() < 0.5)
    light = sample_light(rng, outdoors)
    distance = rng.uniform(11, 21, 4) if outdoors else rng.uniform(2.6, 6.0, 4)
    height = float(rng.uniform(9, 13) if outdoors else rng.uniform(2.5, 3.6))
    size = float(2 * distance.max() + 3)
    metre = min(1400 / size, 64.0)
    kind = str(rng.choice(["noise", "tiles", "stone", "leaves", "plain", "planks"] if outdoors else
                          ["planks", "tiles", "noise", "checks", "plain", "brick"]))  # fmt: skip
    palette = None
    if kind == "leaves":  # grass
        green = np.array([70, 105, 45]) * rng.uniform(0.7, 1.3) + rng.normal(0, 8, 3)
        palette = np.stack([green, green * rng.uniform(0.6, 0.85)])
    elif rng.random() < 0.8:  # most floors are grey, brown or pale
        tone = colour(rng, (0.0, 0.3), (0.3, 0.9))
        palette = np.stack([tone, tone * rng.uniform(0.55, 0.85)])
    # one tile, repeated: the floor is seen at a slant and its repeats do not show
    tile = surface(rng, kind, 512, 512, metre, palette)
    tile = np.concatenate([tile, tile[::-1]], 0)
    tile = np.concatenate([tile, tile[:, ::-1]], 1)
    pixels = int(size * metre)
    ground = np.tile(tile, (-(-pixels // 1024), -(-pixels // 1024), 1))[:pixels, :pixels]
    large = noise(rng, (24, 24), 8.0, 2)
    shade = cv2.resize((1 + 0.10 * large)[..., None].repeat(3, 2), (pixels, pixels), interpolation=cv2.INTER_LINEAR)
    ground = cv2.multiply(ground, shade.astype(np.float32), dtype=cv2.CV_8U)
    backdrop = colour(rng, (0.05, 0.45), (0.7, 0.95)) if outdoors else colour(rng, (0.0, 0.15), (0.55, 0.95))
    walls = []
    reuse = [0, 1, 0, 1] if rng.random() < 0.5 else [0, 1, 1, 0]
    span = 2.0 * float(distance.max()) + 2.0
    pair = [sample_wall(rng, outdoors, span, height, backdrop) for _ in range(2)]
    walls = [pair[i] for i in reuse]
    heading = float(rng.uniform(0, np.pi / 2))
    boxes = [_sample_box(rng, outdoors, distance) for _ in range(int(rng.integers(1, 7)))]
    distractors = [
        sample_distractor(rng, outdoors) for _ in range(int(rng.choice([0, 1, 2, 3, 4], p=[0.2, 0.25, 0.25, 0.2, 0.1])))
    ]
    return Scene(light, ground, size, walls, height, distance, heading, backdrop, outdoors, boxes, distractors)


def _sample_box(rng: np.random.Generator, outdoors: bool, distance: np.ndarray) -> Box:
    azimuth = rng.uniform(0, 2 * np.pi)
    r = rng.uniform(1.5, max(0.85 * float(distance.min()), 1.8))
    size = np.array([rng.uniform(0.3, 1.8), rng.uniform(0.25, 1.9), rng.uniform(0.3, 0.9)])
    if outdoors:
        size = size * rng.uniform(1.0, 1.6)
    foot = np.array([r * np.sin(azimuth), 0.0, r * np.cos(azimuth)])
    kind = str(rng.choice(["plain", "planks", "panels", "stripes", "noise", "checks"]))
    return Box(foot, size, float(rng.uniform(0, np.pi)), surface(rng, kind, 72, 72, 50.0))


class Stage:
    """A scene placed around one clip.

    Args:
        scene: the place.
        cameras: T cameras.
        person: (T, 22, 3) joints, metres, which decide the origin and what may be drawn behind them.
    """

    def __init__(self, scene: Scene, cameras: Sequence[Camera], person: np.ndarray, fps: float) -> None:
        self.scene, self.cameras, self.fps = scene, cameras, fps
        middle = person.mean((0, 1))
        self.origin = np.array([middle[0], 0.0, middle[2]])
        reach = np.abs(person[..., [0, 2]] - middle[[0, 2]]).max() + 0.8
        light = scene.light
        self.depth = np.array([float(cam.to_camera(p)[:, 2].max()) for cam, p in zip(cameras, person, strict=True)])
        ground_light = light.key * max(light.direction[1], 0.0) + 0.95 * light.ambient
        half = scene.ground_size / 2 + reach
        corner = self.origin + np.array([-half, 0, -half])
        size = 2 * half
        self.planes = [Plane(corner, np.array([size, 0, 0]), np.array([0, 0, size]), _lit(scene.ground, ground_light))]
        angles = scene.heading + np.arange(4) * np.pi / 2
        self._inward = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], 1)
        self._distance = np.maximum(scene.distance, reach)
        painted = 2 * float(scene.distance.max()) + 2.0  # metres that a wall's picture spans
        for i, picture in enumerate(scene.walls):
            inward, d = self._inward[i], float(self._distance[i])
            along = np.array([inward[2], 0.0, -inward[0]])
            # the next wall stands at -along, the one before at +along: a wall ends where it meets them
            after, before = float(self._distance[(i + 1) % 4]), float(self._distance[i - 1])
            span = after + before
            texture = picture[:, : max(round(picture.shape[1] * min(span / painted, 1.0)), 8)]
            start = self.origin - inward * d - along * after + Y * scene.wall_height
            lit = light.key * max(float(light.direction @ inward), 0.0) * 0.6 + light.ambient * 0.9 + 0.2
            if scene.outdoors:  # the vista has its own light
                lit = 0.8 + 0.25 * lit
            self.planes.append(Plane(start, along * span, -Y * scene.wall_height, _lit(texture, lit)))
        self.boxes = [b for b in (self._place(b) for b in scene.boxes) if self._behind(b)]
        self._faces = []
        for b in sorted(self.boxes, key=lambda b: -float(np.linalg.norm(b.foot - cameras[0].centre))):
            for plane in b.planes():
                n = plane.normal / np.linalg.norm(plane.normal)
                lit = light.key * max(float(light.direction @ n), 0.0) + light.ambient
                self._faces.append(Plane(plane.origin, plane.u, plane.v, _lit(plane.texture, lit)))

    def _place(self, box: Box) -> Box:
        return Box(box.foot + self.origin, box.size, box.heading, box.texture)

    def _behind(self, box: Box) -> bool:
        """Whether the whole box is farther than the person in every frame (so that it can never cover them)."""
        corners = np.concatenate(
            [np.stack([p.origin, p.origin + p.u, p.origin + p.v, p.origin + p.u + p.v]) for p in box.planes()]
        )
        return all(
            float(cam.to_camera(corners)[:, 2].min()) > d + 0.25
            for cam, d in zip(self.cameras, self.depth, strict=True)
        )

    def draw(self, f: int) -> np.ndarray:
        """The background of frame `f`, (H, W, 3) uint8, with distractors that are behind the person."""
        cam = self.cameras[f]
        W, H = cam.size
        image = np.empty((H, W, 3), np.uint8)
        image[:] = np.clip(self.scene.backdrop * self.scene.light.ambient.mean() * 1.5, 0, 255).astype(np.uint8)
        eye = cam.centre
        for plane in (*self.planes, *self._faces):
            if (eye - plane.origin) @ plane.normal > 0:
                draw_plane(image, cam, plane)
        for d in self.scene.distractors:
            place = d.start + d.velocity * (f / self.fps)
            if (self._inward @ place < 0.3 - self._distance).any():
                continue  # it has left through a wall
            d.draw(image, cam, self.origin, f / self.fps, float(self.depth[f]), self.scene.light)
        return image

    def cast_shadow(self, f: int, image: np.ndarray, points: np.ndarray) -> None:
        """Darkens the ground where the person's vertices `points` (V, 3) stand in the key light."""
        light, cam = self.scene.light, self.cameras[f]
        d = light.direction
        fall = points - (points[:, 1:2] / max(float(d[1]), 0.3)) * d
        fall[:, 1] = 0.0
        pixels, depth = cam.project(fall)
        W, H = cam.size
        scale = 2
        w, h = W // scale, H // scale
        ok = (
            (depth > 0.2)
            & (pixels[:, 0] > -20)
            & (pixels[:, 0] < W + 20)
            & (pixels[:, 1] > -20)
            & (pixels[:, 1] < H + 20)
        )
        if not ok.any():
            return
        x = (pixels[ok, 0] / scale).astype(int).clip(0, w - 1)
        y = (pixels[ok, 1] / scale).astype(int).clip(0, h - 1)
        mask = np.zeros((h, w), np.float32)
        mask[y, x] = 1.0
        x0, x1, y0, y1 = max(x.min() - 6, 0), min(x.max() + 7, w), max(y.min() - 6, 0), min(y.max() + 7, h)
        part = np.ascontiguousarray(mask[y0:y1, x0:x1])
        part = np.minimum(cv2.blur(part, (5, 5)) * 5.0, 1.0)
        part = cv2.blur(part, (5, 3))
        area = image[y0 * scale : y1 * scale, x0 * scale : x1 * scale]
        part = cv2.resize(part, area.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        keep = 1.0 - np.float32(light.shadow) * part
        area[:] = (area * keep[..., None]).astype(np.uint8)


def _lit(texture: np.ndarray, light: np.ndarray) -> np.ndarray:
    table = np.clip(np.arange(256)[:, None] * light[None], 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(texture, table[None]))


def draw_plane(image: np.ndarray, cam: Camera, plane: Plane) -> None:
    """Warps a plane's texture into `image`, in place; parts behind the camera are cut off."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    world = plane.origin + corners[:, :1] * plane.u + corners[:, 1:] * plane.v
    depth = cam.to_camera(world)[:, 2]
    polygon = _clip(np.concatenate([corners, depth[:, None]], 1))
    if len(polygon) < 3:
        return
    H = cam.plane_homography(plane.origin, plane.u, plane.v)
    p = np.concatenate([polygon[:, :2], np.ones((len(polygon), 1))], 1) @ H.T
    px = p[:, :2] / p[:, 2:]
    rows, columns = image.shape[:2]
    x0, y0 = np.clip(np.floor(px.min(0)), 0, (columns, rows)).astype(int)
    x1, y1 = np.clip(np.ceil(px.max(0)) + 1, 0, (columns, rows)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    h, w = plane.texture.shape[:2]
    texel = np.array([[1 / w, 0, 0.5 / w], [0, 1 / h, 0.5 / h], [0, 0, 1]])
    M = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]]) @ H @ texel
    area = image[y0:y1, x0:x1]
    # the projection's other branch (points behind the camera) must not be drawn: clip by the near polygon
    out = cv2.warpPerspective(
        plane.texture, M, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    mask = np.zeros(area.shape[:2], np.uint8)
    bounded = np.clip(px - (x0, y0), -8000, 8000)
    cv2.fillConvexPoly(mask, np.round(bounded * 8).astype(np.int32), 255, cv2.LINE_AA, 3)
    cv2.copyTo(out, cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1], area)


def _clip(polygon: np.ndarray, near: float = 0.15) -> np.ndarray:
    """Cuts a convex polygon (n, 3) of plane coordinates and depth at depth = `near` (depth is affine on the plane)."""
    out = []
    for p, q in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if p[2] >= near:
            out.append(p)
        if (p[2] >= near) != (q[2] >= near):
            s = (near - p[2]) / (q[2] - p[2])
            out.append(p + s * (q - p))
    return np.array(out).reshape(-1, 3)
