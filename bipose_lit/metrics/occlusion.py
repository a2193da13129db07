"""Where in time a hidden joint stands: how long since it was seen, how long until it is, and what follows for memory.

Regimes of a labelled joint in a frame, from the visible flags of its whole clip:

    visible   seen in this frame
    P         hidden; seen before, never again (a causal memory can help)
    F         hidden; not seen before, seen later (only looking ahead can help)
    B         hidden; seen before and again later
    N_hidden  hidden; never seen in the clip (nothing in time can help)

The stratum N ("no occlusion, or occluded in the whole clip") holds the joints whose flag never changes in the clip.
Distances count frames by frame number, so they are right for windows with gaps too; they need the whole clip's labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STRATA = ("all", "visible", "occluded", "N", "N_hidden", "P", "F", "B")
BINS = (1, 2, 3, 5, 9, 17, 33)
"""Lower edges of the bins of distance in frames; the last one is open, "never" stands apart."""


@dataclass(frozen=True)
class Timeline:
    """Distances to the nearest frames that show a joint; rows as in the arrays it was made from.

    Attributes:
        since: (N, K) frames since last visible, 0 if visible now, inf if never before.
        until: (N, K) frames until next visible, 0 if visible now, inf if never again.
        labelled: (N, K) the joint is labelled in this frame.
        constant: (N, K) the joint's flag is the same in all frames of the clip that label it.
    """

    since: Floats
    until: Floats
    labelled: Bools
    constant: Bools

    def strata(self) -> dict[str, Bools]:
        """The (N, K) mask of each of `STRATA`."""
        seen = self.labelled & (self.since == 0)
        hidden = self.labelled & ~seen
        before, after = np.isfinite(self.since), np.isfinite(self.until)
        return {
            "all": self.labelled,
            "visible": seen,
            "occluded": hidden,
            "N": self.labelled & self.constant,
            "N_hidden": hidden & ~before & ~after,
            "P": hidden & before & ~after,
            "F": hidden & ~before & after,
            "B": hidden & before & after,
        }


def timeline(clip: NDArray[np.int64], frame: NDArray[np.int64], visible: NDArray[np.uint8]) -> Timeline:
    """Distances from the flags of whole clips.

    Args:
        clip: (N,) clip of each row; rows may be in any order.
        frame: (N,) frame number in the clip.
        visible: (N, K) ABSENT, OCCLUDED, VISIBLE.
    """
    order = np.lexsort((frame, clip))
    c, f, v = clip[order], np.asarray(frame, np.float64)[order], visible[order]
    n, k = v.shape
    rows = np.arange(n)[:, None]
    change = np.flatnonzero(np.diff(c)) + 1
    starts = np.concatenate([np.zeros(1, np.int64), change])
    lengths = np.diff(np.append(starts, n))
    first = np.repeat(starts, lengths)[:, None] if n else rows
    last = np.repeat(starts + lengths - 1, lengths)[:, None] if n else rows
    seen = v == VISIBLE
    past = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)
    future = np.minimum.accumulate(np.where(seen, rows, n)[::-1], axis=0)[::-1]
    since = np.where(past >= first, f[:, None] - f[np.clip(past, 0, None)], np.inf) if n else np.zeros((0, k))
    until = np.where(future <= last, f[np.clip(future, None, n - 1)] - f[:, None], np.inf) if n else np.zeros((0, k))
    constant = np.zeros((n, k), bool)
    if n:
        any_seen = np.repeat(np.logical_or.reduceat(seen, starts, axis=0), lengths, axis=0)
        any_hidden = np.repeat(np.logical_or.reduceat(v == OCCLUDED, starts, axis=0), lengths, axis=0)
        constant = ~(any_seen & any_hidden)
    back = np.empty(n, np.int64)
    back[order] = np.arange(n)
    return Timeline(since[back], until[back], visible != ABSENT, constant[back])


def timeline_of(predictions: Predictions, whole: Predictions | None = None) -> Timeline:
    """The timeline of each scored row.

    Args:
        predictions: what is scored; holds whole clips unless `whole` is given.
        whole: labels of whole clips, if only a part of each clip was scored; rows are matched by uid.

    Raises:
        BiposeError: `whole` lacks a scored row.
    """
    if whole is None:
        return timeline(predictions.clip, predictions.frame, predictions.visible)
    full = timeline(whole.clip, whole.frame, whole.visible)
    order = np.argsort(whole.uid)
    at = np.searchsorted(whole.uid[order], predictions.uid)
    found = order[np.clip(at, 0, len(order) - 1)] if len(order) else np.zeros(len(at), np.int64)
    if not len(order) or not np.array_equal(whole.uid[found], predictions.uid):
        raise BiposeError(
            f"the labels of whole clips ({whole.data}) lack rows that were scored ({predictions.data}); "
            "give labels of the same split"
        )
    return Timeline(full.since[found], full.until[found], full.labelled[found], full.constant[found])


@dataclass(frozen=True)
class Curve:
    """A mean by distance in time.

    Attributes:
        low: (L,) first frame distance of each bin; inf for "never".
        high: (L,) last frame distance of each bin, inf where open.
        mean: (L,) NaN where a bin is empty.
        count: (L,) joints in each bin.
    """

    low: Floats
    high: Floats
    mean: Floats
    count: NDArray[np.int64]


def curve(values: Floats, distance: Floats, mask: Bools, bins: Sequence[int] = BINS) -> Curve:
    """Means of (N, K) values by frames since (or until) visible.

    Args:
        values: terms, e.g. distances in pixels.
        distance: `Timeline.since` or `Timeline.until`.
        mask: (N, K) terms to take, e.g. the stratum "occluded".
        bins: increasing lower edges in frames; the last bin is open, a bin "never" (inf) is added.
    """
    edges = np.asarray([*bins, np.inf], np.float64)
    index = np.searchsorted(edges, distance[mask], side="right") - 1
    inside = index >= 0
    count = np.bincount(index[inside], minlength=len(edges)).astype(np.int64)
    total = np.bincount(index[inside], weights=values[mask][inside], minlength=len(edges))
    mean = np.divide(total, count, out=np.full(len(edges), np.nan), where=count > 0)
    high = np.append(edges[1:-1] - 1, [np.inf, np.inf])
    return Curve(edges, high, mean, count)
