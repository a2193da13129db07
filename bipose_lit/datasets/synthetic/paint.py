"""Paints a look into the texture atlas of a body mesh, in the metric coordinates of the rest pose."""

from __future__ import annotations

import cv2
import numpy as np

from bipose_lit.datasets.synthetic.anatomy import hair_mask
from bipose_lit.datasets.synthetic.body import INDEX
from bipose_lit.datasets.synthetic.looks import Look
from bipose_lit.datasets.synthetic.shapes import BodyMesh, Loft
from bipose_lit.datasets.synthetic.textures import noise, soft

PIXEL = 0.007  # metres over which painted edges blend: about one texel


class _Cloth:
    """A part's canvas: place at rest of every texel, and colours laid over each other."""

    def __init__(self, part: Loft, rect: tuple[int, int, int, int], rng: np.random.Generator) -> None:
        w, h = rect[2], rect[3]
        rows, columns = part.points.shape[:2]
        u = ((np.arange(w) - 0.5).clip(0, w - 2) / (w - 2) * (columns - 1)).astype(np.float32)
        v = ((np.arange(h) - 0.5).clip(0, h - 2) / (h - 2) * (rows - 1)).astype(np.float32)
        mu, mv = np.meshgrid(u, v)
        place = cv2.remap(part.points.astype(np.float32), mu, mv, cv2.INTER_LINEAR)
        self.x, self.y, self.z = place[..., 0], place[..., 1], place[..., 2]
        self.phi = np.broadcast_to(u / (columns - 1) * np.float32(2 * np.pi), (h, w))
        radius = np.linalg.norm(part.points - part.points[:, :-1].mean(1, keepdims=True), axis=-1).max()
        self.around = (self.phi - np.pi) * np.float32(radius)
        self.front = self.phi_front() < np.pi / 2
        self.rgb = np.zeros((h, w, 3), np.float32)
        self.rng = rng

    def phi_front(self) -> np.ndarray:
        return np.asarray(np.abs(self.phi - np.pi))

    def lay(self, mask: np.ndarray, rgb: np.ndarray) -> None:
        """Blends `rgb` (3,) or (h, w, 3) over the canvas where `mask` (h, w) is 1."""
        self.rgb += (rgb - self.rgb) * mask[..., None].astype(np.float32)

    def folds(self, strength: float, cell: float = 26.0) -> None:
        self.rgb *= 1 + strength * noise(self.rng, self.x.shape, cell=cell, octaves=3)[..., None]


def paint(mesh: BodyMesh, look: Look, rest: np.ndarray) -> np.ndarray:
    """The atlas of a person.

    Args:
        mesh: the body built for `look`.
        look: what to paint.
        rest: (22, 3) joints at rest.

    Returns:
        (height, width, 3) float32 RGB in [0, 255].
    """
    atlas = np.zeros((*mesh.atlas_size, 3), np.float32)
    seeds = np.random.SeedSequence(look.look_id)
    for part, seed in zip(mesh.lofts, seeds.spawn(len(mesh.lofts)), strict=True):
        x, y, w, h = mesh.rects[part.name]
        cloth = _Cloth(part, (x, y, w, h), np.random.default_rng(seed))
        side = {"left": 1, "right": -1}.get(part.name.split("_")[0], 0)
        kind = part.name.split("_")[-1]
        if kind == "torso":
            _torso(cloth, look, rest)
        elif kind == "head":
            _head(cloth, look, rest)
        elif kind == "arm":
            _arm(cloth, look, rest, side)
        elif kind == "leg":
            _leg(cloth, look, rest, side)
        elif kind == "foot":
            _foot(cloth, look)
        elif kind == "skirt":
            cloth.lay(np.ones_like(cloth.x), look.trousers.paint(cloth.around, cloth.y))
            cloth.folds(0.10, 12.0)
        elif kind in ("hair", "tail"):
            _hair(cloth, look)
        elif kind in ("pack", "bag", "brim"):
            _gear(cloth, look)
        else:  # neck, hands, thumbs, ears
            cloth.lay(np.ones_like(cloth.x), look.skin * (0.84 if kind == "neck" else 0.97))
            cloth.folds(0.03)
        atlas[y : y + h, x : x + w] = cloth.rgb
    return np.clip(atlas, 2, 253)


def _torso(c: _Cloth, look: Look, rest: np.ndarray) -> None:
    k = rest[INDEX["head_top"], 1] / 1.75
    hip, shoulder = rest[INDEX["left_hip"], 1], rest[INDEX["left_shoulder"], 1]
    neck = rest[INDEX["neck"], 1] + 0.02 * k
    one = np.ones_like(c.x)
    front = c.front
    c.lay(one, look.shirt.paint(c.around, c.y))
    ax = np.abs(c.x)
    span = shoulder - hip
    chest = hip + 0.70 * span
    if look.top == "jacket":
        opening = soft(0.045 * k + 0.05 * (c.y - hip - 0.3 * span).clip(0) - ax, PIXEL) * front
        c.lay(opening, look.inner)
        c.lay(
            soft(PIXEL * 0.9 - np.abs(ax - 0.045 * k - 0.05 * (c.y - hip - 0.3 * span).clip(0)), PIXEL) * front,
            c.rgb * 0.4,
        )
    if look.top == "shirt":
        placket = soft(0.016 * k - ax, PIXEL) * front
        c.lay(placket, look.shirt.colours[0] * 0.72)
        buttons = soft(0.010 - np.hypot(c.x, (c.y / 0.085 - np.round(c.y / 0.085)) * 0.085), PIXEL) * front
        c.lay(buttons, look.inner)
        pocket = soft(0.045 - np.abs(c.x - 0.085 * k), PIXEL) * soft(0.05 - np.abs(c.y - chest), PIXEL) * front
        c.lay(pocket * 0.5, look.shirt.colours[0] * 0.6)
    if look.top == "hoodie":
        c.lay(
            soft(0.10 * k - ax, PIXEL) * soft(0.075 - np.abs(c.y - hip - 0.24 * span), PIXEL) * front * 0.45,
            c.rgb * 0.45,
        )
        hood = soft(0.12 * k - ax, 0.03) * soft(c.y - shoulder + 0.09 * k, 0.02) * ~front
        c.lay(hood, look.inner * 0.8)
        strings = soft(0.006 - np.abs(ax - 0.03 * k), PIXEL) * soft(c.y - shoulder + 0.13 * k, PIXEL) * front
        c.lay(strings, look.inner)
    if look.top == "jersey":
        c.lay(soft(0.03 - np.abs(c.y - chest - 0.02 - 0.0 * ax), PIXEL) * front, look.logo_colour)
        c.lay(soft(ax - 0.125 * k, PIXEL) * soft(shoulder - 0.03 * k - c.y, PIXEL), look.inner)
    if look.top in ("tee", "hoodie", "tank", "jersey"):
        _logo(c, look, hip + 0.66 * span, k)
    if look.back_mark or look.top == "jersey":
        c.lay(soft(0.11 * k - ax, PIXEL) * soft(0.025 - np.abs(c.y - chest - 0.05 * k), PIXEL) * ~front, look.inner)
    # neckline: deep in front, high behind
    depth = {"tee": 0.03, "shirt": 0.07, "jacket": 0.075, "hoodie": 0.015, "tank": 0.08, "jersey": 0.05}[look.top] * k
    edge = neck - 0.002 * k - np.where(front, depth * np.clip(1 - (ax / (0.085 * k)) ** 2, 0, 1), 0.0)
    bare = soft(c.y - edge, PIXEL)
    c.lay(
        soft(c.y - edge + 0.016 * k, PIXEL) * (look.top != "tank"),
        look.inner if look.top in ("shirt", "jersey") else c.rgb * 0.75,
    )
    if look.top == "tank":
        bare = np.maximum(bare, soft(ax - 0.125 * k, PIXEL) * soft(c.y - chest - 0.02 * k, 0.02))
    c.lay(bare, look.skin * 0.95)
    if look.build.bag or look.build.pack:
        if look.build.pack:
            straps = soft(0.022 * k - np.abs(ax - 0.10 * k), PIXEL) * soft(c.y - hip - 0.42 * span, PIXEL) * front
        else:  # from the bag's hip over the other shoulder, on both faces
            line = (c.y - hip - 0.1 * k) / (0.9 * span)
            straps = soft(0.018 * k - np.abs(c.x - look.build.bag * (0.16 - 0.28 * line) * k), PIXEL) * soft(
                c.y - hip, PIXEL
            )
        c.lay(straps, look.accessory * 0.7)
    c.folds(0.07)
    hem = hip + (0.02 if look.top in ("jacket", "hoodie", "tee") else 0.085) * k
    lower = soft(hem - c.y, PIXEL)
    c.lay(lower, look.trousers.paint(c.around, c.y))
    if look.top in ("shirt", "tank", "jersey"):
        c.lay(soft(0.016 * k - np.abs(c.y - hem), PIXEL), look.accessory * 0.5)
    else:
        c.lay(soft(0.012 * k - np.abs(c.y - hem + 0.01), 0.02) * 0.5, c.rgb * 0.4)
    fly = soft(0.005 - ax, PIXEL) * soft(hem - 0.01 - c.y, PIXEL) * front
    c.lay(fly * 0.6, c.rgb * 0.4)
    pockets = (
        soft(0.045 * k - np.abs(ax - 0.075 * k), PIXEL)
        * soft(0.045 * k - np.abs(c.y - hip + 0.005 * k), PIXEL)
        * ~front
    )
    c.lay(pockets * 0.35, c.rgb * 0.5)
    c.rgb *= (1 - 0.35 * soft(hip - 0.07 * k - c.y, 0.06))[..., None]


def _logo(c: _Cloth, look: Look, y: float, k: float) -> None:
    x, v, front = c.x / k, (c.y - y) / k, c.front
    r = np.hypot(x, v)
    if look.logo == "disc":
        m = soft(0.065 - r, PIXEL)
    elif look.logo == "ring":
        m = soft(0.018 - np.abs(r - 0.06), PIXEL)
    elif look.logo == "box":
        m = soft(0.06 - np.maximum(np.abs(x), np.abs(v)), PIXEL)
        m = m * (1 - 0.9 * soft(0.02 - r, PIXEL))
    elif look.logo == "bar":
        m = soft(0.10 - np.abs(x), PIXEL) * soft(0.025 - np.abs(v), PIXEL)
    elif look.logo == "number":
        digits = str(look.look_id % 90 + 10)
        m = np.zeros_like(x, dtype=np.float32)
        stamp = np.zeros((48, 64), np.uint8)
        cv2.putText(stamp, digits, (2, 42), cv2.FONT_HERSHEY_DUPLEX, 1.5, 255, 5, cv2.LINE_AA)
        # read from outside: the person's left (+x) is on the viewer's right
        mx = ((x + 0.085) / 0.17 * 63).astype(np.float32)
        my = ((0.065 - v) / 0.13 * 47).astype(np.float32)
        m = cv2.remap(stamp, mx, my, cv2.INTER_LINEAR).astype(np.float32) / 255
    else:
        return
    c.lay(m * front, look.logo_colour)


def _arm(c: _Cloth, look: Look, rest: np.ndarray, side: int) -> None:
    name = "left" if side > 0 else "right"
    a, m, e = (rest[INDEX[f"{name}_{j}"], 1] for j in ("shoulder", "elbow", "wrist"))
    s = np.where(c.y > m, (a - c.y) / (a - m), 1 + (m - c.y) / (m - e))
    c.lay(np.ones_like(s), look.skin)
    c.folds(0.03)
    end = 2 * look.build.sleeve_end
    if end > 0:
        fabric = look.shirt.paint(c.around, c.y)
        if look.sleeve_colour and look.sleeve_colour[0] == side:
            fabric = np.broadcast_to(look.sleeve_colour[1], fabric.shape)
        sleeve = soft(end - s, 0.03)
        folds = 1 + 0.09 * noise(c.rng, s.shape, cell=16.0)
        c.lay(sleeve, fabric * folds[..., None])
        c.lay(soft(0.04 - np.abs(s - end + 0.05), 0.03), fabric * 0.7)
        if look.top == "jersey":
            c.lay(soft(0.07 - np.abs(s - 0.5 * end), 0.03), look.inner)
    if look.sleeve_band and look.sleeve_band[0] == side:
        c.lay(soft(0.09 - np.abs(s - 0.42), 0.03), look.sleeve_band[1])
    if look.watch == side:
        c.lay(soft(0.045 - np.abs(s - 1.9), 0.02), np.array([25.0, 25.0, 28.0]))
        c.lay(
            soft(0.04 - np.abs(s - 1.9), 0.02) * soft(np.cos(c.phi - np.pi / 2) - 0.75, 0.2),
            np.array([235.0, 235.0, 230.0]),
        )
    if look.marks is not None:
        mark = look.marks[0 if side > 0 else 1]
        c.lay(np.maximum(soft(0.17 - np.abs(s - 0.95), 0.03), soft(0.14 - np.abs(s - 1.78), 0.03)), mark)
    inner = soft(-np.sin(c.phi), 0.8)  # the side that faces the trunk
    c.rgb *= (1 - 0.16 * inner)[..., None]


def _leg(c: _Cloth, look: Look, rest: np.ndarray, side: int) -> None:
    name = "left" if side > 0 else "right"
    a, m, e = (rest[INDEX[f"{name}_{j}"], 1] for j in ("hip", "knee", "ankle"))
    s = np.where(c.y > m, (a - c.y) / (a - m), 1 + (m - c.y) / (m - e))
    c.lay(np.ones_like(s), look.skin)
    c.folds(0.03)
    knee = soft(0.06 - np.abs(s - 1.0), 0.08) * c.front
    c.lay(knee * 0.35, look.skin * 0.75)
    if look.build.trouser_end < 0.8:
        c.lay(soft(s - 1.78, 0.03), look.socks)
    fabric = look.trousers.paint(c.around, c.y)
    if look.odd_leg and look.odd_leg[0] == side:
        fabric = np.broadcast_to(look.odd_leg[1], fabric.shape).copy()
    fabric = fabric * (1 + 0.08 * noise(c.rng, s.shape, cell=18.0))[..., None]
    # legs wear the skirt's cloth under it, so that a knee that comes through is cloth too
    end = 2 * (look.build.trouser_end or max(look.build.skirt - 0.03, 0.0))
    c.lay(soft(end - s, 0.03), fabric)
    if look.trouser_stripe is not None:
        c.lay(soft(np.sin(c.phi) - 0.9, 0.1) * soft(end - s, 0.03), look.trouser_stripe)
    c.lay(soft(0.03 - np.abs(s - end + 0.03), 0.03), c.rgb * 0.65)
    if end > 1.2:  # creases behind the knee and a worn front
        c.lay(soft(0.05 - np.abs(s - 1.0), 0.06) * ~c.front * 0.4, c.rgb * 0.6)
        c.lay(soft(0.35 - np.abs(s - 0.55), 0.3) * c.front * 0.12, c.rgb * 1.5 + 10)
    if look.marks is not None:
        mark = look.marks[0 if side > 0 else 1]
        c.lay(np.maximum(soft(0.13 - np.abs(s - 1.0), 0.03), soft(0.1 - np.abs(s - 1.8), 0.03)), mark)
    c.rgb *= (1 - 0.28 * soft(-np.sin(c.phi), 0.8) * soft(0.9 - s, 0.8))[..., None]


def _foot(c: _Cloth, look: Look) -> None:
    c.lay(np.ones_like(c.x), look.shoes)
    c.folds(0.05)
    top = c.y.max()
    c.lay(soft(0.022 - c.y, PIXEL), look.sole)
    length = c.z.max() - c.z.min()
    forward = (c.z - c.z.min()) / max(float(length), 1e-6)
    laces = soft(0.02 - np.abs(c.x - c.x.mean()), PIXEL) * soft(0.16 - np.abs(forward - 0.55), 0.04) * (c.y > 0.03)
    c.lay(laces * soft(np.sin(forward * 70), 0.5), look.sole * 0.9 + 10)
    c.lay(soft(0.08 - forward, 0.03) * 0.6, look.sole)
    c.lay(soft(forward - 0.9, 0.05) * 0.25 * (top > 0), look.sole)


def _hair(c: _Cloth, look: Look) -> None:
    c.lay(np.ones_like(c.x), look.hair)
    strands = noise(c.rng, (4, c.x.shape[1]), 4.0, 2)
    c.rgb *= (1 + 0.16 * cv2.resize(strands, c.x.shape[::-1]))[..., None]


def _gear(c: _Cloth, look: Look) -> None:
    c.lay(np.ones_like(c.x), look.accessory)
    c.folds(0.06)
    mid = 0.5 * (c.y.max() + c.y.min())
    c.lay(soft(0.008 - np.abs(c.y - mid - 0.05), PIXEL), look.accessory * 0.4)


def _head(c: _Cloth, look: Look, rest: np.ndarray) -> None:
    base, top = rest[INDEX["head"], 1], rest[INDEX["head_top"], 1]
    height = (top - base) * 1.24
    h = height / 0.2275
    t = (c.y - (top - height)) / height
    phi_front = c.phi_front()
    t = np.minimum(t, 1.0)
    x = c.x / h
    ax = np.abs(x)
    front = c.front
    skin = look.skin
    c.lay(np.ones_like(x), skin)
    c.folds(0.025)
    shade = skin * 0.72
    c.lay(soft(0.06 - t, 0.08) * 0.5, shade)  # under the chin
    cheeks = np.exp(-(((ax - 0.042) / 0.016) ** 2) - ((t - 0.34) / 0.07) ** 2) * front
    c.lay(cheeks * 0.25, skin * np.array([1.0, 0.72, 0.70]))
    c.lay(np.exp(-(((ax - 0.017) / 0.006) ** 2) - ((t - 0.42) / 0.07) ** 2) * front * 0.45, shade)  # sides of the nose
    c.lay(np.exp(-(((ax - 0.009) / 0.006) ** 2) - ((t - 0.355) / 0.02) ** 2) * front * 0.7, skin * 0.45)  # nostrils
    if look.beard:
        beard = soft(0.30 - t - 0.0 * ax, 0.05) * soft(1.9 - phi_front, 0.25)
        beard = np.maximum(beard, soft(0.36 - t, 0.04) * soft(ax - 0.05, 0.01) * soft(1.7 - phi_front, 0.2))
        c.lay(beard * (0.4 if look.beard == 1 else 0.92), look.hair * 0.9)
    mouth = soft(1 - np.hypot(x / 0.026, (t - 0.215) / 0.034), 0.5) * front
    c.lay(mouth, look.lips)
    c.lay(soft(1 - np.hypot(x / 0.024, (t - 0.215) / 0.010), 0.5) * front, look.lips * 0.4)
    # eyes a little larger than life, to be legible at a few pixels
    ex, et = (ax - 0.032) / 0.0185, (t - 0.505) / 0.052
    c.lay(soft(1 - np.hypot(ex * 0.8, et * 0.7), 0.6) * front * 0.5, shade)
    c.lay(soft(1 - np.hypot(ex, et), 0.3) * front, np.array([238.0, 236.0, 232.0]))
    c.lay(soft(1 - np.hypot((ax - 0.032) / 0.0105, (t - 0.505) / 0.048), 0.35) * front, np.array([26.0, 20.0, 18.0]))
    brow = (
        soft(0.022 - np.abs(ax - 0.033), 0.006)
        * soft(0.020 - np.abs(t - 0.615 + 4.0 * (ax - 0.03) ** 2 * 30), 0.015)
        * front
    )
    c.lay(brow * 0.9, np.minimum(look.hair, skin * 0.5))
    cover = hair_mask(look.build.hair_style, c.phi, t)
    tint = look.accessory if look.build.hair_style == "cap" else look.hair
    streaks = cv2.resize(noise(c.rng, (4, x.shape[1]), 5.0, 2), x.shape[::-1])
    c.lay(cover, tint * (1 + 0.14 * streaks[..., None]))
    if look.build.hair_style == "cap":
        low = soft(0.62 - t, 0.04) * cover * (phi_front > 1.4)
        c.lay(low, look.hair)
    if look.glasses:
        gx, gt = (ax - 0.033) / 0.024, (t - 0.50) / 0.085
        r = np.maximum(np.abs(gx), np.abs(gt)) * 0.5 + np.hypot(gx, gt) * 0.5
        rims = soft(1.05 - r, 0.2) if look.glasses == 2 else soft(0.17 - np.abs(r - 1.0), 0.15)
        arms = soft(0.02 - np.abs(t - 0.53), 0.02) * (phi_front > 0.75) * (phi_front < 1.6)
        bridge = soft(0.010 - ax, 0.004) * soft(0.018 - np.abs(t - 0.53), 0.015)
        c.lay(np.maximum(rims * front, np.maximum(arms, bridge * front)), np.array([18.0, 18.0, 22.0]))
