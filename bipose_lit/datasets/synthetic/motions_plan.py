"""From a motion's plan to a body on the ground: leg inverse kinematics, joint limits, contact, cross-fades (torch-free).

A plan says what trunk and arms do as anatomical angles (see ``body``) and what the legs do in one of two ways, mixed by
``free``: 0, the foot follows a path on the ground and the leg is solved for it; 1, hip and knee follow given angles. The
way of the pelvis is then derived from the foot that carries the body, so that a stance foot stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d

from bipose_lit.datasets.synthetic.body import (
    INDEX,
    JOINTS,
    Array,
    Motion,
    Proportions,
    angles_from_rotations,
    clamp_angles,
    forward_kinematics,
    rest_offsets,
    rotation_y,
    rotations_from_angles,
    sole_offsets,
)

SIDES = ("left", "right")
LEGS = tuple([INDEX[f"{side}_{part}"] for part in ("hip", "knee", "ankle")] for side in SIDES)
_CONTACT = 0.004  # metres over the lowest point at which a sole's share of the weight has fallen to 1/e
_CLEAR = 0.025  # metres between the ground and a leg that swings by its angles
_REACH = 0.9985  # a leg is never locked quite straight: 6 degrees are left in the knee


def ease(x: Array) -> Array:
    """Minimum-jerk step: 0 before 0, 1 after 1 (Flash and Hogan, 1985)."""
    u = np.clip(x, 0.0, 1.0)
    out: Array = u**3 * (10 - 15 * u + 6 * u**2)
    return out


def pulse(phase: Array, rise: float, hold: float, fall: float) -> Array:
    """A repeated movement by phase in turns: up in ``rise`` of a turn, held, down; the rest of the turn is 0."""
    p = phase % 1.0
    return ease(p / rise) - ease((p - rise - hold) / fall)


def drift(rng: np.random.Generator, t: Array, count: int, fastest: float = 1.2, slowest: float = 0.08) -> Array:
    """Slow, smooth, unrepeated wander of unit variance.

    Args:
        rng: Source of randomness.
        t: (T,) seconds.
        count: How many independent signals.
        fastest: Highest frequency, Hz.
        slowest: Lowest frequency, Hz; power falls as 1/f^2 from here.

    Returns:
        (T, count).
    """
    frequency = slowest * (fastest / slowest) ** rng.random((7, count))
    weight = 1.0 / frequency
    weight *= np.sqrt(2.0 / (weight**2).sum(axis=0))
    phase = 2 * np.pi * rng.random((7, count))
    out: Array = (weight * np.sin(2 * np.pi * frequency * t[:, None, None] + phase)).sum(axis=1)
    return out


@dataclass
class Plan:
    """What a body does over T frames; lengths in leg lengths, angles in degrees.

    Attributes:
        t: (T,) seconds.
        angles: (T, 22, 3) anatomical angles; the legs' rows matter where ``free`` is 1.
        heading: (T,) direction of travel about the vertical axis; grows to the left.
        pelvis: (T, 3) height 1 = hips over straight legs; x and z over the same ground as the feet.
        feet: (T, 2, 3) ground point under each ankle; y is the sole's clearance.
        foot_yaw: (T, 2) toe-out is positive for both feet, relative to the heading.
        foot_pitch: (T, 2) toes up is positive; a planted foot rolls over the heel or over the toes.
        free: (T, 2) 0 = the leg is solved for the foot's path, 1 = the leg follows its angles.
        support: (T, 2) the share of each foot in carrying the body.
        lift: (T,) clearance of the lowest sole (flight).
        cycle: (T,) phase of the leading cycle in turns.
        claims: Joints that this motion needs when it is laid over another one.
    """

    t: Array
    angles: Array
    heading: Array
    pelvis: Array
    feet: Array
    foot_yaw: Array
    foot_pitch: Array
    free: Array
    support: Array
    lift: Array
    cycle: Array
    claims: tuple[str, ...] = field(default=())

    def add(
        self, joint: str, sagittal: Array | float = 0.0, lateral: Array | float = 0.0, twist: Array | float = 0.0
    ) -> None:
        """Adds angles to a joint."""
        row = self.angles[:, INDEX[joint]]
        row[:, 0] += sagittal
        row[:, 1] += lateral
        row[:, 2] += twist

    def move(self, weight: Array, joint: str, sagittal: Array | float, lateral: Array | float = 0.0,
             twist: Array | float = 0.0) -> None:  # fmt: skip
        """Moves a joint's angles to given ones by weight (T,) in 0..1."""
        row = self.angles[:, INDEX[joint]]
        for axis, value in enumerate((sagittal, lateral, twist)):
            row[:, axis] += weight * (value - row[:, axis])

    def bend(self, amount: Array | float, side: Array | float = 0.0, twist: Array | float = 0.0) -> None:
        """Bends the trunk: the amounts are shared out over spine and chest as people do."""
        self.add("spine", 0.6 * amount, 0.5 * side, 0.4 * twist)
        self.add("chest", 0.4 * amount, 0.5 * side, 0.6 * twist)


def standing(t: Array, rng: np.random.Generator, width: float | None = None, stagger: float = 0.0) -> Plan:
    """A person at ease who sways, breathes and looks about; the other motions build on it."""
    count = len(t)
    half = float(rng.uniform(0.085, 0.15)) if width is None else width
    plan = Plan(t, np.zeros((count, len(JOINTS), 3)), np.zeros(count), np.zeros((count, 3)), np.zeros((count, 2, 3)),
                np.zeros((count, 2)), np.zeros((count, 2)), np.zeros((count, 2)), np.ones((count, 2)), np.zeros(count),
                np.zeros(count))  # fmt: skip
    plan.feet[:, 0, 0], plan.feet[:, 1, 0] = half, -half
    plan.feet[:, 0, 2], plan.feet[:, 1, 2] = stagger / 2, -stagger / 2
    plan.foot_yaw += rng.uniform(3.0, 14.0, 2)
    sway = drift(rng, t, 3, 0.9)
    plan.pelvis[:, 0] = 0.018 * sway[:, 0] + rng.normal(0, 0.008)
    plan.pelvis[:, 1] = 0.999 + 0.001 * sway[:, 1] - rng.uniform(0, 0.004)  # as high as the planted legs reach
    plan.pelvis[:, 2] = 0.02 + 0.012 * sway[:, 2]
    slow = drift(rng, t, 12, 1.0) * rng.uniform(0.35, 1.0)
    plan.add("pelvis", rng.uniform(0, 5), 1.2 * slow[:, 0], 2.5 * slow[:, 1])
    breath = np.sin(2 * np.pi * rng.uniform(0.2, 0.35) * t + rng.uniform(0, 6))
    plan.bend(
        rng.uniform(0, 5) + 1.2 * slow[:, 2] - 0.5 * breath, 1.5 * slow[:, 3] - plan.angles[:, 0, 1], 2.0 * slow[:, 4]
    )
    stoop = rng.uniform(-2, 7)
    plan.add("neck", stoop + 2.0 * slow[:, 5], 1.5 * slow[:, 6], 7.0 * slow[:, 7])
    plan.add("head", -0.6 * stoop + 2.5 * slow[:, 8], 1.5 * slow[:, 9], 6.0 * slow[:, 10])
    carried = rng.uniform((-4, 5, -15), (8, 13, 10))
    bent, turned = rng.uniform(9, 26), rng.uniform(-30, 15)
    for side in SIDES:
        wander = drift(rng, t, 5, 1.2)
        own = rng.normal(0, 2.0, 3)
        plan.add(f"{side}_shoulder", *(carried + own + wander[:, :3] * (2.2, 1.0, 2.5)).T)
        plan.add(f"{side}_elbow", bent + own[0] + 2.5 * wander[:, 3], 0.0, turned + 3 * own[1])
        plan.add(f"{side}_wrist", -2.0, 8.0 + 4.0 * wander[:, 4])
    return plan


def _ankles(plan: Plan, heading: Array, soles: Array, leg: float) -> tuple[Array, Array, Array]:
    """Ankles (T, 2, 3), the feet's frames and their frames without the roll, (T, 2, 3, 3), of the feet's paths."""
    side = np.array([1.0, -1.0])
    turned = rotation_y(heading[:, None] + np.radians(side * plan.foot_yaw))
    roll = np.zeros((len(heading), 2, 3))
    roll[..., 0] = plan.foot_pitch
    frame = turned @ rotations_from_angles(roll, [LEGS[0][2], LEGS[1][2]])
    pivot = np.where(plan.foot_pitch[..., None] < 0, soles[1], soles[0])
    at = plan.feet * leg + (turned @ (pivot * (1.0, 0.0, 1.0))[..., None] - frame @ pivot[..., None])[..., 0]
    return at, frame, turned


def _within_reach(plan: Plan, pelvis: Array, pelvis_frame: Array, ankles: Array, offsets: Array) -> Array:
    """(T,) the pelvis' height, lowered softly where a planted leg would be too short."""
    soft = 0.003
    total = np.exp(-pelvis[:, 1] / soft + pelvis[:, 1].min() / soft)
    for foot, (hip, knee, ankle) in enumerate(LEGS):
        joint = pelvis_frame @ offsets[hip]
        away = ankles[:, foot] - pelvis - joint
        reach = -_REACH * (offsets[knee, 1] + offsets[ankle, 1])
        flat = np.minimum(away[:, 0] ** 2 + away[:, 2] ** 2, 0.9 * reach**2)
        highest = ankles[:, foot, 1] - joint[:, 1] + np.sqrt(reach**2 - flat) + 0.2 * reach * plan.free[:, foot]
        total += np.exp((pelvis[:, 1].min() - highest) / soft)
    out: Array = pelvis[:, 1].min() - soft * np.log(total)
    return out


def _leg(way: Array, pelvis_frame: Array, ahead: Array, thigh: float, shin: float, hip: int) -> Array:
    """(T, 4) hip's three angles and the knee's flexion for an ankle at ``way`` (T, 3) from the hip, the knee to ``ahead``."""
    far = np.linalg.norm(way, axis=1)
    length = np.clip(far, 0.35 * (thigh + shin), _REACH * (thigh + shin))
    up = -way / far[:, None]
    hinge = np.cross(up, ahead)
    hinge /= np.linalg.norm(hinge, axis=1, keepdims=True)
    raised = np.arccos(np.clip((thigh**2 + length**2 - shin**2) / (2 * thigh * length), -1, 1))
    bent = np.pi - np.arccos(np.clip((thigh**2 + shin**2 - length**2) / (2 * thigh * shin), -1, 1))
    y = np.cos(raised)[:, None] * up - np.sin(raised)[:, None] * np.cross(hinge, up)
    frame = np.stack([hinge, y, np.cross(hinge, y)], axis=-1)
    angles = angles_from_rotations((np.swapaxes(pelvis_frame, -1, -2) @ frame)[:, None], [hip])[:, 0]
    return np.concatenate([angles, np.degrees(bent)[:, None]], axis=1)


def _solve_legs(plan: Plan, pelvis_frame: Array, heading: Array, proportions: Proportions) -> Array:
    """(T, 22, 3) the plan's angles with the legs solved for the feet."""
    offsets, soles = rest_offsets(proportions), sole_offsets(proportions)
    angles = plan.angles.copy()
    leg = offsets[0, 1] + offsets[INDEX["left_hip"], 1]
    ankles, foot_frames, turns = _ankles(plan, heading, soles, leg)
    pelvis = plan.pelvis * leg + np.array([0.0, offsets[0, 1] - leg, 0.0])
    pelvis[:, 1] = _within_reach(plan, pelvis, pelvis_frame, ankles, offsets)
    for foot, (hip, knee, ankle) in enumerate(LEGS):
        s = 1.0 if foot == 0 else -1.0
        free, foot_frame = plan.free[:, foot, None], foot_frames[:, foot]
        start = pelvis + pelvis_frame @ offsets[hip]
        thigh, shin = -offsets[knee, 1], -offsets[ankle, 1]
        ahead = turns[:, foot, :, 2] + pelvis_frame[:, :, 2] + 0.18 * s * pelvis_frame[:, :, 0]
        own = np.concatenate([angles[:, hip], angles[:, knee, :1]], axis=1)
        if free.min() < 1.0:
            solved = _leg(ankles[:, foot] - start, pelvis_frame, ahead, thigh, shin, hip)
            own = solved + free * (own - solved)
        if free.max() > 0.0:  # a leg that follows its angles must not reach through the ground
            angles[:, hip], angles[:, knee, 0] = own[:, :3], own[:, 3]
            upper = rotations_from_angles(clamp_angles(angles)[:, [hip, knee]], [hip, knee])
            thigh_frame = pelvis_frame @ upper[:, 0]
            at = start + thigh_frame @ offsets[knee] + thigh_frame @ upper[:, 1] @ offsets[ankle]
            low = (at[:, None] + np.swapaxes(foot_frame @ soles.T, -1, -2))[..., 1].min(axis=1)
            sunk = np.maximum(_CLEAR * free[:, 0] - low, 0.0)
            at[:, 1] += sunk
            bent = _leg(at - start, pelvis_frame, ahead, thigh, shin, hip)
            own += ease(sunk / _CLEAR)[:, None] * (bent - own)
        angles[:, hip], angles[:, knee, 0] = own[:, :3], own[:, 3]
        upper = rotations_from_angles(clamp_angles(angles)[:, [hip, knee]], [hip, knee])
        shin_frame = pelvis_frame @ upper[:, 0] @ upper[:, 1]
        flat = np.swapaxes(shin_frame, -1, -2) @ foot_frame
        angles[:, ankle] = angles_from_rotations(flat[:, None], [ankle])[:, 0]
    return clamp_angles(angles)


@dataclass
class Posture:
    """A solved plan: joint angles that a cross-fade can mix, and how the body touches the ground (lengths in metres).

    ``mixed`` is 0 where one plan alone leads and 1 in the middle of a cross-fade; ``velocity`` (T, 2) is the planned one over
    the ground, in the frame of the heading.
    """

    angles: Array
    heading: Array
    support: Array
    lift: Array
    mixed: Array
    velocity: Array
    cycle: Array


def solve(plan: Plan, proportions: Proportions, fps: float) -> Posture:
    """Solves the legs of a plan and brings every joint inside its limits."""
    heading = np.radians(plan.heading)
    pelvis_frame = rotation_y(heading) @ rotations_from_angles(plan.angles[:, :1], [0])[:, 0]
    angles = _solve_legs(plan, pelvis_frame, heading, proportions)
    offsets = rest_offsets(proportions)
    leg = float(offsets[0, 1] + offsets[INDEX["left_hip"], 1])
    velocity = np.gradient(plan.pelvis[:, ::2] * leg, axis=0) * fps if len(plan.t) > 1 else np.zeros((len(plan.t), 2))
    # in the heading's own frame, so that a cross-fade can turn it
    c, s = np.cos(heading), np.sin(heading)
    own = np.stack([c * velocity[:, 0] - s * velocity[:, 1], s * velocity[:, 0] + c * velocity[:, 1]], axis=1)
    return Posture(angles, heading, plan.support, plan.lift * leg, np.zeros(len(plan.t)), own, plan.cycle)


def crossfade(postures: Sequence[Posture], weights: Array) -> Posture:
    """Mixes postures frame by frame.

    Args:
        postures: S postures over the same T frames.
        weights: (S, T), which sum to 1.

    Returns:
        The mixture; the heading is the integral of the mixed turning rates.
    """
    if len(postures) == 1:
        return postures[0]

    def mix(name: str) -> Array:
        parts = [getattr(p, name) for p in postures]
        out: Array = sum(
            (w.reshape(-1, *[1] * (x.ndim - 1)) * x for w, x in zip(weights, parts, strict=True)), start=0.0 * parts[0]
        )
        return out

    rates = np.stack([np.diff(p.heading, prepend=p.heading[:1]) for p in postures])
    heading = np.cumsum((weights * rates).sum(axis=0))
    leading = weights.argmax(axis=0)
    cycle = np.choose(leading, [p.cycle for p in postures])
    mixed = np.clip(4 * (1 - (weights**2).sum(axis=0)), 0, 1)
    return Posture(mix("angles"), heading, mix("support"), mix("lift"), mixed, mix("velocity"), cycle)


def stand_on_ground(posture: Posture, proportions: Proportions, fps: float, heading: float, kind: str) -> Motion:
    """Puts a posture on the ground and lets its stance feet carry it along.

    Args:
        posture: What the body does.
        proportions: The person's size.
        fps: Frames per second.
        heading: Direction of the first frame about the vertical axis, radians.
        kind: The motion's name.

    Returns:
        The motion; the pelvis of the middle frame is over the origin.
    """
    rotations = rotations_from_angles(clamp_angles(posture.angles))
    turn = posture.heading - posture.heading[0] + heading
    rotations[:, 0] = rotation_y(turn) @ rotations[:, 0]
    count = len(turn)
    positions, frames = forward_kinematics(np.zeros((count, 3)), rotations, proportions)
    motion = Motion(fps, positions, frames, proportions, kind, posture.cycle)
    soles = motion.soles().reshape(count, 4, 3)
    lowest = soles[..., 1].min(axis=1)
    height = posture.lift - lowest
    blend = posture.mixed
    if count > 1 and blend.max() > 0:  # nobody planned the contacts of a cross-fade: take off their jerks
        smooth = gaussian_filter1d(height, 0.06 * fps, mode="nearest")
        smooth += np.maximum(
            gaussian_filter1d(np.maximum(height - smooth, 0.0), 0.04 * fps, mode="nearest"), height - smooth - 0.008
        )
        height = height + blend * (smooth - height)
    weight = np.exp(-(soles[..., 1] - lowest[:, None]) / _CONTACT) * (np.repeat(posture.support, 2, axis=1) + 1e-3)
    root = np.zeros((count, 3))
    root[:, 1] = height
    if count > 1:
        step = np.diff(soles[..., ::2], axis=0)
        both = np.sqrt(weight[1:] * weight[:-1]) + 1e-12
        carried = -(both[..., None] * step).sum(axis=1) / both.sum(axis=1, keepdims=True)
        flight = (posture.lift[1:] + posture.lift[:-1]) / 2 > 0.004
        if flight.any():
            c, s = np.cos(turn), np.sin(turn)
            v = posture.velocity / fps
            planned = np.stack([c * v[:, 0] + s * v[:, 1], -s * v[:, 0] + c * v[:, 1]], axis=1)[1:]
            carried = np.where(flight[:, None], planned, carried)
        if blend.max() > 0:
            smooth = gaussian_filter1d(carried, 0.12 * fps, axis=0, mode="nearest")
            carried = carried + blend[1:, None] * (smooth - carried)
        root[1:, ::2] = np.cumsum(carried, axis=0)
        root[:, ::2] -= root[count // 2, ::2]
    motion.positions = positions + root[:, None]
    return motion
