"""What is written in the official layouts is what the official readers read."""

import json

import cv2
import numpy as np
import pytest
import scipy.io
from pycocotools.coco import COCO

from bipose_lit import skeletons
from bipose_lit.datasets.frames import decode_video
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.datasets.penn import PennAction
from bipose_lit.datasets.synthetic import points, worker
from bipose_lit.datasets.synthetic.assay import ClipPlan
from bipose_lit.datasets.synthetic.write import (
    ClipLabels,
    encode_image,
    encode_mat,
    encode_video,
    put,
    write_jhmdb_clip,
    write_jhmdb_splits,
    write_penn_clip,
)
from bipose_lit.datasets.synthetic.write_stills import (
    H36M_POINTS,
    still_frames,
    still_name,
    still_paths,
    write_coco,
    write_h36m,
    write_mpii,
)
from bipose_lit.types import NORMS, OCCLUDED, VISIBLE

SIZE, T = (160, 120), 20


@pytest.fixture(scope="module")
def clips():
    """Three rendered clips of two sources: seen, past, future."""
    plans = [
        ClipPlan("train", "scene10000", 0, "walk+wave", "P", (1, 0, 0)),
        ClipPlan("train", "scene10000", 1, "squat", "N", (1, 0, 1)),
        ClipPlan("test", "scene30000", 0, "turn", "F", (3, 0, 0)),
    ]
    return [worker.render_plan(plan, 3, T, 25.0, SIZE) for plan in plans]


def test_jhmdb_comes_back_to_the_digit(clips, tmp_path):
    for clip, labels, _ in clips:
        write_jhmdb_clip(tmp_path, labels, clip.frames)
    write_jhmdb_splits(tmp_path, [(labels.clip, labels.split) for _, labels, _ in clips])
    reader = JHMDB(tmp_path, val_fraction=0)
    tracks = {t.clip: t for split in ("train", "test") for t in reader.index(split).tracks}
    assert len(tracks) == 3
    for clip, labels, _ in clips:
        track = tracks[labels.clip]
        assert (track.cluster, track.action, track.fps, track.image_size) == (labels.cluster, labels.action, 25.0, SIZE)
        np.testing.assert_allclose(track.joints, labels.select(skeletons.JHMDB.joints), atol=1e-5)
        own = [points.NAMES.index(name) for name in skeletons.JHMDB.joints]
        expected = np.where(labels.hidden[:, own] | labels.outside[:, own], OCCLUDED, VISIBLE)
        np.testing.assert_array_equal(track.visible, expected)
        decoded = np.stack(track.frames.read(range(T))).astype(int)
        difference = decoded - clip.frames
        assert np.abs(difference).mean() < 4, "pixels survive the codec"
        wrong = np.abs(np.roll(decoded, 1, axis=0) - clip.frames).mean() if labels.action != "squat" else 99
        assert np.abs(difference).mean() < wrong


def test_png_pixels_are_lossless(clips, tmp_path):
    clip, labels, _ = clips[2]
    write_jhmdb_clip(tmp_path, labels, clip.frames, pixels="png")
    write_jhmdb_splits(tmp_path, [(labels.clip, "test")])
    (track,) = JHMDB(tmp_path).index("test").tracks
    np.testing.assert_array_equal(np.stack(track.frames.read(range(T))), clip.frames)


def test_no_frame_depends_on_its_neighbours(clips, tmp_path):
    """Each frame of the video is coded by itself: changing one leaves all others bit for bit as they were."""
    frames = clips[0][0].frames.copy()
    put(tmp_path / "a.avi", encode_video(frames, 25.0))
    frames[9] = 255 - frames[9]
    put(tmp_path / "b.avi", encode_video(frames, 25.0))
    a, b = decode_video(tmp_path / "a.avi"), decode_video(tmp_path / "b.avi")
    same = [bool((x == y).all()) for x, y in zip(a, b, strict=True)]
    assert same == [t != 9 for t in range(T)]


def test_encoding_is_reproducible(clips):
    clip, labels, _ = clips[0]
    assert encode_video(clip.frames, 25.0) == encode_video(clip.frames, 25.0)
    content = {"pos_img": labels.points, "fps": 25.0}
    data = encode_mat(content)
    assert data == encode_mat(content)
    assert b"Created on" not in data
    assert encode_image(clip.frames[0], ".png") == encode_image(clip.frames[0], ".png")


def test_stage_one_has_its_own_official_split(tmp_path):
    members = [("run/scene00000_0", "stage1"), ("run/scene10000_0", "train"), ("run/scene20000_0", "val"),
               ("run/scene30000_0", "test")]  # fmt: skip
    write_jhmdb_splits(tmp_path, members)
    (tmp_path / "joint_positions").mkdir()
    train = {n: [c for _, c in JHMDB(tmp_path, split=n).members("train")] for n in (1, 2, 3)}
    assert train == {1: ["scene10000_0"], 2: ["scene00000_0"], 3: ["scene00000_0", "scene10000_0"]}
    for number in (1, 2, 3):
        assert JHMDB(tmp_path, split=number).members("val") == [("run", "scene20000_0")]
        assert JHMDB(tmp_path, split=number).members("test") == [("run", "scene30000_0")]


def test_penn_comes_back_to_the_digit(clips, tmp_path):
    for number, (clip, labels, _) in enumerate(clips, 1):
        write_penn_clip(tmp_path, number, labels, clip.frames)
    reader = PennAction(tmp_path)
    index = reader.index("test")
    (track,) = index.tracks
    clip, labels, _ = clips[2]
    names = ["head_centre" if n == "head" else n for n in skeletons.PENN_ACTION.joints]
    np.testing.assert_allclose(track.joints, labels.select(names), atol=1e-5)
    np.testing.assert_array_equal(track.visible, labels.visible(names))
    width = labels.boxes[:, 2:] - labels.boxes[:, :2]
    np.testing.assert_allclose(track.norms[:, NORMS.index("bbox")], width.max(axis=1), atol=1e-4)
    assert (track.cluster, track.fps, track.action) == ("scene30000", 25.0, "turn")
    assert np.abs(track.frames.read([4])[0].astype(int) - clip.frames[4]).mean() < 4
    assert not index.skipped


def write_stills(root, clips):
    for clip, labels, _ in clips:
        for frame in still_frames(T):
            for path in still_paths(root, labels, frame, ("coco", "mpii")):
                put(path, encode_image(clip.frames[frame], ".jpg"))
    write_coco(root / "coco", [labels for _, labels, _ in clips])
    write_mpii(root / "mpii", [labels for _, labels, _ in clips])


def test_coco_is_read_by_pycocotools(clips, tmp_path):
    write_stills(tmp_path, clips)
    found = COCO(str(tmp_path / "coco" / "annotations" / "person_keypoints_train2017.json"))
    assert len(found.anns) == 2 * len(still_frames(T))
    by_name = {still_name(labels, f): (labels, f) for _, labels, _ in clips for f in still_frames(T)}
    for ann in found.anns.values():
        image = found.imgs[ann["image_id"]]
        labels, frame = by_name[image["file_name"]]
        picture = cv2.imread(str(tmp_path / "coco" / "train2017" / image["file_name"]))
        assert picture.shape[:2] == (image["height"], image["width"]) == SIZE[::-1]
        triples = np.array(ann["keypoints"]).reshape(17, 3)
        expected = labels.select(skeletons.COCO.joints)[frame]
        seen = triples[:, 2] > 0
        np.testing.assert_allclose(triples[seen, :2], expected[seen], atol=1e-3)
        assert ann["num_keypoints"] == seen.sum() > 0
        x, y, w, h = ann["bbox"]
        np.testing.assert_allclose([x, y, x + w - 1, y + h - 1], labels.boxes[frame])
        near = (expected[5:] > [x - 6, y - 6]) & (expected[5:] < [x + w + 6, y + h + 6])
        assert near[seen[5:]].all(), "joints lie in or near the person's pixels"


def test_mpii_in_hrnets_and_the_evaluations_files(clips, tmp_path):
    write_stills(tmp_path, clips)
    entries = json.loads((tmp_path / "mpii" / "annot" / "train.json").read_text())
    truth = scipy.io.loadmat(tmp_path / "mpii" / "annot" / "gt_train.mat")
    names = [str(np.asarray(n).item()) for n in truth["dataset_joints"].ravel()]
    assert names[9] == "head"
    assert truth["pos_gt_src"].shape == (16, 2, len(entries))
    assert truth["headboxes_src"].shape == (2, 2, len(entries))
    by_name = {still_name(labels, f): (labels, f) for _, labels, _ in clips for f in still_frames(T)}
    for n, entry in enumerate(entries):
        labels, frame = by_name[entry["image"]]
        assert (tmp_path / "mpii" / "images" / entry["image"]).exists()
        joints, present = np.array(entry["joints"]), np.array(entry["joints_vis"]) > 0
        expected = labels.select(skeletons.MPII.joints)[frame] + 1
        np.testing.assert_allclose(joints[present], expected[present], atol=1e-3)
        np.testing.assert_allclose(truth["pos_gt_src"][..., n], expected, atol=1e-4)
        np.testing.assert_array_equal(truth["jnt_missing"][:, n] == 0, present)
        # The reference code's own crop: centre 15 scale lower, scale a quarter wider.
        centre = np.array(entry["center"]) + np.array([0, 15 * entry["scale"]]) - 1
        half = 1.25 * entry["scale"] * 200 / 2
        x0, y0, x1, y1 = labels.boxes[frame]
        np.testing.assert_allclose(centre, [(x0 + x1) / 2, (y0 + y1) / 2], atol=1e-3)
        assert half == pytest.approx(1.25 * max(x1 - x0, y1 - y0) / 2, rel=1e-4)
        head = np.linalg.norm(truth["headboxes_src"][1, :, n] - truth["headboxes_src"][0, :, n])
        assert 0.1 < head / max(x1 - x0, y1 - y0) < 0.5


def test_tracks_in_three_dimensions_project_to_the_labels(clips, tmp_path):
    write_h36m(tmp_path, [labels for _, labels, _ in clips])
    with np.load(tmp_path / "tracks.npz", allow_pickle=False) as content:
        keys = {name.rsplit("/", 1)[0] for name in content.files}
        assert len(keys) == 3
        assert {key.split("/")[0] for key in keys} <= {"S1", "S5", "S6", "S7", "S9", "S11"}
        for key in keys:
            world, K, R, t = (content[f"{key}/{name}"].astype(float) for name in ("positions_3d", "K", "R", "t"))
            assert world.shape == (T, len(H36M_POINTS), 3)
            flat = np.einsum("tij,tkj->tki", K, np.einsum("tij,tkj->tki", R, world) + t[:, None])
            np.testing.assert_allclose(flat[..., :2] / flat[..., 2:], content[f"{key}/positions_2d"], atol=0.02)


def test_labels_survive_the_record(clips, tmp_path):
    labels = clips[0][1]
    labels.save(tmp_path / "sub" / "x.npz")
    back = ClipLabels.load(tmp_path / "sub" / "x.npz")
    for name in ("clip", "split", "cluster", "action", "regime", "fps", "size"):
        assert getattr(back, name) == getattr(labels, name)
    for name in ("points", "hidden", "outside", "behind", "boxes", "heads", "positions", "K", "R", "t"):
        np.testing.assert_array_equal(getattr(back, name), getattr(labels, name))


def test_a_file_is_whole_or_absent(tmp_path):
    from bipose_lit.datasets.synthetic.write import whole_file

    def fail():
        with whole_file(tmp_path / "a") as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_heads_points_sit_in_the_heads_frame(clips):
    """At rest facing the camera: nose ahead, eyes over it, the left ear on the person's left."""
    from bipose_lit.datasets.synthetic.body import JOINTS, Proportions, forward_kinematics

    positions, frames = forward_kinematics(np.zeros((1, 3)), np.tile(np.eye(3), (1, len(JOINTS), 1, 1)), Proportions())
    world = {name: p[0] for name, p in points.world_points(positions, frames).items()}
    head, top = world["head"], world["head_top"]
    assert world["nose"][2] > world["face"][2] > head[2]
    assert world["left_ear"][0] > world["left_eye"][0] > 0 > world["right_eye"][0] > world["right_ear"][0]
    assert top[1] > world["left_eye"][1] > world["nose"][1] > world["chin"][1]
    assert world["chin"][1] < head[1] < world["nose"][1]
    np.testing.assert_allclose(world["belly"], (world["pelvis"] + world["chest"]) / 2)
    there = np.array([[0.0, 1.6, 3.0]])
    stacked = {name: p[None] for name, p in world.items()}
    assert not any(hidden[0] for hidden in points.face_away(stacked, there).values())
    behind = points.face_away(stacked, -there * [1, -1, 1])
    assert behind["nose"][0]
    assert behind["left_eye"][0]


def test_points_out_of_view_are_hidden_and_covered_by_nothing(clips):
    alpha = np.zeros((10, 12), np.float32)
    alpha[:, 6:] = 1
    pixels = np.array([[2.0, 2], [5.4, 2], [6.4, 2], [11.4, 9.4], [11.6, 2], [-0.6, 3], [np.nan, 1]])
    np.testing.assert_array_equal(points.covered(alpha, pixels), [0, 0, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(points.outside(pixels, (12, 10)), [0, 0, 0, 0, 1, 1, 1])
