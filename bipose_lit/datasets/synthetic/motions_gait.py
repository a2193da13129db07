"""Motions with a beat: gaits from normative joint curves, and stepping with planned footfalls (torch-free)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline

from bipose_lit.datasets.synthetic.body import Array
from bipose_lit.datasets.synthetic.motions_plan import SIDES, Plan, drift, ease, pulse, standing

Rng = np.random.Generator

# Per cent of the cycle from heel strike: degrees. The walk's curves follow the normative ones of Winter, "The Biomechanics
# and Motor Control of Human Gait" (1991), the run's those of Novacheck, "The biomechanics of running" (1998), read off
# by eye at a few points; thigh and foot are against the vertical, the knee is the joint's flexion.
_WALK = {
    "thigh": {0: 23, 10: 21, 20: 12, 30: 2, 40: -7, 50: -13, 60: -7, 70: 11, 80: 24, 88: 27, 95: 25},
    "knee": {0: 4, 6: 11, 13: 18, 20: 17, 30: 10, 40: 7, 50: 17, 55: 29, 60: 43, 66: 57, 72: 63, 80: 53, 90: 20, 96: 5},
    "foot": {0: 20, 5: 9, 10: 1, 16: 0, 28: 0, 38: 0, 44: -1, 50: -8, 55: -22, 60: -43, 66: -56, 73: -41, 80: -14, 88: 12, 95: 23},
}
_RUN = {
    "thigh": {0: 32, 10: 26, 20: 8, 30: -14, 37: -24, 45: -18, 55: 8, 65: 35, 75: 52, 83: 54, 92: 42},
    "knee": {0: 14, 8: 30, 15: 40, 25: 32, 33: 19, 38: 19, 48: 60, 58: 98, 66: 107, 75: 90, 85: 50, 93: 20},
    "foot": {0: 6, 6: 1, 18: 0, 28: -22, 37: -58, 48: -84, 58: -96, 66: -90, 75: -62, 84: -24, 93: 6},
}


def _curve(points: dict[int, int]) -> CubicSpline:
    x, y = np.array([*points, 100]) / 100.0, np.array([*points.values(), points[0]], dtype=float)
    return CubicSpline(x, y, bc_type="periodic")


WALK = {name: _curve(points) for name, points in _WALK.items()}
RUN = {name: _curve(points) for name, points in _RUN.items()}


def _gait(plan: Plan, curves: dict[str, CubicSpline], phase: Array, thigh: float, knee: float, foot: float, lean: Array,
          duty: float) -> None:  # fmt: skip
    """Drives both legs by a gait's curves; phase 0 is the left heel strike."""
    plan.free[:], plan.cycle[:] = 1.0, phase % 1.0
    pitch, side, yaw = (plan.angles[:, 0, i] for i in range(3))
    for f, name in enumerate(SIDES):
        s = 1.0 - 2.0 * f
        p = (phase + 0.5 * f) % 1.0
        thigh_angle, knee_angle = thigh * curves["thigh"](p), np.maximum(knee * curves["knee"](p), 1.5)
        narrow = -1.8 + 1.2 * s * lean
        hip = plan.angles[:, 14 + 4 * f]
        hip[:, 0], hip[:, 1] = thigh_angle + pitch, narrow + s * side
        hip[:, 2] = plan.foot_yaw[:, f] - s * yaw
        plan.angles[:, 15 + 4 * f, 0] = knee_angle
        plan.foot_pitch[:, f] = foot * curves["foot"](p)
        plan.support[:, f] = 0.02 + ease((p + 0.04) / 0.06) * (1 - ease((p - duty) / 0.06)) + ease((p - 0.97) / 0.03)


def walk(t: Array, rng: Rng) -> Plan:
    """Walking, from a stroll to a brisk walk, straight or along a gentle curve."""
    plan = standing(t, rng)
    brisk = float(rng.beta(2.2, 2.2))
    period = (1.34 - 0.42 * brisk) * rng.uniform(0.95, 1.05)
    phase = t / period + rng.random() + 0.012 * drift(rng, t, 1, 0.6)[:, 0]
    a = 2 * np.pi * phase
    size = 0.74 + 0.42 * brisk + rng.normal(0, 0.03)
    plan.heading += np.degrees(rng.normal(0, 0.14)) * (t - t[0]) + 2.0 * drift(rng, t, 1, 0.4)[:, 0]
    hips, list_ = rng.uniform(2.5, 6.5), rng.uniform(2.0, 4.5)
    plan.angles[:, 0, :] *= 0.4
    plan.add("pelvis", rng.uniform(0, 4) + 1.0 * np.sin(2 * a), -list_ * np.sin(a - 0.3), -hips * size * np.cos(a))
    _gait(plan, WALK, phase, size, 0.9 + 0.12 * brisk + rng.normal(0, 0.03), 0.75 + 0.3 * size - 0.05, np.sin(a - 0.2), 0.60)
    counter = hips * size + rng.uniform(2, 7) * size
    plan.bend(rng.uniform(0, 3) + 1.2 * np.cos(2 * a), 0.7 * list_ * np.sin(a - 0.3), counter * np.cos(a))
    plan.add("neck", 0.5 * np.sin(2 * a + 0.5), 0.0, -0.3 * (counter - hips * size) * np.cos(a))
    plan.add("head", -1.0 * np.cos(2 * a), 0.0, -0.3 * (counter - hips * size) * np.cos(a))
    swing = size * rng.uniform(11, 27)
    late, elbow = rng.uniform(0.1, 0.45), rng.uniform(6, 16)
    for f, side in enumerate(SIDES):
        wave = -np.cos(a - late + np.pi * f)  # the arm is forward with the other leg
        own = swing * rng.uniform(0.75, 1.15)
        plan.add(f"{side}_shoulder", own * wave + 0.15 * own, 1.5 * wave, 4.0 * wave)
        plan.add(f"{side}_elbow", elbow * (1 + np.sin(np.arcsin(np.clip(wave, -1, 1)) - 0.4)))
    plan.claims = ("left_shoulder", "right_shoulder")
    return plan


def run(t: Array, rng: Rng) -> Plan:
    """Running, from a jog to a fast run."""
    plan = standing(t, rng)
    fast = float(rng.beta(2.0, 2.5))
    period = (0.76 - 0.14 * fast) * rng.uniform(0.96, 1.04)
    phase = t / period + rng.random()
    a = 2 * np.pi * phase
    size = 0.66 + 0.45 * fast + rng.normal(0, 0.03)
    plan.heading += np.degrees(rng.normal(0, 0.15)) * (t - t[0])
    plan.angles[:, 0, :] *= 0.3
    hips = rng.uniform(4, 9)
    plan.add("pelvis", 5 + 5 * fast, -4.0 * np.sin(a - 0.6), -hips * np.cos(a - 0.2))
    duty = 0.37
    _gait(plan, RUN, phase, size, 0.62 + 0.4 * fast, 0.55 + 0.45 * size, 0.6 * np.sin(a - 0.6), duty)
    flight = ((phase % 0.5) - duty) / (0.5 - duty)
    plan.lift = np.where(flight > 0, (0.030 + 0.035 * fast) * 4 * flight * (1 - flight), 0.0)
    counter = hips + rng.uniform(8, 15)
    plan.bend(4 + 6 * fast + 2 * np.cos(2 * a), 2.5 * np.sin(a - 0.6), counter * np.cos(a - 0.2))
    plan.add("neck", -6 * fast, 0.0, -0.5 * (counter - hips) * np.cos(a - 0.2))
    plan.add("head", -4.0, 0.0, -0.4 * (counter - hips) * np.cos(a - 0.2))
    swing, bent = rng.uniform(24, 40) * (0.75 + 0.4 * fast), rng.uniform(72, 100)
    for f, side in enumerate(SIDES):
        wave = -np.cos(a - 0.3 + np.pi * f)
        plan.move(np.ones_like(t), f"{side}_shoulder", swing * wave - 6, 12 - 5 * wave, -28 - 10 * wave)
        plan.move(np.ones_like(t), f"{side}_elbow", bent + 14 * wave, 0.0, 10.0)
    return plan


Landing = Callable[[int, Array], tuple[Array, Array, Array]]


def footfalls(plan: Plan, steps: Array, swing: float, height: Array | float, landing: Landing) -> None:
    """Steps with alternating feet onto planned places.

    Args:
        plan: The plan to change.
        steps: (T,) cycles done: each foot lands once a cycle, the right one half a cycle after the left one.
        swing: Share of the cycle that a foot is in the air.
        height: Clearance in leg lengths at the middle of the swing.
        landing: Called with (foot, cycle number (T,)); gives ground x, z and the absolute yaw in degrees, (T,) each.
    """
    for f in range(2):
        p = steps + 0.5 * f
        n, part = np.floor(p), p % 1.0
        s = ease(part / swing)
        (x0, z0, yaw0), (x1, z1, yaw1) = landing(f, n - 1), landing(f, n)
        up = np.sin(np.pi * np.clip(part / swing, 0, 1)) ** 1.5
        plan.feet[:, f, 0], plan.feet[:, f, 2] = x0 + s * (x1 - x0), z0 + s * (z1 - z0)
        plan.feet[:, f, 1] = height * up
        plan.foot_yaw[:, f] += (1.0 - 2.0 * f) * (yaw0 + s * (yaw1 - yaw0) - plan.heading)
        plan.foot_pitch[:, f] -= 18.0 * np.sin(np.pi * np.clip(part / swing * 1.15, 0, 1)) - 3.0 * up
        plan.support[:, f] = np.where(part < swing, 0.01, 1.0)


def turn(t: Array, rng: Rng) -> Plan:
    """Turning on the spot in small steps, the gaze ahead of the trunk, the trunk ahead of the feet."""
    plan = standing(t, rng)
    sign = 1.0 if rng.random() < 0.5 else -1.0
    rate, period = rng.uniform(45, 115), rng.uniform(0.85, 1.15)
    offset, go = rng.random(), rng.uniform(2.6, 4.5)

    def heading(at: Array) -> Array:  # turns for most of ``go`` seconds, then settles for a moment
        p = at / go + offset
        out: Array = sign * rate * go * 0.8 * (np.floor(p) + ease((p % 1.0) / 0.9) * 0.35 + np.clip((p % 1.0) / 0.9, 0, 1) * 0.65)
        return out

    start = rng.random()
    half = plan.feet[0, 0, 0] * 1.05

    def landing(f: int, n: Array) -> tuple[Array, Array, Array]:
        yaw = heading((n - start - 0.5 * f + 0.66) * period)
        s = 1.0 - 2.0 * f
        return s * half * np.cos(np.radians(yaw)), -s * half * np.sin(np.radians(yaw)), yaw

    plan.heading = heading(t + 0.12)
    steps = t / period + start
    footfalls(plan, steps, 0.36, rng.uniform(0.05, 0.10), landing)
    a = 2 * np.pi * steps
    shift = 0.035 * np.sin(a - 2 * np.pi * 0.68)
    h = np.radians(plan.heading)
    plan.pelvis[:, 2] *= 0.4
    x, z = plan.pelvis[:, 0] + shift, plan.pelvis[:, 2]
    plan.pelvis[:, 0], plan.pelvis[:, 2] = np.cos(h) * x + np.sin(h) * z, -np.sin(h) * x + np.cos(h) * z
    plan.pelvis[:, 1] -= 0.006 + 0.005 * np.cos(2 * a)
    lead = heading(t + 0.40) - plan.heading
    plan.bend(1.0, 3.0 * np.sin(a), np.clip(0.4 * lead, -22, 22))
    plan.add("neck", 2.0, 0.0, np.clip(0.3 * lead, -18, 18))
    plan.add("head", 2.0, 0.0, np.clip(0.3 * lead, -18, 18))
    for f, side in enumerate(SIDES):
        plan.add(f"{side}_shoulder", 7.0 * np.sin(a + np.pi * f), 4.0)
        plan.add(f"{side}_elbow", 6.0)
    plan.cycle = steps % 1.0
    return plan


def march(t: Array, rng: Rng) -> Plan:
    """Marching on the spot with raised knees."""
    plan = standing(t, rng)
    period, high = rng.uniform(0.85, 1.25), rng.uniform(55, 92)
    steps = t / period + rng.random()
    a = 2 * np.pi * steps
    swing = rng.uniform(22, 45)
    for f, side in enumerate(SIDES):
        u = pulse(steps + 0.5 * f, 0.22, 0.03, 0.22)
        plan.free[:, f] = ease(u / 0.25)
        plan.angles[:, 14 + 4 * f] = np.stack([high * u + 2, 0 * u, plan.foot_yaw[:, f]], axis=1)
        plan.angles[:, 15 + 4 * f, 0] = (high + 6) * u + 4
        plan.foot_pitch[:, f] = -24 * u**2
        plan.support[:, f] = 1 - 0.99 * ease(u / 0.06)
        wave = np.sin(a + np.pi * f - 1.2)
        plan.add(f"{side}_shoulder", -swing * wave + 4, 2.0)
        plan.add(f"{side}_elbow", rng.uniform(15, 70) - 10 * wave)
    plan.pelvis[:, 0] -= 0.05 * np.sin(a - 2 * np.pi * 0.235 + np.pi / 2)
    plan.pelvis[:, 1] -= 0.006 + 0.010 * np.cos(2 * a - 0.4)
    plan.add("pelvis", -2.0, 2.5 * np.sin(a), 3.0 * np.sin(a))
    plan.bend(-1.0, -2.5 * np.sin(a), -7.0 * np.sin(a))
    plan.cycle = steps % 1.0
    return plan


def sidestep(t: Array, rng: Rng) -> Plan:
    """Shuffling sideways with bent knees, to and fro."""
    plan = standing(t, rng)
    period, go = rng.uniform(0.7, 1.0), rng.uniform(3.0, 5.0)
    reach, offset = rng.uniform(0.45, 0.75) / period, rng.random()
    low = rng.uniform(0.05, 0.16)

    def place(at: Array) -> Array:
        p = at / go + offset
        return reach * go * (0.25 / np.pi) * (np.sin(2 * np.pi * p) + 0.06 * np.sin(6 * np.pi * p)) * 1.6

    start = rng.random()

    def landing(f: int, n: Array) -> tuple[Array, Array, Array]:
        at = (n - start - 0.5 * f + 0.62) * period
        return place(at) + (1 - 2 * f) * 0.20, np.zeros_like(at), np.zeros_like(at)

    steps = t / period + start
    footfalls(plan, steps, 0.42, rng.uniform(0.05, 0.09), landing)
    plan.foot_pitch *= 0.5
    a = 2 * np.pi * steps
    plan.pelvis[:, 0] += place(t)
    plan.pelvis[:, 1] -= low + 0.03 + 0.012 * np.cos(2 * a)
    plan.pelvis[:, 2] -= 0.12 * low
    lean = 0.35 * (place(t + 0.15) - place(t - 0.15)) / 0.3
    plan.add("pelvis", 70 * low, 4 * lean)
    plan.bend(90 * low, -6 * lean)
    plan.add("neck", -70 * low)
    up = rng.uniform(0, 1)
    for f, side in enumerate(SIDES):
        plan.add(f"{side}_shoulder", 12 + 25 * up + 4 * np.sin(a + np.pi * f), 12 + 18 * up)
        plan.add(f"{side}_elbow", 15 + 55 * up + 5 * np.sin(2 * a))
    plan.cycle = steps % 1.0
    return plan


def dance(t: Array, rng: Rng) -> Plan:
    """Step-touch dancing: bounce on the beat, hips and shoulders against each other, arms in a pattern of one's own."""
    plan = standing(t, rng)
    beat = rng.uniform(0.46, 0.66)
    bars = t / (4 * beat) + rng.random()
    a = 2 * np.pi * bars
    wide, height = rng.uniform(0.18, 0.36), rng.uniform(0.03, 0.10)
    # step left (L moves), touch (R follows), step right (R moves), touch (L follows)
    side_way = ease((bars % 1.0) / 0.20) - ease((bars % 1.0 - 0.5) / 0.20)
    left = ease((bars % 1.0) / 0.20) - ease((bars % 1.0 - 0.75) / 0.20)
    right = ease((bars % 1.0 - 0.25) / 0.20) - ease((bars % 1.0 - 0.5) / 0.20)
    for f, (place, moves) in enumerate(((left, (0.0, 0.75)), (right, (0.25, 0.5)))):
        plan.feet[:, f, 0] += wide * 2 * place
        for m in moves:
            part = np.clip((bars % 1.0 - m) / 0.20, 0, 1)
            air = np.sin(np.pi * part)
            plan.feet[:, f, 1] += height * air**1.5
            plan.foot_pitch[:, f] -= 20 * np.sin(np.pi * np.clip(part * 1.1, 0, 1))
            plan.support[:, f] = np.where((part > 0) & (part < 1), 0.01, plan.support[:, f])
    bounce = np.cos(4 * a)
    plan.pelvis[:, 0] += wide * 2 * side_way + 0.05 * np.sin(a)
    plan.pelvis[:, 1] -= rng.uniform(0.01, 0.05) + 0.35 * wide**2 + rng.uniform(0.012, 0.03) * (1 + bounce)
    groove = rng.uniform(3, 9)
    twist = rng.uniform(4, 16)
    plan.add("pelvis", 3 + 2 * bounce, groove * np.sin(a + 0.4), 0.5 * twist * np.sin(a))
    plan.bend(3 - 3 * bounce, -1.6 * groove * np.sin(a + 0.2), -twist * np.sin(a + rng.uniform(-0.5, 0.5)))
    plan.add("neck", 2 * bounce, 3 * np.sin(2 * a))
    plan.add("head", 3 * bounce, 2 * np.sin(a), 8 * np.sin(a / 2))
    raised, style = rng.uniform(15, 115), rng.integers(0, 3)
    for f, side in enumerate(SIDES):
        q = 2 * a if style == 1 else a
        wave = np.sin(q + np.pi * f * (style != 2) + rng.normal(0, 0.2))
        plan.add(f"{side}_shoulder", 18 + 0.35 * raised * (1 + wave), 8 + 0.3 * raised * (1 + np.cos(q)), 12 * wave)
        plan.add(f"{side}_elbow", 48 + 28 * np.cos(q + np.pi * f + 0.8), 0, 15 * wave)
        plan.add(f"{side}_wrist", 0, 12 * np.sin(2 * a))
    plan.cycle = bars % 1.0
    plan.claims = tuple(f"{s}_shoulder" for s in SIDES)
    return plan


def jumping_jack(t: Array, rng: Rng) -> Plan:
    """Jumping jacks."""
    plan = standing(t, rng, width=0.08)
    period = rng.uniform(0.85, 1.25)
    phase = t / period + rng.random()
    # two hops a cycle: out in the first half, back in the second; in the air for the share ``air`` of each
    air = 0.52
    part = (phase % 0.5) / 0.5
    flight = np.clip(part / air, 0, 1)
    out = ease((phase % 1.0) / (0.5 * air) * 0.94 + 0.03) - ease(((phase % 1.0) - 0.5) / (0.5 * air) * 0.94 + 0.03)
    wide = rng.uniform(0.28, 0.42)
    for f in range(2):
        plan.feet[:, f, 0] += (1 - 2 * f) * wide * out
    hop = 4 * flight * (1 - flight)
    plan.lift = rng.uniform(0.05, 0.10) * hop
    plan.foot_pitch -= 28 * np.sqrt(hop)[:, None]
    dip = np.sin(np.pi * np.clip((part - air + 0.08) / (1.08 - air), 0, 1))
    plan.pelvis[:, 1] -= 0.02 + 0.075 * dip * rng.uniform(0.7, 1.3)
    plan.add("pelvis", 3 * dip)
    plan.bend(4 * dip)
    top, elbow = rng.uniform(125, 165), rng.uniform(8, 40)
    arms = (1 - np.cos(2 * np.pi * (phase - 0.02))) / 2
    arms = arms + 0.08 * np.sin(4 * np.pi * phase)
    for side in SIDES:
        plan.move(np.ones_like(t), f"{side}_shoulder", 8 + 14 * arms, 8 + (top - 8) * arms, 25 * arms)
        plan.move(np.ones_like(t), f"{side}_elbow", 10 + elbow * arms, 0, 0)
    plan.add("head", -4 * dip)
    plan.cycle = phase % 1.0
    plan.claims = tuple(f"{s}_shoulder" for s in SIDES)
    return plan
