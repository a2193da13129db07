"""The plan of the synthetic set: an assay whose answers are fixed beforehand (torch-free).

A clip belongs to one regime of what time can tell about its hidden joints:

    N      nothing: no occluder, or one that stays for the whole clip
    P      the past: seen first, then hidden to the end
    F      the future: hidden at the start, then seen
    B      both sides: hidden in between
    mixed  two occluders of different regimes

Occluders do not know the limbs. An occluder's stay is one run of a stationary process that the clip cuts a window out
of: its length is log-normal, its start uniform. Runs that the window cuts at its end are P, at its start F, inside it
B, at both ends N, so that the regimes are strata of one law, and F is P with time reversed. What follows for single
joints is measured afterwards, from the labels (`run_statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.types import BiposeError

Array = NDArray[np.float64]

SPLITS = ("stage1", "train", "val", "test")
REGIMES = ("N", "P", "F", "B", "mixed")

MEDIAN_STAY, P90_STAY = 30.0, 120.0
"""Median and 90th percentile of an occluder's stay in frames at 25 fps.

Longer than the hidden runs of joints in real video (median about 14 frames, 90% under 56), because a joint also walks
out of the covered part. What counts is the outcome: such runs seen through a window of 32 frames have median 11 and 90th
percentile 32, and 73% touch an end of the window; `run_statistics` prints what a set came to."""

REFERENCE = "real video, cut to 32 frames: median 11, 90% up to 32, 73% touch an end"
"""What a log-normal of median 14 with 90% under 56 comes to in clips of 32 frames (computed)."""

_CYCLE = ("P", "F", "N", "P", "F", "B", "P", "F", "N", "P", "F", "P", "N", "F", "P", "mixed", "F", "P", "F", "N")
_MIN_PART = 4  # frames that the seen and the hidden part of a run have at least
_MARGIN = 0.2  # of the clip's box around it: the outline is wider than the joints
_PURPOSES = ("scene", "look", "body", "motion", "camera", "occluders", "imaging", "render")
_PER_CLUSTER = 3  # purposes that the clips of a cluster share: scene, look and body


@dataclass(frozen=True)
class ClipPlan:
    """One clip to be made.

    Attributes:
        split: one of SPLITS.
        cluster: the source's title, e.g. "scene10012": one scene and one person; unique over all splits.
        number: which clip of the cluster.
        kind: the motion.
        regime: one of REGIMES.
        source: a captured motion's file, "" for a made one.
        key: spawn key of the clip's seeds.
    """

    split: str
    cluster: str
    number: int
    kind: str
    regime: str
    key: tuple[int, int, int]
    source: str = ""

    @property
    def action(self) -> str:
        """The class folder: the motion's name in letters that every file system takes."""
        return self.kind.replace("+", "_with_").replace(">", "_then_")

    @property
    def title(self) -> str:
        """The clip's name within its class, e.g. "scene10012_0"."""
        return f"{self.cluster}_{self.number}"

    @property
    def name(self) -> str:
        """The clip's id, e.g. "walk/scene10012_0"."""
        return f"{self.action}/{self.title}"

    def rng(self, seed: int, purpose: str) -> np.random.Generator:
        """The generator for one purpose; scene, look and body are the cluster's, the rest the clip's own."""
        at = _PURPOSES.index(purpose)
        split, cluster, number = self.key
        key = (split, cluster, at) if at < _PER_CLUSTER else (split, cluster, at, number)
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True)
class CoverTrack:
    """Where an occluder is: an upright rectangle that its shape fills, in units of the clip's tight box.

    (0, 0) is the box's upper left corner, (1, 1) its lower right one; the box holds all joints of all frames.

    Attributes:
        centre: (T, 2).
        size: width and height.
        family: "block" (partial), "upright" (taller than the person) or "level" (wider than the person).
        regime: N, P, F or B.
    """

    centre: Array
    size: tuple[float, float]
    family: str
    regime: str

    def reversed(self) -> CoverTrack:
        """The same track with time running backwards."""
        regime = {"P": "F", "F": "P"}.get(self.regime, self.regime)
        return CoverTrack(self.centre[::-1].copy(), self.size, self.family, regime)


def plan_clips(
    clips: Mapping[str, int],
    kinds: Mapping[str, Sequence[str]],
    seed: int,
    clips_per_cluster: int = 2,
    captured: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> list[ClipPlan]:
    """Plans all clips; a larger set begins with the smaller one's clips.

    Args:
        clips: how many, by split.
        kinds: the motions each split may use, by split.
        seed: of the whole set.
        clips_per_cluster: clips that share scene and person.
        captured: (kind, file) of captured motions by split; every second clip of a split that has some uses them.

    Raises:
        BiposeError: an unknown split or a negative number.
    """
    plans = []
    for split, count in clips.items():
        if split not in SPLITS:
            raise BiposeError(f"split {split!r} is none of {', '.join(SPLITS)}")
        if count < 0 or clips_per_cluster < 1:
            raise BiposeError(
                f"split {split}: cannot make {count} clips, {clips_per_cluster} per cluster; use whole numbers"
            )
        at = SPLITS.index(split)
        made = _shuffled_rounds([(kind, "") for kind in kinds[split]], count, (seed, at, 0))
        taken = _shuffled_rounds(list((captured or {}).get(split, ())), count, (seed, at, 1))
        for i in range(count):
            cluster = i // clips_per_cluster
            kind, source = taken[i // 2] if taken and i % 2 else made[i]
            plans.append(
                ClipPlan(
                    split, f"scene{at * 10000 + cluster:05d}", i % clips_per_cluster, kind, _CYCLE[i % len(_CYCLE)],
                    (at, cluster, i % clips_per_cluster), source,
                )
            )  # fmt: skip
    return plans


def _shuffled_rounds(items: list[tuple[str, str]], count: int, key: tuple[int, int, int]) -> list[tuple[str, str]]:
    """`count` items in rounds that hold each once in random order, so that motions and regimes meet in all pairs."""
    if not items:
        return []
    rng = np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=(900 + key[1], key[2])))
    rounds = [items[i] for _ in range(math.ceil(count / len(items))) for i in rng.permutation(len(items))]
    return rounds[:count]


def shortest(regime: str) -> int:
    """Frames that a clip of a regime needs: room for a hidden part between two seen ones, one more where a stay must fit it."""
    return 3 * _MIN_PART + (regime in ("B", "mixed"))


def sample_occluders(rng: np.random.Generator, regime: str, frames: int, fps: float = 25.0) -> list[CoverTrack]:
    """Draws the occluders of a clip.

    Args:
        rng: source of randomness.
        regime: one of REGIMES. "N" draws none in half of the clips.
        frames: T, at least `shortest(regime)`.
        fps: scales the length of stays.

    Raises:
        BiposeError: a clip too short to hold a seen and a hidden part.
    """
    if frames < shortest(regime):
        raise BiposeError(f"clips of {frames} frames are too short for the assay; use at least {shortest(regime)}")
    if regime == "N":
        return [] if rng.random() < 0.5 else [_track(rng, "N", frames, fps)]
    if regime == "mixed":
        pair = [("P", "F"), ("P", "B"), ("F", "B")][rng.integers(3)]
        return [_track(rng, part, frames, fps) for part in pair]
    count = 2 if rng.random() < 0.35 else 1
    return [_track(rng, regime, frames, fps) for _ in range(count)]


def _track(rng: np.random.Generator, regime: str, frames: int, fps: float) -> CoverTrack:
    if regime == "F":
        return _track(rng, "P", frames, fps).reversed()
    start, stop = _stay(rng, regime, frames, fps)
    # What stays for the whole clip must leave part of the person in view, or there is nothing to be told.
    odds = [0.6, 0.0, 0.4] if regime == "N" else [0.45, 0.35, 0.2]
    family = str(rng.choice(["block", "upright", "level"], p=odds))
    width, height = {
        "block": (rng.uniform(0.65, 1.15), rng.uniform(0.5, 0.85)),
        "upright": (rng.uniform(0.5, 0.85), rng.uniform(1.5, 2.2)),
        "level": (rng.uniform(1.6, 2.4), rng.uniform(0.5, 0.8)),
    }[family]
    size: Array = np.array([width, height])
    hold: Array = rng.uniform(0.2, 0.8, 2)
    time: Array = np.arange(frames, dtype=np.float64)
    # Slow drift and sway while it stays: nothing in a hand-held picture stands still.
    sway = rng.uniform(0, 0.02, 2) * np.sin(
        2 * np.pi * (time[:, None] / fps * rng.uniform(0.2, 0.9, 2) + rng.random(2))
    )
    centre: Array = hold + (time - time.mean())[:, None] * rng.normal(0, 0.0015, 2) + sway
    come, leave = _heading(rng, family), _heading(rng, family)
    if rng.random() < 0.5:
        leave = -come  # it passes through
    if start > 0:
        centre = centre + come * _away(rng, hold, size, come, start - time, fps)[:, None]
    if stop < frames:
        centre = centre + leave * _away(rng, hold, size, leave, time - stop, fps)[:, None]
    return CoverTrack(centre, (float(width), float(height)), family, regime)


def _stay(rng: np.random.Generator, regime: str, frames: int, fps: float) -> tuple[float, float]:
    """Start and stop of a stay, drawn from the stationary law given the regime; infinite where the clip cuts it."""
    if regime == "N":
        return -np.inf, np.inf
    spread = math.log(P90_STAY / MEDIAN_STAY) / 1.2815515655  # the normal law's 90th percentile
    longest = 1000.0
    while True:
        length = min(float(rng.lognormal(math.log(MEDIAN_STAY * fps / 25), spread)), longest)
        start = rng.uniform(-longest, frames)
        stop = start + length
        inside = _MIN_PART <= start <= frames - _MIN_PART
        if regime == "P" and inside and stop >= frames:
            return start, np.inf
        if regime == "B" and inside and start + _MIN_PART <= stop <= frames - _MIN_PART:
            return start, stop


def _heading(rng: np.random.Generator, family: str) -> Array:
    """Unit direction in which an occluder stands off: tall ones to a side, wide ones above or below."""
    sideways = {"block": 0.7, "upright": 1.0, "level": 0.0}[family]
    angle = 0.0 if rng.random() < sideways else np.pi / 2
    angle += np.pi * rng.integers(2) + (rng.normal(0, 0.3) if family == "block" else rng.normal(0, 0.05))
    return np.array([np.cos(angle), np.sin(angle)])


def _away(
    rng: np.random.Generator,
    hold: Array,
    size: Array,
    heading: Array,
    ahead: Array,
    fps: float,
) -> Array:
    """(T,) distance from the hold point along `heading`, `ahead` frames before arrival (or after departure).

    A constant speed that fades out at the hold point; at ahead = 0 half of the way out of the box is left.
    """
    sides = np.where(heading > 0, 1 + _MARGIN - hold, hold + _MARGIN) + size / 2
    clear = float(np.min(sides / np.maximum(np.abs(heading), 1e-9)))
    crossing = float(np.exp(rng.uniform(np.log(0.16), np.log(0.7)))) * fps  # frames from outside to the hold point
    softness = 0.12 * crossing
    return np.asarray(clear / crossing * softness * np.logaddexp(0, (ahead + crossing / 2) / softness))


def hidden_runs(hidden: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Runs of True in each column of (T, K): (joint, first frame, frame after the last), by joint and time."""
    runs = []
    for joint, column in enumerate(np.asarray(hidden, bool).T):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], column, [False]])))
        runs += [(joint, int(a), int(b)) for a, b in edges.reshape(-1, 2)]
    return runs


def frame_regimes(hidden: NDArray[np.bool_]) -> NDArray[np.str_]:
    """(T, K) what time can tell about a joint: "" it is seen; "P" seen before, "F" after, "B" both, "N" never."""
    seen = ~np.asarray(hidden, bool)
    before = np.logical_or.accumulate(seen, axis=0)
    after = np.logical_or.accumulate(seen[::-1], axis=0)[::-1]
    return np.select([seen, before & after, before, after], ["", "B", "P", "F"], "N")


def run_statistics(hidden: Iterable[NDArray[np.bool_]]) -> dict[str, Any]:
    """Measures hidden runs over clips.

    Args:
        hidden: (T, K) per clip, True where a labelled joint cannot be seen.

    Returns:
        clips, frames; hidden: share of joint-frames; runs; median, p90: run length in frames (as cut by the clip);
        touching: share of runs that touch a clip's end; share_P, share_F, share_B, share_N: of hidden joint-frames.
    """
    lengths: list[int] = []
    touching = frames = clips = joint_frames = 0
    counts = dict.fromkeys("PFBN", 0)
    for mask in hidden:
        T = len(mask)
        runs = hidden_runs(mask)
        lengths += [b - a for _, a, b in runs]
        touching += sum(a == 0 or b == T for _, a, b in runs)
        regimes = frame_regimes(mask)
        for name in counts:
            counts[name] += int((regimes == name).sum())
        clips, frames, joint_frames = clips + 1, frames + T, joint_frames + mask.size
    total = sum(counts.values())
    return {
        "clips": clips,
        "frames": frames,
        "hidden": total / joint_frames if joint_frames else math.nan,
        "runs": len(lengths),
        "median": float(np.median(lengths)) if lengths else math.nan,
        "p90": float(np.percentile(lengths, 90)) if lengths else math.nan,
        "touching": touching / len(lengths) if lengths else math.nan,
        **{f"share_{name}": count / total if total else math.nan for name, count in counts.items()},
    }
