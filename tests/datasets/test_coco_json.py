"""COCO's label files as arrays: pycocotools as the oracle, what is mended or left out, and what a broken file says."""

import json
from pathlib import Path

import numpy as np
import pytest

from bipose_lit.datasets import coco_json, index_cache, json_labels
from bipose_lit.datasets.coco_json import differing, read_coco, take
from bipose_lit.datasets.json_labels import inside, mended, told
from bipose_lit.types import BiposeError

K = 3


def person(number, image=1, **changes):
    content = {
        "id": number, "image_id": image, "category_id": 1, "keypoints": [10.5, 20, 2, 30, 40, 1, 0, 0, 0], "num_keypoints": 2,
        "bbox": [5, 6.5, 40, 50], "area": 900.25, "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]],
    }  # fmt: skip
    content.update(changes)
    return {key: value for key, value in content.items() if value is not ...}


def write(path, persons, images=None, **more):
    images = (
        [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2)] if images is None else images
    )
    category = {"id": 1, "name": "person", "keypoints": ["a", "b", "c"], "skeleton": [[1, 2]]}
    content = {"images": images, "annotations": persons, "categories": [category], **more}
    path.write_text(json.dumps(content))
    return path


def read(path):
    return read_coco(path, K, cache=False)


def test_plain_file(tmp_path):
    path = write(
        tmp_path / "a.json", [person(7, 2), person(5, iscrowd=1, keypoints=[0] * 9, num_keypoints=0), person(9)]
    )
    file = read(path)
    truth = file.truth
    assert truth.images.tolist() == [1, 2]
    assert (truth.id.tolist(), truth.image.tolist()) == ([7, 5, 9], [2, 1, 1])
    assert truth.joints[0].tolist() == [[10.5, 20], [30, 40], [0, 0]]
    assert truth.visible[0].tolist() == [2, 1, 0]
    assert truth.boxes[0].tolist() == [5, 6.5, 40, 50]
    assert truth.area.tolist() == [900.25] * 3
    assert truth.crowd.tolist() == truth.ignore.tolist() == [False, True, False]
    assert {a.dtype.str for a in (truth.joints, truth.boxes, truth.area)} == {"<f8"}
    assert (file.names, file.sizes.tolist()) == (("1.jpg", "2.jpg"), [[64, 48], [64, 48]])
    assert (file.joint_names, file.categories, file.listed, file.skipped) == (("a", "b", "c"), (1,), (1,), {})
    assert file.num_keypoints.tolist() == [2, 0, 2]


def test_video_fields(tmp_path):
    images = [
        {"id": 1, "file_name": "a.jpg", "video_id": 3, "frame_id": 0, "fps": 25, "cluster": "garden"},
        {"id": 2, "vid_id": "000342", "frame_index": 4},
        {"id": 3},
    ]
    persons = [person(1, track_id=6, bbox_head=[1, 2, 3, 4]), person(2)]
    videos = [{"id": 3, "file_name": "v/a.mp4", "fps": 12.5}]
    file = read(write(tmp_path / "a.json", persons, images, videos=videos))
    assert file.video == ("3", "000342", "")
    assert file.frame.tolist() == [0, 4, -1]
    assert file.fps.tolist() == [25, 0, 0]
    assert file.cluster == ("garden", "", "")
    assert file.videos == {"3": ("v/a.mp4", 12.5)}
    assert file.track.tolist() == [6, -1]
    assert file.head[0].tolist() == [1, 2, 3, 4]
    assert np.isnan(file.head[1]).all()
    assert file.sizes.tolist() == [[0, 0]] * 3


def test_what_is_missing_is_made_up_for(tmp_path):
    lean = person(1, bbox=..., area=..., num_keypoints=..., iscrowd=..., category_id=...)
    file = read(write(tmp_path / "a.json", [lean, person(2, keypoints=..., num_keypoints=...)]))
    assert file.truth.boxes[0].tolist() == [10.5, 20, 20.5, 21]
    assert file.truth.area[0] == pytest.approx(0.53 * 20.5 * 21)
    assert file.num_keypoints.tolist() == [2, 0]
    assert file.truth.ignore.tolist() == [False, True]
    assert file.truth.category.tolist() == [1, 1]
    assert file.skipped == {
        "annotations: no keypoints, taken as not labelled": ["annotations[1] (id 2)"],
        "annotations: no bbox, the labelled joints' box used": ["annotations[0] (id 1)"],
        "annotations: no area, 0.53 of the box used": ["annotations[0] (id 1)"],
    }


BROKEN = {
    "image_id is not among": person(2, image=9),
    "keypoints are 6 numbers, expected 9": person(2, keypoints=[1, 2, 2] * 2),
    "keypoints[]: expected float, got str": person(2, keypoints=[1, 2, "2"] * 3),
    "keypoints[]: expected float, got null": person(2, keypoints=[1, 2, None] * 3),
    "keypoints: expected array | null, got object": person(2, keypoints={"x": 1}),
    "keypoints beyond": person(2, keypoints=[1e7, 2, 2] * 3),
    "visibility": person(2, keypoints=[1, 2, 3] * 3),
    "bbox of negative": person(2, bbox=[1, 2, -3, 4]),
    "bbox beyond": person(2, bbox=[1, 2, 3e9, 4]),
    "bbox is 3 numbers": person(2, bbox=[1, 2, 3]),
    "bbox_head is 2 numbers": person(2, bbox_head=[1, 2]),
    "neither bbox": person(2, bbox=..., keypoints=[0] * 9),
    "area is negative": person(2, area=-1),
    "area: expected float | null, got str": person(2, area="12"),
    "iscrowd: expected": person(2, iscrowd=2),
    "num_keypoints: expected": person(2, num_keypoints=-1),
    "id is there twice": person(1, area=3),
    "id: expected int, got str": person("2"),
    "id: expected int, got float": person(2.5),
    "id: expected int >= 0": person(-2),
    "id: expected int <=": person(2**62),
    "image_id: expected int, got null": person(2, image=None),
    "missing required field id": person(...),
    "expected object, got array": [1, 2],
    "got null": None,
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_person_is_left_out_and_told(tmp_path, reason):
    file = read(write(tmp_path / "a.json", [person(1), BROKEN[reason], person(3)]))
    assert file.truth.id.tolist() == [1, 3]
    assert file.truth.area.tolist() == [900.25] * 2
    (found,) = file.skipped
    assert reason in found
    assert len(file.skipped[found]) == 1
    assert file.skipped[found][0].startswith("annotations[1]")


@pytest.mark.parametrize("text", ["1e400", "-1e999", "9" * 400])
def test_a_number_out_of_range_costs_its_person(tmp_path, text):
    path = write(tmp_path / "a.json", [person(1), person(2, area=123456)])
    path.write_text(path.read_text().replace("123456", text))
    file = read(path)
    assert file.truth.id.tolist() == [1]
    assert file.skipped == {"annotations: area: number out of range": ["annotations[1]"]}


def test_broken_images_are_left_out_with_their_persons(tmp_path):
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 1, "file_name": "b.jpg"},
        {"id": 2, "file_name": "../b.jpg"},
        {"id": 3, "file_name": "/dev/zero"},
        {"id": 4, "file_name": "a\0.jpg"},
        {"id": 5, "width": 0},
        {"id": 6, "width": "640"},
        {"id": 7, "fps": -1},
    ]
    file = read(write(tmp_path / "a.json", [person(i, i) for i in range(1, 8)], images))
    assert (file.truth.images.tolist(), file.truth.id.tolist(), file.names) == ([1], [1], ("a.jpg",))
    assert file.skipped["annotations: image_id is not among the images"][0] == "annotations[1] (id 2)"
    assert len(file.skipped["images: file_name is no path below the folder"]) == 3
    assert file.skipped["images: id is there twice, the first one used"] == ["images[1] (id 1)"]
    assert file.skipped["images: width: expected int >= 1"] == ["images[5]"]


GOOD = {"images": [{"id": 1}], "annotations": [person(1)]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"hello", "not JSON from byte 0"),
        (json.dumps(GOOD).encode()[:-9], "ends too early"),
        (json.dumps(GOOD).replace("900.25", "NaN").encode(), "holds NaN at byte"),
        (json.dumps(GOOD).replace("900.25", "-Infinity").encode(), "holds Infinity at byte"),
        (b"[1, 2]", r"is not a label file in COCO's layout \(expected object, got array\)"),
        (b'{"images": {}}', r"images: expected array, got object"),
        (b'{"annotations": []}', "missing required field images"),
        (b'{"images": []}', "missing required field annotations"),
        (b'{"images": [1, 2], "annotations": []}', r"none of the 2 images can be used; the first: images\[0\]: expected object"),
        (b'{"images": [{"id": 1, "file_name": "/a"}], "annotations": []}', "none of the 1 images can be used; .*no path below"),
        (json.dumps(GOOD).replace('"keypoints": [', '"keypoints": [1, ').encode(), "keypoints are 10 numbers, expected 9"),
        (json.dumps(GOOD).replace('"image_id": 1', '"image_id": 4').encode(), "none of the 1 annotations .*not among the images"),
        (b'{"images": ' + b"[" * 200000, "nested too deeply|ends too early"),
        (b'{"images": [{"id": 1, "file_name": "\xff"}], "annotations": []}', "text is not UTF-8"),
        (b'{"images": [{"id": 1, "file_name": "\\ud800"}], "annotations": []}', "not JSON from byte"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BiposeError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(BiposeError, match="no such label file"):
        read(tmp_path / "a.json")
    with pytest.raises(BiposeError, match="not a file"):
        read(tmp_path)
    with pytest.raises(BiposeError, match="not a file"):
        read("/dev/zero")


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = write(tmp_path / "a.json", [person(1)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read(path).truth) == 1


def test_many_empty_records_take_little_room(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"images": [{"id": 1}], "annotations": [' + "0," * 50_000 + json.dumps(person(1)) + "]}")
    file = read(path)
    assert len(file.truth) == 1
    assert len(file.skipped["annotations: expected object, got int"]) == 50_000


def test_no_persons_at_all(tmp_path):
    file = read(write(tmp_path / "a.json", []))
    assert (len(file.truth), file.truth.joints.shape, len(file.truth.images)) == (0, (0, K, 2), 2)


def test_the_cache_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(index_cache, "LEAST_BYTES", 10)
    monkeypatch.setenv("BIPOSE_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "a.json", [person(1, track_id=3), person(2, area=-1), person(3, area=...)])
    first = read_coco(path, K)
    with monkeypatch.context() as patch:
        patch.setattr("bipose_lit.datasets.coco_json._read", lambda *_: pytest.fail("the JSON was read again"))
        second = read_coco(path, K)
    for name in ("images", "id", "image", "category", "joints", "visible", "boxes", "area", "crowd", "ignore"):
        np.testing.assert_array_equal(getattr(first.truth, name), getattr(second.truth, name))
        assert getattr(first.truth, name).dtype == getattr(second.truth, name).dtype
    for name in ("sizes", "frame", "fps", "num_keypoints", "track", "head"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("names", "joint_names", "categories", "listed", "skipped", "video", "cluster", "videos"):
        assert getattr(first, name) == getattr(second, name)
    with pytest.raises(BiposeError, match="expected 12"):
        read_coco(path, 4)  # other joints, another cache


def test_categories(tmp_path):
    categories = [{"id": 4, "name": "dog"}, {"id": 9, "keypoints": ["a", "b", "c"]}, {"id": 4}, {"name": "no id"}]
    lean = person(1, category_id=...)
    path = write(tmp_path / "a.json", [lean, person(2, category_id=4), person(3, category_id=3)], categories=categories)
    file = read(path)
    assert (file.listed, file.categories, file.truth.category.tolist()) == ((4, 9), (9,), [1, 4, 3])
    assert list(file.skipped) == ["categories: object missing required field id"]
    file = read(write(path, [lean, person(2, category_id=3)], categories=categories[1:2]))
    assert file.truth.category.tolist() == [9, 3]  # there is one only, so it can only be that
    assert read(write(path, [lean], categories=[])).listed == ()
    assert read(write(path, [lean], categories=[])).categories == (1,)


def test_the_cache_belongs_to_the_code_that_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(index_cache, "LEAST_BYTES", 10)
    monkeypatch.setenv("BIPOSE_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "a.json", [person(1)])
    read_coco(path, K)
    for module in (coco_json, json_labels):
        assert index_cache.source_digest(coco_json.__file__, json_labels.__file__) == coco_json.VERSION
        changed = tmp_path / "changed.py"
        changed.write_bytes(Path(module.__file__).read_bytes() + b"# changed\n")
        files = [changed if m is module else m.__file__ for m in (coco_json, json_labels)]
        assert index_cache.source_digest(*files) != coco_json.VERSION
    monkeypatch.setattr(coco_json, "VERSION", "another")
    monkeypatch.setattr(coco_json, "_read", lambda *_: pytest.fail("read again"))
    with pytest.raises(pytest.fail.Exception):
        read_coco(path, K)
    assert index_cache.source_digest(tmp_path / "none.py") == index_cache.source_digest(tmp_path / "none.py")


def test_what_was_left_out_comes_before_what_was_mended():
    skipped = {
        "annotations: no area, 0.53 of the box used": ["a"], "annotations: no keypoints, taken as not labelled": ["b"],
        "annotations: no bbox, the labelled joints' box used": ["c"], "boxes below one pixel, widened": ["d"],
        "annotations: no track_id or no frame_id, taken as a still": ["e"],
        "boxes below one pixel, the joints' box used": ["f"], "annotations: id is there twice, the first one used": ["g"],
        "annotations: bbox of negative size": ["h"],
    }  # fmt: skip
    text = told(skipped, 2)
    assert text == (
        "; left out: annotations: id is there twice, the first one used: g; annotations: bbox of negative size: h"
        "; mended: annotations: no area, 0.53 of the box used: a; annotations: no keypoints, taken as not labelled: b"
    )
    assert told({"boxes below one pixel, widened": ["d"]}) == "; mended: boxes below one pixel, widened: d"
    assert told({}) == told({"x": []}) == ""
    assert [reason for reason in skipped if not mended(reason)] == list(skipped)[-2:]


def test_take(tmp_path):
    truth = read(write(tmp_path / "a.json", [person(7, 2), person(5), person(9, 2)])).truth
    part = take(truth, np.array([False, True]))
    assert (part.images.tolist(), part.id.tolist()) == ([2], [7, 9])
    assert len(take(truth, np.array([False, False]))) == 0
    assert take(truth, np.array([True, True]), (1,)).id.tolist() == [7, 5, 9]
    assert len(take(truth, np.array([True, True]), (2, 3))) == 0
    assert take(truth, np.array([True, True]), (2, 3)).images.tolist() == [1, 2]


def test_joints_that_differ():
    own = ("nose", "left_eye")
    assert differing(own, own) == differing((), own) == differing((" Nose", "left-eye"), own) == ""
    assert (
        differing(("nose", "right eye"), own) == "joint 1 is 'right eye' in the labels and 'left_eye' in the skeleton"
    )
    assert differing(("nose",), own) == "joint 1 is missing in the labels and 'left_eye' in the skeleton"
    assert differing((*own, "tail"), own) == "joint 2 is 'tail' in the labels and missing in the skeleton"


def test_paths():
    assert all(inside(n) for n in ("a.jpg", "a/b.jpg", "a..b/c.jpg", "..."))
    assert not any(inside(n) for n in ("", "/a", "../a", "a/../../b", "..\\a", "C:\\a", "a\0", "\\a"))


@pytest.mark.real_data
@pytest.mark.parametrize(("split", "images", "persons", "labelled"), [("train", 80, 172, 86), ("val", 79, 118, 68)])
def test_as_pycocotools_reads_it(real_data, split, images, persons, labelled, capsys):
    from pycocotools.coco import COCO

    path = real_data / "coco_mini" / "annotations" / f"person_keypoints_{split}2017.json"
    oracle = COCO(str(path))
    file = read_coco(path, 17)
    truth = file.truth
    assert (len(truth.images), len(truth)) == (images, persons)
    assert file.skipped == {}
    assert set(truth.images.tolist()) == set(oracle.getImgIds())
    for i, image in enumerate(truth.images.tolist()):
        known = oracle.imgs[image]
        assert (file.names[i], *file.sizes[i]) == (known["file_name"], known["width"], known["height"])
    assert set(truth.id.tolist()) == set(oracle.getAnnIds())
    for g, number in enumerate(truth.id.tolist()):
        known = oracle.anns[number]
        triples = np.reshape(known["keypoints"], (17, 3))
        np.testing.assert_array_equal(truth.joints[g], triples[:, :2])
        np.testing.assert_array_equal(truth.visible[g], triples[:, 2])
        np.testing.assert_array_equal(truth.boxes[g], known["bbox"])
        assert (truth.area[g], truth.image[g], truth.category[g]) == (known["area"], known["image_id"], 1)
        assert truth.crowd[g] == bool(known["iscrowd"])
        assert truth.ignore[g] == bool(known["iscrowd"] or known["num_keypoints"] == 0)  # COCOeval._prepare
        assert file.num_keypoints[g] == known["num_keypoints"]
    # What the counts of this sample call "with keypoints" takes the crowds, which have none here, out.
    assert int((file.num_keypoints > 0).sum()) == labelled
