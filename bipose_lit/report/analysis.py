"""From the runs' results to every number of a report.

What tables and intervals need lies in result.json (`metrics.condensed`), so prediction files are opened for the references
of one arm alone; results of older versions lack it, and then it is computed from the predictions, one run at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics import reference
from bipose_lit.metrics.condensed import Condensed, condense, digest
from bipose_lit.metrics.occlusion import BINS, STRATA, Timeline, timeline_of
from bipose_lit.metrics.summary import ClusterSums
from bipose_lit.metrics.terms import parse, terms
from bipose_lit.report.assay import DEFAULT_EXPECTATIONS, AssayResult, assay
from bipose_lit.report.load import Run, Study
from bipose_lit.report.statistics import Contrast, Verdict, contrast, from_table, verdicts
from bipose_lit.store import Predictions
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]

REGIMES = ("visible", "occluded", "P", "F", "B", "N_hidden", "N")
_ABOUT = {"mean_pose": "training labels' mean in the box, no picture"}
REFERENCE_SEEDS = 10
"""Oracles and filters on the per-frame arm read its predictions: of so many seeds at most, the first ones."""
TUNE_SEEDS, TUNE_ROWS = 5, 20_000
"""Filters are tuned (25 points each) on validation predictions of so many seeds at most, of one where these have more rows."""


@dataclass
class Scores:
    """One arm or reference.

    Attributes:
        name: the arm, or the reference's name.
        about: what it is.
        reference: not an arm; nothing was trained for it.
        sums: by stratum and seed, the endpoint's sums by cluster.
        accel: by seed, the acceleration error's sums by cluster, px / frame^2.
        gaps: by "since" and "until": (S, C, bins, 2) sums and counts of the error by distance in time.
        joints: by joint and group, the endpoint's mean of seeds.
    """

    name: str
    about: str = ""
    reference: bool = False
    sums: dict[str, dict[int, ClusterSums]] = field(default_factory=dict)
    accel: dict[int, ClusterSums] = field(default_factory=dict)
    gaps: dict[str, dict[int, Floats]] = field(default_factory=dict)
    joints: dict[str, list[float]] = field(default_factory=dict)

    def level(self, stratum: str = "all") -> Contrast:
        """The arm's own mean with its interval."""
        return own_level(self.sums[stratum], self.name)


@dataclass
class Analysis:
    """Everything that tables and figures show.

    Attributes:
        study: where it comes from.
        labels: what one run's predictions say of the data: names and counts.
        arms, references: scores in the order of the tables.
        named: verdicts of the manifest's contrasts.
        others: exploratory comparisons.
        assay: regime by regime; empty where the data hide nothing or an arm is missing.
        metric: the endpoint.
        factor: by which the endpoint is multiplied for print.
        unit: of the endpoint after that.
        notes: what was found on the way.
    """

    study: Study
    labels: Condensed
    arms: dict[str, Scores]
    references: dict[str, Scores]
    named: list[Verdict] = field(default_factory=list)
    others: list[Verdict] = field(default_factory=list)
    assay: list[AssayResult] = field(default_factory=list)
    factor: float = 100.0
    unit: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def metric(self) -> str:
        return self.study.manifest.endpoint

    @property
    def main(self) -> tuple[str, str]:
        """The comparison that pictures show: the first named contrast, else the last arm against the baseline."""
        for pair in self.study.manifest.contrasts:
            if set(pair) <= set(self.arms):
                return pair
        control = self.study.manifest.baseline if self.study.manifest.baseline in self.arms else next(iter(self.arms))
        return next((a for a in reversed(list(self.arms)) if a != control), control), control

    @property
    def focus(self) -> list[str]:
        """Arms that figures colour: those of the named contrasts and the baseline, in table order."""
        manifest = self.study.manifest
        wanted = {manifest.baseline, *self.main, *(a for pair in manifest.contrasts for a in pair)}
        return [a for a in self.arms if a in wanted]


def analyse(study: Study, tracks: Iterable[Any] | None = None, train: Iterable[Any] | None = None) -> Analysis:
    """Reads every run once.

    Args:
        study: runs that scored other frames than the first one are moved to its `missing`.
        tracks: of the test split, for the mean pose (see `train`).
        train: training tracks; with `tracks` the mean pose becomes a row.

    Raises:
        BiposeError: no usable run, damaged predictions, an unknown endpoint.
    """
    metric = parse(study.manifest.endpoint)
    fractions = metric.measure in ("pck", "auc")
    unit = f"points of {study.manifest.endpoint}" if fractions else study.manifest.endpoint
    condensed = _Condenser(study.manifest.endpoint)
    first = condensed(next(iter(study.runs.values())))
    assert first is not None  # load_study keeps runs with sums or predictions alone
    result = Analysis(study, first, {}, {}, factor=100.0 if fractions else 1.0, unit=unit)
    for (arm, seed), run in list(study.runs.items()):
        found = condensed(run)
        if found is None or found.scored != first.scored:
            del study.runs[arm, seed]
            study.missing.append((arm, seed, "scored other frames than the first run; score all on the same split"))
            continue
        scores = result.arms.setdefault(arm, Scores(arm, study.manifest.about.get(arm, "")))
        _score(scores, seed, found)
    _references(result, tracks, train)
    _compare(result)
    return result


class _Condenser:
    """A run's sums, from its result or else from its predictions; rows that are equal share their timeline."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._timelines: dict[str, Timeline] = {}

    def __call__(self, run: Run) -> Condensed | None:
        return run.condensed(self.endpoint) or self.of(run.predictions())

    def of(self, p: Predictions | None) -> Condensed | None:
        """Computed from predictions."""
        if p is None:
            return None
        # labels could differ where uids do not, so they are part of the key
        key = f"{digest(p)} {hash((p.clip.tobytes(), p.frame.tobytes(), p.visible.tobytes()))}"
        timeline = self._timelines.get(key)
        if timeline is None:
            self._timelines = {key: (timeline := timeline_of(p))}
        return condense(p, self.endpoint, timeline=timeline)


def own_level(sums: Mapping[int, ClusterSums], name: str = "") -> Contrast:
    """A mean with its interval over seeds and clusters, from sums by cluster of each seed."""
    seeds = tuple(sorted(sums))
    used = sums[seeds[0]].weights > 0
    weights = sums[seeds[0]].weights[used]
    table = np.array([sums[s].values[used] for s in seeds]).reshape(len(seeds), -1) / weights
    return from_table(table, weights, names=(name, ""), seeds=seeds)


def gap_edges() -> list[str]:
    """Names of the bins of `Scores.gaps`: visible, 1, 2, ... , never."""
    names = ["seen"]
    for low, high in zip(BINS, (*BINS[1:], None), strict=True):
        names.append(f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}–{high - 1}")
    return [*names, "never"]


def gap_curve(scores: Scores, side: str) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Mean error and interval in each bin, and the number of joints (of one seed)."""
    seeds = sorted(scores.gaps[side])
    table = np.stack([scores.gaps[side][s] for s in seeds])
    bins = table.shape[2]
    out, count = np.full((3, bins), np.nan), table[0, :, :, 1].sum(0).astype(np.int64)
    for b in range(bins):
        used = table[0, :, b, 1] > 0
        if used.any():
            weights = table[0, used, b, 1]
            found = from_table(table[:, used, b, 0] / weights, weights)
            out[:, b] = found.estimate, found.low, found.high
    return out[0], out[1], out[2], count


def frame_errors(predictions: Predictions, unit: str) -> Floats:
    """(N,) mean error of the labelled joints of each row in the metric `unit`; NaN without any."""
    t = terms(predictions, unit)
    count = t.defined.sum(1)
    total: Floats = np.where(t.defined, t.values, 0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def clip_means(predictions: Predictions, endpoint: str) -> Floats:
    """(clips,) the endpoint by clip, NaN where a clip has no joint."""
    p, t = predictions, terms(predictions, endpoint)
    total = np.bincount(p.clip, weights=np.where(t.defined, t.values, 0).sum(1), minlength=len(p.clips))
    n = np.bincount(p.clip, weights=t.defined.sum(1).astype(np.float64), minlength=len(p.clips))
    means: Floats = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
    return means


def _score(s: Scores, seed: int, found: Condensed) -> None:
    for stratum in STRATA:
        s.sums.setdefault(stratum, {})[seed] = found.sums[stratum]
    assert found.accel is not None  # the test split is condensed in detail
    s.accel[seed] = found.accel
    for side, table in found.gaps.items():
        s.gaps.setdefault(side, {})[seed] = table
    for name, (total, count) in found.joints.items():
        s.joints.setdefault(name, []).append(total / count if count else float("nan"))


def _per_frame_arm(study: Study) -> str:
    return next((a for a in ("none", study.manifest.baseline, "none_matched") if a in study.arms), study.arms[0])


def _references(result: Analysis, tracks: Iterable[Any] | None, train: Iterable[Any] | None) -> None:
    study, endpoint = result.study, result.metric
    arm = _per_frame_arm(study)
    condensed = _Condenser(endpoint)
    every = study.of(arm)
    read = {run.seed: (run, p) for run in every[:REFERENCE_SEEDS] if (p := run.predictions()) is not None}
    kept = {seed: pair for seed, pair in read.items() if digest(pair[1]) == result.labels.scored}
    if len(every) > len(kept):
        why = "" if len(read) == min(len(every), REFERENCE_SEEDS) else "; the others' prediction files are gone"
        result.notes.append(f"references were computed on {len(kept)} of {len(every)} seeds of {arm}{why}")

    def add(name: str, about: str, predictions: Mapping[int, Predictions]) -> None:
        scores = Scores(name, about, reference=True)
        for seed, p in predictions.items():
            found = condensed.of(p)
            assert found is not None
            _score(scores, seed, found)
        result.references[name] = scores

    stored = study.folder / "references"
    seeds = list(kept) or [run.seed for run in every]
    if tracks is not None and train is not None and kept:
        # also over a stored one: boxes may have changed, and uids do not tell
        labels = next(iter(kept.values()))[1]
        reference.mean_pose(labels, reference.fit_mean_pose(train), tracks).save(stored / "mean_pose.npz")
    for path in sorted(stored.glob("*.npz")):
        p = Predictions.load(path)
        if digest(p) == result.labels.scored:
            add(path.stem.replace("_", " "), _ABOUT.get(path.stem, "no training"), dict.fromkeys(seeds, p))
        else:
            result.notes.append(f"{path.name} in {stored.name}/ scored other frames and was left out")
    if not kept:
        return
    hidden = result.labels.occluded > 0
    oracles: tuple[tuple[str, str, Callable[[Predictions], Predictions]], ...] = (
        ("hold last", f"oracle: visible labels, then held; on {arm}", reference.labels_hold),
        ("straight line", f"oracle: a line through visible labels; on {arm}", reference.labels_line),
    )
    for name, about, function in oracles if hidden else ():
        add(name, about, {s: function(p) for s, (_, p) in kept.items()})
    first = list(kept.values())[:TUNE_SEEDS]
    val = [v for v in (run.predictions("val") for run, _ in first) if v is not None]
    val = val[:1] if val and len(val[0].uid) * len(val) > TUNE_ROWS else val
    moves = result.labels.longest > 2
    for name in reference.FILTERS if moves else ():
        title = {"one_euro": "One-Euro", "savitzky_golay": "Savitzky-Golay", "kalman": "Kalman", "rts": "RTS smoother"}[
            name
        ]
        test = [p for _, p in kept.values()]
        if val:
            params, smooth = reference.tuned(name, val, test, endpoint)
            how = "tuned on validation: " + ", ".join(f"{k} {v:g}" for k, v in params.items())
        else:
            smooth = [reference.FILTERS[name][0](p) for p in test]
            how = "not tuned: no validation predictions"
        add(title, f"on {arm}; {how}", dict(zip(kept, smooth, strict=True)))


def _compare(result: Analysis) -> None:
    manifest, arms = result.study.manifest, result.arms
    pairs = [pair for pair in manifest.contrasts if set(pair) <= set(arms)]
    lost = [f"{a} - {b}" for a, b in manifest.contrasts if not {a, b} <= set(arms)]
    if lost:
        result.notes.append(
            f"no run for the named contrasts {', '.join(lost)}; the correction still counts the others alone"
        )
    main, control = result.main[0], manifest.baseline
    more = [(a, control) for a in arms if a != control and control in arms]
    more += [(main, a) for a in manifest.controls if a in arms and a != main]
    extra = [p for p in dict.fromkeys(more) if p not in pairs and p[::-1] not in pairs]
    filters = [(main, r) for r in ("RTS smoother", "Kalman", "Savitzky-Golay", "One-Euro") if r in result.references]
    everyone = {**arms, **result.references}

    def compare(a: str, b: str, stratum: str = "all") -> Contrast:
        return contrast(everyone[a].sums[stratum], everyone[b].sums[stratum], (a, b), result.metric, stratum)

    try:
        found = verdicts([compare(*p) for p in (*pairs, *extra, *filters)], manifest.margin, pairs)
    except BiposeError as error:
        result.notes.append(f"no comparison: {error}")
        return
    result.named, result.others = found[: len(pairs)], found[len(pairs) :]
    if not result.labels.occluded:
        return
    expected = _expectations(manifest.assay, set(arms))
    if expected:
        keys = [(str(e["stratum"]), str(e["contrast"][0]), str(e["contrast"][1])) for e in expected]
        table = {k: compare(k[1], k[2], k[0]) for k in keys if k[1] in arms and k[2] in arms and k[0] in STRATA}
        result.assay = assay(expected, table, manifest.margin)


def _expectations(wish: Any, arms: set[str]) -> tuple[Mapping[str, Any], ...]:
    if wish is False:
        return ()
    if isinstance(wish, Mapping):
        wish = wish.get("expectations")
    if isinstance(wish, list | tuple) and wish:
        return tuple(wish)
    fits = {"lstm", "bilstm", "none_matched"} <= arms
    return DEFAULT_EXPECTATIONS if fits else ()
