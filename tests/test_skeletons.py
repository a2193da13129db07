"""Skeletons are consistent with themselves and with the data sets' documents."""

import numpy as np
import pytest

from bipose_lit.skeletons import COCO, JHMDB, MPII, PENN_ACTION, SKELETONS, Skeleton


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_flip_is_an_involution_that_exchanges_sides(skeleton: Skeleton) -> None:
    flip = skeleton.flip
    np.testing.assert_array_equal(flip[flip], np.arange(len(skeleton)))
    for i, joint in enumerate(skeleton.joints):
        other = skeleton.joints[flip[i]]
        if joint.startswith("left_"):
            assert other == joint.replace("left_", "right_")
        elif not joint.startswith("right_"):
            assert other == joint


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_groups_partition_the_joints(skeleton: Skeleton) -> None:
    assert sorted(i for ids in skeleton.groups.values() for i in ids) == list(range(len(skeleton)))
    assert len(skeleton.groups["wrist"]) == 2


def test_sizes_and_orders() -> None:
    assert (len(COCO), len(MPII), len(PENN_ACTION), len(JHMDB)) == (17, 16, 13, 15)
    assert len(COCO.sigmas) == 17
    np.testing.assert_array_equal(COCO.flip, [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])
    np.testing.assert_array_equal(MPII.flip, [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10])


def test_mapping_by_name() -> None:
    mapping = PENN_ACTION.mapping_from(COCO)
    assert mapping[0] == -1
    assert all(COCO.joints[m] == j for m, j in zip(mapping[1:], PENN_ACTION.joints[1:], strict=True))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown"):
        Skeleton("x", ("a", "b"), (("a", "c"),), (), torso=("a", "b"))
