"""From heat maps and part affinity fields to people (Cao et al. 2017, 2019), in numpy: peaks, line integrals, matching, merging.

Everything is in pixels of the maps, whose centres are at integers. Constants are those of the authors' library (OpenPose 1.7,
poseParameters.cpp and bodyPartConnectorBase.cpp); the number of samples of a line is that of their first release. Merging is that
of the 2019 paper: the limbs' connections from the best down, without those that contradict a better one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST = 127
"""Peaks of a joint that are looked at, the highest ones; the authors' largest number of people."""
_TINY = 1e-10
"""Stands in for what is not positive, where a logarithm is taken."""
_RISE = np.log(2) / 2
"""Most that a peak may be above its largest pixel, as a logarithm: what a Gaussian of sigma 0.85 can lose between pixels."""


class Rules(NamedTuple):
    """What counts as a joint, a limb and a person.

    Attributes:
        peak: least height of a peak.
        line: least value of the field, along the limb, at a sample.
        share: of a limb's samples that reach it, at least.
        samples: of a line, both ends included.
        parts: joints of a person, at least.
        score: of a person, at least: what its peaks and limbs add up to, per joint.
    """

    peak: float = 0.05
    line: float = 0.05
    share: float = 0.95
    samples: int = 10
    parts: int = 3
    score: float = 0.4

    def check(self) -> None:
        """Raises BiposeError where a number makes no sense."""
        shares = all(0 <= value <= 1 for value in (self.peak, self.line, self.share))
        if not shares or self.samples < 2 or self.parts < 1 or not self.score >= 0:
            raise BiposeError(
                f"assembly: {self._asdict()}: peak, line and share lie in 0..1, samples are 2 or more, parts 1 or more, score is "
                "not negative"
            )


@dataclass
class People:
    """The people of one image, from the highest score down; P people, K joints.

    Attributes:
        joints: (P, K, 2); a joint that was not found lies at the mean of those that were, so that the person's extent is theirs.
        confidence: (P, K) height of the joint's peak, cut to [0, 1]; 0 where it was not found.
        score: (P,) sum of its peaks and limbs by that of a clean whole person, K joints and L limbs.
    """

    joints: Floats
    confidence: Floats
    score: Floats

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Peaks:
    """Candidates for joints, sorted by joint, each from the largest pixel down; M peaks.

    Attributes:
        joint: (M,) which joint.
        place: (M, 2) x, y.
        height: (M,) of the map there.
    """

    joint: Ints
    place: Floats
    height: Floats

    def __len__(self) -> int:
        return len(self.joint)


class Connections(NamedTuple):
    """Limbs between peaks: numbers of two peaks, (C,) each, and the limb's mean field along the line between them."""

    first: Ints
    second: Ints
    score: Floats


def find_people(
    heatmaps: NDArray[np.floating], pafs: NDArray[np.floating], limbs: Ints, rules: Rules | None = None
) -> People:
    """The people of one image.

    Args:
        heatmaps: (K, h, w).
        pafs: (2 L, h, w) x and y of each limb's field, from the limb's first joint to its second.
        limbs: (L, 2) joints.
        rules: thresholds; None for the usual ones.
    """
    rules = rules or Rules()
    K = len(heatmaps)
    peaks = find_peaks(heatmaps, rules.peak)
    return merge(peaks, connect(peaks, pafs, limbs, rules), K, len(limbs), rules)


def find_peaks(maps: NDArray[np.floating], least: float, most: int = MOST) -> Peaks:
    """Local maxima of maps (K, h, w) above `least`.

    A peak is at the vertex of the parabola through the logarithms of three pixels on each axis: place and height are exact for a
    clean Gaussian of sigma 0.85 or more. Of equal neighbours the first in row-major order is the peak. Values that are not finite
    are none.
    """
    K, h, w = maps.shape
    inner = np.where(np.isfinite(maps), maps, -np.inf)
    wide = w + 2
    padded = np.full((K, h + 2, wide), -np.inf, maps.dtype)
    padded[:, 1:-1, 1:-1] = inner
    flat = padded.ravel()
    at = np.flatnonzero(flat > least)
    for step in (-wide - 1, -wide, -wide + 1, -1):
        at = at[flat[at] > flat[at + step]]
    for step in (1, wide - 1, wide, wide + 1):
        at = at[flat[at] >= flat[at + step]]
    joint, rest = np.divmod(at, (h + 2) * wide)
    y, x = np.divmod(rest, wide)
    y, x, height = y - 1, x - 1, flat[at].astype(np.float64)
    order = np.lexsort((-height, joint))
    joint, y, x, height = joint[order], y[order], x[order], height[order]
    kept = np.arange(len(joint)) - np.searchsorted(joint, joint) < most
    joint, y, x, height = joint[kept], y[kept], x[kept], height[kept]
    # At the map's edge the three pixels begin there, and the vertex is reckoned from the middle one.
    cy, cx = np.clip(y, 1, h - 2), np.clip(x, 1, w - 2)
    across, rise = _vertex(np.stack([inner[joint, y, cx + s] for s in (-1, 0, 1)]), cx - x)
    down, more = _vertex(np.stack([inner[joint, cy + s, x] for s in (-1, 0, 1)]), cy - y)
    height *= np.exp(np.minimum(rise + more, _RISE))
    return Peaks(joint.astype(np.int64), np.stack([x + across, y + down], axis=1), height)


def _vertex(values: NDArray[np.floating], inwards: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Offset of the true peak from the largest pixel, within half a pixel, and how much higher the logarithm is there.

    Args:
        values: (3, M) pixels beside one another.
        inwards: (M,) from the largest of them to the middle one.
    """
    values = values.astype(np.float64)
    # Far below the peak is noise about 0, whose logarithm is anything; a clean Gaussian of sigma 0.85 has 0.016 at least.
    before, middle, after = np.log(np.maximum(values, np.maximum(0.01 * values.max(axis=0), _TINY)))
    slope, bend = (after - before) / 2, before - 2 * middle + after
    round_ = bend < 0
    bend = np.where(round_, bend, -1.0)
    offset = np.where(round_, np.clip(inwards - slope / bend, -0.5, 0.5), 0.0)

    def at(step: NDArray[np.number]) -> Floats:
        return np.asarray(step * (slope + step * bend / 2), np.float64)

    return offset, np.where(round_, np.maximum(at(offset - inwards) - at(-inwards), 0.0), 0.0)


def connect(peaks: Peaks, pafs: NDArray[np.floating], limbs: Ints, rules: Rules) -> Connections:
    """The matching of each limb's peaks that has the largest sum of line integrals (Cao et al. 2017).

    Returns:
        Connections of all limbs, from the best down.
    """
    starts = np.searchsorted(peaks.joint, np.arange(int(limbs.max(initial=-1)) + 2))
    first, second, limb, shapes = [], [], [], []
    for number, (a, b) in enumerate(limbs.tolist()):
        firsts, seconds = np.arange(starts[a], starts[a + 1]), np.arange(starts[b], starts[b + 1])
        shapes.append((len(firsts), len(seconds)))
        first.append(np.repeat(firsts, len(seconds)))
        second.append(np.tile(seconds, len(firsts)))
        limb.append(np.full(len(firsts) * len(seconds), number))
    if not first:
        return Connections(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    a, b = np.concatenate(first), np.concatenate(second)
    score = line_integrals(peaks.place[a], peaks.place[b], np.concatenate(limb), pafs, rules)
    chosen, begin = [], 0
    for rows, columns in shapes:
        if rows and columns:
            # No limb is better than one whose field points the other way.
            table = np.maximum(score[begin : begin + rows * columns].reshape(rows, columns), 0)
            if table.any():
                r, c = linear_sum_assignment(table, maximize=True)
                chosen.append(begin + (r * columns + c)[table[r, c] > 0])
        begin += rows * columns
    pairs = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    pairs = pairs[np.argsort(-score[pairs], kind="stable")]
    return Connections(a[pairs], b[pairs], score[pairs])


def line_integrals(start: Floats, end: Floats, limb: Ints, pafs: NDArray[np.floating], rules: Rules) -> Floats:
    """(N,) mean of the limb's field along lines (N, 2) to (N, 2), at the pixels nearest to evenly spaced samples.

    0 where too few samples have a field in the line's direction, and for lines without length.

    Args:
        start: x, y.
        end: x, y.
        limb: (N,) number of the limb.
        pafs: (2 L, h, w).
        rules: which samples count, and how many.
    """
    _, h, w = pafs.shape
    along = end - start
    length = np.linalg.norm(along, axis=1)
    unit = along / np.where(length > 1e-6, length, np.inf)[:, None]
    flat = np.ascontiguousarray(pafs).ravel()
    row = 2 * limb * h
    total, misses = np.zeros(len(limb)), np.zeros(len(limb), np.int64)
    spare = rules.samples - int(np.ceil(rules.share * rules.samples - 1e-9))
    # From the middle outwards: most lines between strangers are out after a sample or two.
    left = np.flatnonzero(length > 1e-6)
    for t in sorted(np.linspace(0, 1, rules.samples), key=lambda t: abs(t - 0.5)):
        # Half a pixel is added, so that cutting the fraction off rounds.
        place = (start[left] + t * along[left] + 0.5).astype(np.int64)
        at = (row[left] + np.clip(place[:, 1], 0, h - 1)) * w + np.clip(place[:, 0], 0, w - 1)
        with np.errstate(invalid="ignore"):
            field = flat[at] * unit[left, 0] + flat[at + h * w] * unit[left, 1]
        field = np.where(np.isfinite(field), field, 0)  # what is not finite is no field
        total[left] += field
        misses[left] += ~(field > rules.line)
        left = left[misses[left] <= spare]
    score = np.zeros(len(limb))
    score[left] = total[left] / rules.samples
    return score


def merge(peaks: Peaks, connections: Connections, K: int, L: int, rules: Rules) -> People:
    """Puts limbs together to people: no person has two of one joint, and better limbs come first.

    Args:
        peaks: the joints.
        connections: from the best down.
        K: number of joints.
        L: number of limbs.
        rules: what makes a person.
    """
    joint, height = peaks.joint.tolist(), peaks.height.tolist()
    person = list(range(len(joint)))
    members = [{j: i} for i, j in enumerate(joint)]
    total = [min(v, 1.0) for v in height]
    for a, b, score in zip(
        connections.first.tolist(), connections.second.tolist(), connections.score.tolist(), strict=True
    ):
        p, q = person[a], person[b]
        if p != q:
            if not members[p].keys().isdisjoint(members[q]):
                continue
            if len(members[p]) < len(members[q]):
                p, q = q, p
            members[p] |= members[q]
            for peak in members[q].values():
                person[peak] = p
            total[p] += total[q]
            members[q] = {}
        total[p] += score
    kept = [p for p, m in enumerate(members) if len(m) >= rules.parts and total[p] >= rules.score * len(m)]
    kept.sort(key=lambda p: (-total[p], p))
    joints, confidence = np.zeros((len(kept), K, 2)), np.zeros((len(kept), K))
    for row, p in enumerate(kept):
        which, found = list(members[p]), list(members[p].values())
        joints[row] = peaks.place[found].mean(axis=0)
        joints[row, which] = peaks.place[found]
        confidence[row, which] = np.minimum(peaks.height[found], 1.0)
    return People(joints, confidence, np.array([total[p] for p in kept]) / (K + L))


__all__ = ["Connections", "Peaks", "People", "Rules", "connect", "find_peaks", "find_people", "line_integrals", "merge"]
