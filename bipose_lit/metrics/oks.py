"""Object keypoint similarity (OKS) between persons, and the suppression of doubled persons by it.

Definitions: OKS as `COCOeval.computeOks` of pycocotools 2.0.11, with its order of operations, so that the numbers are the same
to the last bit and ties stay ties; suppression as `oks_nms` of the Simple Baselines code (Xiao et al. 2018, lib/nms/nms.py).
All arithmetic is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BLOCK = 2048
"""Pairs computed at once: their arrays stay in the processor's cache."""


def oks(
    detected: NDArray[np.floating],
    labelled: NDArray[np.floating],
    visible: NDArray[np.integer],
    boxes: NDArray[np.floating],
    area: NDArray[np.floating],
    sigmas: Sequence[float] | Floats,
    pairs: tuple[Ints, Ints] | None = None,
) -> Floats:
    """OKS of detections against labels: the mean over labelled joints of exp(-d^2 / (2 (2 sigma)^2 area)).

    A label without a labelled joint is compared by its box instead: d is each detected joint's distance to the box
    enlarged to three times its width and height about its centre (COCO calls it doubled), and the mean is over all joints.

    Args:
        detected: (D, K, 2) pixels.
        labelled: (G, K, 2) pixels.
        visible: (G, K) labelled where above 0.
        boxes: (G, 4) x, y, w, h of the labels.
        area: (G,) of the labels' segments, square pixels; not negative.
        sigmas: (K,) fall-off per joint.
        pairs: (P,) indices of detections and (P,) of labels to compare; None for all D x G.

    Returns:
        (P,) or (D, G), from 0 to 1.
    """
    if pairs is None:
        D, G = len(detected), len(labelled)
        everyone = np.repeat(np.arange(D), G), np.tile(np.arange(G), D)
        return oks(detected, labelled, visible, boxes, area, sigmas, everyone).reshape(D, G)
    x, y = _axes(detected)
    labels_x, labels_y = _axes(labelled)
    spread = (np.asarray(sigmas, np.float64) * 2) ** 2
    scale = np.asarray(area, np.float64) + np.spacing(1)
    seen = np.asarray(visible) > 0
    count = np.count_nonzero(seen, axis=1)
    result = np.empty(len(pairs[0]))
    # Joints of equal number make a matrix whose rows numpy sums as it sums a single label's: the same last bit.
    counts = count[pairs[1]]
    with np.errstate(over="ignore"):  # far away is far away
        for n in np.unique(counts):
            rows = np.flatnonzero(counts == n)
            for block in np.split(rows, range(_BLOCK, len(rows), _BLOCK)):
                d, g = pairs[0][block], pairs[1][block]
                if n:
                    dx, dy = x[d] - labels_x[g], y[d] - labels_y[g]
                else:
                    dx, dy = _outside(x[d], boxes[g, 0], boxes[g, 2]), _outside(y[d], boxes[g, 1], boxes[g, 3])
                e = (dx**2 + dy**2) / spread / scale[g][:, None] / 2
                if n and n < e.shape[1]:
                    e = e[seen[g]].reshape(-1, n)
                result[block] = np.exp(-e).sum(axis=1) / e.shape[1]
    return result


def extent(joints: NDArray[np.floating]) -> Floats:
    """(D,) area of the box around all K joints of (D, K, 2): what COCO takes as a detected person's area."""
    places = np.asarray(joints, np.float64)
    if not places.shape[1]:
        return np.zeros(len(places))
    with np.errstate(over="ignore", invalid="ignore"):
        size = places.max(axis=1) - places.min(axis=1)
        return np.asarray(size[:, 0] * size[:, 1])


def oks_nms(
    joints: NDArray[np.floating],
    score: NDArray[np.floating],
    image: NDArray[np.integer],
    sigmas: Sequence[float] | Floats,
    threshold: float = 0.9,
    area: NDArray[np.floating] | None = None,
) -> Ints:
    """Persons that remain when, per image from the highest score down, each removes the lower ones that are too like it.

    The OKS of two predictions is over all joints and takes the mean of their two areas. The reference code's area is that of
    the crop (the detector's box, widened to the network's shape and by 1.25); where it is not given, it is the area of the
    box around the predicted joints (`extent`), which is smaller and so removes fewer. Of equal scores the earlier row
    counts as the higher (in the reference code their order is undefined).

    Args:
        joints: (D, K, 2) pixels, finite.
        score: (D,) of the person.
        image: (D,) persons of different images never meet; any integers.
        sigmas: (K,) fall-off per joint.
        threshold: a person is removed when its OKS with a kept one is above it.
        area: (D,) square pixels, or None.

    Returns:
        (R,) rows of the persons that remain, ascending.
    """
    order = np.lexsort((-np.asarray(score, np.float64), image))
    places = np.asarray(joints, np.float64)[order]
    x, y = _axes(places)
    size = extent(places) if area is None else np.asarray(area, np.float64)[order]
    spread = (np.asarray(sigmas, np.float64) * 2) ** 2
    K = len(spread)
    probes = _probes(K, threshold)
    few = None if probes is None else (x[:, probes], y[:, probes], spread[probes])
    group = np.asarray(image)[order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else np.zeros(0, np.int64)
    ends = np.r_[starts[1:], len(group)]
    alive = np.ones(len(group), bool)

    def similarity(x: Floats, y: Floats, spread: Floats, a: Ints, b: Ints) -> Floats:
        """(P,) sum over joints of the likeness of pairs."""
        result = np.empty(len(a))
        scale = (size[a] + size[b]) / 2 + np.spacing(1)
        for begin in range(0, len(a), _BLOCK):
            part = slice(begin, begin + _BLOCK)
            e = (x[a[part]] - x[b[part]]) ** 2 + (y[a[part]] - y[b[part]]) ** 2
            result[part] = np.exp(-(e / spread / scale[part, None] / 2)).sum(axis=1)
        return result

    with np.errstate(over="ignore", invalid="ignore"):
        for rank in range(int((ends - starts).max(initial=1)) - 1):
            lasting = ends - starts > rank + 1
            starts, ends = starts[lasting], ends[lasting]
            at = starts + rank
            kept = alive[at]
            count = (ends - at - 1)[kept]
            first = np.repeat(at[kept], count)
            second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
            living = alive[second]
            first, second = first[living], second[living]
            if few is not None:  # most pairs are two persons: a few joints tell
                near = similarity(*few, first, second) + (K - len(few[2])) > threshold * K - 1e-9
                first, second = first[near], second[near]
            alive[second[similarity(x, y, spread, first, second) / K > threshold]] = False
    return np.sort(order[alive])


def _axes(joints: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """The x and the y of (N, K, 2) joints as two (N, K) arrays."""
    places = np.asarray(joints, np.float64)
    return np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1])


def _outside(place: Floats, low: NDArray[np.floating], length: NDArray[np.floating]) -> Floats:
    """(P, K) how far coordinates lie outside the enlarged box's side, 0 inside."""
    low, length = np.asarray(low, np.float64)[:, None], np.asarray(length, np.float64)[:, None]
    return np.maximum(0, (low - length) - place) + np.maximum(0, place - (low + length * 2))


def _probes(K: int, threshold: float) -> Ints | None:
    """Joints that can rule a pair out: even if all others agree perfectly, the mean stays at or below the threshold."""
    count = math.floor((1 - threshold) * K) + 3
    if count * 2 > K:
        return None
    return np.unique(np.linspace(0, K - 1, count).round().astype(np.int64))
