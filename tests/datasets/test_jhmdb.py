"""JHMDB: the official layout, the keys we add to it, what goes wrong, and the real samples."""

import numpy as np
import pytest
import scipy.io
from jhmdb_sets import add_clip

from bipose_lit import geometry
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.datasets.labels import load_mat
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, VISIBLE, BiposeError

CLIP = "Some_video_walk_f_cm_np1_ri_med_{}"


@pytest.fixture
def joints():
    return np.random.default_rng(0).uniform(2, 22, (6, 15, 2))


def test_coordinates_become_zero_based_and_frames_stay_in_order(tmp_path, joints):
    add_clip(tmp_path, "walk", CLIP.format(0), joints, mark=2)
    index = JHMDB(tmp_path).index("test")
    (track,) = index.tracks
    assert index.name == "jhmdb/split1/test[clip-box]"
    assert (track.clip, track.cluster, track.action) == (f"walk/{CLIP.format(0)}", "Some_video", "walk")
    np.testing.assert_allclose(track.joints, joints, atol=1e-5)
    assert track.joints.dtype == np.float32
    assert (track.visible == VISIBLE).all()
    assert (track.image_size, track.fps) == ((32, 24), 30.0)
    assert [int(i.mean()) for i in track.frames.read([0, 5, 2])] == [0, 50, 20]


def test_splits_and_the_held_out_sources(tmp_path, joints):
    for source in range(6):
        for number in range(2):
            add_clip(tmp_path, "walk", f"Video{source}_walk_f_cm_np1_ri_med_{number}", joints, mark=1)
    add_clip(tmp_path, "walk", "Other_walk_f_cm_np1_ri_med_0", joints, mark=2)
    add_clip(tmp_path, "walk", "Unused_walk_f_cm_np1_ri_med_0", joints, mark=0)
    reader = JHMDB(tmp_path, val_fraction=0.3)
    train, val, test = (reader.index(s) for s in ("train", "val", "test"))
    assert (len(train.tracks), len(val.tracks), len(test.tracks)) == (8, 4, 1)
    assert not set(train.clusters) & set(val.clusters)
    assert "Unused" not in {*train.clusters, *val.clusters, *test.clusters}
    assert val.clusters == JHMDB(tmp_path, val_fraction=0.3).index("val").clusters
    with pytest.raises(BiposeError, match="val_fraction"):
        JHMDB(tmp_path, val_fraction=0).index("val")


def test_listed_validation_clips_are_taken(tmp_path, joints):
    for number, mark in enumerate((1, 1, 3, 2)):
        add_clip(tmp_path, "walk", f"scene{number:05d}_0", joints, mark=mark)
    reader = JHMDB(tmp_path)
    assert reader.index("train").clusters == ("scene00000", "scene00001")
    assert reader.index("val").clusters == ("scene00002",)


def test_visible_and_fps_are_read_where_present(tmp_path, joints):
    visible = np.random.default_rng(1).integers(0, 3, (15, 6))
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2, visible=visible, fps=25.0)
    (track,) = JHMDB(tmp_path).index("test").tracks
    np.testing.assert_array_equal(track.visible, visible.T)
    assert track.fps == 25.0
    assert (track.joints[track.visible == ABSENT] == 0).all()
    hidden = track.visible == OCCLUDED
    np.testing.assert_allclose(track.joints[hidden], joints[hidden], atol=1e-5)


def test_joints_that_are_not_numbers_are_absent_and_counted(tmp_path, joints):
    joints[2, 3, 0] = np.nan
    joints[4, 0] = np.inf
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    index = JHMDB(tmp_path).index("test")
    (track,) = index.tracks
    assert list(zip(*np.nonzero(track.visible == ABSENT), strict=True)) == [(2, 3), (4, 0)]
    assert index.skipped == {"joints not finite, taken as absent": ["walk/scene00001_0 (2)"]}
    assert np.isfinite(track.boxes).all()


def test_joints_outside_the_picture_are_kept(tmp_path, joints):
    joints[0, 0] = (-40.0, 300.0)
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    (track,) = JHMDB(tmp_path).index("test").tracks
    np.testing.assert_allclose(track.joints[0, 0], (-40, 300), atol=1e-4)
    assert track.visible[0, 0] == VISIBLE


def test_box_rules(tmp_path, joints):
    visible = np.full((15, 6), 2)
    visible[3] = 1
    joints[5, 3] = (31.0, 23.0)  # a hidden joint counts for the box
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2, visible=visible)
    exact = JHMDB(tmp_path, box_jitter=0).index("test").tracks[0]
    assert (exact.boxes == exact.boxes[0]).all()
    low, high = joints.reshape(-1, 2).min(0), joints.reshape(-1, 2).max(0)
    np.testing.assert_allclose(exact.boxes[0], [*low, *(high - low + 1)], atol=1e-4)
    jittered = JHMDB(tmp_path, box_jitter=0.2).index("test").tracks[0]
    assert (jittered.boxes == jittered.boxes[0]).all()
    assert np.abs(jittered.boxes - exact.boxes).max() > 0.1
    np.testing.assert_array_equal(jittered.norms, exact.norms)
    assert exact.norms[0, NORMS.index("clip")] == pytest.approx(max(high - low) + 1)
    index = JHMDB(tmp_path, box_rule="frame-box").index("test")
    per_frame = index.tracks[0]
    assert index.name.endswith("[frame-box]")
    np.testing.assert_allclose(per_frame.boxes[2, :2], joints[2].min(0), atol=1e-4)
    np.testing.assert_allclose(per_frame.norms[:, 0], per_frame.boxes[:, 2:].max(1))


def test_uids_do_not_depend_on_split_or_box(tmp_path, joints):
    for number, mark in enumerate((1, 2)):
        add_clip(tmp_path, "walk", f"scene{number:05d}_0", joints, mark=mark)
    one = JHMDB(tmp_path, val_fraction=0).index("train").tracks[0].uid
    two = JHMDB(tmp_path, val_fraction=0, box_rule="frame-box").index("train").tracks[0].uid
    np.testing.assert_array_equal(one, two)
    other = JHMDB(tmp_path).index("test").tracks[0].uid
    assert not set(one.tolist()) & set(other.tolist())


def test_what_the_user_gets_told(tmp_path, joints):
    with pytest.raises(BiposeError, match="no folder splits"):
        JHMDB(tmp_path)
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=1)
    for wrong in ({"box_rule": "tight"}, {"split": 4}, {"pixels": "raw"}, {"val_fraction": 1.0}, {"box_jitter": -0.1}):
        with pytest.raises(BiposeError, match=str(*wrong)):
            JHMDB(tmp_path, **wrong)
    with pytest.raises(BiposeError, match="no test clips"):
        JHMDB(tmp_path).index("test")
    with pytest.raises(BiposeError, match="none of train, val, test"):
        JHMDB(tmp_path).index("dev")
    with pytest.raises(BiposeError, match="split2"):
        JHMDB(tmp_path, split=2).index("train")
    (tmp_path / "splits" / "walk_test_split1.txt").write_text("scene00001_0.avi seven\n")
    with pytest.raises(BiposeError, match=r"walk_test_split1\.txt:1"):
        JHMDB(tmp_path).index("train")
    (tmp_path / "splits" / "walk_test_split1.txt").write_text("scene00001_0.avi 2\n")
    label = tmp_path / "joint_positions" / "walk" / "scene00001_0" / "joint_positions.mat"
    label.write_bytes(label.read_bytes()[:200])
    with pytest.raises(BiposeError, match=r"joint_positions\.mat: not a readable"):
        JHMDB(tmp_path).index("test")


def test_a_listed_clip_without_labels_is_skipped_and_said(tmp_path, joints):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    with (tmp_path / "splits" / "walk_test_split1.txt").open("a") as file:
        file.write("scene00002_0.avi 2\n")
    index = JHMDB(tmp_path).index("test")
    assert len(index.tracks) == 1
    assert index.skipped == {"no joint positions": ["walk/scene00002_0"]}


def test_labels_without_pixels_can_be_indexed_and_say_so_when_read(tmp_path, joints):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2, images=0)
    (track,) = JHMDB(tmp_path).index("test").tracks
    assert len(track) == 6
    with pytest.raises(BiposeError, match=r"00001\.png"):
        track.frames.read([0])


@pytest.mark.real_data
def test_real_clips_have_the_counts_of_their_documentation(real_data):
    seen = {}
    for number in (1, 2, 3):
        reader = JHMDB(real_data / "jhmdb_mini", split=number)
        for split in ("train", "val", "test"):
            index = reader.index(split)
            assert not index.skipped
            seen.update({t.clip: t for t in index.tracks})
    assert (len(seen), sum(len(t) for t in seen.values())) == (26, 774)
    for track in seen.values():
        assert track.fps == 30.0
        assert track.image_size == (320, 240)
        assert len(track.frames) == len(track)


@pytest.mark.real_data
def test_real_test_clips_come_from_seven_sources(real_data):
    index = JHMDB(real_data / "jhmdb_mini").index("test")
    assert (len(index.tracks), len(index.clusters)) == (10, 7)


@pytest.mark.real_data
def test_real_positions_obey_the_stated_relation_to_the_world_positions(real_data):
    index = JHMDB(real_data / "jhmdb_mini").index("test")
    for track in index.tracks:
        label = real_data / "jhmdb_mini" / "joint_positions" / track.clip / "joint_positions.mat"
        world = scipy.io.loadmat(label)
        expected = world["pos_world"] * world["scale"] * 240 + np.array([160, 120])[:, None, None]
        np.testing.assert_allclose(track.joints + 1, expected.transpose(2, 1, 0), atol=1e-3)


@pytest.mark.real_data
def test_real_images_and_videos_hold_the_same_pixels(real_data):
    by_images = JHMDB(real_data / "jhmdb_mini", pixels="auto").index("test")
    by_video = JHMDB(real_data / "jhmdb_mini", pixels="video").index("test")
    compared = 0
    for a, b in zip(by_images.tracks, by_video.tracks, strict=True):
        if type(a.frames) is type(b.frames):
            continue
        for one, two in zip(a.frames.read(range(len(a))), b.frames.read(range(len(b))), strict=True):
            np.testing.assert_array_equal(one, two)
            compared += 1
    assert compared == 37 + 40 + 30


@pytest.mark.real_data
def test_a_joint_lands_where_it_was_in_the_padded_crop(real_data):
    track = JHMDB(real_data / "jhmdb_mini").index("test").tracks[0]
    matrix = geometry.crop_matrix(track.boxes[0], (192, 256), padding=1.25)
    inside = geometry.apply(matrix, track.joints)
    assert ((inside >= 0) & (inside < [192, 256])).all()


@pytest.mark.parametrize("size", [0, 60, 130, 200])
def test_a_truncated_label_file_is_one_line(tmp_path, size) -> None:
    whole = tmp_path / "whole.mat"
    scipy.io.savemat(str(whole), {"pos_img": np.zeros((2, 15, 4)), "scale": np.ones(4)}, do_compression=True)
    cut = tmp_path / "cut.mat"
    cut.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(BiposeError, match=r"cut\.mat"):
        load_mat(cut, ["pos_img"])


def label_file(root, clip="scene00001_0"):
    return root / "joint_positions" / "walk" / clip / "joint_positions.mat"


@pytest.mark.parametrize(
    "content",
    [{"pos_img": "text"}, {"pos_img": np.zeros((2, 14, 6))}, {"pos_img": np.zeros((2, 15, 0))}, {"pos_world": np.ones(3)},
     {"pos_img": 1j * np.ones((2, 15, 6))}, {"pos_img": np.ones((2, 15, 6)), "visible": np.full((15, 6), 7)},
     {"pos_img": np.ones((2, 15, 6)), "visible": np.full((15, 6), np.nan)}, {"pos_img": {"a": 1}},
     {"pos_img": np.ones((2, 15, 4097))}],
    ids=lambda content: str({name: getattr(v, "shape", v) for name, v in content.items()}),
)  # fmt: skip
def test_a_variable_of_the_wrong_kind_is_one_line_or_a_counted_skip(tmp_path, joints, content):
    for number in (1, 2):
        add_clip(tmp_path, "walk", f"scene0000{number}_0", joints, mark=2)
    scipy.io.savemat(label_file(tmp_path), content)
    with pytest.raises(BiposeError) as caught:
        JHMDB(tmp_path).index("test")
    assert "\n" not in str(caught.value)
    index = JHMDB(tmp_path, strict=False).index("test")
    assert [t.clip for t in index.tracks] == ["walk/scene00002_0"]
    assert index.skipped["damaged label file"][0].startswith("walk/scene00001_0 (")


def test_a_clip_of_one_frame(tmp_path, joints):
    add_clip(tmp_path, "walk", "scene00001_0", joints[:1], mark=2, visible=np.ones((15, 1)))
    (track,) = JHMDB(tmp_path).index("test").tracks
    assert track.joints.shape == (1, 15, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"scene00001_0.avi 2\nscene00001_0.avi 2\n", ":2: scene00001_0 is listed twice"),
        (b"scene00001_0.avi 2\nscene00001_0.avi 1\n", ":2: scene00001_0 is listed twice"),
        (b"sc\xffne.avi 2\n", "is not UTF-8"),
        ("scene00001_0.avi 2\n".encode("utf-16"), "is not UTF-8"),
        (b"../../etc/passwd 2\n", ":1: '../../etc/passwd' cannot be a clip's name"),
        (b".. 2\n", "cannot be a clip's name"),
        (b"a\0b.avi 2\n", "cannot be a clip's name"),
        (b"x" * 300 + b".avi 2\n", "cannot be a clip's name"),
        (b"scene00001_0.avi 1e999\n", "expected 'CLIP.avi N'"),
        (b"scene00001_0.avi\n", "expected 'CLIP.avi N'"),
        (b"\n" * (2**20 + 1), "at most"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_odd_lists(tmp_path, joints, content, said):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    (tmp_path / "splits" / "walk_test_split1.txt").write_bytes(content)
    with pytest.raises(BiposeError, match=r"walk_test_split1\.txt") as caught:
        JHMDB(tmp_path).index("test")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_with_a_mark_and_carriage_returns(tmp_path, joints):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    (tmp_path / "splits" / "walk_test_split1.txt").write_bytes(b"\xef\xbb\xbfscene00001_0.avi 2 \r\n\r\n")
    assert len(JHMDB(tmp_path).index("test").tracks) == 1


def test_the_lists_of_sub_jhmdb(tmp_path, joints):
    add_clip(tmp_path, "walk", "scene00001_0", joints, mark=2)
    add_clip(tmp_path, "walk", "scene00002_0", joints, mark=2)
    (tmp_path / "sub_splits").mkdir()
    (tmp_path / "sub_splits" / "walk_test_split_1.txt").write_text("scene00002_0.avi 2\n")
    index = JHMDB(tmp_path, splits_folder="sub_splits").index("test")
    assert index.name == "sub_jhmdb/split1/test[clip-box]"
    assert [t.clip for t in index.tracks] == ["walk/scene00002_0"]
