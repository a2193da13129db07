"""Motions that are mostly posture: bends, stretches, hands at work, and wandering through the space of poses (torch-free)."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from bipose_lit.datasets.synthetic.body import Array
from bipose_lit.datasets.synthetic.motions_action import _sides
from bipose_lit.datasets.synthetic.motions_plan import SIDES, Plan, drift, ease, pulse, standing

Rng = np.random.Generator


def _wander(t: Array, rng: Rng, sample: Array, pause: float) -> Array:
    """Visits given poses one after another without overshoot.

    Args:
        t: (T,) seconds.
        rng: Source of randomness.
        sample: (N, D) poses; they repeat after N visits.
        pause: Mean seconds from pose to pose.

    Returns:
        (T, D).
    """
    count = len(sample)
    knots = np.cumsum(pause * rng.uniform(0.7, 1.3, count))
    span = knots[-1]
    x = np.concatenate([knots - span, knots, knots + span])
    out: Array = PchipInterpolator(x, np.tile(sample, (3, 1)), axis=0)(t % span)
    return out


def bend(t: Array, rng: Rng) -> Plan:
    """Exercises with straight legs apart: forward folds, side bends, twists."""
    plan = standing(t, rng, width=rng.uniform(0.16, 0.36))
    poses = np.zeros((8, 3))
    for i in range(8):
        kind = rng.integers(0, 3) if i % 2 else 3
        poses[i] = {0: (rng.uniform(45, 105), rng.uniform(-6, 6), rng.uniform(-30, 30)),
                    1: (rng.uniform(0, 8), rng.choice((-1, 1)) * rng.uniform(18, 36), 0),
                    2: (rng.uniform(0, 12), 0, rng.choice((-1, 1)) * rng.uniform(28, 55)),
                    3: (rng.uniform(-8, 10), rng.uniform(-5, 5), rng.uniform(-8, 8))}[int(kind)]  # fmt: skip
    fold, side, twist = _wander(t, rng, poses, rng.uniform(0.75, 1.3)).T
    plan.pelvis[:, 1] -= 0.006 + 0.0006 * fold.clip(0)
    plan.pelvis[:, 2] -= 0.0022 * fold.clip(0)
    plan.pelvis[:, 0] += 0.0016 * side
    plan.add("pelvis", 0.52 * fold, 0.15 * side, 0.22 * twist)
    plan.bend(0.55 * fold, 0.8 * side, 0.7 * twist)
    plan.add("neck", -0.1 * fold, 0.2 * side, 0.2 * twist)
    plan.add("head", 0.0, 0.15 * side, 0.2 * twist)
    style = rng.integers(0, 3)
    one = np.ones_like(t)
    for f, name in enumerate(SIDES):
        s = 1 - 2 * f
        if style == 0:  # arms out
            plan.move(one, f"{name}_shoulder", 6 + 0.35 * fold, 82 - 0.3 * fold, 0)
            plan.move(one, f"{name}_elbow", 10, 0, 0)
        elif style == 1:  # one arm over the head, with the bend
            over = np.clip(-s * side / 30, 0, 1)
            plan.add(f"{name}_shoulder", 0.95 * fold.clip(0), 118 * over, 25 * over)
            plan.add(f"{name}_elbow", 35 * over)
        else:
            plan.add(f"{name}_shoulder", 0.95 * fold.clip(0) + 12, 6)
            plan.add(f"{name}_elbow", 8)
    plan.claims = tuple(f"{s}_shoulder" for s in SIDES) if style == 0 else ()
    return plan


def clap(t: Array, rng: Rng) -> Plan:
    """Clapping hands in front of the chest or higher."""
    plan = standing(t, rng)
    rate, high = rng.uniform(1.4, 3.2), rng.uniform(0, 1)
    a = 2 * np.pi * rate * t + rng.uniform(0, 6)
    apart = (0.5 - 0.5 * np.cos(a)) ** 0.8 * rng.uniform(0.5, 1.0) * min(1.0, 2.2 / rate)
    one = np.ones_like(t)
    for side in SIDES:
        plan.move(one, f"{side}_shoulder", 30 + 58 * high, 4 + 16 * apart, -26 + 26 * apart + 8 * high)
        plan.move(one, f"{side}_elbow", 82 - 18 * high + 6 * apart, 0, -5)
        plan.add(f"{side}_wrist", 0, -6 + 6 * apart)
    plan.pelvis[:, 1] -= 0.006 + 0.004 * np.sin(a / 2)
    plan.bend(2 + 1.5 * np.sin(a / 2), 1.5 * np.sin(a / 4))
    plan.add("head", 2.5 * np.sin(a / 2 + 0.5))
    plan.cycle = (a / (2 * np.pi)) % 1.0
    plan.claims = tuple(f"{s}_shoulder" for s in SIDES)
    return plan


def punch(t: Array, rng: Rng) -> Plan:
    """Boxing: jabs and crosses from the guard, on springy feet."""
    f, side, other = _sides(rng)
    s = 1 - 2 * f
    plan = standing(t, rng, width=rng.uniform(0.12, 0.18), stagger=-s * rng.uniform(0.28, 0.45))
    period = rng.uniform(1.0, 1.7)
    p = t / period + rng.random()
    bob = np.sin(2 * np.pi * rng.uniform(1.3, 2.2) * t)
    low = rng.uniform(0.03, 0.09)
    plan.pelvis[:, 1] -= low + 0.010 * bob
    one = np.ones_like(t)
    cross = pulse(p, 0.14, 0.02, 0.24)
    jab = pulse(p + 0.5 + rng.uniform(-0.1, 0.1), 0.13, 0.01, 0.22) * rng.uniform(0.7, 1)
    guard = s * -16.0
    plan.add("pelvis", 5, 0, guard + s * 26 * cross - s * 8 * jab)
    plan.bend(9 + 3 * bob, 0, 0.5 * guard + s * 34 * cross - s * 16 * jab)
    plan.add("neck", 6, 0, -0.8 * guard - s * 26 * cross + s * 9 * jab)
    plan.add("head", 2, 0, -0.6 * guard - s * 22 * cross + s * 8 * jab)
    rear = f if -s * (1 - 2 * f) > 0 else 1 - f
    plan.foot_pitch[:, rear] -= 10 + 22 * cross
    plan.pelvis[:, 2] += 0.05 * cross
    level = rng.uniform(72, 96)
    for name, u in ((side, cross), (other, jab)):
        plan.move(one, f"{name}_shoulder", 42 + (level - 42) * u + 2 * bob, 14 + 6 * u, -8 - 20 * u)
        plan.move(one, f"{name}_elbow", 128 - 116 * u - 3 * bob, 0, -30 * u)
    plan.cycle = p % 1.0
    plan.claims = tuple(f"{n}_shoulder" for n in SIDES)
    return plan


def stretch(t: Array, rng: Rng) -> Plan:
    """Stretching: both arms overhead or one arm across, with slow leans."""
    plan = standing(t, rng, width=rng.uniform(0.12, 0.26))
    period = rng.uniform(3.0, 5.0)
    phase = t / period + rng.random()
    u = pulse(phase, 0.28, 0.34, 0.28)
    lean = rng.uniform(8, 26) * np.sin(2 * np.pi * t / (period * rng.uniform(0.5, 0.9)) + rng.uniform(0, 6)) * u
    plan.pelvis[:, 0] += 0.0022 * lean
    plan.add("pelvis", -3 * u, 0.1 * lean)
    plan.bend(-8 * u, lean)
    if rng.random() < 0.6:
        rise = rng.uniform(0, 20) * u
        plan.foot_pitch -= rise[:, None]
        plan.pelvis[:, 1] += 0.0040 * rise
        plan.pelvis[:, 2] += 0.0014 * rise
        plan.add("head", -12 * u)
        for side in SIDES:
            plan.move(u, f"{side}_shoulder", 95 + rng.uniform(-5, 5), 118, 30)
            plan.move(u, f"{side}_elbow", rng.uniform(15, 75), 0, 0)
    else:
        _, side, other = _sides(rng)
        plan.bend(0, 0, (-1 if side == "left" else 1) * 14 * u)
        plan.move(u, f"{side}_shoulder", 82, -42, 0)
        plan.move(u, f"{side}_elbow", 12, 0, 0)
        plan.move(u, f"{other}_shoulder", 58, 2, -25)
        plan.move(u, f"{other}_elbow", 112, 0, 0)
    plan.cycle = phase % 1.0
    plan.claims = tuple(f"{s}_shoulder" for s in SIDES)
    return plan


def freestyle(t: Array, rng: Rng) -> Plan:
    """A smooth walk through the space of poses: crouches, bends, wide and narrow stances, arms anywhere within reach."""
    plan = standing(t, rng, width=0.1)
    poses = np.zeros((9, 7))
    for i in range(9):
        low = max(0.0, 0.68 * rng.beta(0.8, 1.4) - 0.18)
        fold = max(0.0, rng.normal(10, 18)) + 60 * low * rng.random()
        poses[i] = (low, fold, rng.normal(0, 10), rng.normal(0, 20), rng.normal(0, 12), rng.normal(0, 22),
                    rng.uniform(-1, 1))  # fmt: skip
    pause = rng.uniform(0.7, 1.4)
    low, fold, side, twist, nod, look, shift = _wander(t, rng, poses, pause).T
    # the feet go to their new places one after the other, in steps
    steps = t / (pause * 1.6) + rng.random()
    places = np.stack([rng.uniform(0.07, 0.34, (2, 8)), rng.uniform(-0.26, 0.26, (2, 8)), rng.uniform(-5, 28, (2, 8))])
    for f in range(2):
        p = steps + 0.5 * f
        n, part = np.floor(p).astype(int), p % 1.0
        s = ease(part / 0.34)
        air = np.sin(np.pi * np.clip(part / 0.34, 0, 1))
        x, z, yaw = (
            places[k, f, (n - 1) % 8] + s * (places[k, f, n % 8] - places[k, f, (n - 1) % 8]) for k in range(3)
        )
        plan.feet[:, f, 0], plan.feet[:, f, 2] = (1 - 2 * f) * x, z
        plan.feet[:, f, 1] = rng.uniform(0.05, 0.25) * air**1.5
        plan.foot_yaw[:, f] = yaw
        plan.foot_pitch[:, f] -= 18 * air
        plan.support[:, f] = np.where(part < 0.34, 0.01, 1.0)
    centre = plan.feet.mean(axis=1)
    over = 0.45 * shift
    plan.pelvis[:, 0] += centre[:, 0] + over * 0.5 * (plan.feet[:, 0, 0] - plan.feet[:, 1, 0])
    plan.pelvis[:, 2] += (
        centre[:, 2] + over * 0.5 * (plan.feet[:, 0, 2] - plan.feet[:, 1, 2]) - 0.3 * low - 0.0016 * fold
    )
    plan.pelvis[:, 1] -= low
    plan.foot_pitch -= 45 * low[:, None]
    plan.add("pelvis", 0.4 * fold + 45 * low, 0.2 * side, 0.3 * twist)
    plan.bend(0.45 * fold, 0.7 * side, 0.6 * twist)
    plan.add("neck", -0.2 * fold + 0.5 * nod, 0, 0.5 * look)
    plan.add("head", 0.5 * nod, 0, 0.4 * look)
    for name in SIDES:
        arms = np.zeros((9, 5))
        for i in range(9):
            # directions over the front and the side, down to straight up; the elbow bends more when the hand is near
            elevation = rng.beta(1.1, 1.5) * 165
            azimuth = np.radians(rng.uniform(-15, 100))  # 0 forward, 90 to the side
            bent = rng.beta(0.9, 1.6) * 135
            arms[i] = (
                elevation * np.cos(azimuth),
                elevation * np.sin(azimuth),
                rng.uniform(-45, 65),
                bent,
                rng.uniform(-60, 50),
            )
        flexion, lateral, turned, bent, rolled = _wander(t, rng, arms, pause * rng.uniform(0.7, 1.1)).T
        plan.move(np.ones_like(t), f"{name}_shoulder", flexion, lateral, turned)
        plan.move(np.ones_like(t), f"{name}_elbow", bent, 0, rolled)
        plan.add(f"{name}_wrist", *(drift(rng, t, 2) * (6, 12)).T)
    return plan
