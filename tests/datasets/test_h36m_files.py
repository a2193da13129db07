"""What Human3.6M's npz files may hold besides positions: other joints' detections, names of takes, arrays per camera."""

import numpy as np
import pytest

from bipose_lit.datasets.h36m_files import action_of, as_views, load_detections, load_positions, typical_extent, unit_of
from bipose_lit.types import BiposeError

META = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]}


def detections(tmp_path, meta):
    found = {"S9": {"Walking": [np.zeros((2, 17, 2))] * 4}}
    np.savez(tmp_path / "2d.npz", positions_2d=np.array(found, object), metadata=np.array(meta, object))
    return load_detections(tmp_path / "2d.npz")


@pytest.mark.parametrize(
    "meta",
    [{"layout_name": "coco"}, {"num_joints": 16}, {"keypoints_symmetry": [[1], [2]]}, {"keypoints_symmetry": 3}, [3], "h36m",
     {"layout_name": ["h36m"]}, {"num_joints": np.array([17, 17])}, {"layout_name": np.array(["h36m", "h36m"])},
     {"num_joints": np.zeros((0,))}, {"num_joints": "17"}, {"num_joints": 10**5000}, {"layout_name": 10**5000},
     {"keypoints_symmetry": np.zeros((2, 3, 4))}, {"keypoints_symmetry": [[10**5000], [1]]}, {"num_joints": [[[]] * 50] * 50},
     {"keypoints_symmetry": [["9" * 5000], "1"]}, {"keypoints_symmetry": [[np.inf], [np.nan]]}, {"num_joints": None}],
    ids=lambda meta: str(type(meta)),
)  # fmt: skip
def test_detections_of_other_joints(tmp_path, meta):
    with pytest.raises(BiposeError, match=r"2d\.npz: ") as error:
        detections(tmp_path, META | meta if isinstance(meta, dict) else meta)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "meta",
    [{"num_joints": np.int64(17)}, {"num_joints": np.array(17)}, {"num_joints": np.array([17])},
     {"layout_name": np.array("h36m")}, {"keypoints_symmetry": np.array(META["keypoints_symmetry"])},
     {"keypoints_symmetry": META["keypoints_symmetry"][::-1]}],
)  # fmt: skip
def test_metadata_in_other_types(tmp_path, meta):
    assert list(detections(tmp_path, META | meta)) == [("S9", "Walking")]


@pytest.mark.parametrize(
    ("name", "action"),
    [("Walking", "Walking"), ("Walking 1", "Walking"), ("Walking_1", "Walking"), ("Sitting_Down_2", "Sitting_Down"),
     ("walk scene0012_0", "walk"), ("Photo 1.60457274", "Photo"), ("Walk2", "Walk2"), ("_1", "_1"), (" 1", "1"), ("1", "1"),
     ("WalkDog-2", "WalkDog")],
)  # fmt: skip
def test_actions_of_takes(name, action):
    assert action_of(name) == action


def test_arrays_per_camera():
    one, four = np.zeros((5, 17, 3)), np.zeros((4, 5, 17, 3))
    assert as_views(one)[0] is one
    assert [len(as_views(v)) for v in (one, [one], [one] * 3, (one,), four, None, [], {"a": 1})] == [
        1,
        1,
        3,
        1,
        4,
        1,
        0,
        1,
    ]
    assert as_views(four)[3].shape == (5, 17, 3)
    assert len(as_views(np.zeros((4, 5, 16, 2)))) == 4  # what is in them is looked at later


def test_the_typical_size_of_a_person(tmp_path):
    pose = np.zeros((1, 17, 3))
    pose[0, 3] = (0, 1.6, 0.3)
    takes = {("S9", "a"): np.repeat(pose, 40, axis=0), ("S9", "b"): [2 * pose, 2 * pose], ("S9", "c"): None}
    assert typical_extent({("S9", "a"): takes["S9", "a"]}) == pytest.approx(1.6)
    assert (
        typical_extent({("S9", "b"): takes["S9", "b"]})
        == typical_extent({("S9", "b"): np.stack([2 * pose] * 2)})
        == 3.2
    )
    assert np.isnan(typical_extent({("S9", "c"): None}))


@pytest.mark.parametrize(
    ("extent", "unit"),
    [(0.5, "m"), (1.7, "m"), (3.0, "m"), (500.0, "mm"), (3000.0, "mm"), (0.49, None), (3.01, None), (170.0, None), (499.0, None),
     (3001.0, None), (0.0, None), (float("nan"), None)],
)  # fmt: skip
def test_units_are_told_by_the_size_of_persons(extent, unit):
    assert unit_of(extent) == unit


def test_a_key_too_long_to_be_printed(tmp_path):
    np.savez(tmp_path / "a.npz", positions_3d=np.array({10**5000: {"a": np.zeros((1, 17, 3))}}, object))
    with pytest.raises(BiposeError, match="keys"):
        load_positions(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", positions_3d=np.array({"S9": {"a": np.zeros((1, 17, 3)), 7: 1}}, object))
    with pytest.raises(BiposeError, match="'7' is no name of a subject or an action"):
        load_positions(tmp_path / "a.npz")
