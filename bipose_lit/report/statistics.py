"""Differences between arms with honest intervals: seeds and clusters are crossed, and both are random.

Estimand: an arm's metric minus its control's, each over all labelled joints of the split, expected over training seeds
and over clusters (independent sources) like those tested. Every seed scores the same clusters, so the paired
differences form a seed x cluster table D with cluster weights n (numbers of joints), and the estimate is the ratio
sum(n D) / sum(n). Its variance follows from the two-way random-effects model on linearised cluster contributions
(u = n / mean(n), theta the estimate):

    MS_seed     = C sum_s (theta_s - theta)^2 / (S - 1)
    MS_cluster  = S sum_c u_c^2 g_c (theta_c - theta)^2 / (C - 1)
    MS_residual = sum_sc u_c^2 g_c (D_sc - theta_s - theta_c + theta)^2 / ((S - 1)(C - 1))
    Var(theta)  = (MS_seed + MS_cluster - MS_residual) / (S C), at least max(MS_seed, MS_cluster) / (S C)

g undoes the shrinkage of a residual by its own leverage (as HC2; MacKinnon and White, 1985); with equal weights
u = g = 1 and this is the textbook ANOVA of a crossed design. Degrees of freedom: with
df_seed = S - 1 and df_cluster = Kish's effective number of clusters (sum n)^2 / sum(n^2), less 1,

    1 / df = (MS_seed / df_seed + MS_cluster / df_cluster) / (MS_seed + MS_cluster),

to first order the quantile of Cochran and Cox (1950); where the floor holds, those of the mean square that sets it.
Satterthwaite's (1946) formula squares the weights: with so few seeds it takes a mean square that came out small by chance
at its word. In simulation its 95% interval covers down to 92.4% (3 seeds, 64 clusters) and three contrasts without any
effect give a finding in 5.4% (5 seeds, all components equal); the rule above covers 93.5 to 97.1% and keeps to 4.8%. Where
nothing but the residual varies, both cover up to 98.4%: the floor cannot know that and errs on the safe side. The tests
simulate all of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bipose_lit.metrics.summary import ENDPOINT, ClusterSums
from bipose_lit.metrics.terms import parse
from bipose_lit.types import BiposeError

Floats = NDArray[np.float64]

LEVEL, ALPHA, POWER = 0.95, 0.05, 0.8
MIN_SEEDS_INTERVAL, MIN_SEEDS_VERDICT = 3, 5
NAMED = 8
"""Seeds that a note names one by one."""
MIN_CLUSTERS_VERDICT = 8
"""Fewer independent sources give intervals but no verdict: too few for the normal theory behind them."""


@dataclass(frozen=True)
class Components:
    """Mean squares of one or many crossed tables; leading dimensions as in the input of `components`.

    Attributes:
        estimate: weighted mean difference.
        ms_seed, ms_cluster, ms_residual: mean squares; those of seeds and residual are 0 where S = 1.
        df_cluster: effective number of clusters less one.
        seeds, clusters: size of the tables.
    """

    estimate: Floats
    ms_seed: Floats
    ms_cluster: Floats
    ms_residual: Floats
    df_cluster: Floats
    seeds: int
    clusters: int


def components(differences: Floats, weights: Floats) -> Components:
    """Mean squares of seed x cluster tables.

    Args:
        differences: (..., S, C).
        weights: (..., C), positive.
    """
    s, c = differences.shape[-2:]
    u = weights / weights.mean(axis=-1, keepdims=True)
    share = u / c
    by_seed = (differences * share[..., None, :]).sum(axis=-1)
    by_cluster = differences.mean(axis=-2)
    estimate = by_seed.mean(axis=-1)
    concentration = (share**2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shrink = 1.0 - 2.0 * share + concentration[..., None]
        spread = u**2 * np.where(shrink > 1e-12, (c - 1) / c / shrink, 1.0)
    ms_cluster = s * (spread * (by_cluster - estimate[..., None]) ** 2).sum(axis=-1) / max(c - 1, 1)
    ms_seed = c * ((by_seed - estimate[..., None]) ** 2).sum(axis=-1) / max(s - 1, 1)
    rest = differences - by_seed[..., None] - by_cluster[..., None, :] + estimate[..., None, None]
    ms_residual = (spread[..., None, :] * rest**2).sum(axis=(-2, -1)) / max((s - 1) * (c - 1), 1)
    df_cluster = 1.0 / concentration - 1.0
    return Components(estimate, ms_seed, ms_cluster, ms_residual, df_cluster, s, c)


def variance(parts: Components) -> tuple[Floats, Floats]:
    """Variance of the estimate and its degrees of freedom; for S < 3 over clusters alone, the seeds being fixed."""
    s, c = parts.seeds, parts.clusters
    if s < MIN_SEEDS_INTERVAL:
        return parts.ms_cluster / (s * c), np.maximum(parts.df_cluster, 1.0)
    a, b, r = parts.ms_seed, parts.ms_cluster, parts.ms_residual
    df_a, df_b = float(s - 1), np.maximum(parts.df_cluster, 1.0)
    floor = np.maximum(a, b)
    total = np.maximum(a + b - r, floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        blended = (a + b) / (a / df_a + b / df_b)
    df = np.where(a + b - r < floor, np.where(a > b, df_a, df_b), blended)
    return total / (s * c), np.where(total > 0, np.maximum(df, 1.0), df_a)


@dataclass(frozen=True)
class Contrast:
    """One paired comparison; differences are arm minus control in the metric's own unit.

    Attributes:
        arm, control, metric, stratum: what is compared.
        estimate: difference over all labelled joints, mean of seeds.
        se: its standard error, NaN where there is none.
        df: degrees of freedom of the interval.
        low, high: interval at `level`, NaN where there is none.
        level: of the interval.
        p: two-sided p-value of "no difference", not corrected for the number of contrasts.
        kind: "crossed" (seeds and clusters random), "clusters only" (the seeds that ran are taken as they are: fewer
            than three), or "none".
        seeds: the seeds that both arms have.
        clusters: names of the clusters with labelled joints.
        differences: (S, C) paired differences.
        weights: (C,) labelled joints of each cluster.
        arm_means, control_means: (S,) the metric by seed.
        note: what the reader must know, "" if nothing.
        higher_is_better: direction of the metric.
    """

    arm: str
    control: str
    metric: str
    stratum: str
    estimate: float
    se: float
    df: float
    low: float
    high: float
    level: float
    p: float
    kind: str
    seeds: tuple[int, ...]
    clusters: tuple[str, ...]
    differences: Floats = field(repr=False)
    weights: Floats = field(repr=False)
    arm_means: Floats = field(repr=False)
    control_means: Floats = field(repr=False)
    note: str = ""
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        """E.g. "bilstm - lstm_wide"."""
        return f"{self.arm} - {self.control}"


def contrast(
    arm: Mapping[int, ClusterSums],
    control: Mapping[int, ClusterSums],
    names: tuple[str, str] = ("arm", "control"),
    metric: str = ENDPOINT,
    stratum: str = "all",
    level: float = LEVEL,
) -> Contrast:
    """Compares two arms, seed by seed and cluster by cluster.

    Args:
        arm: `metrics.summary.per_cluster` of each seed.
        control: the same of the control; only seeds that both have enter.
        names: of the two.
        metric: its name (for the record).
        stratum: its name (for the record).
        level: of the interval.

    Raises:
        BiposeError: no common seed, or the runs scored different joints.
    """
    seeds = tuple(sorted(set(arm) & set(control)))
    label = f"{names[0]} - {names[1]}"
    if not seeds:
        raise BiposeError(f"{label}: the arms have no seed in common; run both with the same seeds")
    clusters, weights = arm[seeds[0]].clusters, arm[seeds[0]].weights
    for seed in seeds:
        for name, sums in zip(names, (arm[seed], control[seed]), strict=True):
            if sums.clusters != clusters or not np.array_equal(sums.weights, weights):
                first = f"{names[0]}/seed{seeds[0]}"
                raise BiposeError(
                    f"{label}: {name}/seed{seed} scored other joints than {first}; score both on the same split"
                )
    used = weights > 0
    totals = [np.array([a[s].values[used] for s in seeds]).reshape(len(seeds), -1) for a in (arm, control)]
    means = [t / weights[used] for t in totals]
    weight = float(weights.sum())
    by_seed = [t.sum(axis=1) / weight if weight else np.full(len(seeds), np.nan) for t in totals]
    missing = sorted(set(arm) ^ set(control))
    which = ", ".join(map(str, missing[:NAMED])) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
    notes = [f"seeds {which} are there on one side only and are left out"] if missing else []
    return from_table(
        means[0] - means[1],
        weights[used],
        names=names,
        metric=metric,
        stratum=stratum,
        level=level,
        seeds=seeds,
        clusters=tuple(c for c, u in zip(clusters, used, strict=True) if u),
        arm_means=by_seed[0],
        control_means=by_seed[1],
        notes=notes,
        higher_is_better=parse(metric).higher_is_better,
    )


def from_table(
    differences: Floats,
    weights: Floats | None = None,
    *,
    names: tuple[str, str] = ("arm", "control"),
    metric: str = ENDPOINT,
    stratum: str = "all",
    level: float = LEVEL,
    seeds: Sequence[int] | None = None,
    clusters: Sequence[str] | None = None,
    arm_means: Floats | None = None,
    control_means: Floats | None = None,
    notes: Sequence[str] = (),
    higher_is_better: bool = True,
) -> Contrast:
    """A contrast from an (S, C) table of differences and (C,) positive weights (equal if None); see `contrast`."""
    differences = np.asarray(differences, np.float64)
    s, c = differences.shape
    weights = np.ones(c) if weights is None else np.asarray(weights, np.float64)
    found = list(notes)
    estimate = se = df = float("nan")
    kind = "none"
    if c == 0:
        found.append("no labelled joint in this stratum")
    elif not np.isfinite(differences).all():
        found.append(f"{int((~np.isfinite(differences)).sum())} of {s * c} differences are not numbers")
    else:
        parts = components(differences, weights)
        estimate = float(parts.estimate)
        if c == 1:
            found.append("one cluster: nothing can be said beyond it")
        else:
            kind = "crossed" if s >= MIN_SEEDS_INTERVAL else "clusters only"
            v, freedom = variance(parts)
            se, df = float(np.sqrt(v)), float(freedom)
            if kind == "clusters only":
                found.append(f"interval over clusters only: {s} seed{'s' * (s > 1)} cannot tell how seeds differ")
            if not differences.any():
                found.append("all differences are zero: both arms made equally good predictions everywhere")
    low, high, p = _interval(estimate, se, df, level)
    blank = np.full(s, np.nan)
    return Contrast(
        *names, metric, stratum, estimate, se, df, low, high, level, p, kind,
        tuple(range(s)) if seeds is None else tuple(seeds),
        tuple(str(i) for i in range(c)) if clusters is None else tuple(clusters),
        differences, weights,
        blank if arm_means is None else arm_means, blank if control_means is None else control_means, "; ".join(found),
        higher_is_better,
    )  # fmt: skip


def _interval(estimate: float, se: float, df: float, level: float) -> tuple[float, float, float]:
    if se != se:
        return float("nan"), float("nan"), float("nan")
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    if se == 0:
        return estimate, estimate, 1.0 if estimate == 0 else 0.0
    return estimate - half, estimate + half, float(2 * stats.t.sf(abs(estimate) / se, df))


def equivalence_p(c: Contrast, margin: float) -> float:
    """p-value of two one-sided tests of |difference| >= margin (Schuirmann, 1987); NaN where there is no interval."""
    if c.se != c.se:
        return float("nan")
    if c.se == 0:
        return 0.0 if abs(c.estimate) < margin else 1.0
    above = stats.t.sf((c.estimate + margin) / c.se, c.df)
    below = stats.t.cdf((c.estimate - margin) / c.se, c.df)
    return float(max(above, below))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: comparing them with alpha keeps the family-wise error. NaN counts as 1."""
    values = np.array([1.0 if v != v else v for v in p], np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return [float("nan") if v != v else float(a) for v, a in zip(p, adjusted, strict=True)]


@dataclass(frozen=True)
class Verdict:
    """What a contrast allows to say.

    Attributes:
        contrast: the comparison.
        verdict: "better", "worse", "equivalent", "inconclusive", "not enough seeds", "not enough clusters" or
            "undefined"; better means better, whichever direction the metric has.
        margin: differences smaller than this do not matter.
        p: of "no difference", Holm-corrected over the named contrasts; raw if exploratory.
        p_equivalence: of "at least the margin apart", corrected alike.
        smallest: the smallest true difference that the design finds with a probability of 80% (at the strictest step
            of the correction), NaN without an interval.
        exploratory: the contrast was not named before the runs; nothing is corrected.
        reason: one line for the reader.
    """

    contrast: Contrast
    verdict: str
    margin: float
    p: float
    p_equivalence: float
    smallest: float
    exploratory: bool
    reason: str


def verdicts(
    contrasts: Sequence[Contrast],
    margin: float | Sequence[float],
    named: Sequence[tuple[str, str]] | None = None,
    alpha: float = ALPHA,
) -> list[Verdict]:
    """A verdict for each contrast, in order.

    A difference that is significant yet proven smaller than the margin is "equivalent": it does not matter. Holm's
    correction runs over the named contrasts, for differences and for equivalence each.

    Args:
        contrasts: of one stratum and metric; all of the named ones must be among them, or the correction is too weak.
        margin: in the metric's unit (0.005: half a point of PCK), one for all or one each.
        named: (arm, control) pairs of the manifest; None: all are named.
        alpha: family-wise error.
    """
    is_named = [named is None or (c.arm, c.control) in set(named) for c in contrasts]
    margins = [float(margin)] * len(contrasts) if isinstance(margin, int | float) else list(margin)
    raw = [(c.p, equivalence_p(c, m)) for c, m in zip(contrasts, margins, strict=True)]
    family = [r for r, n in zip(raw, is_named, strict=True) if n]
    corrected = iter(zip(holm([p for p, _ in family]), holm([e for _, e in family]), strict=True))
    found = []
    for c, m, pair, n in zip(contrasts, margins, raw, is_named, strict=True):
        p, equivalent = next(corrected) if n else pair
        found.append(_verdict(c, m, p, equivalent, len(family) if n else 1, not n, alpha))
    return found


def _verdict(
    c: Contrast, margin: float, p: float, p_equivalence: float, family: int, exploratory: bool, alpha: float
) -> Verdict:
    smallest = float("nan")
    if c.se == c.se:
        smallest = float(stats.t.ppf(1 - alpha / (2 * max(family, 1)), c.df) + stats.t.ppf(POWER, c.df)) * c.se
    gain = c.estimate if c.higher_is_better else -c.estimate
    if c.estimate != c.estimate:
        word, why = "undefined", c.note
    elif len(c.seeds) < MIN_SEEDS_VERDICT:
        word, why = "not enough seeds", f"{len(c.seeds)} of {MIN_SEEDS_VERDICT} seeds"
    elif len(c.clusters) < MIN_CLUSTERS_VERDICT:
        word, why = "not enough clusters", f"{len(c.clusters)} of {MIN_CLUSTERS_VERDICT} clusters"
    elif p_equivalence < alpha:
        word, why = "equivalent", f"the difference is smaller than the margin {margin:g}"
        if p < alpha:
            why += ", though not zero"
    elif p < alpha:
        word, why = ("better" if gain > 0 else "worse"), f"p = {p:.2g}" + (" (Holm)" if family > 1 else "")
    else:
        word, why = "inconclusive", f"only a difference of {smallest:.3g} or more would probably have been seen"
    return Verdict(c, word, margin, p, p_equivalence, smallest, exploratory, why)
