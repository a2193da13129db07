"""MPII's label files: what each kind holds, and what is said of broken ones."""

import json

import h5py
import numpy as np
import pytest
import scipy.io
from mpii_sets import entries, heads, persons, write_h5, write_json, write_release, write_truth

from bipose_lit.datasets.mpii_files import NO_PLACE, read_h5, read_json
from bipose_lit.datasets.mpii_release import read_keyframes, read_release
from bipose_lit.datasets.mpii_truth import read_evaluated
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

IMAGES = ["a.jpg", "b.jpg", "a.jpg", "c.jpg"]


def agrees(found, people, hidden: bool):
    expected = np.where(people["present"], VISIBLE, ABSENT)
    if hidden:
        expected = np.where(people["hidden"], OCCLUDED, expected)
    np.testing.assert_array_equal(found.visible, expected)
    np.testing.assert_allclose(found.joints, np.where(people["present"][..., None], people["joints"], 0))
    np.testing.assert_allclose(found.centre, people["center"])
    np.testing.assert_allclose(found.scale, people["scale"])


def test_json(tmp_path):
    people = persons(4)
    write_json(tmp_path / "valid.json", people, IMAGES, cluster="scene7")
    found = read_json(tmp_path / "valid.json")
    agrees(found, people, hidden=False)
    assert np.isnan(found.head).all()
    assert (found.image, found.person, found.cluster) == (tuple(IMAGES), (0, 0, 1, 0), ("scene7",) * 4)
    assert found.skipped == {}


@pytest.mark.parametrize("widened", [False, True])
def test_h5_gives_the_owners_centre_and_scale_whether_widened_or_not(tmp_path, widened):
    people = persons(4)
    write_h5(tmp_path / "valid.h5", people, IMAGES, widened)
    found = read_h5(tmp_path / "valid.h5")
    agrees(found, people, hidden=True)
    np.testing.assert_allclose(found.head, heads(people))
    assert found.image == tuple(IMAGES)
    assert found.skipped == {}


def test_h5_that_does_not_tell_whether_it_is_widened(tmp_path):
    people = persons(4) | {"center": np.random.default_rng(0).uniform(10, 40, (4, 2))}
    write_h5(tmp_path / "valid.h5", people, IMAGES)
    found = read_h5(tmp_path / "valid.h5")
    np.testing.assert_allclose(found.scale, people["scale"])
    assert found.skipped == {"centre and scale may be widened already, taken as not": ["valid.h5"]}


def test_names_of_pictures_in_an_h5(tmp_path):
    people = persons(4)
    codes = np.zeros((4, 8))
    for i, name in enumerate(IMAGES):
        codes[i, : len(name)] = [ord(c) for c in name]
    write_h5(tmp_path / "train.h5", people, IMAGES, imgname=codes)
    assert read_h5(tmp_path / "train.h5").image == tuple(IMAGES)
    write_h5(tmp_path / "valid.h5", people, IMAGES, imgname=None)
    with pytest.raises(BiposeError, match=r"put valid_images\.txt beside it"):
        read_h5(tmp_path / "valid.h5")
    (tmp_path / "valid_images.txt").write_text("\n".join(IMAGES) + "\n")
    assert read_h5(tmp_path / "valid.h5").image == tuple(IMAGES)
    (tmp_path / "valid_images.txt").write_text("a.jpg\n")
    with pytest.raises(BiposeError, match="1 names for 4 persons"):
        read_h5(tmp_path / "valid.h5")


def test_the_evaluations_file(tmp_path):
    for count in (1, 4):
        people = persons(count)
        write_truth(tmp_path / "gt.mat", people)
        found = read_evaluated(tmp_path / "gt.mat")
        np.testing.assert_array_equal(found.missing, ~people["present"])
        np.testing.assert_allclose(found.joints[people["present"]], people["joints"][people["present"]])
        np.testing.assert_allclose(found.head, heads(people))


@pytest.mark.parametrize("text", [True, False])
def test_the_owners_file(tmp_path, text):
    people = persons(4)
    people["hidden"][:, 8:10] = False  # the release has no flag there
    write_release(tmp_path / "r.mat", people, [*IMAGES[:2], "c.jpg", "d.jpg"], [3, 3, 5, 5], flags_as_text=text)
    found = read_release(tmp_path / "r.mat")
    agrees(found, people, hidden=True)
    np.testing.assert_allclose(found.head, heads(people))
    assert found.cluster == ("video 3", "video 3", "video 5", "video 5")


def test_the_owners_file_holds_test_pictures_and_crowds(tmp_path):
    images = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    write_release(tmp_path / "r.mat", persons(4), images, train=[1, 0, 1, 1], single=[[1], [1], [], [2, 1]])
    assert read_release(tmp_path / "r.mat").image == ("a.jpg", "c.jpg", "d.jpg")
    assert read_release(tmp_path / "r.mat", single=True).image == ("a.jpg", "d.jpg")
    assert read_release(tmp_path / "r.mat").cluster == ("", "", "")


def broken(people, number, **changes):
    found = entries(people, IMAGES)
    found[number].update(changes)
    return found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"joints": [[1.0, 2.0]] * 15}, "persons without 16 joints of x, y"),
        ({"joints": [[1.0, 2.0, 3.0]] * 16}, "persons without 16 joints of x, y"),
        ({"joints_vis": [1] * 17}, "persons without 16 joints of x, y"),
        ({"joints_vis": [2] * 16}, "joints_vis other than 0 and 1"),
        ({"joints_vis": ["1"] * 16}, "entries that are not a person's"),
        ({"joints": None}, "persons without joints"),
        ({"scale": "big"}, "entries that are not a person's"),
        ({"image": 7}, "entries that are not a person's"),
        ({"image": "../../etc/passwd"}, "names that cannot be a picture's"),
        ({"image": "/etc/passwd"}, "names that cannot be a picture's"),
        ({"image": "a\0.jpg"}, "names that cannot be a picture's"),
        ({"image": ""}, "names that cannot be a picture's"),
    ],
)
def test_an_entry_that_is_no_person_is_left_out_and_told(tmp_path, changes, reason):
    (tmp_path / "valid.json").write_text(json.dumps(broken(persons(4), 1, **changes)))
    found = read_json(tmp_path / "valid.json")
    np.testing.assert_array_equal(found.row, [0, 2, 3])
    assert [(k, len(v), v[0].startswith("valid.json[1]")) for k, v in found.skipped.items()] == [(reason, 1, True)]


@pytest.mark.parametrize("place", [[1e9, 3.0], [3.0, -1e300]])
def test_a_joint_without_a_usable_place_is_absent_and_told(tmp_path, place):
    people = persons(4, missing=0)
    joints = people["joints"][2].tolist()
    joints[5] = place
    (tmp_path / "valid.json").write_text(json.dumps(broken(people, 2, joints=joints)))
    found = read_json(tmp_path / "valid.json")
    assert (found.visible == ABSENT).sum() == 1
    assert found.visible[2, 5] == ABSENT
    assert found.skipped == {NO_PLACE: ["valid.json[2] (1)"]}


@pytest.mark.parametrize(
    "changes", [{"scale": 0}, {"scale": -2.0}, {"scale": 1e300}, {"center": [-1, -1]}, {"center": [1]}]
)
def test_an_unusable_centre_or_scale_is_unknown(tmp_path, changes):
    (tmp_path / "valid.json").write_text(json.dumps(broken(persons(4), 2, **changes)))
    found = read_json(tmp_path / "valid.json")
    np.testing.assert_array_equal(np.isnan(found.scale), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(found.centre[:, 1]), [False, False, True, False])


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"[1, 2]", b"[" * 100_000, b"\xff\xfe", b'[{"image": "a.jpg"}]'])
def test_what_is_not_a_list_of_persons(tmp_path, text):
    (tmp_path / "valid.json").write_bytes(text)
    with pytest.raises(BiposeError, match=r"valid\.json"):
        read_json(tmp_path / "valid.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"part": np.zeros((4, 15, 2))}, {"part": np.array([b"a", b"b"])}, {"part": None}, {"scale": np.ones(3)},
        {"visible": np.full((4, 16), 3.0)}, {"center": np.ones((4, 3))}, {"normalize": np.ones((4, 1))},
        {"part": np.zeros((0, 16, 2))}, {"imgname": np.array([b"../x.jpg"] * 4)}, {"part": 3.0},
    ],
)  # fmt: skip
def test_broken_h5(tmp_path, changes):
    write_h5(tmp_path / "valid.h5", persons(4), IMAGES, **changes)
    with pytest.raises(BiposeError, match=r"valid\.h5"):
        read_h5(tmp_path / "valid.h5")


def test_an_h5_that_claims_to_be_huge(tmp_path):
    write_h5(tmp_path / "valid.h5", persons(4), IMAGES, part=None)
    with h5py.File(tmp_path / "valid.h5", "a") as file:
        file.create_dataset("part", (10**9, 16, 2), "f4", chunks=(1, 16, 2))
    with pytest.raises(BiposeError, match="not a list of persons"):
        read_h5(tmp_path / "valid.h5")


@pytest.mark.parametrize(
    "changes",
    [
        {"jnt_missing": None}, {"jnt_missing": np.zeros((16, 3))}, {"jnt_missing": np.full((16, 4), 2)},
        {"pos_gt_src": np.full((16, 2, 4), np.nan)}, {"pos_gt_src": "text"}, {"headboxes_src": np.zeros((2, 4))},
        {"dataset_joints": np.array([["a"] * 16], object)}, {"jnt_missing": np.zeros((16, 0))},
    ],
)  # fmt: skip
def test_a_broken_evaluations_file(tmp_path, changes):
    write_truth(tmp_path / "gt_valid.mat", persons(4), **changes)
    with pytest.raises(BiposeError, match=r"gt_valid\.mat"):
        read_evaluated(tmp_path / "gt_valid.mat")


def test_a_head_box_without_size_is_unknown(tmp_path):
    people = persons(4)
    people["boxes"][1] = 7
    people["boxes"][2] = np.nan
    write_truth(tmp_path / "gt_valid.mat", people)
    np.testing.assert_array_equal(np.isnan(read_evaluated(tmp_path / "gt_valid.mat").head), [False, True, True, False])


@pytest.mark.parametrize("content", [{"x": 1}, {"RELEASE": 3.0}, {"RELEASE": np.array([["a"]], object)}])
def test_what_is_not_the_owners_file(tmp_path, content):
    scipy.io.savemat(tmp_path / "r.mat", content)
    with pytest.raises(BiposeError, match=r"r\.mat"):
        read_release(tmp_path / "r.mat")


def test_a_strange_joint_number_leaves_the_person_out(tmp_path):
    people = persons(2)
    write_release(tmp_path / "r.mat", people, ["a.jpg", "b.jpg"])
    content = scipy.io.loadmat(tmp_path / "r.mat")
    person = content["RELEASE"][0, 0]["annolist"][0, 1]["annorect"][0, 0]
    person["annopoints"][0, 0]["point"][0, 0]["id"][:] = 16
    scipy.io.savemat(tmp_path / "r.mat", {"RELEASE": content["RELEASE"]})
    found = read_release(tmp_path / "r.mat")
    assert found.image == ("a.jpg",)
    assert found.skipped == {"joint numbers outside 0 to 15": ["b.jpg/0"]}


def test_key_frames_that_name_none(tmp_path):
    scipy.io.savemat(tmp_path / "k.mat", {"annolist_keyframes": np.zeros((2, 2))})
    with pytest.raises(BiposeError, match="names no frame"):
        read_keyframes(tmp_path / "k.mat")


@pytest.mark.real_data
def test_the_real_h5_and_the_evaluations_file_miss_the_same_joints(real_data):
    listed, truth = (
        read_h5(real_data / "mpii_mini" / "valid.h5"),
        read_evaluated(real_data / "mpii_mini" / "gt_valid.mat"),
    )
    assert len(listed) == len(truth) == 2958
    np.testing.assert_array_equal(listed.visible == ABSENT, truth.missing)
    assert ((listed.visible == ABSENT).sum(), (listed.visible == OCCLUDED).sum()) == (3088, 10243)
    np.testing.assert_allclose(listed.head, truth.head, atol=1e-4)
    far = (np.abs(listed.joints - truth.joints) > 1.5).any(axis=-1) & ~truth.missing
    assert (far.sum(), far.any(axis=1).sum()) == (13, 10)
    assert (truth.joints[far] < 1e-6).any(axis=-1).all()
    close = np.abs(listed.joints - truth.joints)[~truth.missing & ~far].max()
    assert 0.9 < close < 1  # cut to whole pixels
    assert (np.abs(listed.centre - listed.centre.round()) < 1e-3).all()  # objpos, the widening taken off
