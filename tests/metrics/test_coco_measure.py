"""Our AP and AR against pycocotools, on random persons with all that its matching minds, and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from coco_persons import SIGMAS, make_detected, make_truth, reference

from bipose_lit.metrics.coco import NAMES, average_precision, precision_recall
from bipose_lit.metrics.coco_engines import ENGINES, find_engine
from bipose_lit.metrics.instances import Detected
from bipose_lit.types import BiposeError

CASES = 216


def case(seed):
    """Labels, detections, sigmas: every 2nd with ties of the score, every 3rd of OKS, some of several categories."""
    rng = np.random.default_rng(seed)
    K = 17 if seed % 4 else int(rng.integers(1, 24))
    sigmas = SIGMAS if K == 17 else rng.uniform(0.02, 0.12, K)
    images, most = int(rng.integers(1, 7)), int(rng.choice([2, 4, 12]))
    truth = make_truth(rng, images, K, most, (1,) if seed % 5 else (1, 2, 7), few=seed % 3 == 0)
    extra, blur = rng.choice([0, 2, 30], p=[0.3, 0.6, 0.1]), rng.choice([0.3, 1.0, 2.0])
    return truth, make_detected(rng, truth, sigmas, extra, seed % 2 == 0, blur), sigmas


def pick(detected, rows):
    return Detected(*(getattr(detected, n)[rows] for n in ("image", "category", "joints", "confidence", "score")))


def assert_same(found, expected):
    assert list(found) == list(expected) == list(NAMES)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("first", range(0, CASES, 24))
def test_numbers_are_those_of_pycocotools(first):
    ranges, defined = [], 0
    for seed in range(first, first + 24):
        truth, detected, sigmas = case(seed)
        if not len(detected):  # pycocotools fails
            continue
        expected = reference(truth, detected, sigmas)
        found = average_precision(truth, detected, sigmas)
        assert_same(found, expected)
        ranges.append(found["ap_m"])
        defined += np.isfinite(found["ap"])
        if found["ap"] == found["ap"]:
            # By the definition: recall r counts precision at up to floor(100 r) + 1 of 101 points.
            assert found["ap"] <= found["ar"] + 1 / 101 + 1e-12
        if seed % 6 == 0:
            for engine in ("pycocotools", "faster-coco-eval"):
                assert_same(ENGINES[engine](truth, detected, sigmas), expected)
    assert defined > 15
    assert len({r for r in ranges if r == r}) > 5


def test_the_cases_have_what_they_should():
    cases = [case(seed) for seed in range(CASES)]
    truths, found = [c[0] for c in cases], [c[1] for c in cases]
    assert any(t.crowd.any() for t in truths)
    assert any((~t.visible.any(axis=1) & ~t.crowd).any() for t in truths)
    assert sum(len(t.images) > len(np.unique(t.image)) for t in truths) > 50
    assert sum(len(d) and np.unique(d.image, return_counts=True)[1].max() > 20 for d in found) > 20
    assert sum(len(np.unique(d.score)) < len(d) for d in found) > 50
    assert sum(len(np.unique(t.category)) > 1 for t in truths) > 20
    assert sum(len(np.unique(d.joints, axis=0)) < len(d) for d in found) > 50
    assert {32.0**2, 96.0**2} <= set(np.concatenate([t.area for t in truths]).tolist())


def test_areas_of_boxes_are_taken_as_pycocotools_does():
    differs = 0
    for seed in range(6):
        truth, detected, sigmas = case(seed)
        if not len(detected):
            continue
        boxes = np.random.default_rng(seed).choice([20.0, 50.0, 150.0], (len(detected), 4))
        expected = reference(truth, detected, sigmas, boxes)
        area = boxes[:, 2] * boxes[:, 3]
        for engine in ENGINES.values():
            assert_same(engine(truth, detected, sigmas, area), expected)
        differs += average_precision(truth, detected, sigmas) != expected
    assert differs


def test_order_of_the_rows_does_not_matter_where_scores_are_distinct():
    for seed in range(1, 40, 2):
        rng = np.random.default_rng(seed)
        truth, detected, sigmas = case(seed)
        expected = average_precision(truth, detected, sigmas)
        assert_same(average_precision(truth, pick(detected, rng.permutation(len(detected))), sigmas), expected)
        if seed % 3:  # labels of equal OKS are taken by their order
            rows = rng.permutation(len(truth))
            fields = ("id", "image", "category", "joints", "visible", "boxes", "area", "crowd", "ignore")
            mixed = replace(truth, images=rng.permutation(truth.images), **{f: getattr(truth, f)[rows] for f in fields})
            assert_same(average_precision(mixed, detected, sigmas), expected)


def perfect(truth):
    return Detected(
        truth.image, truth.category, truth.joints, np.ones(truth.visible.shape), np.linspace(0.9, 0.6, len(truth))
    )


def plain(seed=0, **changes):
    """Labels that all count, none twice."""
    truth = make_truth(np.random.default_rng(seed), 5, crowds=0, unlabelled=0)
    joints = truth.joints + 500 * np.arange(len(truth))[:, None, None]
    return replace(truth, joints=joints, area=np.full(len(truth), 50.0**2), **changes)


@pytest.mark.parametrize("engine", ENGINES)
def test_by_hand(engine):
    truth = plain()
    score = ENGINES[engine]
    found = score(truth, perfect(truth), SIGMAS)
    assert {n: v for n, v in found.items() if not n.endswith("_l")} == dict.fromkeys(
        [n for n in NAMES if not n.endswith("_l")], 1.0
    )
    assert np.isnan([found["ap_l"], found["ar_l"]]).all()
    none = pick(perfect(truth), slice(0, 0))
    assert score(truth, none, SIGMAS)["ap"] == score(truth, none, SIGMAS)["ar"] == 0
    assert np.isnan(list(score(replace(truth, ignore=truth.ignore | True), none, SIGMAS).values())).all()
    nobody = replace(
        truth,
        **{n: getattr(truth, n)[:0] for n in ("id", "image", "category", "joints", "visible", "boxes", "area")},
        crowd=truth.crowd[:0],
        ignore=truth.ignore[:0],
    )
    assert np.isnan(list(score(nobody, perfect(truth), SIGMAS).values())).all()


def test_annotation_ids_play_no_part():
    truth = plain()
    for ids in (np.zeros(len(truth), np.int64), np.arange(len(truth)), -np.arange(len(truth)) - 1):
        for engine in ENGINES.values():
            assert engine(replace(truth, id=ids), perfect(truth), SIGMAS)["ap"] == 1.0


def test_one_wrong_detection_above_the_right_ones():
    truth = plain()
    found = perfect(truth)
    score = np.r_[found.score, 0.95]
    stray = Detected(
        *(np.concatenate([v, v[:1]]) for v in (found.image, found.category, found.joints + 0, found.confidence)), score
    )
    stray.joints[-1] += 9000
    assert average_precision(truth, stray, SIGMAS)["ap"] == pytest.approx(len(truth) / (len(truth) + 1))
    assert average_precision(truth, stray, SIGMAS)["ar"] == 1


def precision_recall_loop(truth, detected, sigmas, threshold, min_score):
    from test_oks import oks_loop

    tp = fp = 0
    for image in truth.images:
        for category in np.unique(truth.category):
            labels = np.flatnonzero((truth.image == image) & (truth.category == category))
            own = np.flatnonzero(
                (detected.image == image) & (detected.category == category) & (detected.score >= min_score)
            )
            free = set(labels.tolist())
            for d in sorted(own, key=lambda i: (-detected.score[i], i))[:20]:
                likes = {
                    g: oks_loop(
                        detected.joints[d], truth.joints[g], truth.visible[g], truth.boxes[g], truth.area[g], sigmas
                    )
                    for g in free
                }
                best = [max((v, g) for g, v in likes.items() if v >= threshold and truth.ignore[g] == ignored)
                        for ignored in (False, True)
                        if any(v >= threshold and truth.ignore[g] == ignored for g, v in likes.items())]  # fmt: skip
                if not best:
                    fp += 1
                    continue
                g = best[0][1]
                tp += not truth.ignore[g]
                if not truth.crowd[g]:
                    free.remove(g)
    return tp, fp, int((~truth.ignore).sum()) - tp


@pytest.mark.parametrize("seed", range(20))
def test_precision_and_recall_at_one_point_are_the_loops(seed):
    truth, detected, sigmas = case(seed)
    threshold, least = (0.75, 0.3) if seed % 2 else (0.5, 0.5)
    found = precision_recall(truth, detected, sigmas, threshold, least)
    tp, fp, fn = precision_recall_loop(truth, detected, sigmas, threshold, least)
    assert (found["tp"], found["fp"], found["fn"]) == (tp, fp, fn)
    at = f"oks{threshold},score{least}"
    for name, part, whole in (("precision", tp, tp + fp), ("recall", tp, tp + fn), ("f1", 2 * tp, 2 * tp + fp + fn)):
        expected = part / whole if whole else np.nan
        np.testing.assert_equal(found[f"{name}@{at}"], expected)


def test_recall_of_all_detections_is_cocos():
    for seed in range(1, 30):
        truth, detected, sigmas = case(seed)
        if len(np.unique(truth.category)) > 1 or not len(truth):
            continue
        single = precision_recall(truth, detected, sigmas, 0.75, -1e9)
        np.testing.assert_allclose(
            single["recall@oks0.75,score-1e+09"], average_precision(truth, detected, sigmas)["ar75"], equal_nan=True
        )


def test_what_the_user_gets_told():
    truth = plain()
    found = perfect(truth)
    with pytest.raises(BiposeError, match="sigmas"):
        average_precision(truth, found, SIGMAS[:5])
    with pytest.raises(BiposeError, match="positive"):
        average_precision(truth, found, SIGMAS * 0)
    with pytest.raises(BiposeError, match="images that the split does not have, first image 123456"):
        average_precision(truth, replace(found, image=found.image * 0 + 123456), SIGMAS)
    with pytest.raises(BiposeError, match="detections' joints: not all numbers are finite"):
        average_precision(truth, replace(found, joints=found.joints * np.nan), SIGMAS)
    with pytest.raises(BiposeError, match="negative"):
        average_precision(replace(truth, area=-truth.area), found, SIGMAS)
    with pytest.raises(BiposeError, match="oks 0"):
        precision_recall(truth, found, SIGMAS, oks=0)
    with pytest.raises(BiposeError, match="engine 'coco' is unknown; it is one of bipose, pycocotools"):
        find_engine("coco")


def test_a_category_without_labels_counts_nowhere():
    truth = plain()
    found = perfect(truth)
    both = Detected(
        *(np.concatenate([v, v]) for v in (found.image, found.category, found.joints, found.confidence, found.score))
    )
    both.category[len(found) :] = 77
    assert average_precision(truth, both, SIGMAS) == pytest.approx(average_precision(truth, found, SIGMAS), nan_ok=True)
