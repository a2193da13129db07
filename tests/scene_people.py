"""Random people in map pixels whose limbs do not coincide, and what assembly should make of them."""

from __future__ import annotations

import numpy as np
import torch

from bipose_lit.codecs.scene import SceneCodec
from bipose_lit.geometry import from_map
from bipose_lit.skeletons import COCO

STAND = np.array(
    [
        [0, -8.5], [0.8, -9.3], [-0.8, -9.3], [1.8, -9], [-1.8, -9], [3, -6], [-3, -6], [4.5, -3], [-4.5, -3], [5.5, 0],
        [-5.5, 0], [2, 1], [-2, 1], [2.4, 5], [-2.4, 5], [2.8, 9], [-2.8, 9],
    ]
)  # fmt: skip
"""(17, 2) COCO's joints of somebody who stands, in units of a shoulder's height over the hip / 7."""


def crowd(seed: int, most: int = 20, size: tuple[int, int] = (120, 96), apart: float = 3.0) -> np.ndarray:
    """(P, 17, 2) people of random size, turn and pose in map pixels; joints and limbs of one kind stay `apart`."""
    rng = np.random.default_rng(seed)
    wanted, people = int(rng.integers(1, most + 1)), []
    limbs = SceneCodec().limbs
    for _ in range(60 * wanted):
        if len(people) == wanted:
            break
        angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 2.0)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        pose = (STAND + rng.normal(0, 0.7, (17, 2))) @ turn.T * scale
        low, high = pose.min(0), pose.max(0)
        room = np.array(size) - 4 - (high - low)
        if (room <= 0).any():
            continue
        pose += 1.5 - low + rng.uniform(0, 1, 2) * room
        if all(_distance(pose[limbs], other[limbs]) > apart for other in people):
            people.append(pose)
    return np.array(people)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Least distance between segments (L, 2, 2) of the same number, by points along them."""
    t = np.linspace(0, 1, 25)[:, None]
    first = a[:, :1] * (1 - t) + a[:, 1:] * t
    second = b[:, :1] * (1 - t) + b[:, 1:] * t
    return float(np.linalg.norm(first[:, :, None] - second[:, None], axis=-1).min())


def encode(codec: SceneCodec, people: np.ndarray, visible: np.ndarray | None = None, size=(120, 96)):
    """Maps (K, h, w) and (2 L, h, w) of people (P, K, 2) in map pixels."""
    codec.build(people.shape[1], (size[0] * codec.stride, size[1] * codec.stride))
    seen = np.full(people.shape[:2], 2, np.uint8) if visible is None else visible
    joints = from_map(torch.from_numpy(people).float(), codec.stride)[None]
    target, _ = codec.encode(joints, torch.from_numpy(seen)[None])
    return target["heatmaps"][0].numpy(), target["pafs"][0].numpy()


def components(visible: np.ndarray, limbs: np.ndarray, least: int = 3) -> list[frozenset[tuple[int, int]]]:
    """Sets of (person, joint) that limbs hold together when only some joints are there; those of at least so many joints."""
    found = []
    for person, seen in enumerate(visible > 0):
        left = set(np.flatnonzero(seen).tolist())
        while left:
            group, new = set(), {left.pop()}
            while new:
                group |= new
                new = {int(b) for a, b in [*limbs, *limbs[:, ::-1]] if a in group and seen[b]} - group
            left -= group
            if len(group) >= least:
                found.append(frozenset((person, joint) for joint in group))
    return found


def found_sets(people, truth: np.ndarray, tolerance: float) -> list[frozenset[tuple[int, int]]]:
    """The found people as sets of (labelled person, joint), each joint at the labelled place that it hits."""
    sets = []
    for joints, confidence in zip(people.joints, people.confidence, strict=True):
        members = set()
        for joint in np.flatnonzero(confidence):
            off = np.linalg.norm(truth[:, joint] - joints[joint], axis=1)
            assert off.min() < tolerance, f"joint {COCO.joints[joint]} is {off.min():.3f} map pixels off"
            members.add((int(off.argmin()), int(joint)))
        sets.append(frozenset(members))
    return sets
