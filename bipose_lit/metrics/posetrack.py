"""PoseTrack's average precision of joints (AP), matched person by person at half a head size; not OKS.

Definition: poseval (github.com/leonid-pishchulin/poseval; `evaluateAP.py`, and `cleanupData`, `removeIgnoredPoints`,
`assignGTmulti`, `computeRPC`, `VOCap` of `eval_helpers.py`), with its order of operations, so that what lies exactly on a
threshold falls to the same side:

1. A frame without a labelled person is left out, and its predictions with it.
2. In the other frames, joints strictly inside an ignore region are left out, labelled and predicted ones.
3. A predicted joint fits a labelled one where their distance / head size <= 0.5 (the boundary fits). The head size is 0.6 x
   the diagonal of the head's box.
4. Each predicted person goes to the labelled one for which most of the labelled joints fit (a fraction of those that are
   labelled), each labelled person to the best prediction that chose it; ties go to the first. No joint in common: no match.
5. Per joint, all predictions of all frames are ranked by the joint's own score. One is right where its person is matched and
   the joint fits; persons without a match, and joints that their person lacks a label for, are wrong.
6. AP is the area under the precision envelope over recall, steps as they are (the measure of Pascal VOC since 2010).

"ap" is the mean of the 15 joints' AP, those left out that are predicted but never labelled (NaN); a joint that is never
predicted has AP 0, even where it is never labelled either. A group's AP is the plain mean of its joints. All arithmetic is
float64. Two liberties are ours. A labelled person without a head size, of which poseval knows none, counts as labelled and cannot
be matched. Equal scores are ranked by a stable sort, the later prediction first: so does poseval for short lists; for longer ones
it leaves the order of ties to numpy's unstable sort, which differs between machines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bipose_lit.skeletons import POSETRACK18

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLD = 0.5
"""Of the head size, within which a joint fits."""

SCORED = tuple(i for i, joint in enumerate(POSETRACK18.joints) if not joint.endswith("_ear"))
"""Positions of the 15 scored joints among the 17 slots of a file: all but the ears."""

JOINTS = tuple(POSETRACK18.joints[i] for i in SCORED)

GROUPS = {"head": ("nose", "head_bottom", "head_top")} | {
    part: (f"left_{part}", f"right_{part}") for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
}
"""The columns of poseval's table, and the joints that each is the mean of."""


def _none() -> Floats:
    return np.zeros((0, len(JOINTS)))


@dataclass(frozen=True)
class Frame:
    """One image; G labelled and P predicted persons, K joints, usually the 15 of `JOINTS`.

    Attributes:
        joints: (G, K, 2) labels, original pixels.
        labelled: (G, K) which of them there are.
        head: (G,) head sizes in pixels, see `head_size`; a person with 0 or NaN is labelled but cannot be matched.
        pred: (P, K, 2) predictions in the labels' coordinates.
        predicted: (P, K) which of them there are.
        score: (P, K) confidence of each joint; finite.
        regions: ignore regions, (V, 2) corners each.
    """

    joints: Floats
    labelled: Bools
    head: Floats
    pred: Floats = field(default_factory=lambda: np.zeros((0, len(JOINTS), 2)))
    predicted: Bools = field(default_factory=lambda: _none().astype(bool))
    score: Floats = field(default_factory=_none)
    regions: tuple[Floats, ...] = ()


@dataclass(frozen=True)
class JointAP:
    """What `joint_ap` gives.

    Attributes:
        ap: (K,) of each joint, fractions of 1.
        labels: (K,) labelled joints that were scored.
        predictions: (K,) predicted joints that were scored.
        frames: that had a labelled person.
    """

    ap: Floats
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    frames: int

    @property
    def mean(self) -> float:
        """Mean of the joints that are not NaN ("Total" in poseval's table); NaN where all are."""
        defined = self.ap[~np.isnan(self.ap)]
        return float(defined.mean()) if len(defined) else float("nan")

    def metrics(self) -> dict[str, float]:
        """{"ap": mean, "ap/head": ..., the other groups, "ap/nose": ..., the other joints}; needs the 15 of `JOINTS`."""
        by_joint = dict(zip(JOINTS, self.ap.tolist(), strict=True))
        by_group = {name: float(np.mean([by_joint[j] for j in joints])) for name, joints in GROUPS.items()}
        return {"ap": self.mean} | {f"ap/{name}": value for name, value in (by_group | by_joint).items()}


def head_size(box: NDArray[np.floating]) -> Floats:
    """(...) 0.6 x the diagonal of head boxes (..., 4) x, y, w, h, in pixels; by way of the corners, as poseval has it."""
    box = np.asarray(box, np.float64)
    sides = (box[..., :2] + box[..., 2:]) - box[..., :2]
    return np.asarray(0.6 * np.sqrt((sides * sides).sum(axis=-1)))


def inside(points: NDArray[np.floating], region: NDArray[np.floating]) -> Bools:
    """(...) whether points (..., 2) lie strictly inside a closed polygon (V, 2); where it crosses itself, by parity.

    A point on an edge is outside (shapely's `contains`). Fewer than three corners enclose nothing.
    """
    points, corners = np.asarray(points, np.float64), np.asarray(region, np.float64)
    if len(corners) < 3:
        return np.zeros(points.shape[:-1], bool)
    x, y = points[..., 0, None], points[..., 1, None]
    (x1, y1), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    with np.errstate(over="ignore", invalid="ignore"):
        side = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)  # 0 on the line, above 0 on its left where y grows downwards
    on_edge = (
        (side == 0) & (np.minimum(x1, x2) <= x) & (x <= np.maximum(x1, x2))
        & (np.minimum(y1, y2) <= y) & (y <= np.maximum(y1, y2))
    )  # fmt: skip
    # A ray to the right crosses an edge whose ends lie on both sides of it; the lower end belongs to the edge.
    rising, falling = (y1 <= y) & (y < y2), (y2 <= y) & (y < y1)
    crossings = (rising & (side > 0)) | (falling & (side < 0))
    return np.asarray((np.count_nonzero(crossings, axis=-1) % 2 == 1) & ~on_edge.any(axis=-1))


def without_ignored(frame: Frame) -> Frame:
    """The frame less the joints in its ignore regions; persons stay, if need be without a joint."""
    labelled, predicted = frame.labelled, frame.predicted
    for region in frame.regions:
        labelled = labelled & ~_covered(frame.joints, labelled, region)
        predicted = predicted & ~_covered(frame.pred, predicted, region)
    return Frame(frame.joints, labelled, frame.head, frame.pred, predicted, frame.score)


def _covered(points: Floats, there: Bools, region: Floats) -> Bools:
    """`inside`, asked only for the points that are there and within the region's bounds: few are."""
    covered = np.zeros(there.shape, bool)
    if len(region) >= 3:
        near = there & ((points >= region.min(axis=0)) & (points <= region.max(axis=0))).all(axis=-1)
        if near.any():
            covered[near] = inside(points[near], region)
    return covered


def fits(frame: Frame, threshold: float = THRESHOLD) -> Bools:
    """(P, G, K) whether a predicted joint is within threshold x head size of a labelled one; False where either lacks."""
    difference = np.asarray(frame.pred, np.float64)[:, None] - np.asarray(frame.joints, np.float64)[None]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        distance = np.sqrt((difference * difference).sum(axis=-1)) / frame.head[None, :, None]
        near = distance <= threshold
    return np.asarray(near & frame.predicted[:, None] & frame.labelled[None])


def match(fit: Bools, labelled: Bools) -> NDArray[np.int64]:
    """(P,) the labelled person that each predicted one is matched with, -1 for none; at most one each.

    Args:
        fit: (P, G, K), see `fits`.
        labelled: (G, K).
    """
    P, G = fit.shape[:2]
    matched: NDArray[np.int64] = np.full(P, -1, np.int64)
    if not P or not G:
        return matched
    share = fit.sum(axis=2) / np.maximum(labelled.sum(axis=1), 1)  # PCKh of every pair
    choice = share.argmax(axis=1)  # the first of equals, also below
    kept = np.where(np.arange(G) == choice[:, None], share, 0.0)
    best, value = kept.argmax(axis=0), kept.max(axis=0)
    taken = value > 0
    matched[best[taken]] = np.flatnonzero(taken)
    return matched


def average_precision(score: NDArray[np.floating], right: Bools, labels: int) -> float:
    """Area under the precision envelope over recall.

    Args:
        score: (N,) of the predictions.
        right: (N,) whether they are.
        labels: how many there are to be found.

    Returns:
        A fraction of 1; 0 without predictions, NaN with predictions but no labels.
    """
    if not len(score):
        return 0.0
    if not labels:
        return float("nan")
    ranked = np.asarray(right, bool)[np.argsort(np.asarray(score, np.float64), kind="stable")[::-1]]
    found = np.cumsum(ranked)
    recall, precision = found / labels, found / np.arange(1, len(found) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float((steps * envelope)[steps > 0].sum())


def joint_ap(frames: Iterable[Frame], threshold: float = THRESHOLD, joints: int = len(JOINTS)) -> JointAP:
    """AP of each joint over frames (see the module).

    Args:
        frames: in order (it decides between predictions of equal score).
        threshold: of the head size.
        joints: K.
    """
    scores: list[Floats] = []
    rights: list[Bools] = []
    there: list[Bools] = []
    labels = np.zeros(joints, np.int64)
    count = 0
    for whole in frames:
        if not len(whole.joints):
            continue
        count += 1
        frame = without_ignored(whole)
        labels += frame.labelled.sum(axis=0)
        fit = fits(frame, threshold)
        matched = match(fit, frame.labelled)
        right = np.zeros(frame.predicted.shape, bool)
        found = np.flatnonzero(matched >= 0)
        right[found] = fit[found, matched[found]]
        scores.append(np.asarray(frame.score, np.float64))
        rights.append(right)
        there.append(frame.predicted)
    if not count:
        return JointAP(np.full(joints, np.nan), labels, np.zeros(joints, np.int64), 0)
    score, right, predicted = np.concatenate(scores), np.concatenate(rights), np.concatenate(there)
    ap = [
        average_precision(score[predicted[:, k], k], right[predicted[:, k], k], int(labels[k])) for k in range(joints)
    ]
    return JointAP(np.array(ap), labels, predicted.sum(axis=0, dtype=np.int64), count)
