"""Intervals for metrics that are not means over joints (AP): a crossed bootstrap of seeds and clusters.

Seeds are drawn once and clusters once per replicate, and the metric is recomputed on the crossed draw (Owen, 2007). A
plain percentile interval of few seeds is too narrow, so the replicates estimate the mean squares of the crossed model,
and the interval follows the same law as for means (`statistics.variance`); on a metric that is a mean both agree.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bipose_lit.report.statistics import LEVEL, MIN_SEEDS_INTERVAL, Components, Contrast, _interval, variance

Indices = NDArray[np.int64]
Statistic = Callable[[Indices, Indices], float]


def crossed_bootstrap(
    statistic: Statistic,
    seeds: int,
    clusters: int,
    rng: np.random.Generator,
    replicates: int = 1000,
    *,
    names: tuple[str, str] = ("arm", "control"),
    metric: str = "",
    stratum: str = "all",
    level: float = LEVEL,
    higher_is_better: bool = True,
) -> Contrast:
    """A contrast of any metric.

    Args:
        statistic: arm's metric minus control's, for (S,) seed numbers and (C,) cluster numbers, with repetitions; NaN
            where the draw does not define it (such replicates are left out and counted in the note).
        seeds: S.
        clusters: C.
        rng: source of the draws.
        replicates: number of draws; each costs three evaluations (one, if S < 3).
        names: arm and control.
        metric: its name.
        stratum: its name.
        level: of the interval.
        higher_is_better: direction of the metric.
    """
    all_seeds, all_clusters = np.arange(seeds), np.arange(clusters)
    estimate = float(statistic(all_seeds, all_clusters))
    crossed = seeds >= MIN_SEEDS_INTERVAL
    draws = np.full((replicates, 3), np.nan)
    possible = estimate == estimate and clusters > 1
    for i in range(replicates if possible else 0):
        c = rng.integers(clusters, size=clusters)
        by_cluster = statistic(all_seeds, c) - estimate
        if crossed:
            s = rng.integers(seeds, size=seeds)
            by_seed = statistic(s, all_clusters) - estimate
            draws[i] = by_seed, by_cluster, statistic(s, c) - estimate - by_seed - by_cluster
        else:
            draws[i] = 0.0, by_cluster, 0.0
    kept = draws[np.isfinite(draws).all(axis=1)]
    se = df = float("nan")
    notes = []
    if possible and len(kept) < replicates:
        notes.append(f"{replicates - len(kept)} of {replicates} draws did not define the metric")
    if not possible:
        notes.append(
            "the metric is not defined" if estimate != estimate else "one cluster: nothing can be said beyond it"
        )
    elif len(kept) > 1:
        a, b, r = (kept**2).mean(axis=0)
        # A bootstrap variance lacks the factor n / (n - 1) of each resampled side.
        up_s, up_c = seeds / max(seeds - 1, 1), clusters / (clusters - 1)
        cells = np.float64(seeds * clusters)
        parts = Components(
            np.asarray(estimate), a * up_s * cells, b * up_c * cells, r * up_s * up_c * cells, np.asarray(clusters -
            1.0), seeds, clusters,
        )  # fmt: skip
        v, freedom = variance(parts)
        se, df = float(np.sqrt(v)), float(freedom)
        if not crossed:
            notes.append(f"interval over clusters only: {seeds} seed{'s' * (seeds > 1)} cannot tell how seeds differ")
    kind = "none" if se != se else "crossed" if crossed else "clusters only"
    low, high, p = _interval(estimate, se, df, level)
    blank = np.full(seeds, np.nan)
    return Contrast(
        *names, metric, stratum, estimate, se, df, low, high, level, p, kind,
        tuple(range(seeds)), tuple(map(str, range(clusters))),
        np.full((seeds, clusters), np.nan), np.ones(clusters), blank, blank, "; ".join(notes), higher_is_better,
    )  # fmt: skip
