"""A sweep's report: its numbers are those of the files, it is honest about luck, legible everywhere, and says what is missing."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fake_sweep
import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from test_html import check

from bipose_lit.report import sweep_figures, sweep_tables
from bipose_lit.report.sweep import SweepReport, build_sweep_report
from bipose_lit.report.sweeps import Objective, Optimism, Sweep, Trial, load_sweep, optimism, shortened, told
from bipose_lit.store import RunResult
from bipose_lit.types import BiposeError

ANCHORS = [
    "luck",
    "best",
    "search",
    "parallel",
    "importances",
    "slices",
    "steps",
    "trials",
    "differences",
    "table",
    "caveats",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> SweepReport:
    return build_sweep_report(fake_sweep.write_sweep(tmp_path_factory.mktemp("sweep")))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> SweepReport:
    folder = fake_sweep.write_sweep(tmp_path_factory.mktemp("pareto"), objectives=2, seeds=2, arms=("none", "best1"))
    return build_sweep_report(folder)


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """The search alone, to be spoilt."""
    return fake_sweep.write_sweep(tmp_path, trials=20, retrained=False)


def shown(report: SweepReport, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    report.show(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_page_is_complete_and_offline(report: SweepReport, several: SweepReport) -> None:
    page = report.page.read_text()
    checker = check(page)
    assert [a for a in checker.ids if a in ANCHORS] == ANCHORS
    assert len(checker.ids) == len(set(checker.ids))
    assert "nan" not in page
    assert "Which head, and how wide?" in page
    assert "the baselines were not searched" in page
    assert "trial 54: head bilstm, lr 0.00248" in page
    assert "were not tuned one by one" not in page
    both = several.page.read_text()
    check(both)
    assert "front" in check(both).ids
    assert "ms per frame" in both


def test_equal_inputs_give_equal_files(search: Path) -> None:
    report = build_sweep_report(search)
    before = [p.read_bytes() for p in (report.page, report.markdown, report.trials)]
    build_sweep_report(search)
    assert [p.read_bytes() for p in (report.page, report.markdown, report.trials)] == before


def test_the_sentence_about_luck(report: SweepReport) -> None:
    s = report.sweep
    top = max((t for t in s.scored), key=lambda t: t.value())
    (folder,) = {p.parent.parent for p in report.page.parent.glob("best1/seed*/result.json")}
    values = [
        json.loads((folder / f"seed{k}" / "result.json").read_text())["metrics"]["val/pck@0.1[clip,clip-box]"]
        for k in range(5)
    ]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    mean = np.mean(values)
    expected = (
        f"The best of 57 trials scored {100 * top.value():.1f} in the search and {100 * mean:.1f} [{100 * low:.1f}, "
        f"{100 * high:.1f}] on 5 fresh seeds: {100 * (top.value() - mean):.1f} points were luck."
    )
    assert report.answers[1] == expected
    assert expected in report.page.read_text().replace("&#x27;", "'")
    assert expected in report.markdown.read_text()
    assert [x.trial for x in report.optimism] == [t.number for t in s.ranked()[:2]]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Optimism("best1", 3, 0.70, 0.69, 0.68, 0.705, 5, 0.01), "1.0 points worse, no more than seeds differ by"),
        (Optimism("best1", 3, 0.70, 0.71, 0.705, 0.715, 5, -0.01), "the search did not flatter it"),
        (Optimism("best1", 3, 0.70, 0.69, math.nan, math.nan, 2, 0.01), "seeds (fewer than 3: no interval): 1.0 points worse"),
        (Optimism("best1", 3, 0.70, 0.72, math.nan, math.nan, 1, -0.02), "seed (fewer than 3: no interval): 2.0 points better"),
    ],
)  # fmt: skip
def test_luck_is_not_claimed_where_it_cannot_be_seen(report: SweepReport, found: Optimism, words: str) -> None:
    said = sweep_tables.optimism_sentence(report.sweep, [found])
    assert words in said
    assert "luck" not in said
    assert not found.sure


def test_the_table_tells_luck_with_its_interval_or_not_at_all(report: SweepReport) -> None:
    for x, row in zip(report.optimism, sweep_tables.optimism_table(report.sweep, report.optimism).rows, strict=True):
        ends = [100 * (x.searched - v) for v in (x.high, x.low)]
        assert (row.cells[3].main, row.cells[3].small) == (f"{100 * x.luck:+.2f}", f"[{ends[0]:+.2f}, {ends[1]:+.2f}]")
    few = [replace(x, low=math.nan, high=math.nan, seeds=2) for x in report.optimism]
    table = sweep_tables.optimism_table(report.sweep, few)
    assert [row.cells[3].main for row in table.rows] == ["–", "–"]
    assert table.notes[-1] == "Luck is not told from fewer than 3 fresh seeds."


def test_only_the_best_trial_is_called_so(report: SweepReport) -> None:
    """Where the runs of best1 all failed, the first arm with fresh runs is best2."""
    second = report.optimism[1]
    assert sweep_tables.optimism_sentence(report.sweep, [second]).startswith(f"Trial {second.trial} scored")


def test_a_trial_of_the_machinery_and_missing_runs_are_told_at_the_top(tmp_path: Path) -> None:
    folder = fake_sweep.write_sweep(tmp_path, trials=12, seeds=2, arms=("none", "best1"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "trial": True}))
    (folder / "best1" / "seed1" / "result.json").unlink()
    head = build_sweep_report(folder).page.read_text().split("<section")[0]
    assert '<span class="alert">trial, not a verdict</span>' in head
    assert "1 of 4 runs are missing" in head


def test_a_metric_that_should_be_small(report: SweepReport) -> None:
    s = replace(report.sweep, objectives=(Objective("error_px", maximize=False),))
    worst_first = [t.value() for t in s.ranked()]
    assert worst_first == sorted(worst_first)
    found = Optimism("best1", 3, 3.0, 3.25, 3.2, 3.3, 5, 0.25)
    assert found.sure
    assert sweep_tables.optimism_sentence(s, [found]).endswith(
        "and 3.25 [3.2, 3.3] on 5 fresh seeds: a difference of 0.25 was luck."
    )
    low, high = sweep_figures.window([1.0, 2.0, 3.0, 100.0], s.objectives[0])
    assert (low, high) == (1.0, 1.0 + 4 * 1.5)


def test_no_verdict_below_five_seeds(several: SweepReport) -> None:
    assert several.ablation is not None
    assert {v.verdict for v in several.ablation.analysis.named} == {"not enough seeds"}
    assert "too few for a verdict" in several.page.read_text()
    assert "beats" not in " ".join(several.answers)


def test_before_anything_was_trained_anew(search: Path) -> None:
    report = build_sweep_report(search)
    assert report.ablation is None
    assert report.optimism == []
    assert "not trained on fresh seeds yet" in report.page.read_text()
    assert "not trained on fresh seeds yet" in shown(report).replace("\n", " ")
    assert check(report.page.read_text()).ids[:2] == ["best", "best-h"]


@pytest.mark.parametrize("count", [0, 2])
def test_searches_that_have_hardly_begun(tmp_path: Path, count: int) -> None:
    folder = fake_sweep.write_sweep(tmp_path, trials=count, retrained=False)
    report = build_sweep_report(folder)
    check(report.page.read_text())
    assert ("No trial has finished yet" in shown(report)) == (count == 0)
    rows = json.loads((folder / "trials.json").read_text())
    (folder / "trials.json").write_text(json.dumps([{**row, "state": "failed", "values": []} for row in rows]))
    check(build_sweep_report(folder).page.read_text())


def test_finished_trials_without_a_value_of_their_own(search: Path) -> None:
    rows = json.loads((search / "trials.json").read_text())
    lost = [{**row, "state": "finished", "values": [None]} for row in rows]
    copies = [{**row, "state": "finished", "values": [0.5], "copied_from": 0} for row in rows[1:]]
    for found in (lost, [{**rows[0], "state": "running", "values": []}, *copies]):
        (search / "trials.json").write_text(json.dumps(found))
        report = build_sweep_report(search)
        check(report.page.read_text())
        assert report.answers[0].startswith("No finished trial has a value of its own (")


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_terminals_show_everything_and_cut_nothing(report: SweepReport, several: SweepReport, width: int) -> None:
    for found in (report, several):
        text = shown(found, width)
        paths = {str(p) for p in (found.page, found.markdown, found.trials, found.page.parent / "summary.csv")}
        assert max(len(line) for line in text.splitlines() if line not in paths) <= width
        assert "…" not in text
        table = sweep_tables.best_table(found.sweep, 5)
        for row in table.rows:
            assert all(cell.main in text for cell in row.cells)


def test_trials_csv_keeps_every_bit(report: SweepReport) -> None:
    rows = list(csv.DictReader(io.StringIO(report.trials.read_text())))
    raw = json.loads((report.page.parent / "trials.json").read_text())
    assert [int(r["number"]) for r in rows] == [t["number"] for t in raw]
    for row, trial in zip(rows, raw, strict=True):
        assert row["state"] == trial["state"]
        assert [float(row[fake_sweep.METRIC])] == trial["values"] if trial["values"] else row[fake_sweep.METRIC] == ""
        for option in fake_sweep.SPACE:
            value = trial["params"].get(option)
            expected = "" if value is None else repr(value) if isinstance(value, float) else str(value)
            assert row[option] == expected
        assert row["error"] == trial.get("error", "")


def test_states_and_failures_are_told(report: SweepReport) -> None:
    raw = json.loads((report.page.parent / "trials.json").read_text())
    cells = {row.name: row.cells[0].main for row in sweep_tables.state_table(report.sweep).rows}
    for state in ("finished", "pruned", "failed", "running"):
        assert cells[state] == str(sum(t["state"] == state for t in raw))
    (line,) = sweep_tables.failures(report.sweep)
    assert re.match(r"trials \d+, \d+: training diverged", line)
    assert line.split(":")[0] in report.page.read_text()


def test_the_front_against_brute_force(several: SweepReport) -> None:
    points = {t.number: (t.value(0), -t.value(1)) for t in several.sweep.scored}
    expected = {
        n for n, p in points.items() if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points.values())
    }
    assert {t.number for t in several.sweep.front()} == expected
    assert {int(row.name) for row in sweep_tables.best_table(several.sweep, 100).rows} == expected


def test_the_front_of_three_objectives_is_that_of_all_three(several: SweepReport) -> None:
    s = several.sweep
    cost = {t.number: float((7 * t.number) % 13) for t in s.scored}
    objectives = (*s.objectives, Objective("facts/parameters", maximize=False))
    trials = tuple(replace(t, values=(*t.values, cost.get(t.number))) for t in s.trials)
    s = replace(s, objectives=objectives, trials=trials)
    points = {t.number: (t.value(0), -t.value(1), -t.value(2)) for t in s.scored}
    expected = {
        n for n, p in points.items()
        if not any(q != p and all(x >= y for x, y in zip(q, p, strict=True)) for q in points.values())
    }  # fmt: skip
    assert {t.number for t in s.front()} == expected
    assert expected > {t.number for t in several.sweep.front()}
    assert "beaten by none in all of" in sweep_tables.headline(s)


def test_the_best_so_far_against_brute_force(report: SweepReport) -> None:
    scored = report.sweep.scored
    expected = [(t.number, max(u.value() for u in scored if u.number <= t.number)) for t in scored]
    assert report.sweep.so_far() == expected


def test_results_that_were_taken_over_compete_once(search: Path) -> None:
    rows = json.loads((search / "trials.json").read_text())
    best = max((r for r in rows if r["state"] == "finished"), key=lambda r: r["values"][0])
    (search / "trials.json").write_text(
        json.dumps({"trials": [*rows, {**best, "number": 20, "copied_from": best["number"]}]})
    )
    s = load_sweep(search)
    before = sum(r["state"] in ("finished", "pruned") for r in rows)
    assert s.ended == before
    assert s.ranked()[0].number == best["number"]
    assert 20 not in [t.number for t in s.ranked()]
    assert "took its result over: 1." in " ".join(sweep_tables.notes(s))


def test_places_on_the_axes(report: SweepReport) -> None:
    axes = {a.short: a for a in report.sweep.axes}
    trial = Trial(
        0, "finished", {"model.recipe.lr": 1e-3, "head": "lstm", "model.temporal.init_args.dropout": 0.125}, (0.7,)
    )
    assert sweep_figures.place(axes["lr"], trial) == pytest.approx(0.5)
    assert sweep_figures.place(axes["dropout"], trial) == pytest.approx(0.25)
    assert math.isnan(sweep_figures.place(axes["hidden"], trial))
    places = [sweep_figures.place(axes["head"], replace(trial, number=n)) for n in range(50)]
    assert len(set(places)) == 50
    assert max(abs(p - 0.5) for p in places) < 0.05
    outside = replace(trial, params={"head": "gru", "model.recipe.lr": 0.0})
    assert math.isnan(sweep_figures.place(axes["head"], outside))
    assert math.isnan(sweep_figures.place(axes["lr"], outside))


def test_lines_break_where_a_parameter_is_missing(report: SweepReport) -> None:
    """Each finished trial is one path; its pieces begin with M."""
    text = sweep_figures.parallel("p", report.sweep, "d")
    paths = re.findall(r'<path d="([^"]+)"[^>]*stroke: var\(--s\d\)', text)
    drawn = sorted(path.count("M") for path in paths if path.count("L") > 1)
    whole = {"head", "lr", "hidden", "dropout", "supervise", "weight_decay"}
    options = {a.option for a in report.sweep.axes}
    assert {a.short for a in report.sweep.axes} == whole
    legend = [1] * 5
    expected = sorted([*legend, *(1 + (len(options - set(t.params)) > 0) for t in report.sweep.scored)])
    assert drawn == expected


def test_colours_are_fifths_of_the_finished(report: SweepReport) -> None:
    o = Objective("pck@0.1[clip]")
    assert sweep_figures.fifths([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], o) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert sweep_figures.fifths([3.0, 1.0], replace(o, maximize=False)) == [0, 2]
    assert sweep_figures.fifths([1.0, 1.0, 1.0], o) == [0, 0, 0]
    assert sweep_figures.fifths([], o) == []


def test_short_names_are_alone() -> None:
    assert shortened(["model.recipe.lr", "model.temporal.init_args.hidden", "head"]) == {
        "model.recipe.lr": "lr", "model.temporal.init_args.hidden": "hidden", "head": "head"}  # fmt: skip
    found = shortened(["model.pool.init_args.hidden", "model.temporal.init_args.hidden", "hidden"])
    assert found["model.pool.init_args.hidden"] == "pool.hidden"
    assert found["model.temporal.init_args.hidden"] == "temporal.hidden"
    assert len(set(found.values())) == 3


def test_values_as_text() -> None:
    assert [told(v) for v in (0.9, 0.999, 0.9999, 1e-5, 2.0)] == ["0.9", "0.999", "0.9999", "1e-05", "2"]
    assert [told(v) for v in (0.00123456, 16, "bilstm", True, None, [1, 2])] == [
        "0.00123",
        "16",
        "bilstm",
        "true",
        "null",
        "[1, 2]",
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("trials.json", None, "holds no trials.json; start the sweep again"),
        ("trials.json", "{", "trials.json is no JSON"),
        ("sweep.json", "[]", "sweep.json and trials.json cannot be read"),
        ("trials.json", '[{"number": 1, "state": "odd"}]', "'odd' is none of finished"),
        ("trials.json", '[{"state": "finished"}]', "KeyError: 'number'"),
        ("sweep.json", '{"objectives": [], "space": {}}', "no objective"),
        ("sweep.json", '{"objectives": [{"metric": "x"}], "space": {"a": {"low": 1}}}', "KeyError: 'high'"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(search: Path, name: str, text: str | None, words: str) -> None:
    if text is None:
        (search / name).unlink()
    else:
        (search / name).write_text(text)
    with pytest.raises(BiposeError) as error:
        build_sweep_report(search)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_optimism_needs_runs_of_the_same_metric(report: SweepReport) -> None:
    assert report.ablation is not None
    runs = list(report.ablation.analysis.study.runs.values())
    assert [x.arm for x in optimism(report.sweep, runs)] == ["best1", "best2"]
    facts = replace(report.sweep, objectives=(Objective("facts/steps", maximize=False),))
    assert {x.fresh for x in optimism(facts, runs)} == {400.0}
    assert optimism(replace(report.sweep, objectives=(Objective("error_px"),)), runs) == []


def test_a_comparison_that_cannot_be_read_is_a_note(tmp_path: Path) -> None:
    folder = fake_sweep.write_sweep(tmp_path, trials=12, seeds=1, arms=("none",))
    for path in folder.glob("*/seed*"):
        RunResult("x", path.parent.name, 0, "failed", error="out of memory").save(path)
    report = build_sweep_report(folder)
    assert report.ablation is None
    assert "out of memory" in report.note
    assert "out of memory" in report.page.read_text()


def test_the_command_reports_a_sweep_without_torch(search: Path) -> None:
    code = (
        "import sys\nfrom bipose_lit.__main__ import main\n"
        f"assert main(['report', {str(search)!r}]) == 0\n"
        "print('HEAVY', [m for m in ('torch', 'lightning', 'optuna', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stderr
    assert "is the best of 20" in done.stdout


def test_orders_of_importance(report: SweepReport) -> None:
    assert [a.short for a in report.sweep.important()][:2] == ["lr", "head"]
    without: Sweep = replace(report.sweep, importances={})
    assert [a.option for a in without.important()] == list(fake_sweep.SPACE)
