"""Motions made of separate acts, done on planted or planned feet (torch-free)."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from bipose_lit.datasets.synthetic.body import Array
from bipose_lit.datasets.synthetic.motions_plan import SIDES, Plan, drift, ease, pulse, standing

Rng = np.random.Generator


def _keys(phase: Array, *points: tuple[float, float]) -> Array:
    """A periodic, overshoot-free curve through (phase in turns, value) points."""
    x = np.array([p for p, _ in points])
    y = np.array([v for _, v in points])
    out: Array = PchipInterpolator(np.concatenate([x - 1, x, x + 1]), np.tile(y, 3))(phase % 1.0)
    return out


def _sides(rng: Rng) -> tuple[int, str, str]:
    """(0 or 1, the acting side, the other side)."""
    f = int(rng.random() < 0.65)  # right-handers are more common
    return f, SIDES[f], SIDES[1 - f]


def stand(t: Array, rng: Rng) -> Plan:
    """Standing at ease: shifts of weight, looks about, arms hanging, on the hips, folded or in front."""
    plan = standing(t, rng)
    shift = np.tanh(1.5 * drift(rng, t, 1, 0.35)[:, 0])
    plan.pelvis[:, 0] += 0.05 * shift
    plan.add("pelvis", 0, -3.5 * shift, 3 * shift)
    plan.bend(0, 4.5 * shift, -2 * shift)
    one = np.ones_like(t)
    pose = rng.choice(4, p=(0.55, 0.2, 0.12, 0.13))
    for f, side in enumerate(SIDES):
        small = drift(rng, t, 3, 0.9)
        if pose == 1:  # hands on hips
            plan.move(one, f"{side}_shoulder", -14 + 1.5 * small[:, 0], 40 + 1.5 * small[:, 1], -48)
            plan.move(one, f"{side}_elbow", 88 + 2 * small[:, 2], 0, -20)
        elif pose == 2:  # folded
            plan.move(one, f"{side}_shoulder", 26 + 1.5 * small[:, 0] + 4 * f, 4 + small[:, 1], -52)
            plan.move(one, f"{side}_elbow", 108 + 5 * f + 1.5 * small[:, 2], 0, -20)
        elif pose == 3:  # hands together in front
            plan.move(one, f"{side}_shoulder", 14 + 1.5 * small[:, 0], 4 + small[:, 1], -38)
            plan.move(one, f"{side}_elbow", 52 + 2 * small[:, 2], 0, -20)
        if rng.random() < 0.22:  # a hand talks, or scratches, or mends the hair, now and then
            length = rng.uniform(3.5, 6.5)
            u = pulse(t / length + rng.random(), 0.7 / length, rng.uniform(0.3, 0.5), 0.8 / length)
            talk = drift(rng, t, 4, 2.2, 0.3)
            high = rng.uniform(-10, 55) * (rng.random() < 0.6)
            plan.move(
                u,
                f"{side}_shoulder",
                18 + 0.8 * high + 5 * talk[:, 0],
                10 + 0.3 * high + 4 * talk[:, 1],
                -20 + 10 * talk[:, 2],
            )
            plan.move(u, f"{side}_elbow", 75 + 0.9 * high + 10 * talk[:, 3], 0, 0)
    return plan


def squat(t: Array, rng: Rng) -> Plan:
    """Squats with the arms held forward, on the hips or hanging."""
    plan = standing(t, rng, width=rng.uniform(0.14, 0.24))
    plan.foot_yaw += rng.uniform(3, 14)
    period = rng.uniform(1.9, 3.2)
    phase = t / period + rng.random()
    u = pulse(phase, rng.uniform(0.32, 0.42), rng.uniform(0.02, 0.12), rng.uniform(0.28, 0.38))
    u = u + 0.015 * drift(rng, t, 1)[:, 0] * u
    depth = rng.uniform(0.22, 0.50)
    plan.pelvis[:, 1] -= depth * u
    plan.pelvis[:, 2] -= 0.34 * depth * u
    plan.add("pelvis", rng.uniform(24, 40) * depth / 0.45 * u)
    plan.bend(rng.uniform(12, 36) * depth / 0.45 * u)
    plan.add("neck", -22 * depth / 0.45 * u)
    plan.add("head", -12 * depth / 0.45 * u)
    pose, one = rng.integers(0, 3), np.ones_like(t)
    for side in SIDES:
        if pose == 0:
            plan.move(u, f"{side}_shoulder", 92 + 18 * u, 8, 0)
            plan.move(u, f"{side}_elbow", 10, 0, 0)
        elif pose == 1:
            plan.move(one, f"{side}_shoulder", -14, 38, -48)
            plan.move(one, f"{side}_elbow", 86, 0, -20)
        else:
            plan.add(f"{side}_shoulder", 55 * u)
            plan.add(f"{side}_elbow", 18 * u)
    plan.cycle = phase % 1.0
    plan.claims = ("left_shoulder", "right_shoulder") if pose < 2 else ()
    return plan


def wave(t: Array, rng: Rng) -> Plan:
    """Waving with one hand, seldom both; raised for most of the time."""
    plan = stand(t, rng)
    _, side, _ = _sides(rng)
    period = rng.uniform(3.0, 7.0)
    up = pulse(t / period + rng.random(), 0.55 / period, 1 - 2.0 / period, 0.65 / period)
    rate = rng.uniform(1.3, 2.4)
    a = 2 * np.pi * rate * t + rng.uniform(0, 6) + 0.4 * drift(rng, t, 1, 0.8)[:, 0]
    size = rng.uniform(10, 26)
    high, out = rng.uniform(0, 1), rng.uniform(0, 1)
    sides = SIDES if rng.random() < 0.12 else (side,)
    for s in sides:
        plan.move(up, f"{s}_shoulder", 18 + 35 * (1 - out) + 3 * np.sin(a), 62 + 58 * high + 10 * out + 0.22 * size * np.sin(a),
                  72 - 30 * high + 0.25 * size * np.sin(a))  # fmt: skip
        plan.move(up, f"{s}_elbow", 82 - 45 * high + size * np.sin(a - 0.25), 0, 15 * np.sin(a - 0.4))
        plan.move(up, f"{s}_wrist", 0.5 * size * np.sin(a - 0.8), 0)
    lean = (1 if side == "right" else -1) * rng.uniform(1, 6)
    plan.bend(0, lean * up, 0)
    plan.add("pelvis", 0, -0.5 * lean * up)
    plan.claims = tuple(f"{s}_shoulder" for s in sides)
    return plan


def reach(t: Array, rng: Rng) -> Plan:
    """Reaching: to the floor, to a table, to a shelf; to the front or to one side."""
    plan = standing(t, rng, width=rng.uniform(0.10, 0.2), stagger=rng.uniform(-0.25, 0.25))
    f, side, other = _sides(rng)
    s = 1 - 2 * f
    where = rng.choice(3, p=(0.45, 0.2, 0.35))
    period = (2.9, 2.3, 2.5)[where] * rng.uniform(0.85, 1.3)
    phase = t / period + rng.random()
    u = pulse(phase, 0.34, 0.12, 0.34)
    early = pulse(phase + 0.05, 0.33, 0.2, 0.34)
    aside = rng.uniform(-10, 35) * s
    both = rng.random() < 0.3
    arms = SIDES if both else (side,)
    if where == 0:  # the floor
        knees = rng.uniform(0.0, 1.0)
        plan.pelvis[:, 1] -= (0.15 + 0.28 * knees) * u
        plan.pelvis[:, 2] -= (0.16 - 0.04 * knees) * u
        plan.add("pelvis", (54 - 24 * knees) * u, 0, 0.3 * aside * u)
        plan.bend((50 - 17 * knees) * u, -0.25 * aside * u, 0.7 * aside * u)
        plan.add("neck", -8 * u + 10 * early)
        for name in arms:
            plan.move(u, f"{name}_shoulder", 88 + 8 * knees, 8, 0)
            plan.move(u, f"{name}_elbow", 14, 0, 0)
        if not both:
            plan.move(u, f"{other}_shoulder", 40 - 50 * (rng.random() < 0.4), 14, -10)
            plan.add(f"{other}_elbow", 35 * u)
    elif where == 1:  # a table
        plan.pelvis[:, 2] -= 0.05 * u
        plan.pelvis[:, 1] -= 0.04 * u
        plan.add("pelvis", 16 * u, 0, 0.4 * aside * u)
        plan.bend(20 * u, 0, 0.8 * aside * u)
        plan.add("neck", 12 * early)
        for name in arms:
            plan.move(u, f"{name}_shoulder", rng.uniform(50, 85), 6, -8)
            plan.move(u, f"{name}_elbow", 22, 0, 20)
    else:  # a shelf
        tiptoe = rng.uniform(0, 28) * u
        plan.foot_pitch -= tiptoe[:, None]
        plan.pelvis[:, 1] += 0.0042 * tiptoe
        plan.pelvis[:, 2] += 0.0012 * tiptoe + 0.02 * u
        plan.add("pelvis", -3 * u, 3 * s * u, 0.4 * aside * u)
        plan.bend(-9 * u, (0 if both else -8 * s) * u, 0.6 * aside * u)
        plan.add("neck", -14 * early)
        plan.add("head", -12 * early)
        for name in arms:
            top = rng.uniform(132, 160)
            plan.move(early, f"{name}_shoulder", np.full_like(t, top), 22, 5)
            plan.move(u, f"{name}_elbow", 45 - 28 * pulse(phase, 0.34, 0.12, 0.34), 0, 0)
    plan.cycle = phase % 1.0
    plan.claims = tuple(f"{name}_shoulder" for name in arms)
    return plan


def sit_stand(t: Array, rng: Rng) -> Plan:
    """Sitting down on something and getting up."""
    plan = standing(t, rng, width=rng.uniform(0.10, 0.2))
    period = rng.uniform(3.6, 6.0)
    phase = t / period + rng.random()
    u = pulse(phase, 1.35 / period, 0.25, 1.25 / period)
    going = np.sin(np.pi * np.clip(u, 0, 1)) ** 1.2
    seat = rng.uniform(0.46, 0.56)
    plan.pelvis[:, 1] -= seat * u - 0.08 * going * u
    plan.pelvis[:, 2] -= 0.44 * np.clip(1.25 * u, 0, 1.25) * (1 - 0.2 * u) - 0.03 * going
    plan.add("pelvis", 24 * going - 6 * u)
    plan.bend(26 * going + 6 * u)
    plan.add("neck", -14 * going)
    knees = rng.random() < 0.6
    for side in SIDES:
        plan.move(u, f"{side}_shoulder", (30 if knees else 5), 9, -12)
        plan.move(u, f"{side}_elbow", (62 if knees else 25), 0, -40)
        plan.add(f"{side}_shoulder", 22 * going)
    plan.cycle = phase % 1.0
    return plan


def kick(t: Array, rng: Rng) -> Plan:
    """Kicking a ball or kicking high, one leg after a swing back."""
    plan = standing(t, rng, stagger=0.0)
    f, side, other = _sides(rng)
    s = 1 - 2 * f
    period = rng.uniform(1.7, 2.6)
    phase = t / period + rng.random()
    high, across = rng.uniform(32, 95), rng.uniform(-6, 14)
    straight = rng.uniform(4, 22)
    hip = _keys(
        phase, (0, 2), (0.06, 2), (0.15, 2), (0.28, -24), (0.33, -22), (0.46, high), (0.50, high), (0.72, 28), (0.84, 2)
    )
    knee = _keys(
        phase,
        (0, 6),
        (0.06, 8),
        (0.17, 52),
        (0.27, 74),
        (0.34, 82),
        (0.45, straight),
        (0.50, straight + 6),
        (0.62, 58),
        (0.72, 60),
        (0.84, 6),
    )
    away = ease((phase % 1.0 - 0.06) / 0.10) * (1 - ease((phase % 1.0 - 0.70) / 0.12))
    plan.free[:, f], plan.support[:, f] = away, 1 - 0.995 * ease(5 * away)
    plan.angles[:, 14 + 4 * f] = np.stack([hip, 4 - across * np.clip(hip / high, 0, 1), 6 * away], axis=1)
    plan.angles[:, 15 + 4 * f, 0] = knee
    plan.feet[:, f, 1] += 0.09 * away
    toes = _keys(phase, (0, 0), (0.14, 20), (0.30, -12), (0.48, -20), (0.64, 16), (0.78, 18), (0.90, 0))
    plan.foot_pitch[:, f] = away * (hip - knee + toes)
    plan.pelvis[:, 0] -= (
        s * (plan.feet[0, 0, 0] - 0.02) * ease((phase % 1.0 + 0.02) / 0.14) * (1 - ease((phase % 1.0 - 0.78) / 0.18))
    )
    back = _keys(phase, (0, 0), (0.28, -1), (0.46, 1), (0.6, 0.7), (0.85, 0))
    plan.pelvis[:, 1] -= 0.006 * away
    plan.pelvis[:, 2] += 0.015 * away
    plan.add("pelvis", -high / 9 * back - 2, s * 5 * away, s * -9 * -back)
    plan.bend(high / 8 * back + 3, -s * 6 * away, s * -14 * back)
    plan.add(f"{other}_shoulder", 42 * back, 24 * away)
    plan.add(f"{side}_shoulder", -30 * back, 22 * away)
    plan.add(f"{other}_elbow", 18 * away)
    plan.add(f"{side}_elbow", 14 * away)
    plan.cycle = phase % 1.0
    return plan


def throw(t: Array, rng: Rng) -> Plan:
    """Throwing overarm from a staggered stance."""
    f, side, other = _sides(rng)
    s = 1 - 2 * f
    plan = standing(t, rng, width=rng.uniform(0.12, 0.17), stagger=-s * rng.uniform(0.35, 0.6))
    period = rng.uniform(1.9, 2.8)
    p = t / period + rng.random()
    weight = _keys(p, (0, 0), (0.3, -1), (0.42, -0.6), (0.54, 1), (0.66, 1), (0.9, 0))
    twist = _keys(p, (0, 0), (0.32, -1), (0.42, -0.8), (0.52, 0.9), (0.6, 1), (0.9, 0))
    cock = ease(((p % 1.0) - 0.05) / 0.25) * (1 - ease(((p % 1.0) - 0.62) / 0.3))
    power = rng.uniform(0.6, 1.0)
    plan.pelvis[:, 2] += 0.10 * weight * power
    plan.pelvis[:, 1] -= 0.02 + 0.03 * weight**2
    rear = 1 - f if s * plan.feet[0, 0, 2] > 0 else f
    plan.foot_pitch[:, rear] -= 24 * np.clip(weight, 0, 1) * power
    plan.add("pelvis", 6 * np.clip(weight, 0, 1) * power, 0, s * 24 * twist * power)
    plan.bend(
        _keys(p, (0, 0), (0.34, -8), (0.44, -8), (0.58, 26), (0.68, 22), (0.92, 0)) * power,
        -s * 5 * twist,
        s * 30 * twist * power,
    )
    plan.add("neck", 0, 0, -s * 22 * twist * power)
    plan.add("head", -5 * np.clip(weight, 0, 1), 0, -s * 20 * twist * power)
    flexion = _keys(p, (0, 20), (0.32, 0), (0.42, 6), (0.50, 62), (0.60, 72), (0.9, 20))
    lateral = _keys(p, (0, 12), (0.32, 88), (0.44, 92), (0.50, 82), (0.58, 20), (0.66, 0), (0.9, 12))
    turned = _keys(p, (0, 0), (0.34, 60), (0.44, 84), (0.51, 25), (0.60, -30), (0.9, 0))
    elbow = _keys(p, (0, 30), (0.32, 95), (0.44, 95), (0.51, 28), (0.6, 18), (0.9, 30))
    plan.move(cock, f"{side}_shoulder", flexion, lateral, turned)
    plan.move(cock, f"{side}_elbow", elbow, 0, 0)
    point = ease(((p % 1.0) - 0.08) / 0.25) * (1 - ease(((p % 1.0) - 0.44) / 0.22))
    plan.move(point, f"{other}_shoulder", 52, 48, 0)
    plan.move(point, f"{other}_elbow", 22, 0, 0)
    plan.add(f"{other}_elbow", 40 * (cock - point).clip(0))
    plan.cycle = p % 1.0
    return plan


def lunge(t: Array, rng: Rng) -> Plan:
    """Forward lunges with alternating legs."""
    plan = standing(t, rng, width=rng.uniform(0.09, 0.13))
    period = rng.uniform(3.6, 5.2)
    far, low = rng.uniform(0.62, 0.9), rng.uniform(0.16, 0.34)
    p = t / period + rng.random()
    total = np.zeros_like(t)
    for f in range(2):
        q = (p + 0.5 * f) % 1.0
        out, home = np.clip(q / 0.13, 0, 1), np.clip((q - 0.33) / 0.13, 0, 1)
        u = ease(out) - ease(home)
        plan.feet[:, f, 2] += far * u
        air = np.sin(np.pi * out) + np.sin(np.pi * home)
        plan.feet[:, f, 1] += 0.07 * air
        plan.foot_pitch[:, f] += 10 * np.sin(np.pi * home) - 8 * np.sin(np.pi * out)
        plan.support[:, f] = np.where(air > 1e-3, 0.01, 1.0)
        down = ease((q - 0.06) / 0.15) - ease((q - 0.24) / 0.17)
        shift = ease((q + 0.01) / 0.17) - ease((q - 0.27) / 0.18)
        plan.pelvis[:, 2] += 0.54 * far * shift
        plan.pelvis[:, 1] -= 0.12 * far**2 * shift + low * down
        plan.foot_pitch[:, 1 - f] -= 42 * shift + 14 * down
        total += down
        plan.add("pelvis", 6 * down, 0, (1 - 2 * f) * -4 * shift)
    plan.bend(rng.uniform(0, 12) * total)
    pose, one = rng.integers(0, 3), np.ones_like(t)
    for side in SIDES:
        if pose == 1:
            plan.move(one, f"{side}_shoulder", -14, 38, -48)
            plan.move(one, f"{side}_elbow", 86, 0, -20)
        elif pose == 2:
            plan.move(total.clip(0, 1), f"{side}_shoulder", 25, 68, 0)
        else:
            plan.add(f"{side}_shoulder", 12 * total, 8 * total)
            plan.add(f"{side}_elbow", 20 * total)
    plan.cycle = p % 1.0
    return plan


def jump(t: Array, rng: Rng) -> Plan:
    """Jumps from both feet with a swing of the arms, some of them forward."""
    plan = standing(t, rng, width=rng.uniform(0.09, 0.14))
    period = rng.uniform(1.7, 2.6)
    p = t / period + rng.random()
    q = p % 1.0
    height = rng.uniform(0.10, 0.38)  # metres, about
    air = np.sqrt(8 * height / 9.81) / period
    off = 0.40
    fly = np.clip((q - off) / air, 0, 1)
    hop = 4 * fly * (1 - fly)
    plan.lift = height / 0.9 * hop
    deep = 0.14 + 0.5 * height
    dip = _keys(p, (0, 0), (off - 0.14, 1), (off - 0.10, 1), (off, -0.08), (off + 0.4 * air, 0.28), (off + air, 0.1),
                (off + air + 0.09, 0.85), (off + air + 0.26, 0.1), (0.99, 0))  # fmt: skip
    plan.pelvis[:, 1] -= deep * dip + 0.006
    plan.pelvis[:, 2] -= 0.36 * deep * dip
    toes = _keys(p, (0, 0), (off - 0.06, 0), (off, 38), (off + 0.5 * air, 42), (off + air, 26), (off + air + 0.05, 0))
    plan.foot_pitch -= toes[:, None]
    plan.pelvis[:, 1] += 0.0022 * toes
    plan.pelvis[:, 2] += 0.0012 * toes
    forward = rng.uniform(0, 0.5) * (rng.random() < 0.5)
    way = np.floor(p) * forward + forward * np.clip((q - off) / air, 0, 1)
    plan.feet[:, :, 2] += way[:, None]
    plan.pelvis[:, 2] += way
    plan.add("pelvis", 75 * deep * dip.clip(0))
    plan.bend(45 * deep * dip)
    plan.add("neck", -40 * deep * dip)
    top = rng.uniform(20, 125)
    swing = _keys(
        p, (0, 0), (off - 0.16, -20 - 0.15 * top), (off - 0.11, -18 - 0.12 * top), (off + 0.03, 0.8 * top),
        (off + 0.5 * air, top), (off + air, 0.6 * top), (off + air + 0.12, 12), (0.97, 0),
    )  # fmt: skip
    for side in SIDES:
        plan.add(f"{side}_shoulder", swing, 8 * hop)
        plan.add(f"{side}_elbow", 22 * np.abs(dip) + 15 * hop)
    plan.cycle = q
    plan.claims = ("left_shoulder", "right_shoulder")
    return plan
