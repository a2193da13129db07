"""`bipose evaluate coco` on files: the same numbers as pycocotools on the same files, and what broken files get told."""

import json

import numpy as np
import pytest
from coco_persons import SIGMAS, files, make_detected, make_truth, nms_loop, official

from bipose_lit.evaluate.coco import evaluate, read_results
from bipose_lit.evaluate.command import evaluate as command
from bipose_lit.metrics.coco import NAMES
from bipose_lit.skeletons import COCO, POSETRACK18
from bipose_lit.types import BiposeError


def write(folder, labels, results):
    paths = folder / "labels.json", folder / "results.json"
    for path, content in zip(paths, (labels, results), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


def made(seed=0, **changes):
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 12, **changes)
    return files(truth, make_detected(rng, truth))


@pytest.mark.parametrize("engine", ["bipose", "pycocotools", "faster-coco-eval"])
def test_numbers_are_those_of_pycocotools_on_the_files(tmp_path, engine):
    for seed in range(3):
        labels, results = made(seed)
        if seed == 2:
            for i, result in enumerate(results):
                result["bbox"] = [0, 0, 20 + 10 * (i % 9), 40]
        paths = write(tmp_path, labels, results)
        outcome = evaluate(*paths, engine=engine)
        assert {n: outcome.metrics[n] for n in NAMES} == pytest.approx(official(*paths), abs=1e-9, nan_ok=True)
        assert outcome.counts["detections"] == len(results)
        assert outcome.counts["images"] == 12
        assert outcome.counts["persons"] + outcome.counts["crowds_and_unlabelled"] == len(labels["annotations"])
        assert any(f"engine {engine}" in note for note in outcome.notes)


def test_precision_recall_and_counts(tmp_path):
    outcome = evaluate(*write(tmp_path, *made()), oks=0.75, min_score=0.25, nms=0.9)
    counts, metrics = outcome.counts, outcome.metrics
    hits, wrong, missed = (counts[n] for n in ("true_positives", "false_positives", "misses"))
    assert metrics["precision@oks0.75,score0.25"] == hits / (hits + wrong)
    assert metrics["recall@oks0.75,score0.25"] == hits / (hits + missed)
    assert hits + missed == counts["persons"]
    assert "doubles_removed" in counts


def test_no_results_are_zeros(tmp_path):
    outcome = evaluate(*write(tmp_path, made()[0], []))
    assert outcome.metrics["ap"] == outcome.metrics["ar"] == 0
    assert np.isnan(outcome.metrics["precision@oks0.5,score0.5"])


def test_command_prints_and_writes(tmp_path, capsys):
    command("coco", *write(tmp_path, *made()), json=tmp_path / "out.json", oks=0.5, engine=None)
    assert "precision@oks0.5,score0.5" in capsys.readouterr().out
    saved = json.loads((tmp_path / "out.json").read_text())
    assert set(NAMES) <= set(saved["metrics"])


def test_other_skeletons_bring_their_sigmas(tmp_path):
    names = ["head", "hand", "left_shoulder", "right_hip"]
    rng = np.random.default_rng(0)
    truth = make_truth(rng, 12, K=4)
    sigmas = np.array([0.03, 0.05, 0.07, 0.1])
    labels, results = files(truth, make_detected(rng, truth, sigmas))
    for category in labels["categories"]:
        category["keypoints"] = names
    paths = write(tmp_path, labels, results)
    (tmp_path / "own.yaml").write_text(f"name: own\njoints: {names}\nsigmas: {sigmas.tolist()}\n")
    own = evaluate(*paths, skeleton=str(tmp_path / "own.yaml")).metrics
    np.testing.assert_equal(own, evaluate(*paths, skeleton=str(tmp_path / "own.yaml"), engine="pycocotools").metrics)
    (tmp_path / "own.yaml").write_text(f"name: own\njoints: {names}\n")
    with pytest.raises(BiposeError, match="own has no sigmas"):
        evaluate(*paths, skeleton=str(tmp_path / "own.yaml"))
    with pytest.raises(BiposeError, match="mpii has no sigmas"):
        evaluate(*paths, skeleton="mpii")


def test_joints_of_the_labels_and_of_the_skeleton_are_compared(tmp_path):
    names = ["head", "hand", "left_shoulder", "right_hip"]
    rng = np.random.default_rng(0)
    truth = make_truth(rng, 12, K=4)
    labels, results = files(truth, make_detected(rng, truth, np.full(4, 0.05)))

    def score(listed):
        for category in labels["categories"]:
            category["keypoints"] = listed
        (tmp_path / "own.yaml").write_text(f"name: own\njoints: {names}\nsigmas: [0.05, 0.05, 0.05, 0.05]\n")
        return evaluate(*write(tmp_path, labels, results), skeleton=str(tmp_path / "own.yaml"))

    for listed, message in (
        (["hand", "head", *names[2:]], "joint 0 is 'hand' in the labels and 'head' in the skeleton own"),
        ([*names[:3], "hip"], "joint 3 is 'hip' in the labels and 'right_hip' in the skeleton own"),
        (names[:3], "joint 3 is missing in the labels and 'right_hip' in the skeleton own"),
        ([*names, "foot"], "joint 4 is 'foot' in the labels and missing in the skeleton own"),
    ):
        with pytest.raises(BiposeError, match=rf"labels\.json: {message}; "):
            score(listed)
    note = "the labels do not name their joints: taken to be those of own, in its order"
    assert note not in score(["Head", "hand", "left shoulder", "right-hip"]).notes
    assert note in score([]).notes


def test_annotations_of_categories_that_are_not_listed_do_not_count(tmp_path):
    for seed in range(4):
        labels, results = made(seed, categories=(1, 2))  # both are listed, neither with joints
        strange = [{**labels["annotations"][i], "id": 900 + i, "category_id": 7 + i} for i in range(2)]
        results += [{**results[0], "category_id": 7}]
        paths = write(tmp_path, {**labels, "annotations": [*labels["annotations"], *strange]}, results)
        outcome = evaluate(*paths)
        assert {n: outcome.metrics[n] for n in NAMES} == pytest.approx(official(*paths), abs=1e-9, nan_ok=True)
        assert outcome.counts["persons"] + outcome.counts["crowds_and_unlabelled"] == len(labels["annotations"])
        told = "labels: 2 annotations of categories that are not listed, 7 and 8, left out, as pycocotools does"
        assert told in outcome.notes
    only = write(tmp_path, {**labels, "annotations": strange}, results)
    with pytest.raises(BiposeError, match=r"no labelled person that counts, .*of categories that are not listed"):
        evaluate(*only)
    evaluate(*write(tmp_path, {**labels, "categories": []}, results))  # none is listed, so all count


def test_suppression_is_by_the_crops_where_boxes_are_there_as_in_runs(tmp_path):
    labels, results = made(4, categories=(1, 2))
    for i, result in enumerate(results):
        result["bbox"] = [0, 0, 30 + 40 * (i % 5), 80]
    sides = np.array([r["bbox"][2:] for r in results], float)
    wide, high = np.maximum(sides[:, 0], sides[:, 1] * 3 / 4), np.maximum(sides[:, 1], sides[:, 0] * 4 / 3)
    joints = np.array([r["keypoints"] for r in results]).reshape(-1, 17, 3)[..., :2]
    score = np.array([r["score"] for r in results])
    groups = np.array([r["image_id"] * 10 + r["category_id"] for r in results])
    kept = nms_loop(joints, score, groups, SIGMAS, 0.5, wide * high * 1.25**2)
    assert kept != nms_loop(joints, score, groups, SIGMAS, 0.5, sides.prod(axis=1))
    assert kept != nms_loop(joints, score, groups % 10**9 // 10, SIGMAS, 0.5, wide * high * 1.25**2)
    (tmp_path / "thinned").mkdir()
    thinned = write(tmp_path / "thinned", labels, [results[i] for i in kept])
    paths = write(tmp_path, labels, results)
    outcome = evaluate(*paths, nms=0.5)
    assert {n: outcome.metrics[n] for n in NAMES} == pytest.approx(official(*thinned), abs=1e-9, nan_ok=True)
    single = evaluate(*thinned)
    np.testing.assert_equal(outcome.metrics, single.metrics)
    assert outcome.counts["doubles_removed"] == len(results) - len(kept)
    weak = "OKS-NMS takes the extent of the predicted joints, as the results have no bbox: it removes fewer"
    assert not any(weak in note for note in outcome.notes)
    for result in results:
        del result["bbox"]
    outcome = evaluate(*write(tmp_path, labels, results), nms=0.5)
    assert any(weak in note for note in outcome.notes)
    extent = np.ptp(joints, axis=1).prod(axis=1)
    assert outcome.counts["doubles_removed"] == len(results) - len(nms_loop(joints, score, groups, SIGMAS, 0.5, extent))


def test_area_of_the_boxes_decides_about_false_positives_of_a_range(tmp_path):
    labels, results = made(1)
    (tmp_path / "boxed").mkdir()
    plain = evaluate(*write(tmp_path, labels, results)).metrics
    for result in results:
        result["bbox"] = [0, 0, 40, 40]  # medium, so a false one is none of the large
    paths = write(tmp_path / "boxed", labels, results)
    boxed = evaluate(*paths, nms=1.0)  # removes nothing, yet the areas are passed on
    assert boxed.metrics["ap_l"] != plain["ap_l"]
    assert {n: boxed.metrics[n] for n in NAMES} == pytest.approx(official(*paths), abs=1e-9, nan_ok=True)


def test_detections_that_count_nowhere_are_counted(tmp_path):
    labels, results = made(2)
    image, other = labels["images"][0]["id"], labels["images"][1]["id"]
    one = {**results[0], "category_id": 1, "score": 0.001}
    results = [{**one, "image_id": image} for _ in range(23)] + [{**one, "image_id": other} for _ in range(20)]
    results += [{**one, "image_id": image, "category_id": 5} for _ in range(25)]
    outcome = evaluate(*write(tmp_path, labels, results))
    assert outcome.counts["detections_beyond_20_an_image"] == 3
    assert outcome.counts["detections_of_other_categories"] == 25
    few = evaluate(*write(tmp_path, labels, results[:20]))
    assert not {"detections_beyond_20_an_image", "detections_of_other_categories"} & set(few.counts)


def test_precision_and_recall_take_no_box_for_an_area_range(tmp_path):
    labels, results = made(3)
    for result in results:
        result["bbox"] = [0, 0, 1e6, 1e6]  # larger than COCO's largest: an unmatched one counts as no miss
    outcome = evaluate(*write(tmp_path, labels, results), min_score=0)
    assert outcome.counts["false_positives"] == 0
    assert outcome.metrics["precision@oks0.5,score0"] == 1


def test_equal_scores_of_all_persons_are_noted(tmp_path):
    labels, results = made()
    note = "all results have the score 0.5: AP ranks them by their place in the file"
    assert note not in evaluate(*write(tmp_path, labels, results)).notes
    assert note in evaluate(*write(tmp_path, labels, [{**r, "score": 0.5} for r in results])).notes


def test_seventeen_other_joints_are_not_cocos(tmp_path):
    labels, results = made()
    for category in labels["categories"]:
        category["keypoints"] = list(POSETRACK18.joints)
    with pytest.raises(BiposeError, match=r"not COCO's 17 \(joint 1 is 'head_bottom' .*\); name a skeleton"):
        evaluate(*write(tmp_path, labels, results))
    for category in labels["categories"]:
        category["keypoints"] = [n.replace("_", " ").title() for n in COCO.joints]
    assert evaluate(*write(tmp_path, labels, results)).metrics["ap"] > 0


GOOD = {"image_id": 1, "category_id": 1, "keypoints": [1.0, 2, 0.5] * 17, "score": 0.5}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        ("[1, 2", "ends too early"),
        ("\x00\x01", "not JSON"),
        ("null", "list of results"),
        ("{}", "list of results"),
        ('{"annotations": []}', "list of results"),
        ('[{"image_id": 1, "score": NaN}]', "NaN"),
        ('[{"image_id": 1, "score": -Infinity}]', "Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ("[3]", r"result \[0\]"),
        ([GOOD, {k: v for k, v in GOOD.items() if k != "score"}], r"result \[1\]: .*missing required field score"),
        ([{k: v for k, v in GOOD.items() if k != "image_id"}], "image_id"),
        ([{k: v for k, v in GOOD.items() if k != "keypoints"}], "keypoints"),
        ([{**GOOD, "score": None}], r"result \[0\]: score: expected float, got null"),
        ([{**GOOD, "score": "0.5"}], "score: expected float, got str"),
        ([{**GOOD, "score": True}], "score"),
        ([{**GOOD, "image_id": "1"}], "image_id: expected int"),
        ([{**GOOD, "image_id": 1.5}], "image_id"),
        ([{**GOOD, "image_id": -1}], "image_id"),
        ([{**GOOD, "image_id": 10**30}], "image_id"),
        ([{**GOOD, "category_id": None}], "category_id"),
        ([{**GOOD, "keypoints": [1.0] * 48}], r"result \[0\]: keypoints are 48 numbers, expected 51 \(17 joints\)"),
        ([{**GOOD, "keypoints": []}], "keypoints are 0 numbers"),
        ([{**GOOD, "keypoints": [[1.0, 2, 3]] * 17}], "keypoints"),
        ([{**GOOD, "keypoints": 5}], "keypoints"),
        ([GOOD, {**GOOD, "keypoints": [1e300, 2, 0.5] * 17}], r"result \[1\]: numbers that are not finite or beyond"),
        ('[{"image_id": 1, "category_id": 1, "keypoints": [], "score": 1e999}]', "score"),
        ('[{"image_id": 1, "category_id": 1, "keypoints": [], "score": 1' + "0" * 500 + "}]", "score"),
        ([{**GOOD, "bbox": [1, 2, 3, 4]}, GOOD], r"result \[1\]: bbox is not x, y, w, h"),
        ([{**GOOD, "bbox": [1, 2, 3]}], "bbox"),
        ([{**GOOD, "bbox": [1, 2, 3, 1e300]}], "bbox"),
        ([{**GOOD, "bbox": "box"}], "bbox"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_broken_results_are_told_with_their_place(tmp_path, content, told):
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BiposeError, match=told) as error:
        read_results(path, 17)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_damaged_text_is_told(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(json.dumps([GOOD]).replace("image_id", "im\udcffage_id").encode("utf-8", "surrogatepass"))
    with pytest.raises(BiposeError):
        read_results(path, 17)
    path.write_bytes(b"\xff\xfe" + json.dumps([GOOD]).encode("utf-16-le"))
    with pytest.raises(BiposeError):
        read_results(path, 17)
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BiposeError, match="no such results file"):
            read_results(missing, 17)


def test_results_of_other_images_are_refused(tmp_path):
    labels, results = made()
    for result in results[:3]:
        result["image_id"] = 123456
    with pytest.raises(
        BiposeError, match=r"3 of \d+ results are of images that .*first image_id 123456; name the labels"
    ):
        evaluate(*write(tmp_path, labels, results))


def test_options_out_of_range(tmp_path):
    paths = write(tmp_path, *made())
    for options, told in (
        ({"engine": "matlab"}, "engine 'matlab' is unknown"),
        ({"nms": 0.0}, "nms 0"),
        ({"nms": 1.5}, "nms 1.5"),
        ({"oks": 0.0}, "oks 0"),
        ({"oks": float("nan")}, "oks nan"),
        ({"min_score": float("nan")}, "min_score nan"),
        ({"skeleton": "cocoo"}, "skeleton 'cocoo' is unknown"),
    ):
        with pytest.raises(BiposeError, match=told):
            evaluate(*paths, **options)


def test_labels_without_a_person_that_counts(tmp_path):
    labels, results = made(crowds=1.0)
    with pytest.raises(BiposeError, match="no labelled person that counts"):
        evaluate(*write(tmp_path, labels, results))
    with pytest.raises(BiposeError, match="no labelled person that counts"):
        evaluate(*write(tmp_path, {**labels, "annotations": []}, results))


def test_what_of_the_labels_was_left_out_is_noted(tmp_path):
    labels, results = made()
    labels["annotations"][0]["keypoints"] = [1, 2, 2]
    outcome = evaluate(*write(tmp_path, labels, results))
    assert any("keypoints are 3 numbers" in note for note in outcome.notes)


@pytest.mark.real_data
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_labels(real_data, tmp_path, split):
    labels = real_data / "coco_mini" / "annotations" / f"person_keypoints_{split}.json"
    rng = np.random.default_rng(7)
    results = []
    for person in json.loads(labels.read_text())["annotations"]:
        for _ in range(rng.integers(0, 4)):
            points = np.array(person["keypoints"], float).reshape(-1, 3)
            noise = rng.normal(0, 1, (17, 2)) * np.array(COCO.sigmas)[:, None] * 2 * np.sqrt(person["area"])
            points[:, :2] += noise * rng.uniform(0, 1.5)
            points[:, 2] = rng.uniform(0, 1, 17)
            results.append({"image_id": person["image_id"], "category_id": person["category_id"], "keypoints":
                            points.ravel().tolist(), "score": float(rng.choice([0.3, 0.6, rng.random()]))})  # fmt: skip
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    expected = official(labels, path)
    for engine in ("bipose", "pycocotools", "faster-coco-eval"):
        found = evaluate(labels, path, engine=engine).metrics
        assert {n: found[n] for n in NAMES} == pytest.approx(expected, abs=1e-9)
    assert 0.1 < found["ap"] < 0.9
