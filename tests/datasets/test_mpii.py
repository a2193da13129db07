"""The reader of MPII: splits, the reference crop, normalisers, ids, and the real samples."""

import json

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from mpii_sets import SIZE, heads, persons, picture, write_h5, write_json, write_release, write_truth

from bipose_lit.datasets.mpii import MPII, NECK_NOTE
from bipose_lit.datasets.mpii_files import People
from bipose_lit.datasets.sheet import contact_sheet
from bipose_lit.geometry import apply, crop_matrix
from bipose_lit.skeletons import MPII as SKELETON
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, VISIBLE, BiposeError

HEAD = NORMS.index("head")


def names(prefix, count):
    return [f"{prefix}{i:03d}.jpg" for i in range(count)]


@pytest.fixture
def lists(tmp_path):
    """HRNet's layout: 20 training persons in 10 pictures, 4 validation persons; pictures of the latter alone."""
    train, valid = persons(20, 1), persons(4, 2)
    write_json(tmp_path / "annot" / "train.json", train, [f"t{i // 2}.jpg" for i in range(20)], truth=False)
    write_json(tmp_path / "annot" / "valid.json", valid, names("v", 4))
    (tmp_path / "annot" / "test.json").write_text(json.dumps([{"image": "x.jpg", "center": [1, 2], "scale": 2.0}]))
    for i, name in enumerate(names("v", 4)):
        picture(tmp_path / "images" / name, 50 * i)
    return tmp_path, train, valid


def test_the_published_validation_list_is_test(lists):
    root, _, valid = lists
    index = MPII(root).index("test")
    assert (index.name, index.split, index.box_rule, len(index.tracks)) == ("mpii/test[gt-box]", "test", "gt-box", 4)
    assert index.skipped == {}
    for i, track in enumerate(index.tracks):
        present = valid["present"][i]
        np.testing.assert_allclose(track.joints[0][present], valid["joints"][i][present] - 1, atol=1e-5)
        assert (track.joints[0][~present] == 0).all()
        np.testing.assert_array_equal(track.visible[0], np.where(present, VISIBLE, ABSENT))
        assert (track.clip, track.cluster, track.image_size) == (f"valid/v00{i}.jpg/0", f"v00{i}.jpg", SIZE)
        assert track.norms[0, HEAD] == pytest.approx(heads(valid)[i])
        low, high = (f(valid["joints"][i][present], axis=0) for f in (np.min, np.max))
        side = (high - low + 1).max()
        assert track.norms[0, NORMS.index("bbox")] == track.norms[0, NORMS.index("clip")] == pytest.approx(side)
        assert abs(float(track.frames.read([0])[0].mean()) - 50 * i) < 3
    assert len({int(t.uid[0]) for t in index.tracks}) == 4


def test_val_is_a_share_of_the_training_pictures(lists):
    root, _, _ = lists
    reader = MPII(root, val_fraction=0.3)
    train, val = reader.index("train"), reader.index("val")
    assert (len(train.tracks), len(val.tracks)) == (14, 6)  # pictures stay whole
    assert not set(train.clusters) & set(val.clusters)
    assert not {int(t.uid[0]) for t in train.tracks} & {int(t.uid[0]) for t in val.tracks}
    assert {t.clip for t in MPII(root, val_fraction=0.3).index("val").tracks} == {t.clip for t in val.tracks}
    assert train.tracks[0].image_size == (0, 0)
    assert "pictures that are not on this disk, kept without their size" in train.skipped


def test_without_head_boxes_the_neck_stands_in_and_is_told(lists):
    root, people, _ = lists
    index = MPII(root, val_fraction=0).index("train")
    neck, top = SKELETON.index("upper_neck"), SKELETON.index("head_top")
    both = people["present"][:, [neck, top]].all(axis=1)
    length = np.linalg.norm(people["joints"][:, neck] - people["joints"][:, top], axis=-1)
    found = np.array([t.norms[0, HEAD] for t in index.tracks])
    np.testing.assert_allclose(found, np.where(both, 0.75 * length, np.nan), rtol=1e-5)
    assert index.skipped[NECK_NOTE] == [f"{both.sum()} of 20 persons"]
    assert len(index.skipped["head size unknown, not in PCKh"]) == (~both).sum() > 0


def test_head_boxes_of_other_persons_are_not_taken(lists):
    root, _, valid = lists
    other = {k: v[[0, 2, 1, 3]] for k, v in valid.items()}
    write_truth(root / "annot" / "gt_valid.mat", other)  # another order: found by their joints
    found = [t.norms[0, HEAD] for t in MPII(root).index("test").tracks]
    np.testing.assert_allclose(found, heads(valid), rtol=1e-6)
    write_truth(root / "annot" / "gt_valid.mat", persons(4, 9))
    index = MPII(root).index("test")
    assert index.skipped["persons of other joints than in the list of head boxes, or without box"] == [
        "gt_valid.mat (4)"
    ]


def test_a_set_with_labelled_test_list_is_split_as_its_lists_say(tmp_path):
    for number, name in enumerate(("train", "valid", "test")):
        write_json(tmp_path / "annot" / f"{name}.json", persons(3, number), names(name, 3), cluster=f"scene{number}")
    index = {split: MPII(tmp_path).index(split) for split in ("train", "val", "test")}
    assert [i.tracks[0].clip for i in index.values()] == [
        "train/train000.jpg/0",
        "valid/valid000.jpg/0",
        "test/test000.jpg/0",
    ]
    assert [i.clusters for i in index.values()] == [("scene0",), ("scene1",), ("scene2",)]
    assert index["test"].name == "mpii/test[gt-box]"
    (tmp_path / "manifest.json").touch()
    assert MPII(tmp_path).index("test").name == "synthetic/test[gt-box]"


def test_newells_lists(tmp_path):
    people = persons(6, 3)
    for name, widened in (("train", False), ("valid", True)):
        write_h5(tmp_path / "annot" / f"{name}.h5", people, names("p", 6), widened)
    reader = MPII(tmp_path, val_fraction=0)
    assert reader.kind == "h5"
    train, test = reader.index("train"), reader.index("test")
    for a, b in zip(train.tracks, test.tracks, strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)  # the widening of one of them is undone
        np.testing.assert_array_equal(a.visible, b.visible)
    visible = np.concatenate([t.visible for t in test.tracks])
    np.testing.assert_array_equal(visible == OCCLUDED, people["hidden"])
    np.testing.assert_allclose([t.norms[0, HEAD] for t in test.tracks], heads(people), rtol=1e-6)


def test_the_owners_file_is_shared_out_by_video(tmp_path):
    videos = [float(i // 4) + 1 for i in range(20)]
    write_release(
        tmp_path / "mpii_human_pose_v1_u12_2" / "mpii_human_pose_v1_u12_1.mat", persons(20), names("p", 20), videos
    )
    reader = MPII(tmp_path, val_fraction=0.2)
    assert reader.kind == "mat"
    train, val = reader.index("train"), reader.index("val")
    assert (len(train.tracks), len(val.tracks)) == (16, 4)
    assert len(val.clusters) == 1
    with pytest.raises(BiposeError, match="withhold the test labels"):
        reader.index("test")


@given(
    centre=st.tuples(st.floats(1, 2000), st.floats(1, 2000)), scale=st.floats(0.2, 8),
    point=st.tuples(st.floats(-500, 2500), st.floats(-500, 2500)),
)  # fmt: skip
def test_padding_of_1_25_gives_the_reference_crop(centre, scale, point):
    """By SimpleBaselines' and HRNet's code: c[1] += 15 s, s *= 1.25, c -= 1; 200 s pixels around c fill the crop."""
    from bipose_lit.datasets.mpii import _reference_boxes

    one = People(
        np.zeros(1, int), ("a",), (0,), np.zeros((1, 16, 2)), np.zeros((1, 16), np.uint8), np.array([centre]),
        np.array([scale]), np.array([np.nan]), ("",),
    )  # fmt: skip
    x, y = centre[0] - 1, centre[1] + 15 * scale - 1
    span = 200 * scale * 1.25 / 256  # picture pixels per crop pixel
    reference = (np.array(point) - (x, y)) / span + 128
    matrix = crop_matrix(_reference_boxes(one)[0].astype(float), (256, 256), padding=1.25)
    ours = apply(matrix, np.array([point]))[0]
    np.testing.assert_allclose(ours, reference - 0.5, atol=0.02)  # their centre is on 128, ours on the middle, 127.5


def test_frame_box_and_missing_scale(lists):
    root, _, valid = lists
    entries = json.loads((root / "annot" / "valid.json").read_text())
    entries[1]["scale"] = -1
    (root / "annot" / "valid.json").write_text(json.dumps(entries))
    tight = MPII(root, box_rule="frame-box").index("test")
    index = MPII(root).index("test")
    assert index.skipped == {"no centre or scale, the joints' box used": ["valid/v001.jpg/0"]}
    np.testing.assert_array_equal(index.tracks[1].boxes, tight.tracks[1].boxes)
    assert (index.tracks[0].boxes != tight.tracks[0].boxes).any()
    assert tight.name == "mpii/test[frame-box]"
    present = valid["present"][0]
    np.testing.assert_allclose(tight.tracks[0].boxes[0, :2], valid["joints"][0][present].min(axis=0) - 1, atol=1e-4)


def test_a_person_without_joints_is_left_out(lists):
    root, _, _ = lists
    entries = json.loads((root / "annot" / "valid.json").read_text())
    entries[2]["joints_vis"] = [0] * 16
    (root / "annot" / "valid.json").write_text(json.dumps(entries))
    index = MPII(root).index("test")
    assert index.skipped["no labelled joint"] == ["valid/v002.jpg/0"]
    assert len(index.tracks) == 3


def test_a_damaged_head_box_file(lists):
    root, _, _ = lists
    (root / "annot" / "gt_valid.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 9)
    with pytest.raises(BiposeError, match=r"gt_valid\.mat"):
        MPII(root).index("test")
    index = MPII(root, strict=False).index("test")
    assert "head boxes that cannot be read" in index.skipped
    assert len(index.tracks) == 4


def test_a_damaged_picture_is_kept_without_its_size(lists):
    root, _, _ = lists
    (root / "images" / "v000.jpg").write_bytes(b"no picture")
    index = MPII(root).index("test")
    assert index.tracks[0].image_size == (0, 0)
    assert len(index.skipped["pictures that cannot be read, kept without their size"]) == 1


def test_the_same_name_of_a_picture_twice_with_one_number(tmp_path):
    people = persons(3)
    write_h5(tmp_path / "valid.h5", people, ["a.jpg"] * 3)  # `person` is 0 for all: numbered anew
    assert [t.clip for t in MPII(tmp_path).index("test").tracks] == [f"valid/a.jpg/{i}" for i in range(3)]


def test_what_the_user_gets_told(tmp_path, lists):
    root, _, _ = lists
    with pytest.raises(BiposeError, match="no such folder"):
        MPII(root / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BiposeError, match=r"no annot/valid\.json, annot/valid\.h5 or mpii_human"):
        MPII(tmp_path / "empty")
    with pytest.raises(BiposeError, match=r"no annot/train\.h5"):
        MPII(root, annotations="h5")
    with pytest.raises(BiposeError, match=r"no mpii_human_pose"):
        MPII(root, annotations="mat")
    with pytest.raises(BiposeError, match="none of auto, json, h5, mat"):
        MPII(root, annotations="csv")
    with pytest.raises(BiposeError, match="no such list"):
        MPII(root, annotations="other.json")
    with pytest.raises(BiposeError, match="box_rule"):
        MPII(root, box_rule="det-box")
    with pytest.raises(BiposeError, match="val_fraction"):
        MPII(root, val_fraction=1.0)
    with pytest.raises(BiposeError, match="none of train, val, test"):
        MPII(root).index("valid")
    with pytest.raises(BiposeError, match="raise val_fraction"):
        MPII(root, val_fraction=0.0).index("val")
    (root / "annot" / "valid.json").unlink()
    with pytest.raises(BiposeError, match=r"valid\.json: no such list"):
        MPII(root).index("test")


@pytest.mark.real_data
def test_the_real_validation_list(real_data):
    index = MPII(real_data / "mpii_mini", annotations="h5").index("test")
    assert len(index.tracks) == 2958
    assert set(index.skipped) == {"pictures that are not on this disk, kept without their size"}
    assert [t.clip for t in index.tracks[:2]] == ["valid/005808361.jpg/0", "valid/052475643.jpg/0"]
    assert index.tracks[0].image_size == (1280, 720)
    assert len({int(t.uid[0]) for t in index.tracks}) == 2958
    assert np.isfinite([t.norms[0, HEAD] for t in index.tracks]).all()


@pytest.mark.real_data
def test_the_real_pictures(real_data, tmp_path):
    folder = real_data / "mpii_mini"
    index = MPII(folder, annotations="annot_sample.json").index("test")
    assert len(index.tracks) == 5
    assert index.skipped == {}
    listed = {t.clip.split("/")[1]: t for t in MPII(folder, annotations="h5").index("test").tracks[:5]}
    boxes = scipy.io.loadmat(folder / "gt_valid.mat")["headboxes_src"]
    for i, track in enumerate(index.tracks):
        other = listed[track.cluster]
        np.testing.assert_allclose(track.boxes, other.boxes, atol=1e-3)  # 15 x scale down and 1.25 wider, both ways
        np.testing.assert_allclose(
            track.norms[0, HEAD], 0.6 * np.linalg.norm(boxes[1, :, i] - boxes[0, :, i]), rtol=1e-6
        )
        np.testing.assert_allclose(track.joints, other.joints, atol=1)
        assert track.image_size == track.frames.read([0])[0].shape[1::-1]
    sheet = contact_sheet(index.tracks, index.skeleton, tmp_path / "sheet.png", columns=5, height=256, crop=True)
    assert sheet.std() > 20
