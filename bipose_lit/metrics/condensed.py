"""What a report needs of one run's predictions, as plain data that fits into result.json.

Tables and intervals are made of sums and counts by cluster. A run leaves them in its result, so a report of a thousand
runs opens no prediction file; computed from the predictions they are the same numbers to the last bit, because both ways
go through `condense` and floats are written exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics.occlusion import BINS, STRATA, Timeline, timeline_of
from bipose_lit.metrics.pck import normaliser
from bipose_lit.metrics.summary import ClusterSums, per_cluster
from bipose_lit.metrics.terms import ENDPOINT, joint_sets, terms
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, BiposeError

Floats = NDArray[np.float64]
EDGES = (0.0, *map(float, BINS), np.inf)
"""Lower edges, in frames, of the bins of distance in time: visible now, 1, 2, ..., never."""
_ACCEL = "accel_error_px"


@dataclass(frozen=True)
class Condensed:
    """Sums and counts of one split; C clusters.

    Attributes:
        endpoint: metric of `sums` and `joints`, as in `terms.parse`.
        data: the data's name with split and box rule.
        joint_names: K names.
        clips: number of clips.
        sources: number of clusters that the clips belong to.
        frames: scored persons in frames.
        longest: rows of the longest clip.
        labelled: labelled joints.
        occluded: those of them that are hidden.
        scored: digest of the uids; runs with equal digests scored the same frames.
        error: metric of `gaps`.
        sums: by stratum.
        accel: of the acceleration error, px / frame^2.
        gaps: by "since" and "until": (C, bins, 2) sums and counts of the error by distance in time.
        joints: by joint and group, sum and count.
    """

    endpoint: str
    data: str
    joint_names: tuple[str, ...]
    clips: int
    sources: int
    frames: int
    longest: int
    labelled: int
    occluded: int
    scored: str
    error: str
    sums: Mapping[str, ClusterSums]
    accel: ClusterSums | None = None
    gaps: Mapping[str, Floats] = field(default_factory=dict)
    joints: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON: each vector over clusters is one string of numbers, strata and bins without a joint are left out."""
        names = ("endpoint", "data", "clips", "sources", "frames", "longest", "labelled", "occluded", "scored", "error")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        found["joint_names"], found["names"] = list(self.joint_names), list(self.sums["all"].clusters)
        found["sums"] = {k: _pair(s.values, s.weights) for k, s in self.sums.items() if k == "all" or s.weights.any()}
        found["strata"] = list(self.sums)
        found["accel"] = None if self.accel is None else _pair(self.accel.values, self.accel.weights)
        found["gaps"] = {
            side: {str(b): _pair(*table[:, b].T) for b in range(table.shape[1]) if table[:, b, 1].any()}
            for side, table in self.gaps.items()
        }
        found["joints"] = {name: _text(pair) for name, pair in self.joints.items()}
        return found

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Condensed:
        """What `plain` gave, bit for bit.

        Raises:
            BiposeError: it is something else.
        """
        try:
            clusters, names = (tuple(map(str, plain[k])) for k in ("names", "joint_names"))
            joints = plain["joints"]
            blank = np.zeros(len(clusters))

            def sums(pair: Sequence[str] | None) -> ClusterSums:
                values, weights = (_numbers(text) for text in pair) if pair else (blank, blank)
                if len(values) != len(clusters) or len(weights) != len(clusters):
                    raise ValueError(f"{len(values)} and {len(weights)} numbers for {len(clusters)} clusters")
                return ClusterSums(clusters, values, weights)

            gaps = {}
            for side, bins in plain["gaps"].items():
                gaps[str(side)] = np.zeros((len(clusters), len(EDGES), 2))
                for b, pair in bins.items():
                    gaps[str(side)][:, int(b)] = np.stack(sums(pair)[1:], -1)
            return cls(
                endpoint=str(plain["endpoint"]),
                data=str(plain["data"]),
                clips=int(plain["clips"]),
                sources=int(plain["sources"]),
                frames=int(plain["frames"]),
                longest=int(plain["longest"]),
                labelled=int(plain["labelled"]),
                occluded=int(plain["occluded"]),
                scored=str(plain["scored"]),
                error=str(plain["error"]),
                joint_names=names,
                sums={str(name): sums(plain["sums"].get(name)) for name in plain["strata"]},
                accel=sums(plain["accel"]) if plain["accel"] else None,
                gaps=gaps,
                joints={name: _two(joints[name]) for name in joint_sets(names) if name in joints},
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise BiposeError(
                f"sums by cluster cannot be read ({type(error).__name__}: {error}); delete the folder to repeat the run"
            ) from error


def condense(
    predictions: Predictions, endpoint: str = ENDPOINT, *, detail: bool = True, timeline: Timeline | None = None
) -> Condensed:
    """One split's sums and counts.

    Args:
        predictions: hold whole clips.
        endpoint: as in `terms.parse`.
        detail: also strata, smoothness, distances in time and joints, not just the endpoint by cluster.
        timeline: of these rows, to save the time.

    Raises:
        BiposeError: no such metric.
    """
    p = predictions
    timeline = timeline_of(p) if timeline is None else timeline
    strata = timeline.strata()
    rows = np.bincount(p.clip, minlength=1)
    unit = error_unit(p)
    return Condensed(
        endpoint=endpoint,
        data=p.data,
        joint_names=p.joint_names,
        clips=len(p.clips),
        sources=len(set(p.clusters)),
        frames=len(p.uid),
        longest=int(rows.max()),
        labelled=int((p.visible != ABSENT).sum()),
        occluded=int(strata["occluded"].sum()),
        scored=digest(p),
        error=unit,
        sums={name: per_cluster(p, endpoint, strata[name]) for name in (STRATA if detail else STRATA[:1])},
        accel=per_cluster(p, _ACCEL) if detail else None,
        gaps=_gaps(p, timeline, unit) if detail else {},
        joints=_joints(p, endpoint) if detail else {},
    )


def digest(predictions: Predictions) -> str:
    """16 hexadecimal digits of the uids that were scored."""
    return hashlib.sha256(np.ascontiguousarray(predictions.uid, np.int64).tobytes()).hexdigest()[:16]


def error_unit(predictions: Predictions) -> str:
    """The metric of errors by distance in time: relative to the clip's box where it is defined."""
    return "error[clip]" if np.isfinite(normaliser(predictions.norms, "clip")).any() else "error_px"


def _gaps(p: Predictions, timeline: Timeline, unit: str) -> dict[str, Floats]:
    error = terms(p, unit)
    present = sorted({p.clusters[c] for c in np.unique(p.clip)})
    number = {name: i for i, name in enumerate(present)}
    cluster = np.array([number.get(c, -1) for c in p.clusters], np.int64)[p.clip]
    mask = error.defined & timeline.labelled
    shape = (len(number), len(EDGES), 2)
    found = {}
    for side, distance in (("since", timeline.since), ("until", timeline.until)):
        bins = np.searchsorted(np.array(EDGES), distance[mask], side="right") - 1
        cell = np.broadcast_to(cluster[:, None], mask.shape)[mask] * len(EDGES) + bins
        size = len(number) * len(EDGES)
        sums = np.bincount(cell, weights=error.values[mask], minlength=size)
        counts = np.bincount(cell, minlength=size).astype(np.float64)
        found[side] = np.stack([sums, counts], -1).reshape(shape)
    return found


def _joints(p: Predictions, endpoint: str) -> dict[str, tuple[float, float]]:
    t = terms(p, endpoint)
    values = np.where(t.defined, t.values, 0)
    sets = joint_sets(p.joint_names)
    return {k: (float(values[:, list(v)].sum()), float(t.defined[:, list(v)].sum())) for k, v in sets.items()}


def _pair(values: Floats, weights: Floats) -> list[str]:
    return [_text(values), _text(weights)]


def _text(values: Floats | tuple[float, ...]) -> str:
    """Numbers that read back exactly, on one line: result.json stays legible."""
    return " ".join(repr(float(v)).removesuffix(".0") for v in values)


def _numbers(text: str) -> Floats:
    return np.fromiter(map(float, text.split()), np.float64)


def _two(text: str) -> tuple[float, float]:
    first, second = text.split()
    return float(first), float(second)
