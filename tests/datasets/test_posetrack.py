"""PoseTrack18: the official layout, runs and neighbours, what is scored, and files that are not as they should be."""

import copy
import json

import cv2
import numpy as np
import pytest

from bipose_lit.datasets.clips import check_index
from bipose_lit.datasets.posetrack import PoseTrack18
from bipose_lit.metrics.posetrack import head_size
from bipose_lit.skeletons import POSETRACK18
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, NORMS, VISIBLE, BiposeError

HEAD, BBOX = NORMS.index("head"), NORMS.index("bbox")


def person(image, n, track=0, seed=0, **changes):
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate([rng.uniform(10, 60, (17, 2)).round(2), np.ones((17, 1))], axis=1)
    keypoints[3:5] = 0
    made = {
        "id": image * 100 + n, "image_id": image, "track_id": track, "category_id": 1, "bbox": [5, 6, 40, 50],
        "bbox_head": [10, 10, 6, 8], "keypoints": keypoints.ravel().tolist(), "scores": [], "iscrowd": False,
    }  # fmt: skip
    return {key: value for key, value in (made | changes).items() if value is not None}


def sequence(number=1, part="val", frames=6, labelled=(0, 1, 2, 5), persons=1):
    name, first = f"{number:06d}_mpii_{'test' if part == 'val' else 'train'}", 10**10 + number * 10**4
    images = [
        {
            "id": first + f, "frame_id": first + f, "file_name": f"images/{part}/{name}/{f:06d}.jpg", "nframes": frames,
            "vid_id": f"{number:06d}", "is_labeled": f in labelled, "has_no_densepose": True,
        }
        for f in range(frames)
    ]  # fmt: skip
    people = [person(first + f, t, t, seed=7 * f + t) for f in labelled for t in range(persons)]
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(POSETRACK18.joints)}
    return name, {"images": images, "annotations": people, "categories": [category]}


def write(root, made, part="val", pixels=False):
    name, content = made
    folder = root / "annotations" / part
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))
    for image in content["images"] if pixels else ():
        path = root / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((48, 64, 3), 20 * int(path.stem), np.uint8))
    return name


def detections(root, entries):
    path = root / "annotations" / "posetrack18_val_human_detections.json"
    path.write_text(json.dumps(entries))
    return path


def predict(index, offset=0.0, score=1.0, keep=None):
    """The labels themselves, moved, as predictions; what is not labelled has no confidence."""
    uid = np.concatenate([t.uid for t in index.tracks])
    joints = np.concatenate([t.joints for t in index.tracks])
    seen = np.concatenate([t.visible for t in index.tracks]) != ABSENT
    chosen = np.argsort(uid)[slice(None) if keep is None else keep]
    n = len(chosen)
    sure = seen[chosen] | (index.box_rule == "det-box")
    zeros = np.zeros(n, np.int64)
    return Predictions(
        uid=uid[chosen], clip=zeros, frame=zeros, pred=joints[chosen] + np.float32(offset),
        score=np.where(sure, score, 0).astype(np.float32), joints=joints[chosen], visible=np.zeros((n, 17), np.uint8),
        norms=np.zeros((n, 5), np.float32), fps=np.zeros(n, np.float32), clips=("c",), clusters=("c",),
        joint_names=POSETRACK18.joints, data=index.name,
    )  # fmt: skip


def test_runs_of_consecutive_labelled_frames(tmp_path):
    name = write(tmp_path, made := sequence(persons=2), pixels=True)
    index = PoseTrack18(tmp_path).index("test")
    check_index(index)
    assert (index.name, index.skipped) == ("posetrack18/test[gt-box]", {})
    assert [(t.clip, len(t)) for t in index.tracks] == [
        (f"{name}/person0/000000", 3), (f"{name}/person0/000005", 1),
        (f"{name}/person1/000000", 3), (f"{name}/person1/000005", 1),
    ]  # fmt: skip
    track = index.tracks[2]
    wanted = [a for a in made[1]["annotations"] if a["track_id"] == 1][:3]
    assert track.uid.tolist() == [a["id"] for a in wanted]
    expected = np.array([a["keypoints"] for a in wanted]).reshape(3, 17, 3)
    np.testing.assert_allclose(track.joints, expected[..., :2], atol=1e-5)
    np.testing.assert_array_equal(track.visible, np.where(expected[..., 2] == 1, VISIBLE, ABSENT))
    assert (track.cluster, track.image_size, track.fps) == (name, (64, 48), 0)
    assert track.boxes.tolist() == [[5, 6, 40, 50]] * 3
    assert track.norms[:, HEAD].tolist() == [pytest.approx(6.0)] * 3  # 0.6 x 10
    assert (track.norms[:, BBOX] == 50).all()
    assert [round(float(i.mean()), -1) for i in track.frames.read([0, 2])] == [0, 40]


def test_neighbours_share_the_box_and_are_not_labelled(tmp_path):
    write(tmp_path, sequence(), pixels=True)
    index = PoseTrack18(tmp_path, neighbours=2).index("test")
    check_index(index)
    assert [len(t) for t in index.tracks] == [3, 4, 5, 3]
    assert [t.frames.names[0][-10:] for t in index.tracks] == ["000000.jpg", "000000.jpg", "000000.jpg", "000003.jpg"]
    track = index.tracks[2]
    assert (track.visible != ABSENT).any(axis=1).tolist() == [False, False, True, False, False]
    assert (track.boxes == track.boxes[0]).all()
    assert track.uid[2] == 1000001000200  # the annotation's
    assert np.isfinite(track.norms[2, HEAD])
    assert np.isnan(np.delete(track.norms[:, HEAD], 2)).all()
    again = PoseTrack18(tmp_path, neighbours=2).index("test").tracks
    assert [t.uid.tolist() for t in again] == [t.uid.tolist() for t in index.tracks]
    assert index.scoring.score(predict(index))["ap"] == 1.0  # neighbours' rows are there and do not count


def test_neighbours_end_where_frames_are_missing(tmp_path):
    name = write(tmp_path, sequence(labelled=(2,)), pixels=True)
    (tmp_path / "images" / "val" / name / "000003.jpg").unlink()
    (track,) = PoseTrack18(tmp_path, neighbours=2).index("test").tracks
    assert [n[-6:-4] for n in track.frames.names] == ["00", "01", "02"]
    labels_alone = tmp_path / "labels"
    write(labels_alone, sequence(labelled=(2,)))
    (track,) = PoseTrack18(labels_alone, neighbours=2).index("test").tracks
    assert len(track) == 5
    assert track.image_size == (0, 0)


def test_splits(tmp_path):
    for n in range(10):
        write(tmp_path, sequence(n, "train"), "train")
    write(tmp_path, sequence(20))
    reader = PoseTrack18(tmp_path, val_fraction=0.2)
    train, val, test = (reader.index(s) for s in ("train", "val", "test"))
    assert (len(train.clusters), len(val.clusters)) == (8, 2)
    assert not set(train.clusters) & set(val.clusters)
    assert test.clusters == ("000020_mpii_test",)
    with pytest.raises(BiposeError, match="raise val_fraction"):
        PoseTrack18(tmp_path, val_fraction=0).index("val")


def test_one_file_of_all_sequences(tmp_path):
    whole = {"images": [], "annotations": []}
    for n in (1, 2):
        made = sequence(n)
        write(tmp_path, made)
        for key in whole:
            whole[key] += made[1][key]
    (tmp_path / "annotations" / "posetrack18_val.json").write_text(json.dumps(whole))
    one = PoseTrack18(tmp_path, annotations="annotations/posetrack18_{split}.json").index("test")
    many = PoseTrack18(tmp_path).index("test")
    assert [t.clip for t in one.tracks] == [t.clip for t in many.tracks]
    assert one.scoring.score(predict(one, 2)) == many.scoring.score(predict(many, 2))
    with pytest.raises(BiposeError, match="both list image"):
        PoseTrack18(tmp_path, annotations="**/*.json").index("test")


def test_scoring(tmp_path):
    write(tmp_path, sequence(persons=2))
    index = PoseTrack18(tmp_path).index("test")
    perfect = index.scoring.score(predict(index))
    assert set(perfect.values()) == {1.0}
    assert len(perfect) == 1 + 7 + 15
    assert set(index.scoring.score(predict(index, 100)).values()) == {0.0}
    half = index.scoring.score(predict(index, keep=slice(0, 4)))  # persons without a prediction are missed
    assert set(half.values()) == {0.5}
    shuffled = predict(index)
    order = np.random.default_rng(0).permutation(8)
    for key in ("uid", "pred", "score"):
        object.__setattr__(shuffled, key, getattr(shuffled, key)[order])
    assert index.scoring.score(shuffled) == perfect
    for change, message in (
        ({"uid": predict(index).uid + 1}, "unknown"),
        ({"uid": np.repeat(predict(index).uid[:1], 8)}, "twice"),
        ({"joint_names": ("nose",)}, "skeleton"),
        ({"pred": np.full((8, 17, 2), np.nan, np.float32)}, "not finite"),
    ):
        broken = predict(index)
        for key, value in change.items():
            object.__setattr__(broken, key, value)
        with pytest.raises(BiposeError, match=message):
            index.scoring.score(broken)


def test_persons_in_ignore_regions_are_not_scored(tmp_path):
    name, content = sequence(labelled=(0,))
    content["images"][0]["ignore_regions_x"] = [[0, 100, 100, 0]]
    content["images"][0]["ignore_regions_y"] = [[0, 0, 100, 100]]
    write(tmp_path, (name, content))
    index = PoseTrack18(tmp_path).index("test")
    assert index.scoring.score(predict(index))["ap"] == 0.0  # as poseval has it: nothing predicted outside
    assert np.isnan(index.scoring.score(predict(index, 200))["ap"])


def test_detected_boxes(tmp_path):
    _, content = made = sequence(persons=2)
    write(tmp_path, made)
    labelled = [i["id"] for i in content["images"] if i["is_labeled"]]
    entry = {"category_id": 1, "bbox": [5, 6, 40, 50], "score": 0.9}
    entries = [entry | {"image_id": i, "score": s} for i in labelled for s in (0.9, 0.3)]
    entries += [entry | {"image_id": content["images"][3]["id"]}, entry | {"image_id": 77}]  # unlabelled, another set's
    entries += [entry | {"image_id": labelled[0]} | e for e in (
        {"category_id": 2}, {"bbox": [0, 0, 0, 5]}, {"bbox": [1, 2, 3]}, {"score": 1.5}, {"score": "0.5"}, {"bbox": None},
    )]  # fmt: skip
    detections(tmp_path, entries)
    index = PoseTrack18(tmp_path, box_rule="det-box").index("test")
    check_index(index)
    assert index.name == "posetrack18/test[det-box]"
    assert len(index.tracks) == 8
    assert sum(map(len, index.skipped.values())) == 6
    assert {t.box_score for t in index.tracks} == {0.9, 0.3}
    assert all((t.visible == ABSENT).all() and np.isnan(t.norms).all() for t in index.tracks)
    kept = PoseTrack18(tmp_path, box_rule="det-box", min_score=0.5).index("test")
    assert len(kept.tracks) == 4
    assert {int(t.uid[0]) for t in kept.tracks} < {int(t.uid[0]) for t in index.tracks}
    write(tmp_path, sequence(3, "train"), "train")
    write(tmp_path, sequence(4, "train"), "train")
    assert PoseTrack18(tmp_path, box_rule="det-box").index("train").name == "posetrack18/train[gt-box]"


def test_scores_are_weighted_by_the_box(tmp_path):
    _, content = made = sequence(labelled=(0,))
    write(tmp_path, made)
    image = content["images"][0]["id"]
    box = {"category_id": 1, "image_id": image, "bbox": [5, 6, 40, 50]}
    detections(tmp_path, [box | {"score": 0.9}, box | {"score": 0.2}])
    index = PoseTrack18(tmp_path, box_rule="det-box").index("test")
    truth = np.array(content["annotations"][0]["keypoints"]).reshape(17, 3)[:, :2]
    by_uid = {int(t.uid[0]): t.box_score for t in index.tracks}
    for right, expected in ((0.9, 1.0), (0.2, 0.5)):
        predictions = predict(index)
        for row, uid in enumerate(predictions.uid):
            predictions.pred[row] = truth if by_uid[int(uid)] == right else truth + 500
        assert index.scoring.score(predictions)["ap"] == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keypoints": [1, 2, 3]}, "persons with a wrong number of keypoints"),
        ({"keypoints": None}, "persons that cannot be read"),
        ({"keypoints": ["a"] * 51}, "persons that cannot be read"),
        ({"keypoints": [1e300] * 51}, "persons with keypoints out of all bounds"),
        ({"keypoints": [5, 5, 7] * 17}, "persons with keypoints out of all bounds"),
        ({"keypoints": [0] * 51}, "persons without a labelled joint"),
        ({"image_id": 5}, "persons of images that the file does not list"),
        ({"image_id": "x"}, "persons that cannot be read"),
        ({"bbox_head": None}, "persons without a head box, kept as labelled, no prediction can match them"),
        ({"bbox_head": [1, 2, 3]}, "persons without a head box, kept as labelled, no prediction can match them"),
        ({"id": None}, "persons without a usable annotation id, kept under another"),
        ({"id": 10**25}, "persons without a usable annotation id, kept under another"),
        ({"id": "x"}, "persons without a usable annotation id, kept under another"),
        ({"id": 1000001000001}, "persons whose annotation id was there before, kept under another"),
        ({"track_id": 1}, "persons whose track is in the frame twice, kept as a track of their own"),
        ({"track_id": 2**80}, "persons without a usable track id, kept as a track of their own"),
        ({"bbox": [1, 2, 0, 4]}, "boxes without area, one around joints and head used"),
        ({"bbox": None}, "boxes without area, one around joints and head used"),
        ({"bbox": [1e300, 0, 1, 1]}, "boxes without area, one around joints and head used"),
    ],
)
def test_single_broken_persons_are_counted(tmp_path, changes, reason):
    name, content = sequence(labelled=(0,), persons=4)
    broken = content["annotations"][3] | changes
    content["annotations"][3] = {key: value for key, value in broken.items() if changes.get(key, 0) is not None}
    write(tmp_path, (name, content))
    index = PoseTrack18(tmp_path).index("test")
    check_index(index)
    assert {r: len(w) for r, w in index.skipped.items()} == {reason: 1}
    assert len(index.tracks) == (4 if reason.startswith("boxes") or "kept" in reason else 3)


def test_a_person_without_track_id_is_its_own_track(tmp_path):
    name, content = sequence()
    for label in content["annotations"]:
        del label["track_id"]
    write(tmp_path, (name, content))
    assert [len(t) for t in PoseTrack18(tmp_path).index("test").tracks] == [1] * 4


def test_joints_go_by_the_categories_names(tmp_path):
    name, content = sequence()
    expected = copy.deepcopy(content)
    order = [j for j in reversed(POSETRACK18.joints) if not j.endswith("_ear")]  # 15, as poseval allows
    columns = [POSETRACK18.joints.index(j) for j in order]
    content["categories"][0]["keypoints"] = order
    for label in content["annotations"]:
        label["keypoints"] = np.array(label["keypoints"]).reshape(17, 3)[columns].ravel().tolist()
    write(tmp_path / "a", (name, content))
    write(tmp_path / "b", (name, expected))
    a, b = (PoseTrack18(tmp_path / p).index("test") for p in "ab")
    np.testing.assert_array_equal(a.tracks[0].joints, b.tracks[0].joints)
    content["categories"][0]["keypoints"] = ["nose", *order[1:]]
    write(tmp_path / "a", (name, content))
    with pytest.raises(BiposeError, match="lacks the joint"):
        PoseTrack18(tmp_path / "a").index("test")


def damaged(content):
    image = content["images"][0]
    yield "file_name", image | {"file_name": "../../x/000000.jpg"}
    yield "file_name", image | {"file_name": "/etc/000000.jpg"}
    yield "file_name", image | {"file_name": "images/val/s/none.jpg"}
    yield "file_name", image | {"file_name": "000000.jpg"}
    yield "file_name", image | {"file_name": "images/\x00/000000.jpg"}
    yield "not PoseTrack18|is not", image | {"file_name": 3}
    yield "is not", image | {"id": "3"}
    yield "out of range", image | {"id": -3}
    yield "there twice", image | {"id": content["images"][1]["id"]}
    yield "there twice", image | {"file_name": content["images"][1]["file_name"]}
    yield "is not", image | {"ignore_regions_x": [1, 2]}
    yield "more x than y", image | {"ignore_regions_x": [[1, 2, 3]]}
    yield "more x than y", image | {"ignore_regions_x": [[1, 2]], "ignore_regions_y": [[1, 2, 3]]}
    yield "out of all bounds", image | {"ignore_regions_x": [[1e30]], "ignore_regions_y": [[1]]}


def test_a_damaged_file(tmp_path):
    name, content = sequence()
    files = [(message, content | {"images": [image, *content["images"][1:]]}) for message, image in damaged(content)]
    files += [
        ("images", {"annotations": []}),
        ("annotations", {"images": []}),
        ("expected object", []),
        ("expected object", "x"),
        ("annolist", {"annolist": []}),
    ]
    path = tmp_path / "annotations" / "val" / f"{name}.json"
    path.parent.mkdir(parents=True)
    for message, changed in files:
        path.write_text(json.dumps(changed))
        with pytest.raises(BiposeError, match=message) as raised:
            PoseTrack18(tmp_path).index("test")
        assert "\n" not in str(raised.value)
    for data in (b"", b"\xff\xfe", b"{", b'{"images": [NaN]}', b"[" * 100_000, b'{"a":' * 100_000):
        path.write_bytes(data)
        with pytest.raises(BiposeError):
            PoseTrack18(tmp_path).index("test")
    with pytest.raises(BiposeError, match="all 1 label files are damaged"):
        PoseTrack18(tmp_path, strict=False).index("test")
    write(tmp_path, sequence(9))
    index = PoseTrack18(tmp_path, strict=False).index("test")
    assert list(index.skipped) == ["damaged label files"]


def test_what_the_user_gets_told(tmp_path):
    with pytest.raises(BiposeError, match="no such folder"):
        PoseTrack18(tmp_path / "none")
    with pytest.raises(BiposeError, match="box_rule"):
        PoseTrack18(tmp_path, box_rule="clip-box")
    with pytest.raises(BiposeError, match="neighbours"):
        PoseTrack18(tmp_path, neighbours=-1)
    with pytest.raises(BiposeError, match="val_fraction"):
        PoseTrack18(tmp_path, val_fraction=float("nan"))
    write(tmp_path, sequence())
    with pytest.raises(BiposeError, match="split 'all'"):
        PoseTrack18(tmp_path).index("all")
    for split in ("train", "val"):
        with pytest.raises(BiposeError, match=r"no annotations/train/\*\.json; train, and val, which is a share of it"):
            PoseTrack18(tmp_path).index(split)
    for pattern in ("", "/etc/*.json"):
        with pytest.raises(BiposeError, match="not a pattern"):
            PoseTrack18(tmp_path, annotations=pattern).index("test")
    with pytest.raises(BiposeError, match="human_detections"):
        PoseTrack18(tmp_path, box_rule="det-box").index("test")
    detections(tmp_path, [])
    with pytest.raises(BiposeError, match="no detection in a labelled frame"):
        PoseTrack18(tmp_path, box_rule="det-box").index("test")
    detections(tmp_path, {"a": 1})
    with pytest.raises(BiposeError, match="list of detections"):
        PoseTrack18(tmp_path, box_rule="det-box").index("test")


@pytest.mark.real_data
def test_real_labels(real_data):
    root = real_data / "posetrack18_mini"
    index = PoseTrack18(root).index("test")
    check_index(index)
    assert len(index.tracks) == 14
    assert index.clusters == ("003418_mpii_test", "009473_mpii_test", "012834_mpii_test")
    assert index.skipped == {}
    for track in index.tracks:
        height, width = track.frames.read([0])[0].shape[:2]
        assert track.image_size == (width, height)
        raw = json.loads((root / "annotations" / "val" / f"{track.cluster}.json").read_text())
        (label,) = (a for a in raw["annotations"] if a["id"] == track.uid[0])
        keypoints = np.array(label["keypoints"]).reshape(17, 3)
        seen = keypoints[:, 2] == 1
        np.testing.assert_array_equal(track.visible[0] == VISIBLE, seen)
        np.testing.assert_allclose(track.joints[0, seen], keypoints[seen, :2], atol=1e-3)
        assert track.norms[0, HEAD] == pytest.approx(head_size(np.array(label["bbox_head"])))
        low, high = keypoints[seen, :2].min(0), keypoints[seen, :2].max(0)
        np.testing.assert_allclose(track.boxes[0, 2:], 1.3 * (high - low), rtol=1e-5)  # as the owners made them
    assert index.scoring.score(predict(index))["ap"] == 1.0
    merged = PoseTrack18(root, annotations="annotations/test_posetrack18_{split}.json").index("test")
    assert [t.clip for t in merged.tracks] == [t.clip for t in index.tracks]
    found = PoseTrack18(
        root, "det-box", detections="annotations/test_posetrack18_human_detections.json", min_score=0.4
    ).index("test")
    assert len(found.tracks) == 88
