"""Body parts of one person: which lofts, how wide, skinned to what.

Breadths and depths are those of an average adult in shares of 1.75 m stature, read off anthropometric tables in round
numbers (NASA Man-Systems Integration Standards, vol. 1, section 3); build and clothing vary them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bipose_lit.datasets.synthetic.body import INDEX
from bipose_lit.datasets.synthetic.shapes import BodyMesh, Loft, assemble, capped, knots, loft, smoothstep

X = np.array([1.0, 0.0, 0.0])
Y = np.array([0.0, 1.0, 0.0])
Z = np.array([0.0, 0.0, 1.0])

TEXTURE = {
    "torso": (160, 112), "head": (128, 72), "neck": (48, 20), "hair": (64, 40), "brim": (16, 16), "skirt": (112, 64),
    "tail": (24, 32), "pack": (48, 48), "bag": (32, 32), "glasses": (16, 16),
    **{f"{s}_{p}": size for s in ("left", "right") for p, size in {
        "arm": (56, 104), "hand": (32, 24), "thumb": (12, 12), "leg": (80, 112), "foot": (48, 40), "ear": (12, 12),
    }.items()},
}  # fmt: skip


@dataclass(frozen=True)
class Build:
    """How a body and its clothes deviate from the average (all multiplicative unless said).

    Attributes:
        girth: limbs and trunk; waist, hips, bust, shoulders: the trunk alone there.
        belly: metres added to the front of the waist.
        sleeve, trouser: metres of cloth around the limb.
        sleeve_end: 0 shoulder, 1 wrist; trouser_end: 0 hip, 1 ankle (share of the limb's length covered).
        hair: metres the hair stands off; hair_style: bald, short, bob, long, tail, bun, cap.
        skirt: 0 none, else its length as a share of the leg.
        pack, bag: a backpack; a bag at the side (-1 right, 1 left, 0 none).
        coat: length of the shirt below the hip, as a share of the thigh.
    """

    girth: float = 1.0
    waist: float = 1.0
    hips: float = 1.0
    bust: float = 1.0
    shoulders: float = 1.0
    belly: float = 0.0
    sleeve: float = 0.008
    sleeve_end: float = 0.45
    trouser: float = 0.010
    trouser_end: float = 0.95
    hair: float = 0.015
    hair_style: str = "short"
    skirt: float = 0.0
    pack: bool = False
    bag: int = 0


def build_body(rest: np.ndarray, build: Build) -> BodyMesh:
    """Makes the mesh of a person at rest.

    Args:
        rest: (22, 3) joints at rest: upright, facing +z, arms hanging.
        build: the person's shape and the cut of the clothes.
    """
    k = float(rest[INDEX["head_top"], 1]) / 1.75
    parts = [_torso(rest, build, k), _neck(rest, build, k), *_head(rest, build, k)]
    for side in ("left", "right"):
        parts += [_arm(rest, build, k, side), *_hand(rest, k, side), _leg(rest, build, k, side), _foot(rest, k, side)]
    if build.skirt > 0:
        parts.append(_skirt(rest, build, k))
    parts += _carried(rest, build, k)
    return assemble(parts, TEXTURE)


def _torso(rest: np.ndarray, b: Build, k: float) -> Loft:
    hip, shoulder, neck = rest[INDEX["left_hip"]], rest[INDEX["left_shoulder"]], rest[INDEX["neck"]]
    spine, chest = rest[INDEX["spine"], 1], rest[INDEX["chest"], 1]
    yh, ys, yn = hip[1], shoulder[1], neck[1] + 0.02 * k
    span = ys - yh
    g = b.girth
    ws, wh = abs(shoulder[0]) * b.shoulders, abs(hip[0])
    # height, half width, half depth, forward shift of the centre
    table = [
        (yh - 0.105 * k, 0.02 * k, 0.02 * k, 0.0),
        (yh - 0.085 * k, 0.085 * k * g, 0.085 * k * g, -0.005 * k),
        (yh - 0.03 * k, (wh + 0.070 * k * g) * b.hips, 0.118 * k * g, -0.012 * k),
        (yh + 0.05 * k, (wh + 0.064 * k * g) * b.hips, 0.115 * k * g, -0.008 * k),
        (yh + 0.36 * span, 0.143 * k * g * b.waist, 0.100 * k * g + 0.5 * b.belly, 0.006 * k + 0.5 * b.belly),
        (yh + 0.60 * span, 0.155 * k * g * b.waist**0.5, 0.110 * k * g, 0.006 * k),
        (yh + 0.79 * span, 0.90 * ws, 0.118 * k * g * b.bust, 0.008 * k + 0.08 * k * (b.bust - 1)),
        (yh + 0.93 * span, 0.98 * ws, 0.105 * k * g, -0.004 * k),
        (ys + 0.022 * k, 0.93 * ws, 0.080 * k * g, -0.012 * k),
        (ys + 0.048 * k, 0.60 * ws, 0.068 * k, -0.014 * k),
        (yn + 0.012 * k, 0.062 * k, 0.060 * k, -0.012 * k),
        (yn + 0.03 * k, 0.048 * k, 0.05 * k, -0.006 * k),
    ]
    y = np.concatenate(
        [np.linspace(table[0][0], yh, 5), np.linspace(yh, ys, 10)[1:], np.linspace(ys, table[-1][0], 6)[1:]]
    )
    w, d, shift = (column[:, None] for column in knots(y, table).T)
    centre = np.stack([0 * y, y, shift[:, 0]], 1)
    pelvis = 1 - smoothstep(y, spine - 0.08 * k, spine + 0.06 * k)
    upper = smoothstep(y, chest - 0.08 * k, chest + 0.08 * k)
    weights = {"pelvis": pelvis, "spine": np.clip(1 - pelvis - upper, 0, 1), "chest": upper}
    return loft("torso", centre, w * X, d * Z, weights, "torso", 24, 2.35)


def _neck(rest: np.ndarray, b: Build, k: float) -> Loft:
    low, high = rest[INDEX["neck"]], rest[INDEX["head"]]
    s = np.linspace(0, 1, 5)
    centre = low + np.outer(s * 1.25 - 0.15, high - low) + np.outer(0.012 * s - 0.006, Z) * k
    r = (0.058 + 0.012 * (1 - s) ** 2)[:, None] * k * b.girth**0.5
    up = smoothstep(s, 0.6, 1.0)
    down = 1 - smoothstep(s, 0.0, 0.4)
    return loft("neck", centre, r * X, r * Z, {"chest": down, "neck": 1 - up - down, "head": up}, "head", 14)


# Height above the chin as a share of the head's height; half width, front and back of the section in metres.
_PROFILE = [
    (0.00, 0.001, 0.058, 0.050), (0.015, 0.030, 0.074, 0.012), (0.10, 0.049, 0.085, -0.004), (0.24, 0.062, 0.086, -0.045),
    (0.38, 0.070, 0.087, -0.074), (0.50, 0.074, 0.085, -0.090), (0.62, 0.077, 0.089, -0.098), (0.75, 0.077, 0.084, -0.097),
    (0.87, 0.066, 0.064, -0.080), (0.95, 0.044, 0.037, -0.052), (0.985, 0.024, 0.012, -0.030), (1.0, 0.001, -0.009, -0.011),
]  # fmt: skip


def hair_mask(style: str, phi: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Where the scalp is covered, in [0, 1].

    Args:
        style: see `Build.hair_style`.
        phi: angle from the back of the head, radians (pi is the face).
        t: height above the chin as a share of the head's height.
    """
    front = np.abs(phi - np.pi)  # 0 at the nose, pi at the back
    low = {"short": 0.26, "bob": 0.02, "long": 0.0, "tail": 0.22, "bun": 0.22, "cap": 0.30, "bald": 2.0}[style]
    side = 0.44 if style in ("short", "cap", "tail", "bun") else 0.10
    brow = 0.72 if style == "cap" else 0.80
    line = np.interp(front, [0.0, 0.75, 1.1, 1.5, 1.95, np.pi], [brow, brow - 0.02, 0.70, side, low, low])
    return np.asarray(smoothstep(t - line, -0.02, 0.03))


def _head(rest: np.ndarray, b: Build, k: float) -> list[Loft]:
    base, top = rest[INDEX["head"]], rest[INDEX["head_top"]]
    height = (top[1] - base[1]) * 1.24  # the chin is below the skull's base
    h = height / 0.2275
    chin = top[1] - height
    t = np.array([0, 0.02, 0.08, 0.16, 0.24, 0.31, 0.37, 0.41, 0.45, 0.5, 0.56, 0.62, 0.7, 0.78, 0.86, 0.93, 0.98, 1.0])
    w, zf, zb = knots(t, _PROFILE).T * h
    z0 = base[2] - 0.002 * k
    centre = np.stack([0 * t, chin + t * height, z0 + (zf + zb) / 2], 1)
    one = {"head": np.ones(len(t))}
    head = loft("head", centre, np.outer(w, X), np.outer((zf - zb) / 2, Z), one, "head", 24, 2.15)
    phi = np.linspace(0, 2 * np.pi, 25)[None]
    outward = head.points - centre[:, None]
    outward = outward / np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-9)
    lift = hair_mask(b.hair_style, np.broadcast_to(phi, head.points.shape[:2]), t[:, None]) * b.hair
    dome = outward + 0.8 * smoothstep(t, 0.8, 1.0)[:, None, None] * Y
    head.points += lift[..., None] * dome
    nose = np.interp(t, [0.33, 0.37, 0.41, 0.56], [0.0, 0.019, 0.024, 0.0])
    head.points[:, 12] += np.outer(nose, Z) * h
    eye = np.exp(-(((t - 0.5) / 0.05) ** 2))
    for column in (10, 11, 13, 14):
        head.points[:, column] -= np.outer(eye * 0.005, Z) * h
    out = [head]
    ring = np.linspace(-1, 1, 5)
    radius = capped(np.sqrt(np.maximum(1 - ring**2, 0)))
    for side, sign in (("left", 1), ("right", -1)):
        at = np.array([sign * 0.078 * h, chin + 0.44 * height, z0 - 0.006 * h])
        c = at + np.outer(ring, Y) * 0.031 * h
        out.append(loft(f"{side}_ear", c, np.outer(radius * sign, X) * 0.010 * h, np.outer(radius, Z) * 0.018 * h,
                        {"head": np.ones(5)}, "head", 8))  # fmt: skip
    neck = rest[INDEX["neck"]]
    if b.hair_style in ("bob", "long"):
        end = chin - 0.01 * k if b.hair_style == "bob" else neck[1] - 0.12 * k
        s = np.linspace(0, 1, 7)
        y = chin + 0.62 * height + s * (end - chin - 0.62 * height)
        r = capped(np.interp(s, [0, 0.1, 0.8, 1], [0.8, 1, 1, 0.85]))
        c = np.stack([0 * s, y, z0 - (0.055 + 0.012 * s) * h], 1)
        free = smoothstep((neck[1] + 0.04 * k) - y, 0.0, 0.12 * k)
        weights = {"head": 1 - 0.75 * free, "chest": 0.75 * free}
        out.append(loft("hair", c, np.outer(r, X) * 0.083 * h, np.outer(r, Z) * 0.042 * h, weights, "head", 14))
    if b.hair_style in ("tail", "bun"):
        s = np.linspace(0, 1, 7)
        start = np.array([0, chin + 0.72 * height, z0 - 0.10 * h])
        drop = np.array([0, -0.24 * k, -0.05 * k]) if b.hair_style == "tail" else np.array([0, 0.045, -0.06]) * h
        bulge = np.array([0, 0.0, -0.03]) * h
        c = start + np.outer(s, drop) + np.outer(4 * s * (1 - s), bulge)
        r = (
            capped(np.interp(s, [0, 0.3, 0.7, 1.0], [0.6, 1.0, 0.9, 0.5]))
            * (0.030 if b.hair_style == "tail" else 0.04)
            * h
        )
        weights = {"head": 1 - 0.4 * s, "chest": 0.4 * s} if b.hair_style == "tail" else {"head": np.ones(7)}
        tilt = -Z if b.hair_style == "tail" else Y
        out.append(loft("tail", c, np.outer(r, X), np.outer(r, tilt), weights, "head", 10))
    if b.hair_style == "cap":
        s = np.linspace(0, 1, 5)
        c = np.stack([0 * s, chin + (0.72 - 0.05 * s) * height, z0 + (0.04 + 0.125 * s) * h], 1)
        r = np.array([0.9, 1, 0.95, 0.75, 1e-3])
        out.append(
            loft(
                "brim",
                c,
                np.outer(r, X) * 0.07 * h,
                np.outer(capped(r), Y) * 0.008 * h,
                {"head": np.ones(5)},
                "head",
                10,
            )
        )
    return out


def _limb(a: np.ndarray, m: np.ndarray, e: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Centres along the polyline a-m-e at `s`: 0 at a, 1 at m, 2 at e."""
    first = a + np.outer(np.minimum(s, 1.0), m - a)
    return np.asarray(first + np.outer(np.maximum(s - 1.0, 0.0), e - m))


def _arm(rest: np.ndarray, b: Build, k: float, side: str) -> Loft:
    a, m, e = (rest[INDEX[f"{side}_{j}"]] for j in ("shoulder", "elbow", "wrist"))
    sign = 1.0 if side == "left" else -1.0
    s = np.array(
        [-0.125, -0.112, -0.07, 0.0, 0.12, 0.3, 0.5, 0.7, 0.86, 0.95, 1.05, 1.15, 1.3, 1.5, 1.75, 1.93, 2.0, 2.04]
    )
    table = [
        (-0.125, 0.001, 0.001), (-0.112, 0.022, 0.026), (-0.07, 0.039, 0.045), (0.0, 0.049, 0.057), (0.25, 0.047, 0.056),
        (0.55, 0.043, 0.050), (0.95, 0.038, 0.042), (1.2, 0.041, 0.045), (1.6, 0.032, 0.036),
        (1.93, 0.022, 0.029), (2.04, 0.021, 0.028),
    ]  # fmt: skip
    wide, deep = knots(s, table).T * k * b.girth
    covered = s < 2 * b.sleeve_end
    cloth = np.where(covered, b.sleeve * (0.1 + 1.2 * smoothstep(s, 0.0, 0.8 * max(2 * b.sleeve_end, 0.1))), 0.0)
    cloth[0] = 0.0
    c = _limb(a, m, e, s)
    chest = 0.4 * (1 - smoothstep(s, -0.12, 0.2))
    low = smoothstep(s, 0.86, 1.14)
    weights = {"chest": chest, f"{side}_shoulder": (1 - chest) * (1 - low), f"{side}_elbow": (1 - chest) * low}
    return loft(
        f"{side}_arm", c, np.outer(wide + cloth, X) * sign, np.outer(deep + cloth, Z), weights, f"{side}_arm", 14
    )


def _hand(rest: np.ndarray, k: float, side: str) -> list[Loft]:
    wrist, tip = rest[INDEX[f"{side}_wrist"]], rest[INDEX[f"{side}_hand"]]
    sign = 1.0 if side == "left" else -1.0
    s = np.array([-0.06, -0.04, 0.15, 0.35, 0.55, 0.8, 1.0, 1.08])
    # arms hang with the thumbs forward: the palm faces inwards, so the hand is broad along z and thin along x
    thick = capped(np.interp(s, [-0.06, 0.3, 0.6, 1.08], [0.019, 0.018, 0.014, 0.008])) * k
    broad = capped(np.interp(s, [-0.06, 0.15, 0.45, 0.8, 1.0, 1.08], [0.024, 0.036, 0.042, 0.036, 0.026, 0.01])) * k
    c = wrist + np.outer(s, tip - wrist) + np.outer(-0.02 * np.maximum(s, 0) ** 2, X) * sign * k
    w = {f"{side}_wrist": np.ones(len(s))}
    hand = loft(f"{side}_hand", c, np.outer(thick, X) * sign, np.outer(broad, Z), w, f"{side}_arm", 12, 2.5)
    q = np.linspace(0, 1, 5)
    start = wrist + 0.18 * (tip - wrist) + 0.022 * k * Z
    drop = np.array([-0.012 * sign, -0.075, 0.042]) * k
    r = capped(np.interp(q, [0, 0.5, 1], [0.016, 0.013, 0.009])) * k
    thumb = loft(f"{side}_thumb", start + np.outer(q, drop), np.outer(r, X) * sign, np.outer(r, Z),
                 {f"{side}_wrist": np.ones(5)}, f"{side}_arm", 8)  # fmt: skip
    return [hand, thumb]


def _leg(rest: np.ndarray, b: Build, k: float, side: str) -> Loft:
    a, m, e = (rest[INDEX[f"{side}_{j}"]] for j in ("hip", "knee", "ankle"))
    sign = 1.0 if side == "left" else -1.0
    s = np.array(
        [-0.14, -0.12, -0.04, 0.06, 0.18, 0.32, 0.5, 0.7, 0.85, 0.95, 1.05, 1.15, 1.28, 1.45, 1.65, 1.85, 1.97, 2.03]
    )
    table = [
        (-0.14, 0.001, 0.001, 0.0), (-0.12, 0.06, 0.075, 0.0), (0.06, 0.081, 0.093, -0.004), (0.2, 0.083, 0.091, 0.0),
        (0.6, 0.067, 0.072, 0.006), (0.95, 0.051, 0.056, 0.004), (1.08, 0.047, 0.052, 0.0), (1.3, 0.052, 0.058, -0.012),
        (1.5, 0.045, 0.050, -0.010), (1.85, 0.030, 0.034, -0.004), (2.03, 0.032, 0.036, 0.0),
    ]  # fmt: skip
    wide, deep, shift = knots(s, table).T * k
    wide, deep = wide * b.girth, deep * b.girth
    inner = np.minimum(wide + b.trouser, abs(a[0]) * 1.02 + 0.6 * np.abs(s) * 0.02)
    covered = s < 2 * b.trouser_end
    flare = 0.6 + 0.9 * smoothstep(s, 0.2, max(2 * b.trouser_end, 0.4))
    cloth = np.where(covered, b.trouser * flare, 0.0)
    cloth[0] = 0.0
    c = _limb(a, m, e, s) + np.outer(shift, Z)
    c[:, 0] += sign * np.where(s < 0.6, 0.006 * k, 0.0) * np.minimum(1.0, inner)
    pelvis = 0.75 * (1 - smoothstep(s, -0.12, 0.22))
    low = smoothstep(s, 0.84, 1.16)
    weights = {"pelvis": pelvis, f"{side}_hip": (1 - pelvis) * (1 - low), f"{side}_knee": (1 - pelvis) * low}
    return loft(
        f"{side}_leg", c, np.outer(wide + cloth, X) * sign, np.outer(deep + cloth, Z), weights, f"{side}_leg", 16
    )


def _foot(rest: np.ndarray, k: float, side: str) -> Loft:
    ankle, toe = rest[INDEX[f"{side}_ankle"]], rest[INDEX[f"{side}_toe"]]
    sign = 1.0 if side == "left" else -1.0
    reach = toe[2] - ankle[2]
    # z along the foot (0 heel, 1 toe tip); half width; height of the upper
    table = [
        (0.0, 0.001, 0.03), (0.03, 0.024, 0.06), (0.12, 0.034, 0.098), (0.27, 0.037, 0.110), (0.40, 0.040, 0.088),
        (0.6, 0.046, 0.064), (0.8, 0.049, 0.048), (0.93, 0.040, 0.038), (0.99, 0.020, 0.030), (1.0, 0.001, 0.018),
    ]  # fmt: skip
    q = np.array([0, 0.03, 0.09, 0.18, 0.28, 0.38, 0.5, 0.64, 0.78, 0.9, 0.97, 1.0])
    wide, high = knots(q, table).T * k
    z = ankle[2] - 0.063 * k + q * (reach + 0.075 * k)
    c = np.stack([np.full_like(q, ankle[0]) + sign * 0.004 * k, np.maximum(high / 2, 0.004), z], 1)
    # the section's "front" axis points down, so that the texture's seam runs along the instep and the sole is mid-texture
    w = {f"{side}_ankle": np.ones(len(q))}
    return loft(f"{side}_foot", c, np.outer(wide, X) * sign, np.outer(-high / 2, Y), w, f"{side}_leg", 12, 2.6)


def _skirt(rest: np.ndarray, b: Build, k: float) -> Loft:
    hip, knee = rest[INDEX["left_hip"]], rest[INDEX["left_knee"]]
    ankle = rest[INDEX["left_ankle"]]
    s = np.linspace(0, 1, 9)
    top, bottom = hip[1] + 0.10 * k, hip[1] - b.skirt * (hip[1] - ankle[1])
    y = top + s * (bottom - top)
    w = (
        knots(s, [(0, 0.135, 0.105), (0.3, 0.178, 0.135), (1, 0.20 + 0.14 * b.skirt, 0.17 + 0.12 * b.skirt)]).T
        * k
        * b.girth
    )
    phi = np.linspace(0, 2 * np.pi, 23)
    left = 0.5 + 0.5 * np.sin(phi)
    loose = (0.97 * smoothstep(s, 0.1, 0.9))[:, None]
    lower = smoothstep(knee[1] - y, -0.05, 0.15)[:, None] * 0.6
    weights = {
        "pelvis": np.broadcast_to(1 - loose, (9, 23)),
        "left_hip": loose * left * (1 - lower), "left_knee": loose * left * lower,
        "right_hip": loose * (1 - left) * (1 - lower), "right_knee": loose * (1 - left) * lower,
    }  # fmt: skip
    centre = np.stack([0 * s, y, np.full_like(s, -0.005 * k)], 1)
    folds = 1 + 0.05 * np.sin(7 * phi)[None] * s[:, None]
    part = loft("skirt", centre, np.outer(w[0], X), np.outer(w[1], Z), weights, "skirt", 22)
    part.points = centre[:, None] + (part.points - centre[:, None]) * folds[..., None]
    return part


def _carried(rest: np.ndarray, b: Build, k: float) -> list[Loft]:
    out = []
    s = np.linspace(0, 1, 7)
    round_ = capped(np.array([0.8, 0.93, 1, 1, 1, 0.93, 0.8]))
    if b.pack:
        y = rest[INDEX["left_shoulder"], 1] - 0.02 * k - s * 0.42 * k
        c = np.stack([0 * s, y, np.full_like(s, -0.165 * k * b.girth)], 1)
        weights = {"chest": 1 - 0.5 * s, "spine": 0.5 * s}
        out.append(
            loft("pack", c, np.outer(round_, X) * 0.145 * k, np.outer(round_, Z) * 0.075 * k, weights, "gear", 16, 3.5)
        )
    if b.bag:
        y = rest[INDEX["left_hip"], 1] + 0.10 * k - s * 0.24 * k
        x = b.bag * (abs(rest[INDEX["left_hip"], 0]) + 0.125 * k * b.girth)
        c = np.stack([np.full_like(s, x), y, np.full_like(s, -0.02)], 1)
        side = np.outer(round_, X) * 0.042 * k * b.bag
        out.append(loft("bag", c, side, np.outer(round_, Z) * 0.125 * k, {"pelvis": np.ones(7)}, "gear", 14, 3.5))
    return out
