"""The words and tables of a report, from its analysis: what came out, at what cost, and under which caveats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bipose_lit.metrics.summary import full_name
from bipose_lit.report.analysis import REGIMES, Analysis, Scores, own_level
from bipose_lit.report.load import Study, metric_of
from bipose_lit.report.statistics import MIN_SEEDS_INTERVAL, MIN_SEEDS_VERDICT, Contrast, Verdict
from bipose_lit.report.tables import DASH, Cell, Row, Table, interval, number, percent

TRIAL = "trial, not a verdict"

_TITLES = {
    "N": "N: never changes",
    "N_hidden": "never seen",
    "P": "P: seen, then hidden",
    "F": "F: hidden, then seen",
    "B": "B: hidden between",
}


def endpoint_name(a: Analysis) -> str:
    """The endpoint under its protocol name, e.g. "test/pck@0.1[clip,clip-box]"."""
    return full_name(a.metric, a.labels)


def word(a: Analysis, verdict: Verdict) -> str:
    """The verdict as printed: a trial has none, and what was not named beforehand is exploratory."""
    if a.study.manifest.trial:
        return TRIAL
    return "exploratory" if verdict.exploratory else verdict.verdict


def main_table(a: Analysis) -> Table:
    """Arms and references by endpoint, differences, visibility and regime."""
    manifest = a.study.manifest
    controls = [c for c in dict.fromkeys((manifest.baseline, *(c for _, c in manifest.contrasts))) if c in a.arms]
    regimes = _regimes(a)
    judged = {(v.contrast.arm, v.contrast.control): v for v in (*a.named, *a.others)}
    rows = []
    for s in (*a.arms.values(), *a.references.values()):
        cells = [level_cell(a, s.level())]
        for control in controls:
            v = judged.get((s.name, control))
            keep = v is not None and (control == manifest.baseline or not v.exploratory)
            cells.append(difference_cell(a, v) if v is not None and keep else Cell())
        cells += [Cell(value_of(a, s.level(r).estimate)) for r in regimes]
        cells.append(Cell(number(mean_of([sums.mean for sums in s.accel.values()]))))
        rows.append(Row(s.name, tuple(cells), s.about, s.reference))
    head = [f"{a.metric}{' %' if a.factor == 100 else ''}", *(f"−\u00a0{c}" for c in controls)]
    head += [_TITLES.get(r, r) for r in regimes]
    title = f"{manifest.name}: {endpoint_name(a)}"
    head.append("accel. error px/f²")
    return Table(title, tuple(head), tuple(rows), tuple(footnotes(a)))


def further_table(a: Analysis) -> Table | None:
    """The manifest's further metrics by arm, from the runs' results; None where it names none."""
    names, rows = a.study.manifest.metrics, []
    fractions = [name.removeprefix("test/").startswith(("pck@", "auc@")) for name in names]
    for arm, s in a.arms.items():
        cells = []
        for name, fraction in zip(names, fractions, strict=True):
            found = [metric_of(run.result.metrics, name) for run in a.study.of(arm)]
            mean = mean_of([v for v in found if v is not None])
            cells.append(Cell(percent(mean) if fraction else number(mean, 2 if abs(mean) >= 1 else 4)))
        rows.append(Row(arm, tuple(cells), s.about))
    columns = tuple(name + " %" * fraction for name, fraction in zip(names, fractions, strict=True))
    notes = ("Means over seeds on the test split, for reading only: the endpoint alone gives verdicts.",)
    return Table("further metrics", columns, tuple(rows), notes) if names else None


def contrast_table(a: Analysis) -> Table:
    """All comparisons with their p-values; exploratory ones below."""
    rows = []
    for v in (*a.named, *a.others):
        c = v.contrast
        rows.append(
            Row(
                c.name.replace(" - ", " − "),
                (
                    Cell(_signed(a, c.estimate), _interval(a, c)),
                    Cell(f"{v.p:.2g}" if v.p == v.p else DASH),
                    Cell(f"{v.p_equivalence:.2g}" if v.p_equivalence == v.p_equivalence else DASH),
                    Cell(number(v.smallest * a.factor)),
                    Cell(f"{len(c.seeds)} x {len(c.clusters)}"),
                    Cell(word(a, v)),
                ),
                "; ".join(w for w in ("" if v.exploratory else reason(a, v), c.note) if w),
                v.exploratory,
            )
        )
    columns = (
        "difference",
        "p of no difference",
        "p of beyond the margin",
        "smallest to be seen",
        "seeds x clusters",
        "verdict",
    )
    notes = (
        f"p-values of the {len(a.named)} named contrasts are Holm-corrected; those of exploratory ones are not.",
        "Smallest to be seen: the true difference that this design finds with a probability of 80%.",
    )
    return Table("comparisons", columns, tuple(rows), notes, first="arm − control")


def assay_table(a: Analysis) -> Table:
    """What each regime should show and did."""
    rows = []
    for r in a.assay:
        v = r.verdict
        outcome = r.outcome if v is None else r.outcome.replace(v.reason, reason(a, v))
        outcome = TRIAL if a.study.manifest.trial else outcome
        difference = Cell(_signed(a, v.contrast.estimate), _interval(a, v.contrast)) if v else Cell()
        expected = r.expect + (f" (±{r.margin * a.factor:g})" if r.expect == "equivalent" else "")
        rows.append(Row(f"{r.stratum}: {r.arm} − {r.control}", (Cell(expected), difference, Cell(outcome))))
    notes = (f"Differences and the margins of equivalence (±) are in {a.unit}.",)
    return Table("assay", ("expected", "difference", "outcome"), tuple(rows), notes, "regime and comparison")


def assay_sentence(a: Analysis) -> str:
    """Did the assay come out? Empty where there is none."""
    if not a.assay:
        return ""
    passed = sum(r.passed is True for r in a.assay)
    failed = sum(r.passed is False for r in a.assay)
    open_ = len(a.assay) - passed - failed
    text = f"Assay: {passed} of {len(a.assay)} expectations came out"
    text += f", {failed} did not" if failed else ""
    text += f", {open_} cannot be told" if open_ else ""
    return text + "."


def answers(a: Analysis) -> list[str]:
    """One sentence for each named contrast."""
    found = []
    for v in a.named:
        c = v.contrast
        signed = f"{_signed(a, c.estimate)} {a.unit}{_between(a, c)}"
        text = {
            "better": f"{c.arm} beats {c.control}: {signed}; {reason(a, v)}.",
            "worse": f"{c.arm} falls behind {c.control}: {signed}; {reason(a, v)}.",
            "equivalent": f"{c.arm} and {c.control} are equivalent: {signed}; {reason(a, v)}.",
        }.get(v.verdict, f"{c.arm} against {c.control}, {v.verdict}: {signed}; {reason(a, v)}.")
        found.append(f"{c.arm} minus {c.control}: {signed}; {TRIAL}." if a.study.manifest.trial else text)
    return found


def reason(a: Analysis, v: Verdict) -> str:
    """Why the verdict is what it is, in the unit of the table."""
    if v.verdict in ("better", "worse"):
        p = "p < 0.001" if v.p < 0.001 else f"p = {v.p:.2g}"
        return p if v.exploratory or len(a.named) < 2 else f"Holm-corrected {p}"
    if v.verdict == "equivalent":
        return f"smaller than the margin of ±{_margin(a, v)}" + (", though not zero" if "not zero" in v.reason else "")
    if v.verdict == "inconclusive":
        return f"a difference below {v.smallest * a.factor:.2f} would probably have been missed"
    return v.reason


def footnotes(a: Analysis) -> list[str]:
    """What every table must be read with."""
    manifest, study, p = a.study.manifest, a.study, a.labels
    notes = [
        f"Estimand: arm minus control on {endpoint_name(a)} over all labelled joints, visible and occluded, final weights.",
        f"{len(study.seeds)} seed{'s' * (len(study.seeds) != 1)} x {p.sources} clusters (independent sources), {p.clips} clips, "
        f"{p.frames} scored frames, {p.labelled} labelled joints of {len(p.joint_names)} kinds; {over(a)}.",
    ]
    if manifest.mode == "frozen":
        notes.append("Given frozen per-frame features; seeds vary stage 2 only.")
    if manifest.trial:
        notes.append(f"A {TRIAL}: this data cannot carry one.")
    notes += what_was_read(study, p.data)
    if a.references:
        notes.append(
            "Rows in italics or brackets are references, not arms; oracles read the test labels of visible joints."
        )
    return [*notes, *warnings(study), *_sentences(a.notes)]


def what_was_read(study: Study, data: str) -> list[str]:
    """What the runs read and how often they were scored.

    Args:
        study: the runs.
        data: name of the index that was scored.
    """
    scored = sorted({run.result.scorings.get("test", 0) for run in study.runs.values()})
    times = "once" if scored == [1] else f"{' or '.join(map(str, scored))} times"
    commits = ", ".join(sorted({run.result.commit[:12] or "unknown" for run in study.runs.values()}))
    prints = ", ".join(sorted({run.result.data_fingerprint[:12] or "unknown" for run in study.runs.values()}))
    own = f" ({study.manifest.data})" if study.manifest.data else ""
    told = {str(run.result.facts.get("left_out") or "") for run in study.runs.values()} - {""}
    return [
        "How often the test split was scored was not recorded."
        if scored == [0]
        else f"The test split was scored {times} per run.",
        f"Data: {data}{own}, fingerprint {prints}; code: commit {commits}.",
        *([f"Left out or mended by the readers: {'; '.join(sorted(told))}."] if told else []),
    ]


def warnings(study: Study) -> list[str]:
    """The manifest's notes, runs that are missing, and what is wrong with those that are there."""
    notes = [study.manifest.notes] if study.manifest.notes else []
    if study.missing:
        listed = "; ".join(f"{arm}/seed{seed}: {why}" for arm, seed, why in study.missing[:8])
        more = f"; and {len(study.missing) - 8} more" if len(study.missing) > 8 else ""
        count = len(study.missing)
        notes.append(f"{count} {'runs are' if count > 1 else 'run is'} missing: {listed}{more}.")
    return [*notes, *_sentences(study.notes)]


def _sentences(notes: Iterable[str]) -> list[str]:
    return [n[:1].upper() + n[1:] + "." * (not n.endswith(".")) for n in notes]


def over(a: Analysis) -> str:
    """What intervals run over."""
    if len(a.study.seeds) < MIN_SEEDS_INTERVAL:
        return "intervals are 95% over clusters alone: so few seeds cannot tell how runs differ, and nothing here is a verdict"
    return "seeds and clusters are crossed, intervals are 95% over both"


def caveats(a: Analysis) -> list[str]:
    """What these numbers do not show, said as plainly as the numbers."""
    manifest, found = a.study.manifest, []
    if manifest.mode == "frozen":
        found.append(
            "The arms read frozen per-frame features. Whether an end-to-end trained network gains as much is another question."
        )
    if len(a.study.seeds) < MIN_SEEDS_VERDICT:
        seeds = len(a.study.seeds)
        found.append(f"{seeds} seed{'s' * (seeds != 1)}: too few for a verdict ({MIN_SEEDS_VERDICT} are needed).")
    if (a.study.folder / "sweep.json").is_file():
        found.append(
            "The best arms were found by a search, the baselines were not searched: they may fall short of what a search of "
            "their own would give them."
        )
    elif len(a.arms) > 1 and manifest.raw and not manifest.raw.get("tune"):
        found.append(
            "All arms use one recipe, set by hand, and were not tuned one by one: an arm may fall short of what settings of its "
            "own would give it."
        )
    found.append(
        f"Intervals speak of sources like the {a.labels.sources} that were tested, not of other kinds of data."
    )
    if "synthetic" in a.labels.data:
        found.append(
            "Synthetic people: the regimes are known exactly, but pictures and motion are simpler than real ones."
        )
    unsure = [r for r in a.assay if r.passed is not True]
    if unsure and not manifest.trial:
        found.append(
            "The assay did not come out everywhere ("
            + ", ".join(sorted({r.stratum for r in unsure}))
            + "): differences in "
            "these regimes must not be read as memory at work."
        )
    if not _joints(a, "occluded"):
        found.append(
            "No joint is marked as occluded here, so nothing can be said about what memory does for hidden joints."
        )
    found.append("Comparisons marked exploratory were not named beforehand and carry no correction for their number.")
    if a.references:
        found.append(
            "A temporal arm that does not clear the filters on the per-frame arm has learned no more than smoothing."
        )
    return found


def provenance(a: Analysis) -> list[tuple[str, str]]:
    """Terms and values of "what was run"."""
    manifest, runs = a.study.manifest, list(a.study.runs.values())

    def every(values: Sequence[Any]) -> str:
        return ", ".join(dict.fromkeys(str(v) for v in values if v not in ("", None))) or "unknown"

    versions: dict[str, list[str]] = {}
    for run in runs:
        for name, value in run.result.versions.items():
            versions.setdefault(name, []).append(str(value))
    pairs = [
        ("ablation", manifest.name),
        ("mode", manifest.mode or "unknown"),
        ("stage 1", manifest.stage1),
        ("arms", ", ".join(a.study.arms)),
        ("seeds", ", ".join(map(str, a.study.seeds))),
        ("endpoint", f"{endpoint_name(a)}, margin ±{_margin(a)} {a.unit}"),
        ("data", f"{a.labels.data} {f'({manifest.data})' if manifest.data else ''}".strip()),
        ("data fingerprint", every([r.result.data_fingerprint for r in runs])),
        ("commit", every([r.result.commit for r in runs])),
        ("threads per run", str(manifest.threads or "")),
        ("hardware", every([r.result.facts.get("device") or r.result.facts.get("hardware") for r in runs])),
        ("versions", ", ".join(f"{k} {every(v)}" for k, v in sorted(versions.items()))),
    ]
    return [(k, v) for k, v in pairs if v]


def _regimes(a: Analysis) -> list[str]:
    """Regimes with joints; where nothing ever changes (stills, nothing hidden) N would say again what "all" says."""
    return [r for r in REGIMES if _joints(a, r) and (r != "N" or _joints(a, r) < _joints(a, "all"))]


def _joints(a: Analysis, stratum: str) -> int:
    sums = next(iter(next(iter(a.arms.values())).sums[stratum].values()))
    return int(sums.weights.sum())


def possible(a: Analysis, level: Contrast) -> tuple[float, float]:
    """An arm's interval, cut to the range that a fraction has (a symmetric interval can leave it)."""
    if a.factor != 100 or level.low != level.low:
        return level.low, level.high
    return max(level.low, 0.0), min(level.high, 1.0)


def level_cell(a: Analysis, c: Contrast) -> Cell:
    low, high = possible(a, c)
    return Cell(value_of(a, c.estimate), interval(low, high, a.factor, 1 if a.factor == 100 else 2))


def difference_cell(a: Analysis, v: Verdict) -> Cell:
    return Cell(_signed(a, v.contrast.estimate), _interval(a, v.contrast), word(a, v))


def _interval(a: Analysis, c: Contrast) -> str:
    return interval(c.low, c.high, a.factor, 2, sign=True)


def _between(a: Analysis, c: Contrast) -> str:
    return f" (95% interval {_signed(a, c.low)} to {_signed(a, c.high)})" if math.isfinite(c.low) else ""


def _signed(a: Analysis, value: float) -> str:
    return f"{value * a.factor:+.2f}" if math.isfinite(value) else DASH


def value_of(a: Analysis, value: float) -> str:
    return number(value * a.factor, 1 if a.factor == 100 else 2)


def _margin(a: Analysis, v: Verdict | None = None) -> str:
    return f"{(v.margin if v else a.study.manifest.margin) * a.factor:g}"


def mean_of(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


def joint_table(a: Analysis) -> Table:
    """The endpoint by joint and arm."""
    columns = tuple(a.arms)
    means: dict[str, Scores] = a.arms
    rows = [
        Row(joint.replace("_", " "), tuple(Cell(value_of(a, mean_of(means[arm].joints[joint]))) for arm in columns))
        for joint in a.labels.joint_names
    ]
    return Table(f"{a.metric} by joint", columns, tuple(rows), first="joint")


def regime_table(a: Analysis) -> Table:
    """The endpoint by regime and arm, with intervals and the number of joints."""
    rows = []
    for regime in ("all", *_regimes(a)):
        cells = (level_cell(a, own_level(s.sums[regime])) for s in a.arms.values())
        rows.append(Row(_TITLES.get(regime, regime), (Cell(str(_joints(a, regime))), *cells)))
    return Table(f"{a.metric} by regime", ("joints", *a.arms), tuple(rows), first="regime")
