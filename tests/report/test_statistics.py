"""The statistics against loops and against simulated tables whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bipose_lit.metrics.summary import ClusterSums
from bipose_lit.report import statistics as S
from bipose_lit.report.statistics_bootstrap import crossed_bootstrap
from bipose_lit.types import BiposeError


def _tables(rng, reps, seeds, clusters, sd, spread, truth=0.0):
    """(reps, S, C) tables with seed, cluster and residual effects of the given sizes, and (reps, C) weights."""
    a, b, r = sd
    weights = rng.lognormal(0, spread, (reps, clusters))
    table = truth + a * rng.standard_normal((reps, seeds, 1)) + b * rng.standard_normal((reps, 1, clusters))
    return table + r * rng.standard_normal((reps, seeds, clusters)), weights


def _p(table, weights):
    parts = S.components(table, weights)
    v, df = S.variance(parts)
    return 2 * stats.t.sf(np.abs(parts.estimate) / np.sqrt(v), df)


@given(st.integers(0, 1000), st.integers(3, 6), st.integers(2, 9), st.booleans())
def test_mean_squares_equal_loops(seed, s, c, equal):
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(s, c))
    n = np.ones(c) if equal else rng.uniform(1, 9, c)
    parts = S.components(d, n)
    theta = sum(n[j] * d[i, j] for i in range(s) for j in range(c)) / (s * n.sum())
    rows = [sum(n[j] * d[i, j] for j in range(c)) / n.sum() for i in range(s)]
    cols = [sum(d[i, j] for i in range(s)) / s for j in range(c)]
    u = n / n.mean()
    q = sum(v**2 for v in u) / c**2
    g = [(c - 1) / c / (1 - 2 * v / c + q) for v in u]
    seed_ms = c * sum((v - theta) ** 2 for v in rows) / (s - 1)
    cluster_ms = s * sum(u[j] ** 2 * g[j] * (cols[j] - theta) ** 2 for j in range(c)) / (c - 1)
    rest = sum(u[j] ** 2 * g[j] * (d[i, j] - rows[i] - cols[j] + theta) ** 2 for i in range(s) for j in range(c))
    assert parts.estimate == pytest.approx(theta)
    assert parts.ms_seed == pytest.approx(seed_ms)
    assert parts.ms_cluster == pytest.approx(cluster_ms)
    assert parts.ms_residual == pytest.approx(rest / ((s - 1) * (c - 1)))
    v, df = S.variance(parts)
    total = max(seed_ms + cluster_ms - parts.ms_residual, seed_ms, cluster_ms)
    assert v == pytest.approx(total / (s * c))
    assert df >= 1
    if equal:
        assert parts.df_cluster == pytest.approx(c - 1)
        assert g == pytest.approx(np.ones(c))


def test_mean_squares_are_unbiased_with_unequal_weights():
    rng = np.random.default_rng(0)
    table, _ = _tables(rng, 40_000, 4, 10, (0.5, 0.8, 1.0), 0.0)
    n = np.array([1, 1, 2, 3, 5, 8, 1, 4, 4, 9.0])
    parts = S.components(table, np.broadcast_to(n, (40_000, 10)))
    k = (n**2).mean() / n.mean() ** 2
    assert parts.ms_seed.mean() == pytest.approx(10 * 0.25 + k, rel=0.03)
    assert parts.ms_cluster.mean() == pytest.approx(k * (4 * 0.64 + 1), rel=0.03)
    assert parts.ms_residual.mean() == pytest.approx(k, rel=0.03)
    anova = (parts.ms_seed + parts.ms_cluster - parts.ms_residual) / 40
    assert anova.mean() == pytest.approx(parts.estimate.var(), rel=0.04)


# Standard deviations of seeds, clusters and residual: what an ablation may look like.
VARIED = [(1, 1, 1), (0.5, 1, 1), (0.3, 1, 1), (1, 0.3, 1), (0, 1, 0.3), (1, 0, 0.3), (0.2, 0.5, 1)]


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("clusters", [12, 24, 64])
@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_intervals_cover_the_truth(seeds, clusters, spread):
    """93 to 97%, plus three standard errors of the simulation (0.35 points each)."""
    rng = np.random.default_rng([seeds, clusters, int(10 * spread)])
    for sd in VARIED:
        table, weights = _tables(rng, 5000, seeds, clusters, sd, spread, truth=0.7)
        covered = float((_p(table - 0.7, weights) > 0.05).mean())
        assert 0.93 - 0.011 <= covered <= 0.97 + 0.011, (sd, covered)


@pytest.mark.parametrize(("seeds", "clusters"), [(3, 12), (5, 24), (5, 64)])
def test_corners_err_on_the_safe_side(seeds, clusters):
    """Nothing but residual, or one cluster weighing like four: the floor makes intervals too wide, never too narrow."""
    rng = np.random.default_rng(seeds * clusters)
    for sd, spread in (((0, 0, 1), 0.0), ((0, 0, 1), 0.7), ((0.3, 1, 1), 0.7), ((0, 1, 0.1), 0.7)):
        covered = float((_p(*_tables(rng, 5000, seeds, clusters, sd, spread)) > 0.05).mean())
        assert 0.93 - 0.011 <= covered <= 0.995, (sd, spread, covered)


def test_treating_seeds_and_clusters_as_independent_draws_would_not_cover():
    """The mistake that the crossed model is there for; so the coverage test above can fail."""
    rng = np.random.default_rng(1)
    table, _ = _tables(rng, 4000, 5, 24, (0.5, 1, 1), 0)
    flat = table.reshape(4000, -1)
    naive = np.abs(flat.mean(1)) / (flat.std(1, ddof=1) / math.sqrt(120)) < stats.t.ppf(0.975, 119)
    assert naive.mean() < 0.85


@pytest.mark.parametrize("seeds", [5, 8])
@pytest.mark.parametrize("sd", [(0.3, 0, 1), (0.3, 0.7, 1), (1, 1, 1)])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_family_wise_error_of_an_ablation_without_effects(seeds, sd, spread):
    """Four equal arms, three contrasts that share arms as bilstm - none, lstm - none, bilstm - lstm do; Holm's first step."""
    rng = np.random.default_rng([seeds, int(10 * sd[1]), int(10 * spread)])
    reps, clusters = 8000, 16
    weights = rng.lognormal(0, spread, (reps, clusters))
    arms = [_tables(rng, reps, seeds, clusters, np.array(sd) / math.sqrt(2), 0)[0] for _ in range(3)]
    p = np.stack([_p(arms[i] - arms[j], weights) for i, j in ((1, 0), (2, 0), (2, 1))])
    assert float((p.min(axis=0) * 3 <= 0.05).mean()) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)


def test_verdicts_of_an_ablation_without_effects_end_to_end():
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(400):
        arms = [_tables(rng, 1, 5, 16, (0.2, 0.5, 0.7), 0)[0][0] for _ in range(3)]
        pairs = [(("b", "n"), 2, 0), (("l", "n"), 1, 0), (("b", "l"), 2, 1)]
        found = S.verdicts([S.from_table(arms[i] - arms[j], names=n) for n, i, j in pairs], margin=0.01)
        wrong += any(v.verdict in ("better", "worse") for v in found)
    assert wrong / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_equivalence_is_rarely_claimed_at_the_margin():
    rng = np.random.default_rng(6)
    table, weights = _tables(rng, 6000, 5, 24, (0.3, 0.8, 1), 0.3, truth=0.5)
    parts = S.components(table, weights)
    v, df = S.variance(parts)
    claims = np.maximum(
        stats.t.sf((parts.estimate + 0.5) / np.sqrt(v), df), stats.t.cdf((parts.estimate - 0.5) / np.sqrt(v), df)
    )
    assert (claims < 0.05).mean() <= 0.05 + 0.009


def test_smallest_effect_is_found_with_the_stated_power():
    """At the design's smallest detectable difference, four in five tables come out significant."""
    rng = np.random.default_rng(7)
    found = S.from_table(_tables(rng, 1, 10, 40, (0.2, 0.6, 0.8), 0)[0][0])
    truth = math.sqrt(0.2**2 / 10 + 0.6**2 / 40 + 0.8**2 / 400)
    effect = S.verdicts([replace(found, se=truth)], 0.01)[0].smallest
    table, weights = _tables(rng, 4000, 10, 40, (0.2, 0.6, 0.8), 0, truth=effect)
    assert float((_p(table, weights) < 0.05).mean()) == pytest.approx(0.8, abs=0.05)


def _strong(effect=0.02, seeds=6, clusters=20, noise=0.001, **options):
    rng = np.random.default_rng(0)
    return S.from_table(effect + noise * rng.standard_normal((seeds, clusters)), **options)


def test_verdict_words():
    def word(c, margin=0.005):
        return S.verdicts([c], margin)[0].verdict

    assert word(_strong()) == "better"
    assert word(_strong(-0.02)) == "worse"
    assert word(_strong(-0.02, higher_is_better=False)) == "better"
    assert word(_strong(0.0)) == "equivalent"
    assert word(_strong(0.003)) == "equivalent"
    assert "though not zero" in S.verdicts([_strong(0.003)], 0.005)[0].reason
    assert word(_strong(0.0, noise=0.2)) == "inconclusive"
    assert word(_strong(seeds=4)) == "not enough seeds"
    assert word(_strong(clusters=7)) == "not enough clusters"
    assert word(_strong(noise=math.nan)) == "undefined"


def test_few_seeds():
    three, two, one = (_strong(seeds=n, noise=0.01) for n in (3, 2, 1))
    assert three.kind == "crossed"
    for c in (one, two):
        assert c.kind == "clusters only"
        assert "over clusters only" in c.note
        assert c.low < c.estimate < c.high
    d = one.differences[0]
    low, high = stats.t.interval(0.95, 19, d.mean(), d.std(ddof=1) / math.sqrt(20))
    assert (one.low, one.high) == pytest.approx((low, high))
    assert S.verdicts([one], 0.005)[0].verdict == "not enough seeds"


def test_degenerate_tables():
    zero = S.from_table(np.zeros((5, 12)))
    assert (zero.estimate, zero.low, zero.high, zero.p) == (0, 0, 0, 1)
    assert "all differences are zero" in zero.note
    assert S.verdicts([zero], 0.005)[0].verdict == "equivalent"
    constant = S.from_table(np.full((5, 12), 0.25))
    assert constant.low == constant.high == 0.25
    assert S.verdicts([constant], 0.005)[0].verdict == "better"
    single = S.from_table(np.ones((5, 1)))
    assert single.kind == "none"
    assert single.estimate == 1
    assert math.isnan(single.low)
    assert "one cluster" in single.note
    assert S.verdicts([single], 0.005)[0].verdict == "not enough clusters"
    empty = S.from_table(np.zeros((5, 0)))
    assert "no labelled joint" in empty.note
    assert S.verdicts([empty], 0.005)[0].verdict == "undefined"
    broken = S.from_table(np.array([[0.0, np.nan], [1, 2], [3, 4]]))
    assert "1 of 6 differences are not numbers" in broken.note
    lopsided = S.from_table(np.random.default_rng(0).normal(size=(5, 12)), np.array([1e9] + [1.0] * 11))
    assert math.isfinite(lopsided.se)
    assert lopsided.df >= 1


def test_holm():
    assert S.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert S.holm([]) == []
    some = S.holm([0.02, math.nan])
    assert some[0] == pytest.approx(0.04)
    assert math.isnan(some[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p):
    adjusted = S.holm(p)
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) > 0.05:
            break
        rejected.add(i)
    assert {i for i, a in enumerate(adjusted) if a <= 0.05} == rejected


def test_only_named_contrasts_are_corrected():
    a = _strong(noise=0.05, names=("bilstm", "none"))
    b = _strong(noise=0.05, names=("lstm", "none"))
    c = _strong(noise=0.05, names=("tcn", "none"))
    found = S.verdicts([a, b, c], 0.005, named=[("bilstm", "none"), ("lstm", "none")])
    assert [v.exploratory for v in found] == [False, False, True]
    assert found[2].p == c.p
    assert found[0].p == pytest.approx(min(1, 2 * a.p))
    assert found[0].smallest > found[2].smallest


def _runs(rng, seeds, lift, weights):
    names = tuple(f"c{i}" for i in range(len(weights)))
    return {s: ClusterSums(names, (rng.uniform(0.4, 0.6, len(weights)) + lift) * weights, weights) for s in seeds}


def test_contrast_is_about_the_printed_numbers():
    rng = np.random.default_rng(2)
    weights = rng.integers(0, 200, 15).astype(float)
    weights[3] = 0
    arm, control = _runs(rng, (0, 1, 2, 5), 0.1, weights), _runs(rng, (0, 1, 2, 4), 0.0, weights)
    c = S.contrast(arm, control, ("a", "b"), "pck@0.1[clip]")
    assert c.seeds == (0, 1, 2)
    assert c.note == "seeds 4, 5 are there on one side only and are left out"
    many = S.contrast(arm, _runs(rng, range(200), 0.0, weights), ("a", "b"), "pck@0.1[clip]")
    assert many.note == "seeds 3, 4, 6, 7, 8, 9, 10, 11 and 188 more are there on one side only and are left out"
    printed = np.mean([arm[s].mean - control[s].mean for s in c.seeds])
    assert c.estimate == pytest.approx(printed, abs=1e-12)
    assert c.arm_means == pytest.approx([arm[s].mean for s in c.seeds])
    assert "c3" not in c.clusters
    back = S.contrast(control, arm)
    assert (back.estimate, back.low, back.high) == pytest.approx((-c.estimate, -c.high, -c.low))
    assert S.contrast(arm, control, metric="error_px").higher_is_better is False


def test_contrast_refuses_what_cannot_be_paired():
    rng = np.random.default_rng(2)
    w = np.arange(1.0, 9)
    with pytest.raises(BiposeError, match="no seed in common"):
        S.contrast(_runs(rng, (0,), 0, w), _runs(rng, (1,), 0, w))
    with pytest.raises(BiposeError, match="control/seed0 scored other joints"):
        S.contrast(_runs(rng, (0,), 0, w), _runs(rng, (0,), 0, w + 1))


@pytest.mark.parametrize("seeds", [1, 5])
def test_bootstrap_of_a_mean_equals_the_formula(seeds):
    rng = np.random.default_rng(3)
    for sd in ((0.5, 1, 1), (0, 0.3, 1), (1, 0.1, 0.5)):
        d, w = (v[0] for v in _tables(rng, 1, seeds, 24, sd, 0.3))
        found = crossed_bootstrap(
            lambda s, c, d=d, w=w: float((d[s][:, c] * w[c]).sum() / (len(s) * w[c].sum())), seeds, 24, rng, 2000
        )
        want = S.from_table(d, w)
        assert found.kind == want.kind
        assert found.estimate == pytest.approx(want.estimate)
        assert found.se == pytest.approx(want.se, rel=0.12)


def test_bootstrap_covers_for_a_metric_that_is_no_mean():
    """Difference of medians of cluster means: no formula, the truth is 0 by symmetry."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(150):
        d = _tables(rng, 1, 5, 20, (0.3, 1, 1), 0)[0][0]
        c = crossed_bootstrap(lambda s, c, d=d: float(np.median(d[s][:, c].mean(0))), 5, 20, rng, 100)
        hits += c.low <= 0 <= c.high
    assert 0.88 <= hits / 150 <= 1


def test_bootstrap_reruns_identically_and_says_what_was_undefined():
    d = np.random.default_rng(0).normal(size=(5, 10))
    run = lambda f: crossed_bootstrap(f, 5, 10, np.random.default_rng(1), 50, metric="ap")  # noqa: E731
    mean = lambda s, c: float(d[s][:, c].mean())  # noqa: E731
    assert run(mean).se == run(mean).se
    sometimes = run(lambda s, c: mean(s, c) if 0 in c else math.nan)
    assert "did not define the metric" in sometimes.note
    assert run(lambda s, c: math.nan).kind == "none"
