"""The synthetic person: a 22-joint articulated body with human proportions and joint limits (torch-free).

Coordinates are right-handed, y up, in metres. At rest the body stands upright on y = 0, faces +z, its LEFT is +x and its
arms hang with the thumbs forward, so that every joint's rest is the neutral zero of clinical goniometry and every segment's
frame is the identity.

A joint's local rotation is written as three anatomical angles in degrees, ``(sagittal, lateral, twist)``:
``R = exp(swing) @ Ry(twist)``, where the swing's rotation vector has no y part. Both sides share the signs:

=================  ==========================  ==========================  ==========================
joint              sagittal +                  lateral +                   twist +
=================  ==========================  ==========================  ==========================
pelvis ... head    bend forward                bend to the left            turn to the left
shoulder, hip      flexion                     abduction                   external rotation
elbow              flexion                     (none)                      supination
wrist              radial deviation            flexion                     (none)
knee               flexion                     (none)                      (none)
ankle              dorsiflexion                inversion                   toe-out
=================  ==========================  ==========================  ==========================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

JOINTS: Final[tuple[str, ...]] = (
    "pelvis", "spine", "chest", "neck", "head", "head_top",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_toe",
    "right_hip", "right_knee", "right_ankle", "right_toe",
)  # fmt: skip
PARENTS: Final[tuple[int, ...]] = (-1, 0, 1, 2, 3, 4, 2, 6, 7, 8, 2, 10, 11, 12, 0, 14, 15, 16, 0, 18, 19, 20)
INDEX: Final[dict[str, int]] = {name: i for i, name in enumerate(JOINTS)}

# Heights and lengths as fractions of stature: Drillis and Contini (1966) as printed in Winter, "Biomechanics and Motor
# Control of Human Movement", fig. 4.1; the spine's joints and the two half widths between joint centres (narrower than
# the bi-acromial and bi-iliac breadths printed there) are ours.
_HEIGHT: Final = {"ankle": 0.039, "knee": 0.285, "hip": 0.530, "pelvis": 0.550, "spine": 0.600, "chest": 0.700,
                  "neck": 0.830, "head": 0.895, "head_top": 1.0, "shoulder": 0.818}  # fmt: skip
_ARM: Final = {"elbow": 0.186, "wrist": 0.146, "hand": 0.095}
_HALF_SHOULDERS: Final = 0.108
_HALF_HIPS: Final = 0.052
_TOE_FORWARD: Final = 0.112
_HEEL_BACK: Final = 0.036
_TOE_HEIGHT: Final = 0.012


@dataclass(frozen=True)
class Proportions:
    """A person's size: stature and how the parts differ from the average body.

    Attributes:
        stature: Height of the vertex at rest, metres.
        legs: Multiplier of the leg's length (the torso and head give way, so that stature holds).
        arms: Multiplier of the arm's length.
        torso: Multiplier of the length from pelvis to neck.
        shoulders: Multiplier of the shoulders' width.
        hips: Multiplier of the hips' width.
        head: Multiplier of the head's size.
    """

    stature: float = 1.72
    legs: float = 1.0
    arms: float = 1.0
    torso: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0
    head: float = 1.0

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Proportions:
        """Draws a person: seven in eight are adults (1.50 to 1.98 m), the rest child-like (1.20 to 1.50 m)."""
        child = bool(rng.random() < 0.125)
        stature = float(rng.uniform(1.20, 1.50) if child else np.clip(rng.normal(1.70, 0.09), 1.50, 1.98))
        growth = float(np.clip((stature - 1.2) / 0.4, 0.0, 1.0))  # small bodies: larger head, shorter legs
        spread = np.clip(rng.normal(0.0, 1.0, 6), -2.0, 2.0)
        return cls(
            stature=stature,
            legs=float((0.96 + 0.04 * growth) * (1 + 0.025 * spread[0])),
            arms=float((0.97 + 0.03 * growth) * (1 + 0.03 * spread[1])),
            torso=float(1 + 0.03 * spread[2]),
            shoulders=float((0.95 + 0.05 * growth) * (1 + 0.06 * spread[3])),
            hips=float(1 + 0.07 * spread[4]),
            head=float((1.22 - 0.22 * growth) * (1 + 0.03 * spread[5])),
        )


def rest_offsets(proportions: Proportions) -> Array:
    """Offset of each joint from its parent at rest.

    Args:
        proportions: The person's size.

    Returns:
        (22, 3) metres; row 0 is the pelvis' place over the ground, so that the soles rest on y = 0.
    """
    h, p = _HEIGHT, proportions
    leg = h["pelvis"] * p.legs
    torso = (h["neck"] - h["pelvis"]) * p.torso
    head = (h["head_top"] - h["neck"]) * p.head
    unit = p.stature / (leg + torso + head)
    leg_u, torso_u, head_u, arm_u = unit * p.legs, unit * p.torso, unit * p.head, unit * p.arms
    out = np.zeros((len(JOINTS), 3))
    out[0, 1] = leg_u * h["pelvis"]
    for lower, upper in (("pelvis", "spine"), ("spine", "chest"), ("chest", "neck")):
        out[INDEX[upper], 1] = torso_u * (h[upper] - h[lower])
    out[INDEX["head"], 1] = head_u * (h["head"] - h["neck"])
    out[INDEX["head_top"], 1] = head_u * (h["head_top"] - h["head"])
    for side, s in (("left", 1.0), ("right", -1.0)):
        shoulder_x = s * unit * p.shoulders * _HALF_SHOULDERS
        out[INDEX[f"{side}_shoulder"]] = (shoulder_x, torso_u * (h["shoulder"] - h["chest"]), 0.0)
        for joint, length in _ARM.items():
            out[INDEX[f"{side}_{joint}"], 1] = -arm_u * length
        out[INDEX[f"{side}_hip"]] = (s * unit * p.hips * _HALF_HIPS, -leg_u * (h["pelvis"] - h["hip"]), 0.0)
        out[INDEX[f"{side}_knee"], 1] = -leg_u * (h["hip"] - h["knee"])
        out[INDEX[f"{side}_ankle"], 1] = -leg_u * (h["knee"] - h["ankle"])
        out[INDEX[f"{side}_toe"]] = (0.0, -leg_u * h["ankle"] + unit * _TOE_HEIGHT, unit * _TOE_FORWARD)
    return out


def sole_offsets(proportions: Proportions) -> Array:
    """(2, 3) heel and toe-tip points of the sole in the ankle's frame, metres; at rest both are on the ground."""
    offsets = rest_offsets(proportions)
    ankle = -(offsets[0, 1] + offsets[INDEX["left_hip"], 1] + offsets[INDEX["left_knee"], 1]
              + offsets[INDEX["left_ankle"], 1])  # fmt: skip
    toe = offsets[INDEX["left_toe"], 2]
    return np.array([[0.0, ankle, -toe * _HEEL_BACK / _TOE_FORWARD], [0.0, ankle, toe]])


@dataclass
class Motion:
    """A person in motion.

    Attributes:
        fps: Frames per second.
        positions: (T, 22, 3) joints in the world, metres.
        frames: (T, 22, 3, 3) orientation of the segment that starts at each joint; the columns are the segment's x, y, z
            axes in the world (identity at rest: x to the person's left, y up, z forward; limbs run along -y, trunk and
            head along +y, feet along +z).
        proportions: The person's size.
        kind: What is done, e.g. "walk" or "walk+wave".
        cycle: (T,) phase of the leading cycle in turns, or None where there is none.
    """

    fps: float
    positions: Array
    frames: Array
    proportions: Proportions
    kind: str
    cycle: Array | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def slice(self, start: int, stop: int) -> Motion:
        """The frames start (inclusive) to stop (exclusive)."""
        cycle = None if self.cycle is None else self.cycle[start:stop]
        return replace(self, positions=self.positions[start:stop], frames=self.frames[start:stop], cycle=cycle)

    def soles(self) -> Array:
        """(T, 2, 2, 3) world points of the soles: left and right, heel and toe tip."""
        points = sole_offsets(self.proportions)
        ankles = [INDEX["left_ankle"], INDEX["right_ankle"]]
        out: Array = np.einsum("tfij,kj->tfki", self.frames[:, ankles], points) + self.positions[:, ankles, None]
        return out

    def local_rotations(self) -> Array:
        """(T, 22, 3, 3) rotations relative to the parent's segment (the pelvis: to the world)."""
        out = self.frames.copy()
        out[:, 1:] = np.swapaxes(self.frames[:, list(PARENTS[1:])], -1, -2) @ self.frames[:, 1:]
        return out


def forward_kinematics(root: Array, rotations: Array, proportions: Proportions) -> tuple[Array, Array]:
    """Places the body.

    Args:
        root: (T, 3) pelvis in the world, metres.
        rotations: (T, 22, 3, 3) local rotations.
        proportions: The person's size.

    Returns:
        positions (T, 22, 3) in metres and frames (T, 22, 3, 3), as in ``Motion``.
    """
    offsets = rest_offsets(proportions)
    positions = np.empty((len(root), len(JOINTS), 3))
    frames = np.empty((len(root), len(JOINTS), 3, 3))
    positions[:, 0], frames[:, 0] = root, rotations[:, 0]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        positions[:, joint] = positions[:, parent] + frames[:, parent] @ offsets[joint]
        frames[:, joint] = frames[:, parent] @ rotations[:, joint]
    return positions, frames


# Sign of each angle's axis (x, z, y) by joint; see the table above.
def _signs() -> Array:
    out = np.zeros((len(JOINTS), 3))
    for name in ("pelvis", "spine", "chest", "neck", "head", "head_top"):
        out[INDEX[name]] = (1, -1, 1)
    for side, s in (("left", 1), ("right", -1)):
        rows = {"shoulder": (-1, s, s), "elbow": (-1, s, s), "wrist": (-1, -s, s), "hand": (-1, -s, s),
                "hip": (-1, s, s), "knee": (1, s, s), "ankle": (-1, -s, s), "toe": (-1, -s, s)}  # fmt: skip
        for joint, row in rows.items():
            out[INDEX[f"{side}_{joint}"]] = row
    return out


_SIGNS: Final = _signs()
_FREE: Final = ((-180.0, 180.0), (-180.0, 180.0), (-180.0, 180.0))
_FIXED: Final = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))

# Degrees, (sagittal, lateral, twist). Source: American Academy of Orthopaedic Surgeons, "The Clinical Measurement of
# Joint Motion" (1994), with the spine's and the neck's ranges shared out over their two joints. Dorsiflexion under
# load goes further than the table's 20 degrees: 35, the weight-bearing lunge test's normal range.
LIMITS: Final[dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]]] = {
    "pelvis": _FREE,
    "spine": ((-15.0, 50.0), (-20.0, 20.0), (-20.0, 20.0)),
    "chest": ((-15.0, 35.0), (-20.0, 20.0), (-30.0, 30.0)),
    "neck": ((-25.0, 25.0), (-25.0, 25.0), (-35.0, 35.0)),
    "head": ((-25.0, 25.0), (-25.0, 25.0), (-35.0, 35.0)),
    "head_top": _FIXED,
    "shoulder": ((-60.0, 180.0), (-50.0, 180.0), (-70.0, 90.0)),
    "elbow": ((0.0, 150.0), (0.0, 0.0), (-80.0, 80.0)),
    "wrist": ((-30.0, 20.0), (-70.0, 80.0), (0.0, 0.0)),
    "hand": _FIXED,
    "hip": ((-30.0, 120.0), (-30.0, 45.0), (-45.0, 45.0)),
    "knee": ((0.0, 140.0), (0.0, 0.0), (0.0, 0.0)),
    "ankle": ((-50.0, 35.0), (-20.0, 35.0), (-20.0, 20.0)),
    "toe": _FIXED,
}
_BOUNDS: Final = np.array([LIMITS.get(name, LIMITS.get(name.split("_")[-1], _FREE)) for name in JOINTS])


def _exp(vector: Array) -> Array:
    """Rotation matrices of rotation vectors (..., 3), by Rodrigues' formula."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vector.shape, 3)
    out: Array = np.eye(3) + np.sinc(angle / np.pi) * skew + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (skew @ skew)
    return out


def rotation_y(angle: Array) -> Array:
    """Rotations about the vertical axis by angles (...,) in radians: (..., 3, 3)."""
    vector = np.zeros((*np.shape(angle), 3))
    vector[..., 1] = angle
    return _exp(vector)


def rotations_from_angles(angles: Array, joints: Sequence[int] | None = None) -> Array:
    """Local rotations of anatomical angles.

    Args:
        angles: (..., J, 3) degrees as ``(sagittal, lateral, twist)``.
        joints: The J joints' indices; None means all 22.

    Returns:
        (..., J, 3, 3) rotation matrices.
    """
    signs = _SIGNS if joints is None else _SIGNS[list(joints)]
    signed = np.radians(angles) * signs
    swing = np.zeros_like(signed)
    swing[..., 0], swing[..., 2] = signed[..., 0], signed[..., 1]
    out: Array = _exp(swing) @ rotation_y(signed[..., 2])
    return out


def angles_from_rotations(rotations: Array, joints: Sequence[int] | None = None) -> Array:
    """The inverse of ``rotations_from_angles`` with a swing of at most 180 degrees.

    Args:
        rotations: (..., J, 3, 3) local rotations.
        joints: The J joints' indices; None means all 22.

    Returns:
        (..., J, 3) degrees.
    """
    r = rotations
    # twist: the quaternion's (w, y) part, up to the common factor 1 + trace or, beyond 90 degrees of swing, its y column
    w, y = 1 + r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2], r[..., 0, 2] - r[..., 2, 0]
    w2, y2 = y, 1 - r[..., 0, 0] + r[..., 1, 1] - r[..., 2, 2]
    use_y = y2 > w
    twist = 2 * np.where(use_y, np.arctan2(y2, w2), np.arctan2(y, w))
    twist = (twist + np.pi) % (2 * np.pi) - np.pi
    # the swing carries +y to the rotation's second column, hence its axis is (y2, 0, -y0)
    column = r[..., :, 1]
    side = np.hypot(column[..., 0], column[..., 2])
    angle = np.arctan2(side, column[..., 1])
    scale = np.where(side > 1e-9, angle / np.where(side > 1e-9, side, 1.0), 1.0)
    out = np.stack([column[..., 2] * scale, -column[..., 0] * scale, twist], axis=-1)
    signs = _SIGNS if joints is None else _SIGNS[list(joints)]
    result: Array = np.degrees(out) * signs
    return result


def clamp_angles(angles: Array) -> Array:
    """Moves angles (..., 22, 3) in degrees to the nearest ones inside the joints' limits."""
    return np.clip(angles, _BOUNDS[..., 0], _BOUNDS[..., 1])


def clamp_to_limits(rotations: Array) -> Array:
    """Moves local rotations (..., 22, 3, 3) to ones inside the joints' limits, angle by angle."""
    return rotations_from_angles(clamp_angles(angles_from_rotations(rotations)))


def violations(rotations: Array) -> Array:
    """How far local rotations leave the joints' limits.

    Args:
        rotations: (..., 22, 3, 3) local rotations.

    Returns:
        (..., 22) degrees: the largest excess over the joint's three angles, 0 inside. With the arm within 15 degrees of
        straight up the twist is not defined and left out.
    """
    angles = angles_from_rotations(rotations)
    excess = np.abs(angles - clamp_angles(angles))
    undefined = np.hypot(angles[..., 0], angles[..., 1]) > 165.0
    excess[..., 2] = np.where(undefined, 0.0, excess[..., 2])
    excess[..., 0, :] = 0.0  # the pelvis is free
    out: Array = excess.max(axis=-1)
    return out
