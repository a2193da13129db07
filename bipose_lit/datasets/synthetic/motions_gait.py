"""Motions with a beat: gaits and stepping with planned footfalls (torch-free)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline

from bipose_lit.datasets.synthetic.body import Array
from bipose_lit.datasets.synthetic.motions_plan import SIDES, Plan, drift, ease, pulse, standing

Rng = np.random.Generator

# Pitch of the foot against the ground, degrees, by per cent of the cycle from heel strike: the walk's curve follows Winter,
# "The Biomechanics and Motor Control of Human Gait" (1991), the run's Novacheck, "The biomechanics of running" (1998),
# both read off by eye. Pelvis and ankle paths are planned, hip and knee follow from them.
_WALK_FOOT = {
    0: 20,
    5: 9,
    10: 1,
    16: 0,
    28: 0,
    38: 0,
    44: -1,
    50: -9,
    55: -25,
    60: -48,
    66: -60,
    73: -45,
    80: -17,
    88: 10,
    95: 22,
}
_RUN_FOOT = {0: 6, 6: 1, 12: 0, 18: 0, 28: -22, 37: -56, 48: -84, 58: -94, 66: -86, 75: -58, 84: -22, 93: 6}
_ANKLE = 0.074  # the ankle's height in leg lengths


def _curve(points: dict[int, int]) -> CubicSpline:
    x, y = np.array([*points, 100]) / 100.0, np.array([*points.values(), points[0]], dtype=float)
    return CubicSpline(x, y, bc_type="periodic")


WALK_FOOT, RUN_FOOT = _curve(_WALK_FOOT), _curve(_RUN_FOOT)


def _arc(t: Array, speed: float, rate: float) -> tuple[Array, Array, Array]:
    """Place (x, z) and heading (radians) at times ``t`` on a path of constant speed and turning rate (radians per second)."""
    rate = rate if abs(rate) > 1e-4 else 1e-4
    heading = rate * t
    return speed / rate * (1 - np.cos(heading)), speed / rate * np.sin(heading), heading


def _strides(plan: Plan, time: Array, period: float, stride: float, rate: float, duty: float, under: float, width: float,
             curve: CubicSpline, pitch: float, clearance: float) -> Array:  # fmt: skip
    """Moves pelvis and feet along a path at a constant speed, each foot planted where it lands.

    Args:
        plan: The plan to change.
        time: (T,) seconds; the left heel strikes at multiples of ``period``.
        period: Seconds a stride.
        stride: Leg lengths a stride.
        rate: Turning rate, radians per second.
        duty: Share of the stride for which a foot is on the ground.
        under: Phase at which the pelvis passes over the foot.
        width: Half the step's width, leg lengths.
        curve: Pitch of the foot by phase.
        pitch: Its scale.
        clearance: Height of the swinging sole, leg lengths.

    Returns:
        (T,) phase in turns.
    """
    phase = time / period
    speed = stride / period
    x, z, heading = _arc(time, speed, rate)
    plan.heading = np.degrees(heading)
    sway, ahead = plan.pelvis[:, 0].copy(), plan.pelvis[:, 2].copy()
    plan.pelvis[:, 0] = x + np.cos(heading) * sway + np.sin(heading) * ahead
    plan.pelvis[:, 2] = z - np.sin(heading) * sway + np.cos(heading) * ahead
    for f in range(2):
        s = 1.0 - 2.0 * f
        own = phase + 0.5 * f
        n, p = np.floor(own), own % 1.0
        u = np.clip((p - duty) / (1 - duty), 0.0, 1.0)
        part = 0.35 * (1 - np.cos(np.pi * u)) + 0.3 * u

        def landing(count: Array, f: int = f, s: float = s) -> tuple[Array, Array, Array]:
            at_x, at_z, way = _arc((count - 0.5 * f + under) * period, speed, rate)
            return at_x + s * width * np.cos(way), at_z - s * width * np.sin(way), way

        (x0, z0, h0), (x1, z1, h1) = landing(n), landing(n + 1)
        plan.feet[:, f, 0], plan.feet[:, f, 2] = x0 + part * (x1 - x0), z0 + part * (z1 - z0)
        plan.feet[:, f, 1] = clearance * np.sin(np.pi * u) ** 0.9
        plan.foot_yaw[:, f] += s * np.degrees(h0 + part * (h1 - h0) - heading)
        plan.foot_pitch[:, f] = pitch * curve(p)
        plan.support[:, f] = np.where(p < duty, 1.0, 0.001)
    plan.lift = plan.feet[:, :, 1].min(axis=1)
    plan.cycle = phase % 1.0
    return phase


def walk(t: Array, rng: Rng) -> Plan:
    """Walking, from a stroll to a brisk walk, straight or along a gentle curve."""
    plan = standing(t, rng)
    brisk = float(rng.beta(2.2, 2.2))
    period = (1.36 - 0.42 * brisk) * rng.uniform(0.95, 1.05)
    stride = 1.04 + 0.65 * brisk + rng.normal(0, 0.05)
    size = stride / 1.45
    time = t + rng.uniform(0, period) + 0.012 * drift(rng, t, 1, 0.6)[:, 0]
    a = 2 * np.pi * time / period
    under, width = 0.255, rng.uniform(0.03, 0.075)
    plan.pelvis[:, 0] = 0.25 * plan.pelvis[:, 0] + rng.uniform(0.020, 0.040) * np.cos(a - 2 * np.pi * 0.28)
    plan.pelvis[:, 2] = 0.25 * plan.pelvis[:, 2] + 0.004 * np.sin(2 * a)
    _strides(
        plan,
        time,
        period,
        stride,
        rng.normal(0, 0.14),
        0.61,
        under,
        width,
        WALK_FOOT,
        0.6 + 0.4 * size,
        rng.uniform(0.018, 0.034),
    )
    high = rng.uniform(0.982, 0.998)
    low = np.sqrt((1 - _ANKLE) ** 2 - (under * stride) ** 2) + _ANKLE + 0.018 - 0.006
    plan.pelvis[:, 1] = high - max(high - low, 0.008) * (1 + np.cos(2 * a - 4 * np.pi * 0.035)) / 2
    hips, list_ = rng.uniform(2.5, 6.5) * size, rng.uniform(2.0, 4.5)
    plan.angles[:, 0, :] *= 0.4
    plan.add("pelvis", rng.uniform(0, 4) + 0.8 * np.sin(2 * a), -list_ * np.sin(a - 0.3), -hips * np.cos(a))
    counter = hips + rng.uniform(2, 6) * size
    plan.bend(rng.uniform(0, 3) + 0.8 * np.cos(2 * a), 0.7 * list_ * np.sin(a - 0.3), counter * np.cos(a))
    plan.add("neck", 0.3 * np.sin(2 * a + 0.5), 0.0, -0.3 * (counter - hips) * np.cos(a))
    plan.add("head", -0.6 * np.cos(2 * a), 0.0, -0.3 * (counter - hips) * np.cos(a))
    swing = size * rng.uniform(4, 16)
    late, elbow = rng.uniform(0.1, 0.45), rng.uniform(0.25, 0.7) * swing
    for f, side in enumerate(SIDES):
        wave = -np.cos(a - late + np.pi * f)  # the arm is forward with the other leg
        own = swing * rng.uniform(0.75, 1.15)
        plan.add(f"{side}_shoulder", own * wave + 0.15 * own, 1.5 * wave, 3.0 * wave)
        plan.add(f"{side}_elbow", elbow * (1 - np.cos(a - late - 0.4 + np.pi * f)))
    plan.claims = ("left_shoulder", "right_shoulder")
    return plan


def run(t: Array, rng: Rng) -> Plan:
    """Running, from a jog to a fast run."""
    plan = standing(t, rng)
    fast = float(rng.beta(2.0, 2.5))
    period = (0.76 - 0.14 * fast) * rng.uniform(0.96, 1.04)
    stride = 1.75 + 1.35 * fast + rng.normal(0, 0.06)
    duty, under = 0.40 - 0.07 * fast, 0.165 - 0.03 * fast
    time = t + rng.uniform(0, period)
    a = 2 * np.pi * time / period
    plan.pelvis[:, 0] = 0.2 * plan.pelvis[:, 0] + 0.010 * np.cos(a - 2 * np.pi * 0.2)
    plan.pelvis[:, 2] *= 0.2
    _strides(plan, time, period, stride, rng.normal(0, 0.15), duty, under, rng.uniform(0.015, 0.045), RUN_FOOT,
             0.62 + 0.38 * fast, 0.07 + 0.06 * fast)  # fmt: skip
    low = 0.895 - 0.02 * fast + rng.normal(0, 0.006)
    plan.pelvis[:, 1] = low + (0.055 + 0.025 * fast) * (1 - np.cos(2 * a - 4 * np.pi * under)) / 2
    plan.angles[:, 0, :] *= 0.3
    hips = rng.uniform(4, 9)
    plan.add("pelvis", 5 + 5 * fast, -4.0 * np.sin(a - 0.6), -hips * np.cos(a + 0.95))
    counter = hips + rng.uniform(8, 15)
    plan.bend(4 + 6 * fast + 2 * np.cos(2 * a), 2.5 * np.sin(a - 0.6), counter * np.cos(a + 0.95))
    plan.add("neck", -6 * fast, 0.0, -0.5 * (counter - hips) * np.cos(a + 0.95))
    plan.add("head", -4.0, 0.0, -0.4 * (counter - hips) * np.cos(a + 0.95))
    swing, bent = rng.uniform(24, 40) * (0.75 + 0.4 * fast), rng.uniform(72, 100)
    for f, side in enumerate(SIDES):
        wave = -np.cos(a + 0.9 + np.pi * f)
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
        out: Array = (
            sign
            * rate
            * go
            * 0.8
            * (np.floor(p) + ease((p % 1.0) / 0.9) * 0.35 + np.clip((p % 1.0) / 0.9, 0, 1) * 0.65)
        )
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
        u = pulse(steps + 0.5 * f, 0.25, 0.01, 0.24)
        plan.free[:, f] = ease(u / 0.25)
        plan.angles[:, 14 + 4 * f] = np.stack([high * u + 2, 0 * u, plan.foot_yaw[:, f]], axis=1)
        plan.angles[:, 15 + 4 * f, 0] = (high + 6) * u + 4
        plan.foot_pitch[:, f] = -16 * u**2
        plan.feet[:, f, 1] = 0.08 * u
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
    low = rng.uniform(0.0, 0.13)

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
    plan.pelvis[:, 1] -= low + 0.012 + 0.010 * np.cos(2 * a)
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
    wide, height = rng.uniform(0.12, 0.26), rng.uniform(0.03, 0.10)
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
    groove, twist, q = rng.uniform(4, 11), rng.uniform(8, 26), a * rng.choice((1.0, 2.0))
    plan.heading += rng.uniform(3, 14) * drift(rng, t, 1, 0.35)[:, 0]
    plan.foot_yaw -= np.array([1.0, -1.0]) * plan.heading[:, None]
    plan.add("pelvis", 4 + 3 * bounce, groove * np.sin(q + 0.4), 0.5 * twist * np.sin(q))
    plan.bend(6 - 6 * bounce, -2.2 * groove * np.sin(q + 0.2), -1.3 * twist * np.sin(q + rng.uniform(-0.5, 0.5)))
    plan.add("neck", 2 * bounce, 3 * np.sin(2 * a))
    plan.add("head", 3 * bounce, 2 * np.sin(a), 8 * np.sin(a / 2))
    raised, style = rng.uniform(15, 115), rng.integers(0, 3)
    for f, side in enumerate(SIDES):
        q = a if style == 0 else 2 * a
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
