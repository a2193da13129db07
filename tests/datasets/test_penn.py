"""Penn Action: the official layout with its traps, the keys we add, and the real labels."""

import cv2
import numpy as np
import pytest
import scipy.io

from bipose_lit.datasets.penn import PennAction
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, VISIBLE, BiposeError


def add_clip(root, name, T=5, train=1, images=None, seed=0, **changes):
    rng = np.random.default_rng(seed)
    content = {
        "x": rng.uniform(5, 60, (T, 13)), "y": rng.uniform(5, 40, (T, 13)),
        "visibility": np.ones((T, 13), np.uint8),
        "bbox": np.tile([3.0, 4.0, 63.0, 44.0], (T, 1)),
        "dimensions": np.array([[48, 64, T]], np.uint16), "nframes": np.uint8(T % 256), "train": np.int32(train),
        "action": "jump_rope", "pose": "front",
    }  # fmt: skip
    content.update(changes)
    (root / "labels").mkdir(exist_ok=True)
    scipy.io.savemat(root / "labels" / f"{name}.mat", content)
    folder = root / "frames" / name
    folder.mkdir(parents=True)
    for t in range(T if images is None else images):
        cv2.imwrite(str(folder / f"{t + 1:06d}.jpg"), np.full((48, 64, 3), 20 * t, np.uint8))
    return content


def test_official_keys(tmp_path):
    content = add_clip(tmp_path, "0001", train=-1)
    index = PennAction(tmp_path).index("test")
    (track,) = index.tracks
    assert index.name == "penn_action/test[gt-box]"
    np.testing.assert_allclose(track.joints[..., 0], content["x"] - 1, atol=1e-5)
    np.testing.assert_allclose(track.joints[..., 1], content["y"] - 1, atol=1e-5)
    assert (track.clip, track.cluster, track.action, track.image_size) == ("0001", "0001", "jump_rope", (64, 48))
    assert (track.norms[:, NORMS.index("bbox")] == 60).all()  # x2 - x1, the official width
    centre = track.boxes[0, :2] + track.boxes[0, 2:] / 2 - 0.5
    np.testing.assert_allclose(centre, [(3 + 63) / 2 - 1, (4 + 44) / 2 - 1])
    assert [round(float(i.mean()), -1) for i in track.frames.read([0, 3])] == [0, 60]


def test_invisible_joints_are_placeholders_and_so_absent(tmp_path):
    visibility = np.ones((5, 13), np.uint8)
    visibility[2, 4] = 0
    add_clip(tmp_path, "0001", train=-1, visibility=visibility)
    (track,) = PennAction(tmp_path).index("test").tracks
    assert (track.visible == ABSENT).sum() == 1
    assert track.visible[2, 4] == ABSENT
    assert (track.joints[2, 4] == 0).all()


def test_our_keys(tmp_path):
    visible = np.random.default_rng(3).integers(0, 3, (5, 13))
    add_clip(tmp_path, "0001", train=-1, visible=visible, cluster="scene7", fps=25.0)
    (track,) = PennAction(tmp_path).index("test").tracks
    np.testing.assert_array_equal(track.visible, visible)
    assert (track.cluster, track.fps) == ("scene7", 25.0)
    assert (track.visible == OCCLUDED).any()
    assert (track.joints[track.visible == OCCLUDED] != 0).any()
    assert (track.visible == VISIBLE).any()


def test_more_than_255_frames_survive_the_uint8_length(tmp_path):
    add_clip(tmp_path, "0001", T=300, train=-1, images=0)
    (track,) = PennAction(tmp_path).index("test").tracks
    assert len(track) == 300


def test_a_missing_last_box_is_repeated_and_reported(tmp_path):
    boxes = np.tile([3.0, 4.0, 63.0, 44.0], (4, 1))
    boxes[-1, 2] = 73
    add_clip(tmp_path, "0001", train=-1, bbox=boxes)
    index = PennAction(tmp_path).index("test")
    assert index.tracks[0].norms[-1, 0] == 70
    assert index.skipped == {"boxes missing at the end, last one repeated": ["0001 (1)"]}


def test_a_box_without_area_falls_back_to_the_joints(tmp_path):
    boxes = np.tile([3.0, 4.0, 63.0, 44.0], (5, 1))
    boxes[2] = 0
    content = add_clip(tmp_path, "0001", train=-1, bbox=boxes)
    index = PennAction(tmp_path).index("test")
    box = index.tracks[0].boxes[2]
    np.testing.assert_allclose(box[:2], [content["x"][2].min() - 1, content["y"][2].min() - 1], atol=1e-4)
    assert list(index.skipped.values()) == [["0001 (1)"]]


def test_splits(tmp_path):
    for i in range(10):
        add_clip(tmp_path, f"{i:04d}", train=1 if i < 8 else -1, images=0, seed=i)
    reader = PennAction(tmp_path, val_fraction=0.2)
    train, val, test = (reader.index(s) for s in ("train", "val", "test"))
    assert (len(train.tracks), len(val.tracks), len(test.tracks)) == (6, 2, 2)
    assert not set(train.clusters) & set(val.clusters)


def test_named_validation_clips_are_taken(tmp_path):
    for i, train in enumerate((1, 1, 0, -1)):
        add_clip(tmp_path, f"{i:04d}", train=train, images=0)
    reader = PennAction(tmp_path)
    assert [t.clip for t in reader.index("val").tracks] == ["0002"]
    assert [t.clip for t in reader.index("train").tracks] == ["0000", "0001"]


def test_fewer_frames_than_labels(tmp_path):
    add_clip(tmp_path, "0001", train=-1, images=3)
    index = PennAction(tmp_path).index("test")
    assert len(index.tracks[0]) == len(index.tracks[0].frames) == 3
    assert list(index.skipped.values()) == [["0001 (5 labels, 3 frames)"]]


def test_a_missing_picture_shifts_no_label(tmp_path):
    content = [add_clip(tmp_path, f"000{number}", train=-1, seed=number) for number in range(3)]
    (tmp_path / "frames" / "0000" / "000003.jpg").unlink()
    (tmp_path / "frames" / "0001" / "000001.jpg").unlink()
    index = PennAction(tmp_path).index("test")
    assert index.skipped == {
        "a picture is missing, clip cut before it": ["0000 (no 000003.jpg, 2 of 5 frames kept)"],
        "the first picture is missing, clip left out": ["0001 (no 000001.jpg)"],
    }
    cut, whole = index.tracks
    assert (len(cut), len(cut.frames), cut.boxes.shape, len(whole)) == (2, 2, (2, 4), 5)
    np.testing.assert_allclose(cut.joints[..., 0], content[0]["x"][:2] - 1, atol=1e-5)
    assert [round(float(i.mean()), -1) for i in cut.frames.read([0, 1])] == [0, 20]


@pytest.mark.parametrize(("corners", "size"), [((3, 4, 63, 4), 60), ((3, 44, 3, 4), None), ((3, 4, 13, -30), 10)])
def test_the_official_size_needs_no_area(tmp_path, corners, size):
    boxes = np.tile([3.0, 4.0, 63.0, 44.0], (5, 1))
    boxes[2] = corners
    add_clip(tmp_path, "0001", train=-1, bbox=boxes)
    (track,) = PennAction(tmp_path).index("test").tracks
    (tight,) = PennAction(tmp_path, box_rule="frame-box").index("test").tracks
    np.testing.assert_array_equal(track.boxes[2], tight.boxes[2])
    assert track.norms[2, 0] == (size or tight.boxes[2, 2:].max())


def test_what_the_user_gets_told(tmp_path):
    with pytest.raises(BiposeError, match="no folder labels"):
        PennAction(tmp_path)
    add_clip(tmp_path, "0001", images=0)
    with pytest.raises(BiposeError, match="box_rule"):
        PennAction(tmp_path, box_rule="puppet-box")
    with pytest.raises(BiposeError, match="no test clips"):
        PennAction(tmp_path).index("test")
    scipy.io.savemat(tmp_path / "labels" / "0002.mat", {"x": np.zeros((2, 13))})
    with pytest.raises(BiposeError, match=r"0002\.mat: lacks the variable y"):
        PennAction(tmp_path).index("train")


@pytest.mark.real_data
def test_real_labels(real_data):
    reader = PennAction(real_data / "penn_action_mini")
    index = {split: reader.index(split) for split in ("train", "val", "test")}
    tracks = [t for i in index.values() for t in i.tracks]
    assert len(tracks) == 60
    assert {reason: clips for i in index.values() for reason, clips in i.skipped.items()} == {
        "boxes missing at the end, last one repeated": ["1154 (1)"]
    }
    for track in tracks:
        width, height = track.image_size
        raw = scipy.io.loadmat(real_data / "penn_action_mini" / "labels" / f"{track.clip}.mat")
        seen = track.visible == VISIBLE
        assert seen.any()
        np.testing.assert_allclose(track.joints[seen], np.stack([raw["x"], raw["y"]], -1)[seen] - 1, atol=1e-4)
        assert (np.abs(track.joints[seen] - np.array([width, height]) / 2) < [width, height]).all()
        assert np.isfinite(track.boxes).all()
        assert (track.boxes[:, 2:] > 0).all()
    with pytest.raises(BiposeError, match=r"frames/0001/000001\.jpg"):
        next(t for t in tracks if t.clip == "0001").frames.read([0])


WRONG = {
    "x": ["text", np.zeros((5, 12)), np.zeros((0, 13)), 1j * np.ones((5, 13)), np.array([1, "a"], dtype=object), {"a": 1}],
    "visibility": [np.full((5, 13), 2), np.full((5, 13), np.nan), np.ones((4, 13)), "yes"],
    "visible": [np.full((5, 13), 3), np.ones((13, 5)), "yes"],
    "bbox": [np.ones((5, 3)), np.ones((2, 2, 4)), "box", 3.0],
    "dimensions": [np.array([[48]]), np.array([[0, 64, 5]]), np.array([[48, -64]]), np.array([[np.nan, 64]]), "48x64",
                   np.array([[1e300, 64]]), np.array([[48.5, 64]])],
    "train": [2, np.nan, "train", np.array([1, -1]), np.zeros((0, 0)), -1.5],
    "action": [3.0, {"name": "jump"}, "two\nlines"],
    "cluster": [np.ones(3)],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_a_variable_of_the_wrong_kind_is_one_line_or_a_counted_skip(tmp_path, name, value):
    add_clip(tmp_path, "0001", train=-1, images=0)
    content = add_clip(tmp_path, "0002", train=-1, images=0)
    scipy.io.savemat(tmp_path / "labels" / "0002.mat", {**content, name: value})
    with pytest.raises(BiposeError, match=rf"0002\.mat: .*{name}") as caught:
        PennAction(tmp_path).index("test")
    assert "\n" not in str(caught.value)
    index = PennAction(tmp_path, strict=False).index("test")
    assert [t.clip for t in index.tracks] == ["0001"]
    (reason,) = index.skipped["damaged label file"]
    assert reason.startswith("0002 (")
    assert name in reason


def test_all_files_damaged_is_an_empty_split(tmp_path):
    add_clip(tmp_path, "0001", train=-1)
    (tmp_path / "labels" / "0001.mat").write_bytes(b"<html>")
    with pytest.raises(BiposeError, match="no test clips"):
        PennAction(tmp_path, strict=False).index("test")


def test_numbers_that_float32_cannot_hold_are_not_taken(tmp_path):
    x = np.full((5, 13), 30.0)
    x[0, 0], x[1, 1], x[2, 2] = 1e300, -3e7, np.nan
    boxes = np.tile([3.0, 4.0, 63.0, 44.0], (7, 1))
    boxes[1, 2], boxes[3] = 1e300, np.nan
    add_clip(tmp_path, "0001", train=-1, x=x, bbox=boxes, fps=np.nan, nframes=np.uint8(6))
    index = PennAction(tmp_path).index("test")
    (track,) = index.tracks
    assert index.skipped == {
        "joints not finite, taken as absent": ["0001 (1)"],
        "joints more than 1,000,000 px away, taken as absent": ["0001 (2)"],
        "nframes is not the number of labelled frames, the latter used": ["0001 (5)"],
        "more boxes than frames, the first ones used": ["0001 (2)"],
        "frame rate not usable, taken as unknown": ["0001"],
        "boxes without area, the joints' box used": ["0001 (2)"],
    }
    assert np.isfinite(track.joints).all()
    assert np.isfinite(track.boxes).all()
    assert np.isfinite(track.norms[:, :2]).all()
    assert [track.visible[t, t] for t in range(4)] == [ABSENT, ABSENT, ABSENT, VISIBLE]


def test_a_clip_of_too_many_frames(tmp_path):
    add_clip(tmp_path, "0001", T=4097, train=-1, images=0)
    with pytest.raises(BiposeError, match="cut it into shorter clips"):
        PennAction(tmp_path).index("test")


def test_the_layout_is_that_of_the_files(tmp_path):
    needed = [e.path for e in PennAction.layout if e.needed]
    assert needed == ["labels/NNNN.mat"]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "._0001.mat").write_bytes(b"what macOS leaves behind")
    with pytest.raises(BiposeError, match="no test clips"):
        PennAction(tmp_path).index("test")
