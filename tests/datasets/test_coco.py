"""COCO: splits, the reference code's boxes, detector boxes, scoring; pycocotools as the oracle on real labels."""

import importlib
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from bipose_lit.datasets.coco import COCO
from bipose_lit.datasets.labels import hold_out
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, AbsentSplitError, BiposeError

ROOT = Path(__file__).parents[2]


def person(number, image, **changes):
    rng = np.random.default_rng(number)
    triples = np.concatenate([rng.integers(5, 40, (17, 2)), np.full((17, 1), 2)], axis=1)
    triples[3], triples[4, 2] = 0, 1
    content = {
        "id": number, "image_id": image, "category_id": 1, "keypoints": triples.ravel().tolist(), "num_keypoints": 16,
        "bbox": [5.0, 6.0, 40.0, 30.0], "area": 900.0, "iscrowd": 0,
    }  # fmt: skip
    return {**content, **changes}


def write(root, part, persons, images=4, **more):
    content = {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "width": 64, "height": 48, **more} for i in range(1, images + 1)
        ],
        "annotations": persons,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.skeleton.joints)}],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"person_keypoints_{part}2017.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    """Forty training and four validation images with one person each."""
    write(tmp_path, "train", [person(i, i) for i in range(1, 41)], 40)
    write(tmp_path, "val", [person(100 + i, i) for i in range(1, 5)])
    return tmp_path


def test_a_still(root):
    folder = root / "val2017"
    folder.mkdir()
    cv2.imwrite(str(folder / "000000000001.jpg"), np.full((48, 64, 3), 90, np.uint8))
    index = COCO(root).index("test")
    track = index.tracks[0]
    known = np.reshape(person(101, 1)["keypoints"], (17, 3))
    assert (index.name, index.box_rule, index.split, index.skipped) == ("coco/val2017[gt-box]", "gt-box", "test", {})
    assert (track.clip, track.cluster, track.image_size, len(track), track.uid.tolist()) == (
        "1/101",
        "000000000001.jpg",
        (64, 48),
        1,
        [101],
    )
    np.testing.assert_array_equal(track.joints[0], known[:, :2])
    np.testing.assert_array_equal(track.visible[0], known[:, 2])
    assert (track.visible[0, 3], track.visible[0, 4]) == (ABSENT, OCCLUDED)
    norms = dict(zip(NORMS, track.norms[0], strict=True))
    torso = np.linalg.norm(known[5, :2] - known[12, :2])
    assert norms == pytest.approx({"bbox": 40, "clip": 40, "torso": torso, "head": np.nan, "area": 30}, nan_ok=True)
    assert round(float(track.frames.read([0])[0].mean())) == 90
    with pytest.raises(BiposeError, match=r"val2017/000000000002\.jpg"):
        index.tracks[1].frames.read([0])
    types = (track.joints.dtype, track.visible.dtype, track.boxes.dtype, track.norms.dtype, track.uid.dtype)
    assert types == (np.float32, np.uint8, np.float32, np.float32, np.int64)


def reference_box(box, width, height):
    """Corners and then centre and size as lib/dataset/coco.py of Simple Baselines has them; None where it skips."""
    x, y, w, h = box
    x1, y1 = max(0, x), max(0, y)
    x2, y2 = min(width - 1, x1 + max(0, w - 1)), min(height - 1, y1 + max(0, h - 1))
    if x2 < x1 or y2 < y1:
        return None
    return x1 + (x2 - x1) / 2, y1 + (y2 - y1) / 2, x2 - x1, y2 - y1


def test_boxes_are_the_reference_codes(tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.uniform([-20, -20, 0, 0], [80, 60, 90, 70], (200, 4)).round(2).tolist()
    boxes += [[0, 0, 64, 48], [10, 10, 1, 1], [63, 47, 5, 5], [63.5, 2, 5, 5], [10, 10, 0, 0]]
    write(tmp_path, "train", [person(1, 1)])
    write(tmp_path, "val", [person(i, 1, bbox=b) for i, b in enumerate(boxes, 1)])
    index = COCO(tmp_path).index("test")
    expected = {i: found for i, b in enumerate(boxes, 1) if (found := reference_box(b, 64, 48))}
    assert [t.uid[0] for t in index.tracks] == list(expected)
    assert len(boxes) - len(expected) == int(index.skipped["boxes outside of the image"][0].split()[1]) > 10
    thin = [i for i, found in expected.items() if min(found[2:]) < 1]
    told = f"person_keypoints_val2017.json: {len(thin)} (the first is {thin[0]})"
    assert index.skipped["boxes below one pixel, widened"] == [told]
    for track in index.tracks:
        cx, cy, w, h = expected[int(track.uid[0])]
        x, y, width, height = track.boxes[0].tolist()
        assert (x + width / 2 - 0.5, y + height / 2 - 0.5) == pytest.approx(
            (cx, cy), abs=1e-4
        )  # as `crop_matrix` has it
        assert (width, height) == pytest.approx((max(w, 1), max(h, 1)), abs=1e-4)


def test_who_is_a_person(tmp_path):
    none = [0] * 51
    write(tmp_path, "train", [
        person(1, 1), person(2, 1, iscrowd=1), person(3, 1, keypoints=none, num_keypoints=0), person(4, 1, area=0),
        person(5, 1, keypoints=none), person(6, 1, category_id=2), person(7, 1, num_keypoints=0),
    ])  # fmt: skip
    index = COCO(tmp_path, val_fraction=0).index("train")
    assert [t.uid[0] for t in index.tracks] == [1]
    assert index.name == "coco/train2017[gt-box]"
    assert index.skipped == {
        "crowds": ["person_keypoints_train2017.json: 1 (the first is 2)"],
        "persons of a category without joints": ["person_keypoints_train2017.json: 1 (the first is 6)"],
        "persons without a labelled joint": ["person_keypoints_train2017.json: 3 (the first is 3)"],
        "persons without area": ["person_keypoints_train2017.json: 1 (the first is 4)"],
    }
    # A prediction may still lie on those left out, but for another category, which pycocotools does not look at.
    assert index.scoring.truth.id.tolist() == [1, 2, 3, 4, 5, 7]


def test_splits_without_labels_for_test(root):
    reader = COCO(root, val_fraction=0.1)
    train, val, test = (reader.index(s) for s in ("train", "val", "test"))
    held = hold_out([f"{i:012d}.jpg" for i in range(1, 41)], 0.1)
    assert (len(train.tracks), len(val.tracks), len(test.tracks)) == (36, 4, 4)
    assert set(val.clusters) == held
    assert not set(train.clusters) & held
    assert [i.name for i in (train, val, test)] == ["coco/train[gt-box]", "coco/val[gt-box]", "coco/val2017[gt-box]"]
    assert (train.tracks[0].frames.names[0], test.tracks[0].frames.names[0]) == (
        f"train2017/{train.tracks[0].cluster}", "val2017/000000000001.jpg",
    )  # fmt: skip
    assert set(val.scoring.truth.images.tolist()) == {int(c[:12]) for c in held}
    assert len(train.scoring.truth) == 36
    with pytest.raises(BiposeError, match="raise val_fraction"):
        COCO(root, val_fraction=0).index("val")
    assert len(COCO(root, val_fraction=0).index("train").tracks) == 40


def test_splits_with_labels_for_test(root):
    write(root, "test", [person(500, 1)], cluster="scene9")
    index = {s: COCO(root).index(s) for s in ("train", "val", "test")}
    assert {s: len(i.tracks) for s, i in index.items()} == {"train": 40, "val": 4, "test": 1}
    assert index["val"].name == "coco/val2017[gt-box]"
    assert index["test"].tracks[0].cluster == "scene9"
    assert index["test"].tracks[0].frames.names == ("test2017/000000000001.jpg",)
    assert COCO(root, test="val2017").index("test").name == "coco/val2017[gt-box]"


def test_sources_that_the_file_names_are_not_torn_apart(tmp_path):
    write(tmp_path, "train", [person(i, i) for i in range(1, 9)], 8, cluster="one")
    write(tmp_path, "val", [person(100, 1)])
    content = json.loads((tmp_path / "annotations/person_keypoints_train2017.json").read_text())
    for image in content["images"][4:]:
        image["cluster"] = "two"
    (tmp_path / "annotations/person_keypoints_train2017.json").write_text(json.dumps(content))
    assert [len(COCO(tmp_path).index(s).tracks) for s in ("train", "val")] == [4, 4]


def test_detector_boxes(root):
    boxes = [
        {"image_id": 2, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [3, 4, 10, 20], "score": 0.2},
        {"image_id": 2, "category_id": 1, "bbox": [5, 6, 30, 40], "score": 0.01},
        {"image_id": 2, "category_id": 1, "bbox": [-9.5, 0, 12, 12], "score": 0.5},
        {"image_id": 2, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [1, 2, 0, 4], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [1, 2, 4], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4], "score": "high"},
        "box",
    ]
    (root / "found.json").write_text(json.dumps(boxes))
    reader = COCO(root, box_rule="det-box", detections="found.json", min_score=0.05)
    index = reader.index("test")
    assert (index.name, index.box_rule) == ("coco/val2017[det-box]", "det-box")
    assert [t.clip for t in index.tracks] == ["1/box0", "2/box0", "2/box2"]
    assert [t.box_score for t in index.tracks] == [0.2, 0.9, 0.5]
    assert index.tracks[2].boxes.tolist() == [[-9, 0.5, 12, 12]]
    assert [int(t.uid[0]) for t in index.tracks] == [2**62 + 2**24, 2**62 + 2 * 2**24, 2**62 + 2 * 2**24 + 2]
    assert all((t.visible == ABSENT).all() and (t.joints == 0).all() and np.isnan(t.norms).all() for t in index.tracks)
    assert index.skipped == {
        "detections: score: expected float, got str": ["found.json: detections[8]"],
        "detections: expected object, got str": ["found.json: detections[9]"],
        "detections: bbox is not four numbers within a million pixels": ["found.json: detections[7]"],
        "detections: image_id is not among the images": ["found.json: 1 (the first is 9)"],
        "detections: of another category": ["found.json: 1 (the first is 2)"],
        "detections: boxes without area": ["found.json: 1 (the first is 2)"],
    }
    assert reader.index("train").name == "coco/train[gt-box]"  # there is no training without labels
    assert (index.scoring.box_score.tolist(), index.scoring.image.tolist()) == ([0.2, 0.9, 0.5], [1, 2, 2])


def test_a_split_that_is_not_there_is_not_one_that_is_damaged(root):
    (root / "annotations" / "person_keypoints_train2017.json").unlink()
    with pytest.raises(AbsentSplitError, match=r"train2017\.json: no such label file"):
        COCO(root).index("train")
    write(root, "train", [person(1, 1)], 1)
    with pytest.raises(AbsentSplitError, match=r"no image to hold out .*; raise val_fraction"):
        COCO(root).index("val")
    write(root, "train", [], 40)
    write(root, "val", [])
    for split in ("train", "val", "test"):
        with pytest.raises(BiposeError, match="no person with a labelled joint") as caught:
            COCO(root).index(split)
        assert not isinstance(caught.value, AbsentSplitError)
    held = hold_out([f"{i:012d}.jpg" for i in range(1, 41)], 0.05)
    write(root, "train", [person(i, i) for i in range(1, 41) if f"{i:012d}.jpg" not in held], 40)
    with pytest.raises(AbsentSplitError, match=r"no person .* in the split val; raise val_fraction"):
        COCO(root).index("val")
    write(root, "val", [person(1, 1, bbox=[500, 500, 4, 4])])
    with pytest.raises(BiposeError, match=r"left out: boxes outside of the image: 1 \(the first is 1\)") as caught:
        COCO(root).index("test")
    assert not isinstance(caught.value, AbsentSplitError)


def test_a_box_thinner_than_a_pixel_becomes_one(root):
    boxes = [{"image_id": 1, "bbox": [10, 2, w, 40], "score": 1} for w in (1e-300, 0.5, 1)]
    (root / "found.json").write_text(json.dumps(boxes))
    tracks = COCO(root, box_rule="det-box", detections="found.json").index("test").tracks
    assert [t.boxes[0].tolist() for t in tracks] == [[10, 2.5, 1, 40], [10.25, 2.5, 1, 40], [10.5, 2.5, 1, 40]]


def test_ids_do_not_depend_on_the_threshold(root):
    boxes = [{"image_id": 1, "bbox": [1, 2, 30, 40], "score": s} for s in (0.1, 0.8)]
    (root / "found_val.json").write_text(json.dumps(boxes))
    few, all_ = (
        COCO(root, box_rule="det-box", detections="found_{split}.json", min_score=s).index("test") for s in (0.5, 0.0)
    )
    assert few.tracks[0].uid == all_.tracks[1].uid


def test_what_the_user_gets_told(root, tmp_path):
    for arguments, message in (
        ({"box_rule": "clip-box"}, "box_rule 'clip-box' is none of"),
        ({"box_rule": "det-box"}, "needs detections"),
        ({"test": "val"}, "test 'val' is none of auto, val2017, test2017"),
        ({"val_fraction": 1}, "val_fraction"),
        ({"min_score": float("nan")}, "min_score"),
        ({"nms": 2}, "nms"),
        ({"annotations": "annotations/val.json"}, "must hold {split}"),
        ({"annotations": "labels/{split}.json"}, r"labels/train\.json: no such label file"),
    ):
        with pytest.raises(BiposeError, match=message):
            COCO(root, **arguments)
    with pytest.raises(BiposeError, match="no such folder"):
        COCO(root / "none")
    with pytest.raises(BiposeError, match="split 'dev'"):
        COCO(root).index("dev")
    with pytest.raises(BiposeError, match=r"person_keypoints_test2017\.json: no such label file"):
        COCO(root, test="test2017").index("test")
    with pytest.raises(BiposeError, match=r"found\.json: no such label file"):
        COCO(root, box_rule="det-box", detections="found.json").index("test")
    (root / "found.json").write_text("{}")
    with pytest.raises(BiposeError, match="is not a list of detections"):
        COCO(root, box_rule="det-box", detections="found.json").index("test")
    (root / "found.json").write_text("[1]")
    with pytest.raises(BiposeError, match="none of the 1 detections can be used"):
        COCO(root, box_rule="det-box", detections="found.json").index("test")
    write(root, "val", [person(1, 1, iscrowd=1)])
    with pytest.raises(BiposeError, match=r"no person .* in the split test; left out: crowds: 1 \(the first is 1\)"):
        COCO(root).index("test")
    path = root / "annotations/person_keypoints_val2017.json"
    path.write_text(path.read_text().replace('"nose"', '"chin"'))
    with pytest.raises(BiposeError, match="joints are not COCO's 17"):
        COCO(root).index("test")


@pytest.mark.real_data
@pytest.mark.parametrize(("split", "part", "images", "boxes", "labelled"), [
    ("train", "train", 80, 172, 86), ("test", "val", 79, 118, 68),
])  # fmt: skip
def test_as_the_reference_code_reads_it(real_data, split, part, images, boxes, labelled):
    from pycocotools import coco as official

    root = real_data / "coco_mini"
    oracle = official.COCO(str(root / "annotations" / f"person_keypoints_{part}2017.json"))
    index = COCO(root, val_fraction=0).index(split)
    expected = {}
    for image in oracle.getImgIds():
        size = oracle.imgs[image]["width"], oracle.imgs[image]["height"]
        for known in oracle.loadAnns(oracle.getAnnIds(imgIds=image, iscrowd=False)):
            box = reference_box(known["bbox"], *size)
            if known["area"] > 0 and box and max(known["keypoints"]) > 0:
                expected[known["id"]] = (image, size, box, np.reshape(known["keypoints"], (17, 3)))
    assert len(expected) == len(index.tracks) == labelled
    assert {int(t.uid[0]) for t in index.tracks} == set(expected)
    for track in index.tracks:
        image, size, (cx, cy, w, h), triples = expected[int(track.uid[0])]
        assert (track.cluster, track.image_size) == (oracle.imgs[image]["file_name"], size)
        np.testing.assert_array_equal(track.joints[0], triples[:, :2] * (triples[:, 2:] > 0))
        np.testing.assert_array_equal(track.visible[0], triples[:, 2])
        x, y, width, height = track.boxes[0].tolist()
        assert (x + width / 2 - 0.5, y + height / 2 - 0.5, width, height) == pytest.approx((cx, cy, w, h), abs=1e-3)
        (pixels,) = track.frames.read([0])
        assert pixels.shape == (size[1], size[0], 3)
    truth = index.scoring.truth
    assert (len(truth.images), len(truth), int((~truth.ignore).sum())) == (images, boxes, labelled)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_file_of_full_size_fits(tmp_path):
    """262,000 persons with polygons: under 1 GB in all, and the second start reads the cache."""
    sys.path.insert(0, str(ROOT))
    bench = importlib.import_module("benchmarks.index")
    path = tmp_path / "annotations" / "person_keypoints_train2017.json"
    bench.write_labels(path, bench.PERSONS, bench.LABELLED, bench.IMAGES)
    assert path.stat().st_size > 200e6
    first = bench.probe(tmp_path, tmp_path / "cache")
    assert first["persons"] == bench.PERSONS
    assert first["peak"] < 1e9
    # Without a word of JSON in it, but as long and as old, the file can only be read from the cache.
    state = path.stat()
    with path.open("r+b") as file:
        file.write(b"no json")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = bench.probe(tmp_path, tmp_path / "cache")
    assert second["peak"] < first["peak"]
    assert (second["persons"], second["tracks"]) == (first["persons"], first["tracks"])
