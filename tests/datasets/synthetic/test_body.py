"""The body: proportions, angles and limits, forward kinematics against scipy's rotations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bipose_lit.datasets.synthetic.body import (
    INDEX,
    JOINTS,
    LIMITS,
    PARENTS,
    Motion,
    Proportions,
    angles_from_rotations,
    clamp_to_limits,
    forward_kinematics,
    rest_offsets,
    rotations_from_angles,
    sole_offsets,
    violations,
)

IDENTITY = np.tile(np.eye(3), (1, 22, 1, 1))
SEEDS = st.integers(0, 2**31 - 1)


def rest(person: Proportions) -> Motion:
    positions, frames = forward_kinematics(rest_offsets(person)[:1], IDENTITY, person)
    return Motion(25.0, positions, frames, person, "rest")


def bent(joint: str, angles: tuple[float, float, float]) -> np.ndarray:
    """(22, 3) positions of the average person with one joint moved."""
    all_angles = np.zeros((1, 22, 3))
    all_angles[0, INDEX[joint]] = angles
    person = Proportions()
    return forward_kinematics(rest_offsets(person)[:1], rotations_from_angles(all_angles), person)[0][0]


def test_the_tree_names_22_joints_with_parents_before_children() -> None:
    assert len(JOINTS) == len(PARENTS) == len(set(JOINTS)) == 22
    assert all(parent < joint for joint, parent in enumerate(PARENTS))
    assert PARENTS[INDEX["left_shoulder"]] == INDEX["chest"]
    assert PARENTS[INDEX["right_hip"]] == INDEX["pelvis"]


@given(SEEDS)
def test_rest_stands_upright_on_the_ground_at_its_stature(seed: int) -> None:
    person = Proportions.sample(np.random.default_rng(seed))
    assert 1.2 <= person.stature <= 1.98
    motion = rest(person)
    p = motion.positions[0]
    assert p[INDEX["head_top"], 1] == pytest.approx(person.stature, abs=1e-9)
    np.testing.assert_allclose(motion.soles()[..., 1], 0.0, atol=1e-9)
    assert p[INDEX["left_shoulder"], 0] > 0 > p[INDEX["right_shoulder"], 0]
    assert p[INDEX["left_toe"], 2] > p[INDEX["left_ankle"], 2]
    mirrored = p * (-1, 1, 1)
    for name in JOINTS:
        other = name.replace("left", "@").replace("right", "left").replace("@", "right")
        np.testing.assert_allclose(mirrored[INDEX[name]], p[INDEX[other]], atol=1e-12)
    assert (sole_offsets(person)[:, 1] < 0).all()


def test_average_proportions_are_drillis_and_continis() -> None:
    p = rest(Proportions(stature=1.0)).positions[0]
    assert p[INDEX["left_hip"], 1] == pytest.approx(0.530)
    assert p[INDEX["left_knee"], 1] == pytest.approx(0.285)
    assert p[INDEX["left_ankle"], 1] == pytest.approx(0.039)
    assert p[INDEX["left_shoulder"], 1] == pytest.approx(0.818)
    assert np.linalg.norm(p[INDEX["left_elbow"]] - p[INDEX["left_shoulder"]]) == pytest.approx(0.186)


@given(SEEDS)
def test_kinematics_equal_a_chain_of_scipy_rotations_and_keep_bone_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    person = Proportions.sample(rng)
    local = Rotation.random(22 * 3, random_state=seed % 1000)
    rotations = local.as_matrix().reshape(3, 22, 3, 3)
    root = rng.normal(size=(3, 3))
    positions, frames = forward_kinematics(root, rotations, person)
    offsets = rest_offsets(person)
    for t in range(3):
        for name in ("left_hand", "right_toe", "head_top"):
            chain = [INDEX[name]]
            while PARENTS[chain[-1]] >= 0:
                chain.append(PARENTS[chain[-1]])
            point, turn = root[t].copy(), Rotation.identity()
            for parent, child in zip(chain[::-1][:-1], chain[::-1][1:], strict=True):
                turn = turn * local[t * 22 + parent]
                point = point + turn.apply(offsets[child])
            np.testing.assert_allclose(positions[t, INDEX[name]], point, atol=1e-9)
    bones = np.linalg.norm(positions[:, 1:] - positions[:, list(PARENTS[1:])], axis=-1)
    np.testing.assert_allclose(bones, np.tile(np.linalg.norm(offsets[1:], axis=1), (3, 1)), atol=1e-9)
    motion = Motion(25.0, positions, frames, person, "any")
    np.testing.assert_allclose(motion.local_rotations(), rotations, atol=1e-9)
    np.testing.assert_array_equal(motion.slice(1, 3).positions, positions[1:3])


@given(SEEDS)
def test_angles_and_rotations_are_inverse_inside_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bounds = np.array([LIMITS.get(name, LIMITS.get(name.split("_")[-1])) for name in JOINTS])
    angles = rng.uniform(bounds[..., 0], bounds[..., 1], (5, 22, 3))
    swing = np.hypot(angles[..., 0], angles[..., 1])
    angles[..., :2] *= np.minimum(1.0, 170.0 / np.maximum(swing, 1e-9))[..., None]
    rotations = rotations_from_angles(angles)
    np.testing.assert_allclose(
        rotations @ np.swapaxes(rotations, -1, -2), np.broadcast_to(np.eye(3), rotations.shape), atol=1e-9
    )
    back = angles_from_rotations(rotations)
    np.testing.assert_allclose((back - angles + 180) % 360 - 180, 0.0, atol=1e-6)
    assert violations(rotations).max() < 1e-6
    np.testing.assert_allclose(clamp_to_limits(rotations), rotations, atol=1e-6)


@given(SEEDS)
def test_clamping_brings_any_rotation_inside_the_limits(seed: int) -> None:
    rotations = Rotation.random(22 * 4, random_state=seed % 10_000).as_matrix().reshape(4, 22, 3, 3)
    assert violations(rotations).max() > 1.0
    assert violations(clamp_to_limits(rotations)).max() < 1e-6


@pytest.mark.parametrize(
    ("joint", "angles", "moved", "axis", "sign"),
    [
        ("left_hip", (40, 0, 0), "left_knee", 2, 1),
        ("left_hip", (0, 30, 0), "left_knee", 0, 1),
        ("right_hip", (0, 30, 0), "right_knee", 0, -1),
        ("left_hip", (0, 0, 30), "left_toe", 0, 1),
        ("right_hip", (0, 0, 30), "right_toe", 0, -1),
        ("left_knee", (60, 0, 0), "left_ankle", 2, -1),
        ("left_ankle", (20, 0, 0), "left_toe", 1, 1),
        ("right_shoulder", (90, 0, 0), "right_elbow", 2, 1),
        ("right_shoulder", (0, 90, 0), "right_elbow", 0, -1),
        ("left_elbow", (90, 0, 0), "left_wrist", 2, 1),
        ("left_wrist", (0, 50, 0), "left_hand", 0, -1),
        ("right_wrist", (0, 50, 0), "right_hand", 0, 1),
        ("spine", (40, 0, 0), "head", 2, 1),
        ("spine", (0, 15, 0), "head", 0, 1),
        ("chest", (0, 0, 30), "left_shoulder", 2, -1),
    ],
)
def test_positive_angles_move_as_the_table_says(
    joint: str, angles: tuple[float, float, float], moved: str, axis: int, sign: int
) -> None:
    change = bent(joint, angles)[INDEX[moved]] - rest(Proportions()).positions[0, INDEX[moved]]
    assert sign * change[axis] > 0.02


def test_knees_and_elbows_never_bend_backward() -> None:
    for joint in ("left_knee", "right_knee", "left_elbow", "right_elbow"):
        angles = np.zeros((1, 22, 3))
        angles[0, INDEX[joint], 0] = -20.0
        rotations = rotations_from_angles(angles)
        assert violations(rotations)[0, INDEX[joint]] == pytest.approx(20.0)
        np.testing.assert_allclose(clamp_to_limits(rotations)[0], np.tile(np.eye(3), (22, 1, 1)), atol=1e-9)
