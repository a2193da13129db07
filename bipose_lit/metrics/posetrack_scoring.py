"""PoseTrack's AP for the predictions of a run: rows back to frames, then `metrics.posetrack`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics.instances import digest
from bipose_lit.metrics.posetrack import SCORED, Frame, joint_ap
from bipose_lit.skeletons import POSETRACK18
from bipose_lit.store import Predictions
from bipose_lit.types import BiposeError


class PoseTrackScoring:
    """AP by PoseTrack's definition; a `Scoring`.

    A joint's score is its confidence x the score of the person's box, as in the pipelines that descend from DetectAndTrack
    (DCPose, for one); mmpose takes the confidence alone. With ground-truth boxes the two are the same. Nothing is thinned out
    or left away. Labelled persons without a prediction count as missed, so a subset of the uids scores low.

    Args:
        frames: labelled frames without predictions, 15 joints, in order.
        uid: (N,) of all rows that a run may predict, each once, in the order of the label or detection files.
        frame: (N,) position in `frames`, -1 for rows of unlabelled frames, which are not scored.
        box_score: (N,) of the detector, 1 for ground-truth boxes.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        uid: NDArray[np.int64],
        frame: NDArray[np.int64],
        box_score: NDArray[np.float64],
    ) -> None:
        order = np.argsort(uid, kind="stable")
        self.frames = tuple(frames)
        self.uid, self.frame, self.rank = uid[order], frame[order], order
        self.box_score = np.asarray(box_score, np.float64)[order]

    def fingerprint(self) -> str:
        """Of labels, ignore regions and boxes, in their order, which breaks ties of the score."""
        labels: list[NDArray[Any] | str] = []
        for frame in self.frames:
            labels += [frame.joints, frame.labelled, frame.head, str(len(frame.regions)), *frame.regions]
        return digest(self.uid, self.frame, self.rank, self.box_score, str(len(self.frames)), *labels)

    def score(self, predictions: Predictions) -> dict[str, float]:
        """{"ap": mean of the 15 joints, "ap/head": ..., "ap/nose": ...}, fractions of 1; the order of rows does not matter.

        Args:
            predictions: one row per uid.

        Raises:
            BiposeError: a uid that is unknown or there twice, other joints, or numbers that are not finite.
        """
        if predictions.joint_names != POSETRACK18.joints:
            raise BiposeError(
                f"{predictions.data}: predictions have {len(predictions.joint_names)} joints in another order "
                "than PoseTrack18's 17; set the model's skeleton to posetrack18"
            )
        uid = np.asarray(predictions.uid)
        place = np.searchsorted(self.uid, uid)
        place[place == len(self.uid)] = 0
        known = self.uid[place] == uid if len(self.uid) else np.zeros(len(uid), bool)
        if not known.all() or len(np.unique(uid)) != len(uid):
            raise BiposeError(
                f"{predictions.data}: a prediction's uid is unknown or there twice; score this index's own"
            )
        pred = np.asarray(predictions.pred, np.float64)[:, SCORED]
        score = np.asarray(predictions.score, np.float64)[:, SCORED] * self.box_score[place][:, None]
        if not np.isfinite(pred).all() or not np.isfinite(score).all():
            raise BiposeError(f"{predictions.data}: a prediction is not finite; check the run for divergence")
        target = self.frame[place]
        rows = np.lexsort((self.rank[place], target))
        rows = rows[target[rows] >= 0]
        bounds = np.searchsorted(target[rows], np.arange(len(self.frames) + 1))
        return joint_ap(
            replace(frame, pred=pred[own], predicted=np.ones(pred[own].shape[:2], bool), score=score[own])
            for i, frame in enumerate(self.frames)
            for own in [rows[bounds[i] : bounds[i + 1]]]
        ).metrics()
