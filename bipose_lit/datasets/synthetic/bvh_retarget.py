"""Retarget: captured bones onto the synthetic body (torch-free).

Limbs take the directions of the file's bones, with the turn about their own axis that elbow and knee, as hinges, show; so a
file's rest pose, its joints' axes and its unit do not matter. Trunk and head take the turn of the file's nodes away from its
rest, in which BVH rigs stand upright; the rest's hips tell where it faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from bipose_lit.datasets.synthetic.body import (
    INDEX,
    JOINTS,
    PARENTS,
    Array,
    Motion,
    Proportions,
    clamp_to_limits,
    forward_kinematics,
    rest_offsets,
    rotation_y,
    rotations_from_angles,
)
from bipose_lit.types import BiposeError

# Our landmark: the file's names, most telling first; {S} is Left or Right, {x} is L or R. The names are those of the CMU
# collection's conversions for MotionBuilder and for 3ds Max and of Blender's metarig.
_LIMBS: Final[dict[str, tuple[str, ...]]] = {
    "hip": ("{S}UpLeg", "{S}Hip", "thigh.{x}"),
    "knee": ("{S}Leg", "{S}Knee", "shin.{x}"),
    "ankle": ("{S}Foot", "{S}Ankle", "foot.{x}"),
    "toe": ("{S}ToeBase", "{S}Toe", "toe.{x}", "foot.{x}/end", "{S}Foot/end", "{S}Ankle/end"),
    "shoulder": ("{S}Arm", "{S}Shoulder", "upper_arm.{x}"),
    "elbow": ("{S}ForeArm", "{S}Elbow", "forearm.{x}"),
    "wrist": ("{S}Hand", "{S}Wrist", "hand.{x}", "forearm.{x}/end", "{S}ForeArm/end"),
}
_HANDS: Final = ("{S}HandIndex1", "{S}FingerBase/end", "{S}Hand/end", "{S}Wrist/end", "hand.{x}/end")
_HEADS: Final = ("Head", "face", "head")


@dataclass(frozen=True)
class Skeleton:
    """A file's nodes: names, parents (-1 for the root) and rest places (J, 3) in its own unit; ``source`` is for messages."""

    source: str
    names: tuple[str, ...]
    parents: tuple[int, ...]
    rest: Array


def find_landmarks(skeleton: Skeleton) -> dict[str, int]:
    """The file's nodes for our joints.

    Returns:
        Node indices under "pelvis", "chest", "head" and the limbs' names of ``JOINTS`` (hands only where there are some).

    Raises:
        BiposeError: A joint that the retarget needs cannot be told by name.
    """
    at = {name.lower(): i for i, name in reversed(list(enumerate(skeleton.names)))}

    def find(options: tuple[str, ...], side: str) -> int | None:
        for option in options:
            name = option.format(S=side.capitalize(), x=side[:1].upper()).lower()
            if name in at:
                return at[name]
        return None

    out: dict[str, int] = {}
    for side in ("left", "right"):
        for joint, options in _LIMBS.items():
            node = find(options, side)
            if node is None:
                known = ", ".join(skeleton.names)[:160]
                raise BiposeError(
                    f"{skeleton.source}: no node for {side}_{joint}; its names are {known}, "
                    "rename them as in the CMU files (LeftUpLeg, LeftLeg, LeftFoot, LeftArm, ...)"
                )
            out[f"{side}_{joint}"] = node
        hand = find(_HANDS, side)
        if hand is not None:
            out[f"{side}_hand"] = hand
    head = find(_HEADS, "")
    if head is None:
        raise BiposeError(f"{skeleton.source}: no node for the head; rename it to 'Head'")
    out["head"] = head
    ancestors: dict[str, list[int]] = {}
    for name in ("left_shoulder", "right_shoulder", "head", "left_hip", "right_hip"):
        node, line = skeleton.parents[out[name]], []
        while node >= 0:
            line.append(node)
            node = skeleton.parents[node]
        ancestors[name] = line

    def common(*names: str) -> int:
        shared = [n for n in ancestors[names[0]] if all(n in ancestors[other] for other in names[1:])]
        return shared[0]

    out["chest"], out["pelvis"] = common("left_shoulder", "right_shoulder"), common("left_hip", "right_hip")
    return out


def _unit(v: Array) -> Array:
    out: Array = v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    return out


def _step(x: Array, low: float, high: float) -> Array:
    u = np.clip((x - low) / (high - low), 0.0, 1.0)
    out: Array = (u * u * (3 - 2 * u))[..., None]
    return out


def _halfway(a: Array, b: Array) -> Array:
    """The rotation between two, (T, 3, 3)."""
    u, _, v = np.linalg.svd(a + b)
    out: Array = u @ v
    return out


def _rest_frame(skeleton: Skeleton, landmarks: dict[str, int]) -> Array:
    """(3, 3) the body's axes (left, up, forward) at the file's rest, up being the world axis nearest to the trunk."""
    rest = skeleton.rest
    hips = rest[landmarks["left_hip"]], rest[landmarks["right_hip"]]
    trunk = rest[landmarks["head"]] - (hips[0] + hips[1]) / 2
    up = np.zeros(3)
    up[np.abs(trunk).argmax()] = np.sign(trunk[np.abs(trunk).argmax()])
    left = hips[0] - hips[1]
    if np.linalg.norm(np.cross(left, up)) < 1e-9:
        left = rest[landmarks["left_shoulder"]] - rest[landmarks["right_shoulder"]]
    forward = _unit(np.cross(left, up))
    return np.stack([np.cross(up, forward), up, forward], axis=1)


def _hinged(upper: Array, lower: Array, bends: float, straight: Array) -> tuple[Array, Array]:
    """Frames of a limb's two segments.

    Args:
        upper: (T, 3) the upper bone's direction.
        lower: (T, 3) the lower bone's direction.
        bends: +1 for a hinge that flexes backward (knee), -1 forward (elbow).
        straight: (T, 3) the hinge's axis where the limb is straight and shows none.

    Returns:
        (T, 3, 3) of the upper and of the lower segment; they differ by a turn about their common x axis alone.
    """
    cross = bends * np.cross(upper, lower)
    sine = np.linalg.norm(cross, axis=1)
    angle = np.arctan2(sine, (upper * lower).sum(axis=1))
    fallback = _unit(straight - (straight * upper).sum(axis=1, keepdims=True) * upper)
    shown = _unit(cross)
    # a rig's nearly straight limb may bend sideways or backward, which shows no hinge
    seen = _step(np.degrees(angle), 10.0, 30.0) * _step((shown * fallback).sum(axis=1), -0.5, 0.2)
    axis = seen * shown + (1 - seen) * fallback
    axis = _unit(axis - (axis * upper).sum(axis=1, keepdims=True) * upper)
    flexion = bends * np.maximum(np.arctan2((cross * axis).sum(axis=1), (upper * lower).sum(axis=1)), 0.0)
    first = np.stack([axis, -upper, np.cross(axis, -upper)], axis=-1)
    c, s = np.cos(flexion), np.sin(flexion)
    turn = np.zeros_like(first)
    turn[:, 0, 0] = 1.0
    turn[:, 1, 1] = turn[:, 2, 2] = c
    turn[:, 2, 1], turn[:, 1, 2] = s, -s
    # what the hinge cannot show is shared out, so that the limb's end points where the file's does
    second = first @ turn
    swing = _shortest(_unit(-first[:, :, 1] - second[:, :, 1]), _unit(upper + lower))
    return swing @ first, swing @ second


def _shortest(a: Array, b: Array) -> Array:
    """(T, 3, 3) the smallest rotation that takes directions a to b, (T, 3) each, not opposite."""
    v = np.cross(a, b)
    zero = np.zeros(len(v))
    skew = np.stack([zero, -v[:, 2], v[:, 1], v[:, 2], zero, -v[:, 0], -v[:, 1], v[:, 0], zero], axis=-1).reshape(
        -1, 3, 3
    )
    cosine = (a * b).sum(axis=1)[:, None, None]
    out: Array = np.eye(3) + skew + skew @ skew / np.maximum(1 + cosine, 1e-3)
    return out


def retarget(skeleton: Skeleton, landmarks: dict[str, int], positions: Array, rotations: Array, fps: float,
             proportions: Proportions, heading: float | None, kind: str) -> Motion:  # fmt: skip
    """Puts captured motion on a body of ours.

    Args:
        skeleton: The file's nodes.
        landmarks: ``find_landmarks`` of it.
        positions: (T, J, 3) of the nodes, y up, any unit.
        rotations: (T, J, 3, 3) of the nodes.
        fps: Frames per second.
        proportions: The person's size.
        heading: Turns the whole motion so that its first frame faces this way, radians; None keeps the file's.
        kind: The motion's name.

    Returns:
        The motion, inside the joints' limits and on the ground.
    """
    at = {name: positions[:, node] for name, node in landmarks.items()}
    body = _rest_frame(skeleton, landmarks)
    count = len(positions)
    frames = np.zeros((count, len(JOINTS), 3, 3))
    for name in ("pelvis", "chest", "head"):
        frames[:, INDEX[name]] = rotations[:, landmarks[name]] @ body
    frames[:, INDEX["spine"]] = _halfway(frames[:, INDEX["pelvis"]], frames[:, INDEX["chest"]])
    frames[:, INDEX["neck"]] = _halfway(frames[:, INDEX["chest"]], frames[:, INDEX["head"]])
    frames[:, INDEX["head_top"]] = frames[:, INDEX["head"]]
    offsets = rest_offsets(proportions)
    slope = float(np.arctan2(-offsets[INDEX["left_toe"], 1], offsets[INDEX["left_toe"], 2]))
    for side in ("left", "right"):
        ends = (("hip", "knee"), ("knee", "ankle"), ("ankle", "toe"), ("shoulder", "elbow"), ("elbow", "wrist"))
        bone = {f"{a}-{b}": _unit(at[f"{side}_{b}"] - at[f"{side}_{a}"]) for a, b in ends}
        pelvis, chest = frames[:, 0], frames[:, INDEX["chest"]]
        outward = np.cross(-bone["knee-ankle"], bone["ankle-toe"]) + 0.5 * pelvis[:, :, 0]
        frames[:, INDEX[f"{side}_hip"]], frames[:, INDEX[f"{side}_knee"]] = _hinged(
            bone["hip-knee"], bone["knee-ankle"], 1.0, outward
        )
        frames[:, INDEX[f"{side}_ankle"]] = _foot(
            bone["ankle-toe"], -bone["knee-ankle"], at[f"{side}_ankle"][:, 1], slope
        )
        neutral = (_shortest(-chest[:, :, 1], bone["shoulder-elbow"]) @ chest)[
            :, :, 0
        ]  # swung from hanging, not twisted
        shoulder, elbow = _hinged(bone["shoulder-elbow"], bone["elbow-wrist"], -1.0, neutral)
        frames[:, INDEX[f"{side}_shoulder"]] = shoulder
        carried = np.zeros((1, 1, 3))
        carried[..., 2] = -15.0  # no file tells the forearm's turn well: between thumb forward and palm down
        elbow = elbow @ rotations_from_angles(carried, [INDEX[f"{side}_elbow"]])[0]
        frames[:, INDEX[f"{side}_elbow"]] = frames[:, INDEX[f"{side}_wrist"]] = elbow
        hand = at.get(f"{side}_hand")
        if hand is not None and np.linalg.norm(hand - at[f"{side}_wrist"], axis=1).min() > 1e-6:
            along = _unit(hand - at[f"{side}_wrist"])
            axis = _unit(elbow[:, :, 0] - (elbow[:, :, 0] * along).sum(axis=1, keepdims=True) * along)
            frames[:, INDEX[f"{side}_wrist"]] = np.stack([axis, -along, np.cross(axis, -along)], axis=-1)
        frames[:, INDEX[f"{side}_hand"]] = frames[:, INDEX[f"{side}_wrist"]]
        frames[:, INDEX[f"{side}_toe"]] = frames[:, INDEX[f"{side}_ankle"]]
    local = frames.copy()
    local[:, 1:] = np.swapaxes(frames[:, list(PARENTS[1:])], -1, -2) @ frames[:, 1:]
    local = clamp_to_limits(local)

    ours = -(offsets[INDEX["left_knee"], 1] + offsets[INDEX["left_ankle"], 1])
    theirs = np.mean([np.linalg.norm(at[f"{s}_{a}"] - at[f"{s}_{b}"], axis=1).mean() for s in ("left", "right") for a, b in
                      (("hip", "knee"), ("knee", "ankle"))]) * 2  # fmt: skip
    hips = (at["left_hip"] + at["right_hip"]) / 2
    root = hips * (ours / max(float(theirs), 1e-9))
    root -= local[:, 0] @ ((offsets[INDEX["left_hip"]] + offsets[INDEX["right_hip"]]) / 2)
    if heading is not None:
        ahead = local[0, 0, :, 2]
        turn = rotation_y(np.array(heading - np.arctan2(ahead[0], ahead[2])))
        root, local[:, 0] = root @ turn.T, turn @ local[:, 0]
    root[:, ::2] -= root[count // 2, ::2]
    positions_ours, frames_ours = forward_kinematics(root, local, proportions)
    motion = Motion(fps, positions_ours, frames_ours, proportions, kind)
    lowest = motion.soles()[..., 1].min(axis=(1, 2))
    # the level that the feet keep coming back to is the ground; what still sinks below it is raised smoothly
    rise = -np.percentile(lowest, 10) + np.zeros(count)
    sunk = np.maximum(-(lowest + rise), 0.0)
    if count > 1:
        rise += np.maximum(gaussian_filter1d(sunk, 0.1 * fps, mode="nearest"), sunk)
    motion.positions = motion.positions + rise[:, None, None] * np.array([0.0, 1.0, 0.0])
    return motion


def _foot(toe: Array, shin_up: Array, height: Array, slope: float) -> Array:
    """(T, 3, 3) frames of a foot, level when the file's ankle is at its lowest.

    Args:
        toe: (T, 3) direction from ankle to toe.
        shin_up: (T, 3) direction from ankle to knee.
        height: (T,) the ankle's height.
        slope: How steeply our own foot's bone falls from ankle to toe when level, radians.
    """
    falls = np.arcsin(np.clip(-toe[:, 1], -1, 1))
    level = float(np.median(falls[height <= np.percentile(height, 25)]))
    level = level if abs(level - slope) < np.radians(35) else slope  # a clip in which the feet never rest
    side = _unit(np.cross(shin_up, toe))
    up = np.cross(toe, side)
    forward = np.cos(level) * toe + np.sin(level) * up
    return np.stack([side, np.cross(forward, side), forward], axis=-1)
