"""What synthetic people do: a catalogue of motions, their blends, and which split may see which (torch-free).

``MOTION_SPLITS`` holds whole motions out. Stage 1, where the per-frame networks are pre-trained, shares no motion with the
ablation, but covers its poses: raised arms, crouches, bends, legs apart, flight, and ``freestyle``, a smooth random walk
through the joint angles. The validation and the test split hold motions that no training has seen.

A kind is a motion ("walk"), an upper body over another's lower body ("walk+wave": the legs of the first, the arms of the
second) or a cross-fade in time ("walk>turn>walk"), and a cross-fade may join layered motions ("walk+wave>stand").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from bipose_lit.datasets.synthetic import motions_action as action
from bipose_lit.datasets.synthetic import motions_gait as gait
from bipose_lit.datasets.synthetic import motions_pose as pose
from bipose_lit.datasets.synthetic.body import INDEX, Array, Motion, Proportions
from bipose_lit.datasets.synthetic.motions_plan import Plan, crossfade, ease, solve, stand_on_ground
from bipose_lit.types import BiposeError

MOTIONS: Final[dict[str, Callable[[Array, np.random.Generator], Plan]]] = {
    "walk": gait.walk, "run": gait.run, "turn": gait.turn, "march": gait.march, "sidestep": gait.sidestep,
    "dance": gait.dance, "jumping_jack": gait.jumping_jack,
    "stand": action.stand, "squat": action.squat, "wave": action.wave, "reach": action.reach, "sit_stand": action.sit_stand,
    "kick": action.kick, "throw": action.throw, "lunge": action.lunge, "jump": action.jump,
    "bend": pose.bend, "clap": pose.clap, "punch": pose.punch, "stretch": pose.stretch, "freestyle": pose.freestyle,
}  # fmt: skip

MOTION_SPLITS: Final[dict[str, tuple[str, ...]]] = {
    "stage1": ("run", "jumping_jack", "kick", "throw", "lunge", "dance", "jump", "bend", "freestyle", "freestyle", "freestyle",
               "dance+throw", "freestyle>run", "kick>jump", "lunge>freestyle"),
    "train": ("walk", "squat", "wave", "reach", "turn", "sit_stand", "stand",
              "walk+wave", "walk+reach", "walk>turn>walk", "stand>walk", "reach>stand", "squat>stand", "turn>sit_stand"),
    "val": ("walk", "squat", "wave", "reach", "turn", "march", "clap", "walk+clap", "stand>march", "walk>turn"),
    "test": ("walk", "reach", "turn", "sit_stand", "punch", "sidestep", "stretch",
             "walk+stretch", "sidestep+wave", "walk>punch", "stand>sidestep", "walk>turn>walk"),
}  # fmt: skip
"""Kinds by split; a kind that stands there twice is drawn twice as often."""

_ARM = ("shoulder", "elbow", "wrist")


def parts_of(kind: str) -> tuple[str, ...]:
    """The plain motions that a kind is made of, each once, in order.

    Raises:
        BiposeError: A motion of that name does not exist.
    """
    names = tuple(dict.fromkeys(kind.replace(">", "+").split("+")))
    for name in names:
        if name not in MOTIONS:
            raise BiposeError(f"motion {kind!r}: there is no {name!r}; choose from {', '.join(MOTIONS)}")
    return names


def _layer(lower: Plan, upper: Plan) -> Plan:
    """Lays the arms, and half of the trunk's and head's movement, of one plan over another plan."""
    for name in ("spine", "chest", "neck", "head"):
        row = lower.angles[:, INDEX[name]]
        row += 0.5 * (upper.angles[:, INDEX[name]] - row)
    for claim in upper.claims or ("left_shoulder", "right_shoulder"):
        for part in _ARM:
            joint = INDEX[claim.replace("shoulder", part)]
            lower.angles[:, joint] = upper.angles[:, joint]
    return lower


def _plan(kind: str, t: Array, rng: np.random.Generator) -> Plan:
    first, *others = kind.split("+")
    plan = MOTIONS[first](t, rng)
    for name in others:
        plan = _layer(plan, MOTIONS[name](t, rng))
    return plan


def make_motion(
    kind: str, frames: int, fps: float, rng: np.random.Generator, proportions: Proportions | None = None
) -> Motion:
    """Makes one person's motion; tempo, size, phase, style and direction are the person's own.

    Args:
        kind: A motion of ``MOTIONS`` or a blend of several.
        frames: T, at least 1.
        fps: Frames per second.
        rng: Source of randomness.
        proportions: The person's size; None draws one.

    Returns:
        A motion of T frames that begins amid the movement, in a random direction.

    Raises:
        BiposeError: An unknown kind, or fewer than one frame.
    """
    parts_of(kind)
    if frames < 1 or not fps > 0:
        raise BiposeError(
            f"motion {kind!r}: cannot make {frames} frames at {fps} frames per second; ask for at least one frame"
        )
    person = Proportions.sample(rng) if proportions is None else proportions
    # a phrase starts long before its clip, so that phases and slow drifts are everywhere alike
    t = rng.uniform(5.0, 60.0) + np.arange(frames) / fps
    sequence = kind.split(">")
    postures = [solve(_plan(name, t, rng), person, fps) for name in sequence]
    posture = crossfade(postures, _weights(t, len(sequence), rng))
    return stand_on_ground(posture, person, fps, float(rng.uniform(0, 2 * np.pi)), kind)


def _weights(t: Array, count: int, rng: np.random.Generator) -> Array:
    """(S, T) who leads when: the changes lie inside the clip, evenly but for some jitter, and take 0.35 to 0.6 s."""
    if count == 1:
        return np.ones((1, len(t)))
    span = max(float(t[-1] - t[0]), 1e-6)
    at = t[0] + span * (np.arange(1, count) + rng.uniform(-0.25, 0.25, count - 1)) / count
    width = min(rng.uniform(0.35, 0.6), 1.1 * span / count)
    later = np.stack([np.ones_like(t), *(ease((t - x) / width + 0.5) for x in at), np.zeros_like(t)])
    out: Array = later[:-1] - later[1:]
    return out
