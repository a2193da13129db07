"""What COCO's reader hands to the scoring, and what of it the data's fingerprint sees."""

import json

import numpy as np
import pytest
from coco_persons import official
from test_coco import person, write

from bipose_lit.datamodule import check_leak
from bipose_lit.datasets.clips import fingerprint
from bipose_lit.datasets.coco import COCO
from bipose_lit.store import Predictions
from bipose_lit.types import NORMS, BiposeError


@pytest.fixture
def root(tmp_path):
    """Six training and four validation images with one person each."""
    write(tmp_path, "train", [person(i, i) for i in range(1, 7)], 6)
    write(tmp_path, "val", [person(100 + i, i) for i in range(1, 5)])
    return tmp_path


def labels(root, part="val"):
    return root / "annotations" / f"person_keypoints_{part}2017.json"


def change(root, edit, part="val"):
    content = json.loads(labels(root, part).read_text())
    edit(content)
    labels(root, part).write_text(json.dumps(content))


def predictions(index, score=None, shift=0.0):
    """The labels, as if a network had found them."""
    N, K = len(index.tracks), len(index.skeleton)
    parts = {
        name: np.concatenate([getattr(t, name) for t in index.tracks]) for name in ("uid", "joints", "visible", "norms")
    }
    return Predictions(
        **parts, clip=np.arange(N), frame=np.zeros(N, np.int64), pred=parts["joints"] + np.float32(shift),
        score=np.ones((N, K), np.float32) if score is None else np.repeat(np.float32(score)[:, None], K, axis=1),
        fps=np.zeros(N, np.float32), clips=tuple(t.clip for t in index.tracks), clusters=("",) * N,
        joint_names=index.skeleton.joints, data=index.name,
    )  # fmt: skip


def test_labels_as_predictions_are_perfect(root):
    index = COCO(root, nms=None).index("test")
    assert index.scoring.score(predictions(index))["ap"] == 1


def test_only_categories_with_joints_are_scored_as_pycocotools_does_on_the_file(root):
    write(root, "val", [*(person(100 + i, i) for i in range(1, 5)), person(200, 1, category_id=3, area=5000)])
    index = COCO(root, nms=None).index("test")
    found = predictions(index, score=[0.9, 0.8, 0.7, 0.6], shift=1.5)
    results = [
        {"image_id": int(t.clip.split("/")[0]), "category_id": 1, "score": float(s[0]),
         "keypoints": np.c_[p, np.ones(17)].ravel().tolist()}
        for t, p, s in zip(index.tracks, found.pred.astype(float), found.score, strict=True)
    ]  # fmt: skip
    (root / "results.json").write_text(json.dumps(results))
    expected = official(labels(root), root / "results.json")
    assert index.scoring.score(found) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert 0.3 < expected["ap"] < 1
    assert index.skipped["persons of a category without joints"] == [
        "person_keypoints_val2017.json: 1 (the first is 200)"
    ]


def test_a_category_of_another_number(root):
    def edit(content):
        content["categories"][0]["id"] = 5
        for one in content["annotations"]:
            one["category_id"] = 5
        del content["annotations"][0]["category_id"]  # there is one category only

    change(root, edit)
    boxes = [{"image_id": i, "bbox": [1, 2, 30, 40], "score": 0.5} for i in (1, 2)]
    boxes[0]["category_id"] = 5
    (root / "found.json").write_text(json.dumps(boxes))
    index = COCO(root).index("test")
    assert len(index.tracks) == 4
    assert index.scoring.category.tolist() == [5] * 4
    assert index.scoring.score(predictions(index))["ap"] == 1
    detected = COCO(root, box_rule="det-box", detections="found.json").index("test")
    assert detected.scoring.category.tolist() == [5, 5]
    assert detected.scoring.score(predictions(detected))["ar"] == 0  # all joints at 0, 0


def test_suppression_takes_the_argument_and_the_crops(root):
    """Three predictions in one place: the box of the third is so small that it is not like the others."""
    boxes = [[5, 6, 40, 30], [5, 6, 40, 30], [25, 20, 4, 4]]
    write(
        root, "val", [person(100 + i, 1, bbox=b, keypoints=person(1, 1)["keypoints"]) for i, b in enumerate(boxes)], 1
    )
    assert COCO(root, nms=None).index("test").scoring.nms is None
    assert COCO(root).index("test").scoring.nms == 0.9
    scoring = COCO(root, nms=0.6).index("test").scoring
    assert scoring.nms == 0.6
    expected = [max(w - 1, (h - 1) * 3 / 4) * max(h - 1, (w - 1) * 4 / 3) * 1.25**2 for _, _, w, h in boxes]
    np.testing.assert_allclose(scoring.area, expected, rtol=1e-6)
    index = COCO(root, nms=None).index("test")
    assert index.scoring.score(predictions(index, [0.9, 0.8, 0.7]))["ar"] == pytest.approx(1)
    thinned = COCO(root, nms=0.6).index("test")
    assert thinned.scoring.score(predictions(thinned, [0.9, 0.8, 0.7]))["ar"] == pytest.approx(1 / 3)


def test_a_tiny_area_is_still_a_divisor(root):
    write(root, "val", [person(1, 1, area=1e-9), person(2, 2, area=900)])
    area = [float(t.norms[0, NORMS.index("area")]) for t in COCO(root).index("test").tracks]
    assert area == pytest.approx([1e-3, 30])


def test_the_fingerprint_sees_what_is_scored(root):
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}]
    (root / "found.json").write_text(json.dumps(boxes))

    def seen(**arguments):
        given = {"box_rule": "det-box", "detections": "found.json", **arguments}
        return fingerprint(COCO(root, **given).index("test"))

    found = [seen()]
    assert seen() == found[0]
    change(root, lambda c: c["annotations"][0]["keypoints"].__setitem__(0, 33))
    found.append(seen())
    change(root, lambda c: c["annotations"].append(person(300, 2, iscrowd=1)))
    found.append(seen())
    change(root, lambda c: c["images"].append({"id": 77, "file_name": "77.jpg", "width": 64, "height": 48}))
    found.append(seen())
    found += [seen(nms=None), seen(nms=0.8)]
    assert len(set(found)) == len(found)


def test_sources_are_files_not_numbers(root):
    reader = COCO(root)

    def apart():
        train, test = COCO(root).index("train"), COCO(root).index("test")
        check_leak(test, train)

    with pytest.raises(BiposeError, match=r"share 00000000000\d\.jpg"):
        apart()  # the same names
    change(root, lambda c: [i.update(file_name=f"other{i['id']}.jpg") for i in c["images"]])
    apart()  # the numbers begin at 1 again
    name = reader.index("train").tracks[0].cluster
    change(root, lambda c: c["images"][0].update(id=500, file_name=name))
    change(root, lambda c: c["annotations"][0].update(image_id=500))
    with pytest.raises(BiposeError, match=f"share {name}"):
        apart()
    change(root, lambda c: c["images"][0].update(cluster="garden"))
    apart()  # the file says that it is another
