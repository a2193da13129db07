"""Motions: what must hold for every one of them: limits, ground, stance, smoothness, splits, determinism."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit.datasets.synthetic.body import INDEX, Motion, Proportions, angles_from_rotations, violations
from bipose_lit.datasets.synthetic.motions import MOTION_SPLITS, MOTIONS, make_motion, parts_of
from bipose_lit.datasets.synthetic.motions_plan import drift, ease, pulse
from bipose_lit.types import BiposeError

KINDS = list(dict.fromkeys([*MOTIONS, *(kind for kinds in MOTION_SPLITS.values() for kind in kinds)]))
FPS = 25.0


def make(kind: str, seed: int, frames: int = 40, person: Proportions | None = None) -> Motion:
    return make_motion(kind, frames, FPS, np.random.default_rng(seed), person)


@pytest.mark.parametrize("kind", KINDS)
def test_every_motion_stays_human(kind: str) -> None:
    for seed in range(4):
        motion = make(kind, seed)
        assert motion.positions.shape == (40, 22, 3)
        assert motion.frames.shape == (40, 22, 3, 3)
        assert np.isfinite(motion.positions).all()
        assert violations(motion.local_rotations()).max() < 1e-6
        soles = motion.soles()
        assert soles[..., 1].min() > -0.012, "a foot is in the ground"
        hands = motion.positions[:, [INDEX["left_hand"], INDEX["right_hand"]], 1]
        assert hands.min() > -0.03, "a hand is in the ground"
        steps = np.linalg.norm(np.diff(motion.positions, axis=0), axis=-1)
        assert steps.max() < 18.0 / FPS, "a joint is faster than a kicking foot"
        turned = np.einsum("tjab,tjab->tj", motion.frames[1:], motion.frames[:-1])
        angle = np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1)))
        assert angle.max() < 75.0, "a segment turns in a jerk"


@pytest.mark.parametrize("kind", [k for k in MOTIONS if k not in ("jump", "jumping_jack", "run")])
def test_stance_feet_stay_where_they_are(kind: str) -> None:
    """A sole that lies flat on the ground for three frames does not slide."""
    moved = []
    for seed in range(8):
        soles = make(kind, seed).soles()
        flat = (soles[..., 1] < 0.003).all(axis=2)
        held = flat[:-2] & flat[1:-1] & flat[2:]
        slide = np.linalg.norm(soles[2:, :, :, ::2] - soles[:-2, :, :, ::2], axis=-1).max(axis=-1) / 2 * FPS
        moved.append(slide[held])
    every = np.concatenate(moved)
    assert len(every) > 20  # some stay on tiptoe all the while, not all
    assert np.median(every) < 0.03
    assert np.percentile(every, 95) < 0.10


@pytest.mark.parametrize("kind", ["walk", "run"])
def test_gaits_go_where_they_face_with_opposed_arms(kind: str) -> None:
    for seed in range(8):
        motion = make(kind, seed, frames=50, person=Proportions())
        way = motion.positions[-1, 0] - motion.positions[0, 0]
        ahead = motion.frames[:, 0, :, 2].mean(axis=0)
        speed = float(np.hypot(way[0], way[2])) / (49 / FPS)
        assert (0.6 < speed < 1.9) if kind == "walk" else (1.8 < speed < 5.0)
        assert (way * ahead).sum() > 0.85 * np.linalg.norm(way) * np.linalg.norm(ahead)
        angles = angles_from_rotations(motion.local_rotations())
        leg = angles[:, INDEX["left_hip"], 0] - angles[:, INDEX["right_hip"], 0]
        arm = angles[:, INDEX["left_shoulder"], 0] - angles[:, INDEX["right_shoulder"], 0]
        assert np.corrcoef(leg, arm)[0, 1] < -0.5
        assert np.ptp(angles[:, INDEX["left_knee"], 0]) > 35


def test_walking_pelvis_keeps_an_even_speed() -> None:
    for seed in range(8):
        motion = make("walk", seed, frames=60, person=Proportions())
        speed = np.linalg.norm(np.diff(motion.positions[:, 0, ::2], axis=0), axis=1) * FPS
        assert speed.std() / speed.mean() < 0.15


def test_run_and_jump_leave_the_ground_and_walk_does_not() -> None:
    def clearance(kind: str) -> float:
        return max(float(make(kind, seed, frames=60).soles()[..., 1].min(axis=(1, 2)).max()) for seed in range(5))

    assert clearance("jump") > 0.08
    assert clearance("run") > 0.015
    assert clearance("jumping_jack") > 0.03
    assert clearance("walk") < 0.005


def test_signature_poses() -> None:
    def highest(kind: str, joint: str) -> float:
        return max(
            float((make(kind, s, 60).positions[:, INDEX[joint], 1] / make(kind, s, 60).proportions.stature).max())
            for s in range(6)
        )

    def lowest(kind: str, joint: str) -> float:
        return min(
            float((make(kind, s, 90).positions[:, INDEX[joint], 1] / make(kind, s, 90).proportions.stature).min())
            for s in range(6)
        )

    assert highest("wave", "right_wrist") > 0.85
    assert highest("jumping_jack", "left_wrist") > 0.95
    assert highest("kick", "right_ankle") > 0.25
    assert lowest("squat", "pelvis") < 0.42
    assert lowest("sit_stand", "pelvis") < 0.36
    assert lowest("lunge", "right_knee") < 0.18
    assert lowest("reach", "right_hand") < 0.15


def test_turn_turns_and_heading_is_random() -> None:
    turned = []
    headings = []
    for seed in range(12):
        motion = make("turn", seed, frames=50)
        ahead = motion.frames[:, 0, :, 2]
        angle = np.unwrap(np.arctan2(ahead[:, 0], ahead[:, 2]))
        turned.append(abs(angle[-1] - angle[0]))
        headings.append(angle[0])
    assert np.degrees(np.median(turned)) > 50
    quadrant = {int(h % (2 * np.pi) // (np.pi / 2)) for h in headings}
    assert quadrant == {0, 1, 2, 3}


def test_layers_take_the_legs_of_one_and_the_arms_of_the_other() -> None:
    for seed in range(6):
        walk, both = make("walk", seed, person=Proportions()), make("walk+wave", seed, person=Proportions())
        legs = [INDEX[f"{s}_{j}"] for s in ("left", "right") for j in ("knee",)]
        np.testing.assert_allclose(
            angles_from_rotations(walk.local_rotations())[:, legs],
            angles_from_rotations(both.local_rotations())[:, legs],
            atol=1e-6,
        )
    raised = [
        make("walk+wave", s, 60, Proportions()).positions[:, [INDEX["left_wrist"], INDEX["right_wrist"]], 1].max()
        for s in range(6)
    ]
    assert np.median(raised) > 1.35


def test_cross_fades_change_the_motion_inside_the_clip() -> None:
    """From standing to walking: the pelvis rests at first and is under way in the end."""
    for seed in range(6):
        motion = make("stand>walk", seed, frames=75)
        speed = np.linalg.norm(np.diff(motion.positions[:, 0, ::2], axis=0), axis=1) * FPS
        assert speed[:8].mean() < 0.25
        assert speed[-8:].mean() > 0.5
        assert np.abs(np.diff(speed)).max() * FPS < 12.0


def test_the_same_seed_makes_the_same_motion_and_another_one_another() -> None:
    a, b, c = make("freestyle", 1), make("freestyle", 1), make("freestyle", 2)
    np.testing.assert_array_equal(a.positions, b.positions)
    assert a.proportions == b.proportions
    assert np.abs(a.positions - c.positions).max() > 0.1


def test_clips_begin_amid_the_movement() -> None:
    phases = np.array([make("squat", seed, 2).cycle[0] for seed in range(60)])
    counts, _ = np.histogram(phases, bins=4, range=(0, 1))
    assert counts.min() >= 5


def test_splits_hold_whole_motions_out() -> None:
    parts = {split: {p for kind in kinds for p in parts_of(kind)} for split, kinds in MOTION_SPLITS.items()}
    assert set(parts) == {"stage1", "train", "val", "test"}
    assert not parts["stage1"] & (parts["train"] | parts["val"] | parts["test"])
    assert len(parts["test"] - parts["train"] - parts["val"]) >= 3
    assert len(parts["val"] - parts["train"] - parts["test"]) >= 2
    assert set().union(*parts.values()) == set(MOTIONS)
    assert len(MOTIONS) >= 14


def test_stage1_covers_the_poses_of_the_ablation() -> None:
    """Nine in ten test poses have a stage-1 pose near them (mean distance of joints in the body's own frame, statures)."""

    def poses(split: str, count: int) -> np.ndarray:
        out = []
        for i in range(count):
            kinds = MOTION_SPLITS[split]
            motion = make(kinds[i % len(kinds)], 900 + i, 50, Proportions(stature=1.0))
            local = np.einsum("tjk,tkl->tjl", motion.positions - motion.positions[:, :1], motion.frames[:, 0])
            out.append(local[::5])
        return np.concatenate(out)

    known, asked = poses("stage1", 150), poses("test", 48)
    nearest = np.array([np.linalg.norm(known - pose, axis=-1).mean(axis=1).min() for pose in asked])
    assert np.percentile(nearest, 90) < 0.08


def test_unknown_motions_and_empty_clips_are_one_line() -> None:
    with pytest.raises(BiposeError, match="there is no 'fly'"):
        make("walk>fly", 0)
    with pytest.raises(BiposeError, match="at least one frame"):
        make("walk", 0, frames=0)


@pytest.mark.parametrize("kind", ["walk", "walk>turn>walk", "jump", "freestyle"])
def test_a_single_frame_is_a_clip(kind: str) -> None:
    assert make(kind, 3, frames=1).positions.shape == (1, 22, 3)


def test_frame_rates_sample_the_same_motion() -> None:
    slow, fast = make("walk", 5, 20), make_motion("walk", 39, 2 * FPS, np.random.default_rng(5))
    np.testing.assert_allclose(slow.frames, fast.frames[::2], atol=1e-9)
    shift = slow.positions - fast.positions[::2]
    assert np.abs(shift - shift[:1]).max() < 0.02


@given(st.floats(0.05, 0.4), st.floats(0.0, 0.2), st.floats(0.05, 0.4), st.floats(-3, 3))
def test_pulses_stay_between_rest_and_full(rise: float, hold: float, fall: float, phase: float) -> None:
    value = pulse(np.array([phase, phase + 1.0]), rise, hold, fall)
    assert -1e-9 <= value[0] <= 1 + 1e-9
    assert value[0] == pytest.approx(value[1], abs=1e-6)
    assert ease(np.array([0.5]))[0] == pytest.approx(0.5)


def test_drift_has_unit_variance_and_no_fast_part() -> None:
    t = np.arange(0, 400, 0.04)
    x = drift(np.random.default_rng(0), t, 40, 1.0)
    assert x.var(axis=0).mean() == pytest.approx(1.0, abs=0.1)
    power = np.abs(np.fft.rfft(x, axis=0)) ** 2
    frequency = np.fft.rfftfreq(len(t), 0.04)
    assert power[frequency > 1.2].sum() < 0.01 * power.sum()


def test_a_motion_costs_little() -> None:
    started = time.process_time()
    for seed in range(30):
        make(KINDS[seed % len(KINDS)], seed, 32)
    assert (time.process_time() - started) / 30 < 0.05  # 2 to 8 ms on a 2020s core; slack for a loaded one
