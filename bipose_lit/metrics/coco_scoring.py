"""COCO's measure for the predictions of a run: persons in given boxes, scored and thinned as the top-down papers do it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics.coco import average_precision
from bipose_lit.metrics.instances import Detected, Truth, digest
from bipose_lit.metrics.oks import oks_nms
from bipose_lit.store import Predictions
from bipose_lit.types import BiposeError

JOINT_SCORE = 0.2
"""Joints above this confidence make a person's score."""

_log = logging.getLogger(__name__)


def person_scores(
    box_score: NDArray[np.floating], confidence: NDArray[np.floating], least: float = JOINT_SCORE
) -> NDArray[np.float64]:
    """(N,) box score x mean confidence of the joints above `least`; 0 for a person without such a joint.

    The rule of the Simple Baselines code (Xiao et al. 2018, lib/dataset/coco.py), kept by HRNet.

    Args:
        box_score: (N,) of the detector; 1 for ground-truth boxes.
        confidence: (N, K) of the joints.
        least: joints at or below it do not count.
    """
    values = np.asarray(confidence, np.float64)
    counts = values > least
    mean = np.where(counts, values, 0).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    return np.asarray(np.asarray(box_score, np.float64) * mean)


class CocoScoring:
    """Average precision and recall of a run's predictions; a `Scoring` of data sets in COCO's manner.

    Labels whose image got no prediction count as missed, so a subset of the uids scores low: that is COCO's measure.

    Args:
        truth: the split's labels, with crowds and images without persons.
        uid: (N,) of the persons (boxes) that a run may predict; each once.
        image: (N,) image ids.
        category: (N,) category ids.
        box_score: (N,) detector scores, 1 for ground-truth boxes.
        sigmas: (K,) fall-off per joint.
        nms: OKS above which a person is removed as a double of one with a higher score; None keeps all.
        area: (N,) `crop_areas` in square pixels, for the suppression as the reference code has it; None for the area of the box
            around the predicted joints (see `oks_nms`).

    Raises:
        BiposeError: a uid that is there twice.
    """

    def __init__(
        self,
        truth: Truth,
        uid: NDArray[np.int64],
        image: NDArray[np.int64],
        category: NDArray[np.int64],
        box_score: NDArray[np.float64],
        sigmas: Sequence[float],
        nms: float | None = 0.9,
        area: NDArray[np.float64] | None = None,
    ) -> None:
        order = np.argsort(uid, kind="stable")
        _once(uid[order], "the split")
        self.truth, self.sigmas, self.nms = truth, tuple(sigmas), nms
        self.uid, self.image, self.category = uid[order], image[order], category[order]
        self.box_score = np.asarray(box_score, np.float64)[order]
        self.area = None if area is None else np.asarray(area, np.float64)[order]
        self._told = False

    def fingerprint(self) -> str:
        """Of labels, boxes and options; the order of the boxes does not matter."""
        areas = np.zeros(0) if self.area is None else self.area
        options = repr((self.sigmas, self.nms, self.area is None))
        return digest(self.truth.fingerprint(), self.uid, self.image, self.category, self.box_score, areas, options)

    def score(self, predictions: Predictions) -> dict[str, float]:
        """COCO's ten numbers (`metrics.coco.NAMES`), the same whatever the order of the rows.

        Args:
            predictions: one row per uid.

        Raises:
            BiposeError: a uid that is unknown or there twice, another number of joints, numbers that are not finite.
        """
        # Ties of the score are broken by uid.
        order = np.argsort(predictions.uid, kind="stable")
        uid = predictions.uid[order]
        rows = np.searchsorted(self.uid, uid)
        known = rows < len(self.uid)
        known[known] = self.uid[rows[known]] == uid[known]
        if not known.all():
            raise BiposeError(
                f"predictions of {predictions.data}: {int((~known).sum())} persons are not of this split, first uid "
                f"{int(uid[~known][0])}; score them with the data that they were made from"
            )
        _once(uid, f"predictions of {predictions.data}")
        joints = predictions.pred[order].astype(np.float64)
        confidence = predictions.score[order].astype(np.float64)
        if not np.isfinite(joints).all() or not np.isfinite(confidence).all():
            raise BiposeError(
                f"predictions of {predictions.data}: not all numbers are finite; did the training diverge?"
            )
        if joints.shape[1:] != (len(self.sigmas), 2):
            raise BiposeError(
                f"predictions of {predictions.data}: {joints.shape[1]} joints where the labels have {len(self.sigmas)}; "
                "score them with the data that they were made from"
            )
        found = Detected(
            self.image[rows], self.category[rows], joints, confidence, person_scores(self.box_score[rows], confidence)
        )
        if len(found) > 1 and not np.ptp(found.score) and not self._told:
            self._told = True
            _log.warning(
                "%s: all %d persons have the score %g: AP ranks them by their id; a codec with confidences or detector boxes "
                "would rank them", predictions.data, len(found), found.score[0],
            )  # fmt: skip
        if self.nms is not None:
            kept = suppress(found, self.sigmas, self.nms, None if self.area is None else self.area[rows])
            found = take(found, kept)
        return average_precision(self.truth, found, self.sigmas)


def _once(uid: NDArray[np.int64], what: str) -> None:
    """Raises BiposeError where sorted uids repeat."""
    twice = np.flatnonzero(uid[1:] == uid[:-1])
    if len(twice):
        raise BiposeError(f"{what}: uid {int(uid[twice[0]])} is there twice; keep one row")


def crop_areas(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,) area of boxes (N, 4) x, y, w, h widened to 3:4 and by 1.25 on each side: what Simple Baselines gives to OKS-NMS.

    That is its crop at 192x256 and 288x384, whatever the crops of a run are, so that runs are thinned alike.
    """
    width, height = np.maximum(np.asarray(boxes, np.float64)[:, 2:], 0).T
    return np.asarray(np.maximum(width, height * 3 / 4) * np.maximum(height, width * 4 / 3) * 1.25**2)


def suppress(
    detected: Detected, sigmas: Sequence[float], threshold: float, area: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Rows of the detections that `oks_nms` keeps, each image and category by itself."""
    images, image = np.unique(detected.image, return_inverse=True)
    _, category = np.unique(detected.category, return_inverse=True)
    groups = category.ravel() * max(len(images), 1) + image.ravel()
    return oks_nms(detected.joints, detected.score, groups, sigmas, threshold, area)


def take(detected: Detected, rows: NDArray[np.int64]) -> Detected:
    """Some of the detections, in the order of `rows`."""
    return Detected(
        detected.image[rows],
        detected.category[rows],
        detected.joints[rows],
        detected.confidence[rows],
        detected.score[rows],
    )
