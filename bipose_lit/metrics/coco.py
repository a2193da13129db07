"""COCO's measure of detected persons: average precision and recall by object keypoint similarity, in numpy.

Definitions: `COCOeval` of pycocotools 2.0.11 with iouType "keypoints"; the ten numbers agree with it to 1e-9 (tests). Matching
walks through the ranks of the detections, for all images, thresholds and area ranges at once. Where the original is
undefined or trips, this differs: annotation ids play no part (there, a match with id 0 counts as none), no detection at
all gives zeros, and -1 for "nothing labelled" is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics.instances import Detected, Truth
from bipose_lit.metrics.oks import extent
from bipose_lit.metrics.oks import oks as similarity
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_DETECTIONS = 20
"""Detections per image and category that count, by score."""
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"": (0.0, 1e5**2), "_m": (32.0**2, 96.0**2), "_l": (96.0**2, 1e5**2)}
"""Ranges of a person's area in square pixels, both ends included: all, medium, large; by the ending of the metric's name."""
NAMES = ("ap", "ap50", "ap75", "ap_m", "ap_l", "ar", "ar50", "ar75", "ar_m", "ar_l")

_BLOCK = 1 << 17
"""Elements of a matching array, so that it stays in the processor's cache."""
_MISS, _HIT, _VOID, _OUT = range(4)
"""What a detection is: false positive, true positive, matched to an ignored label, unmatched outside the area range."""


def average_precision(
    truth: Truth, detected: Detected, sigmas: Sequence[float] | Floats, area: NDArray[np.floating] | None = None
) -> dict[str, float]:
    """COCO's ten numbers.

    Categories are those of the labels; detections of other categories count nowhere, as in pycocotools.

    Args:
        truth: labels.
        detected: detections, in the order that breaks ties of the score.
        sigmas: (K,) fall-off per joint.
        area: (D,) area of the detected persons in square pixels, which tells whether an unmatched one is a miss in an area
            range; None for that of the box around the joints, as pycocotools has it for results without boxes.

    Returns:
        By `NAMES`, fractions of 1; NaN where no label counts.

    Raises:
        BiposeError: detections in images that the labels lack, another number of joints, numbers that are not finite.
    """
    found = match(truth, detected, sigmas, THRESHOLDS, tuple(AREAS.values()), area)
    precision, recall = _accumulate(found)
    half, three_quarters = 0, 5  # 0.5 and 0.75 in THRESHOLDS
    values: dict[str, float] = {}
    for prefix, table in (("ap", precision), ("ar", recall)):
        values[prefix] = _mean(table[:, 0])
        values[f"{prefix}50"] = _mean(table[:, 0, half])
        values[f"{prefix}75"] = _mean(table[:, 0, three_quarters])
        values[f"{prefix}_m"] = _mean(table[:, 1])
        values[f"{prefix}_l"] = _mean(table[:, 2])
    return {name: values[name] for name in NAMES}


def precision_recall(
    truth: Truth,
    detected: Detected,
    sigmas: Sequence[float] | Floats,
    oks: float = 0.5,
    min_score: float = 0.5,
    area: NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """Precision and recall at one OKS and one score, all categories taken together.

    Matching, ignored labels and the limit of `MAX_DETECTIONS` are COCO's; of detections, those with a score of at least
    `min_score` take part.

    Args:
        truth: labels.
        detected: detections.
        sigmas: (K,) fall-off per joint.
        oks: a match has at least this similarity, above 0 and at most 1.
        min_score: of a person.
        area: as in `average_precision`.

    Returns:
        "precision@oks0.5,score0.5", "recall@...", "f1@..." (NaN where nothing is there to divide by), and the counts "tp",
        "fp", "fn".

    Raises:
        BiposeError: as `average_precision`; `oks` or `min_score` out of range.
    """
    if not 0 < oks <= 1 or not np.isfinite(min_score):
        raise BiposeError(
            f"oks {oks:g}, min_score {min_score:g}: oks is above 0 and at most 1, min_score a number; change them"
        )
    found = match(truth, detected, sigmas, np.array([oks]), (AREAS[""],), area, min_score)
    tp = int(np.count_nonzero(found.outcome == _HIT))
    fp = int(np.count_nonzero(found.outcome == _MISS))
    fn = int(found.labels.sum()) - tp
    at = f"oks{oks:g},score{min_score:g}"
    return {
        f"precision@{at}": _ratio(tp, tp + fp),
        f"recall@{at}": _ratio(tp, tp + fn),
        f"f1@{at}": _ratio(2 * tp, 2 * tp + fp + fn),
        "tp": float(tp),
        "fp": float(fp),
        "fn": float(fn),
    }


@dataclass(frozen=True)
class Matches:
    """What became of the detections; C categories, A area ranges, T thresholds, M detections that count.

    Attributes:
        category: (M,) index of the category, ascending; within it by image id, then from the highest score down.
        score: (M,) of the person.
        outcome: (A, T, M) 0 false positive, 1 true positive, 2 matched to an ignored label, 3 unmatched and out of range.
        labels: (C, A) labels that count.
    """

    category: Ints
    score: Floats
    outcome: NDArray[np.int8]
    labels: Ints


def match(
    truth: Truth,
    detected: Detected,
    sigmas: Sequence[float] | Floats,
    thresholds: Floats,
    ranges: Sequence[tuple[float, float]],
    area: NDArray[np.floating] | None = None,
    min_score: float = -np.inf,
) -> Matches:
    """Gives each detection, from the highest score of its image down, the free label most like it, for every threshold.

    Of labels with equal OKS the later one is taken; an ignored label only where no other reaches the threshold; a
    crowd is never used up.

    Args:
        truth: labels.
        detected: detections.
        sigmas: (K,) fall-off per joint.
        thresholds: (T,) of OKS, ascending.
        ranges: A ranges of area; labels outside are ignored.
        area: as in `average_precision`.
        min_score: detections below take no part.

    Raises:
        BiposeError: as `average_precision`.
    """
    check(truth, detected, sigmas)
    images, categories = np.unique(truth.images), np.unique(truth.category)
    size = extent(detected.joints) if area is None else np.asarray(area, np.float64)
    ranges_ = np.array(ranges, np.float64).reshape(-1, 1, 2)
    void = truth.ignore | truth.crowd | (truth.area < ranges_[..., 0]) | (truth.area > ranges_[..., 1])

    # A cell is one category in one image.
    cell = np.searchsorted(categories, truth.category) * len(images) + np.searchsorted(images, truth.image)
    labels = np.argsort(cell, kind="stable")
    cells = cell[labels]
    rows = np.flatnonzero(np.isin(detected.category, categories) & (detected.score >= min_score))
    place = np.searchsorted(categories, detected.category[rows]) * len(images)
    place += np.searchsorted(images, detected.image[rows])
    order = np.lexsort((-detected.score[rows], place))
    rows, place = rows[order], place[order]
    rank = np.arange(len(place)) - np.searchsorted(place, place)
    rows, place, rank = (v[rank < MAX_DETECTIONS] for v in (rows, place, rank))

    outcome = np.zeros((len(ranges), len(thresholds), len(rows)), np.int8)
    begin = np.searchsorted(cells, place)
    count = np.searchsorted(cells, place, side="right") - begin
    offset = np.cumsum(count) - count
    members = labels[np.repeat(begin - offset, count) + np.arange(int(count.sum()))]
    alike = similarity(
        detected.joints[rows], truth.joints, truth.visible, truth.boxes, truth.area, sigmas,
        (np.repeat(np.arange(len(rows)), count), members),
    )  # fmt: skip
    passed = np.minimum(thresholds, 1 - 1e-10)
    for G in np.unique(count[count > 0]):
        at = np.flatnonzero(count == G)
        pairs = offset[at, None] + np.arange(G)
        outcome[:, :, at] = _walk(alike[pairs], members[pairs], rank[at], passed, void, truth.crowd)
    out = (size[rows] < ranges_[..., 0]) | (size[rows] > ranges_[..., 1])
    outcome[(outcome == _MISS) & out[:, None]] = _OUT
    number = np.searchsorted(categories, truth.category)
    counted = np.array([np.bincount(number[~v], minlength=len(categories)) for v in void], np.int64).T
    return Matches(place // max(len(images), 1), detected.score[rows], outcome, counted)


def check(truth: Truth, detected: Detected, sigmas: Sequence[float] | Floats) -> None:
    """Raises BiposeError where labels, detections and sigmas do not belong together or hold impossible numbers."""
    K = len(sigmas)
    for what, joints in (("labels", truth.joints), ("detections", detected.joints)):
        if joints.shape[1:] != (K, 2):
            raise BiposeError(
                f"{what}: joints of shape {joints.shape[1:]} where {K} sigmas are given; use one skeleton"
            )
    if not (np.isfinite(sigmas).all() and (np.asarray(sigmas) > 0).all()):
        raise BiposeError("sigmas: each must be a positive number; mend the skeleton")
    for what, values in (
        ("labels' joints", truth.joints), ("labels' boxes", truth.boxes), ("labels' areas", truth.area),
        ("detections' joints", detected.joints), ("detections' scores", detected.score),
    ):  # fmt: skip
        if not np.isfinite(values).all():
            raise BiposeError(f"{what}: not all numbers are finite; mend or leave out these persons")
    if (truth.area < 0).any():
        raise BiposeError("labels' areas: some are negative; mend or leave out these persons")
    for what, image in (("labels", truth.image), ("detections", detected.image)):
        strange = ~np.isin(image, truth.images)
        if strange.any():
            raise BiposeError(
                f"{what}: {int(strange.sum())} are in images that the split does not have, first image "
                f"{int(image[strange][0])}; are these the right labels?"
            )


def _walk(
    alike: Floats, members: Ints, rank: Ints, thresholds: Floats, void: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """Matches the detections of all cells with G labels each.

    Args:
        alike: (M, G) OKS.
        members: (M, G) labels of the detection's cell.
        rank: (M,) position of a detection in its cell; cells follow one another.
        thresholds: (T,) ascending.
        void: (A, labels) ignored in the area range.
        crowd: (labels,) can be matched again.

    Returns:
        (A, T, M) miss, hit or void.
    """
    M, G = alike.shape
    A, T = len(void), len(thresholds)
    # Whole numbers in the place of OKS: the later of equals has the higher one, and a label that counts is above all others.
    small = np.int16 if 2 * G < 2**15 else np.int64
    order = np.empty((M, G), small)
    np.put_along_axis(order, np.argsort(alike, axis=1, kind="stable"), np.arange(G, dtype=small)[None], axis=1)
    level = np.searchsorted(thresholds, alike, side="right").astype(np.int8 if T < 128 else np.int64)
    step = np.arange(T, dtype=level.dtype)[:, None]

    outcome = np.zeros((A, T, M), np.int8)
    starts = np.flatnonzero(rank == 0)
    length = np.diff(np.r_[starts, M])
    longest = np.argsort(-length, kind="stable")
    starts, length = starts[longest], length[longest]
    width = max(1, _BLOCK // (G * A * T))
    for left in range(0, len(starts), width):
        first, size = starts[left : left + width], length[left : left + width]
        own = members[first].T
        bonus = np.where(void[:, own], 0, G).astype(small).transpose(1, 0, 2)[:, :, None]  # (G, A, 1, cells)
        again = crowd[own][:, None, None]
        free = np.ones((G, A, T, len(first)), bool)
        for r in range(int(size.max(initial=0))):
            n = int(np.count_nonzero(size > r))
            at = first[:n] + r
            fits = free[..., :n] & (level[at].T[:, None, None] > step)
            key = np.where(fits, order[at].T[:, None, None] + bonus[..., :n], small(-1))
            best = key.max(axis=0)
            taken = best >= 0
            outcome[:, :, at] = taken.astype(np.int8) + (taken & (best < G))
            free[..., :n] &= ~((key == best) & taken) | again[..., :n]
    return outcome


def _accumulate(found: Matches) -> tuple[Floats, Floats]:
    """(C, A, T, R) precision at each recall and (C, A, T) recall; NaN where no label counts.

    Precision at a recall is the highest that is reached at this recall or above; the score's ties keep the order of
    `Matches`. Only true positives raise recall, and precision falls between them, so they alone are looked at.
    """
    C, A = found.labels.shape
    T = found.outcome.shape[1]
    precision, recall = np.full((C, A, T, len(RECALLS)), np.nan), np.full((C, A, T), np.nan)
    bounds = np.searchsorted(found.category, np.arange(C + 1))
    for c in range(C):
        part = slice(bounds[c], bounds[c + 1])
        outcome = found.outcome[..., part][..., np.argsort(-found.score[part], kind="stable")]
        for a in range(A):
            positives = found.labels[c, a]
            if not positives:
                continue
            for t in range(T):
                hits = np.flatnonzero(outcome[a, t] == _HIT)
                tp = np.arange(1, len(hits) + 1, dtype=np.float64)
                fp = np.cumsum(outcome[a, t] == _MISS)[hits]
                reached = tp / positives
                best = np.maximum.accumulate((tp / (fp + tp + np.spacing(1)))[::-1])[::-1]
                at = np.searchsorted(reached, RECALLS, side="left")
                precision[c, a, t] = np.r_[best, 0.0][at]
                recall[c, a, t] = reached[-1] if len(hits) else 0.0
    return precision, recall


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
