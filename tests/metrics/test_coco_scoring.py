"""From a run's predictions to COCO's numbers, against the reference code's steps written out."""

from dataclasses import fields, replace

import numpy as np
import pytest
from coco_persons import SIGMAS, make_truth, nms_loop, reference

from bipose_lit.metrics.coco_scoring import CocoScoring, crop_areas, person_scores, suppress
from bipose_lit.metrics.instances import Detected
from bipose_lit.metrics.oks import extent
from bipose_lit.skeletons import COCO
from bipose_lit.store import Predictions
from bipose_lit.types import NORMS, BiposeError


def setting(seed=0, boxes=40):
    """Labels, what the scoring is made of, and predictions near the labels, some of them doubled."""
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 8, crowds=0.05, unlabelled=0.05)
    source = rng.integers(0, len(truth), boxes)
    uid = rng.permutation(10 * boxes)[:boxes].astype(np.int64)
    known = {
        "uid": uid, "image": truth.image[source], "category": truth.category[source],
        "box_score": rng.uniform(0.2, 1, boxes),
    }  # fmt: skip
    joints = truth.joints[source] + rng.normal(0, 1, (boxes, 17, 2)) * 0.05 * np.sqrt(truth.area[source])[:, None, None]
    score = rng.uniform(0, 1, (boxes, 17)) * rng.choice([0.15, 1], (boxes, 1), p=[0.1, 0.9])
    found = Predictions(
        uid=uid, clip=np.arange(boxes), frame=np.zeros(boxes, np.int64), pred=joints.astype(np.float32),
        score=score.astype(np.float32), joints=joints.astype(np.float32), visible=np.full((boxes, 17), 2, np.uint8),
        norms=np.full((boxes, len(NORMS)), np.nan, np.float32), fps=np.zeros(boxes, np.float32),
        clips=tuple(map(str, range(boxes))), clusters=tuple(map(str, range(boxes))), joint_names=COCO.joints,
        data="made/val[det-box]",
    )  # fmt: skip
    return truth, known, found


def rows_of(predictions, rows):
    kept = {
        f.name: getattr(predictions, f.name)[rows]
        for f in fields(predictions)
        if f.name in ("uid", "clip", "frame", "pred", "score", "joints", "visible", "norms", "fps")
    }
    return replace(predictions, **kept)


def by_hand(truth, known, predictions, nms, area=None):
    order = np.argsort(predictions.uid)
    joints, confidence = predictions.pred[order].astype(float), predictions.score[order].astype(float)
    rows = [known["uid"].tolist().index(u) for u in predictions.uid[order]]
    score = []
    for row, values in zip(rows, confidence, strict=True):
        over = [v for v in values if v > 0.2]
        score.append(known["box_score"][row] * (sum(over) / len(over) if over else 0))
    found = Detected(known["image"][rows], known["category"][rows], joints, confidence, np.array(score))
    if nms is not None:
        size = extent(joints) if area is None else area[rows]
        kept = nms_loop(joints, found.score, found.image * 10 + found.category, SIGMAS, nms, size)
        found = Detected(*(getattr(found, f.name)[kept] for f in fields(found)))
        assert len(kept) < len(rows)
    return reference(truth, found)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("nms", [None, 0.5])
def test_numbers_are_those_of_the_steps_by_hand(seed, nms):
    truth, known, found = setting(seed)
    area = np.random.default_rng(seed).uniform(2000, 9000, len(found.uid)) if seed % 2 else None
    scores = CocoScoring(truth, **known, sigmas=SIGMAS, nms=nms, area=area).score(found)
    expected = by_hand(truth, known, found, nms, area)
    assert scores == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert 0 < scores["ap"] < 1


def test_order_does_not_matter_and_a_part_is_scored_as_it_is():
    truth, known, found = setting(3)
    known["box_score"][:] = 1
    found = replace(found, score=np.full_like(found.score, 0.5))  # all scores tie
    scoring = CocoScoring(truth, **known, sigmas=SIGMAS)
    expected = scoring.score(found)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(found.uid))
        mixed = CocoScoring(truth, **{n: v[order[::-1]] for n, v in known.items()}, sigmas=SIGMAS)
        for one in (scoring, mixed):
            np.testing.assert_equal(one.score(rows_of(found, order)), expected)
    scoring = CocoScoring(truth, **known, sigmas=SIGMAS, nms=None)
    part = scoring.score(rows_of(found, np.arange(10)))
    assert part == pytest.approx(by_hand(truth, known, rows_of(found, np.arange(10)), None), abs=1e-9, nan_ok=True)
    assert part["ar"] < scoring.score(found)["ar"]
    assert scoring.score(rows_of(found, np.arange(0)))["ap"] == 0


def test_scores_of_persons():
    confidence = np.array([[0.19, 0.4, 0.8], [0.1, 0.2, 0.0], [0.3, 0.1, -1]])
    np.testing.assert_allclose(person_scores(np.array([0.5, 1, 1]), confidence), [0.5 * (0.4 + 0.8) / 2, 0, 0.3])


def test_crop_areas_are_those_of_the_reference_code():
    # 30x80 becomes 60x80, 100x40 becomes 100x133.3; each side 1.25 times.
    expected = [60 * 80 * 1.5625, 100 * (400 / 3) * 1.5625, 0]
    np.testing.assert_allclose(crop_areas(np.array([[0, 0, 30, 80], [5, 5, 100, 40], [0, 0, -5, 0]])), expected)
    assert crop_areas(np.zeros((0, 4))).shape == (0,)


def test_persons_of_two_categories_do_not_remove_each_other():
    joints = np.repeat(np.random.default_rng(0).uniform(0, 50, (1, 17, 2)), 4, axis=0)
    found = Detected(
        np.array([3, 3, 3, 4]), np.array([1, 2, 1, 1]), joints, np.ones((4, 17)), np.array([0.9, 0.8, 0.7, 0.6])
    )
    assert suppress(found, SIGMAS, 0.5).tolist() == [0, 1, 3]


def test_equal_scores_are_told_once(caplog):
    truth, known, found = setting()
    known["box_score"][:] = 1
    scoring = CocoScoring(truth, **known, sigmas=SIGMAS)
    scoring.score(found)
    assert not caplog.records
    tied = replace(found, score=np.ones_like(found.score))
    scoring.score(tied)
    scoring.score(tied)
    (record,) = caplog.records
    assert record.getMessage() == (
        "made/val[det-box]: all 40 persons have the score 1: AP ranks them by their id; "
        "a codec with confidences or detector boxes would rank them"
    )
    caplog.clear()
    CocoScoring(truth, **known, sigmas=SIGMAS).score(rows_of(tied, np.arange(1)))
    assert not caplog.records


def test_what_the_user_gets_told():
    truth, known, found = setting()
    scoring = CocoScoring(truth, **known, sigmas=SIGMAS)
    strange = replace(found, uid=found.uid.copy())
    strange.uid[3] = 10**9
    with pytest.raises(
        BiposeError, match=r"made/val\[det-box\]: 1 persons are not of this split, first uid 1000000000"
    ):
        scoring.score(strange)
    with pytest.raises(BiposeError, match="is there twice"):
        scoring.score(rows_of(found, np.r_[0, 1, 1]))
    with pytest.raises(BiposeError, match=r"the split: uid .* is there twice"):
        CocoScoring(truth, **{n: np.r_[v, v[:1]] for n, v in known.items()}, sigmas=SIGMAS)
    with pytest.raises(BiposeError, match="not all numbers are finite"):
        scoring.score(replace(found, pred=found.pred * np.nan))
    with pytest.raises(BiposeError, match="16 joints where the labels have 17"):
        scoring.score(replace(found, pred=found.pred[:, 1:], score=found.score[:, 1:]))
