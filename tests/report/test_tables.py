"""Numbers in the tables are the numbers of the predictions."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from bipose_lit.metrics.summary import mean_of
from bipose_lit.report import costs, results, tables
from bipose_lit.report.analysis import analyse, gap_curve, gap_edges
from bipose_lit.report.load import load_study
from bipose_lit.report.tables import Cell, Row, Table
from bipose_lit.store import Predictions
from bipose_lit.types import NORMS, OCCLUDED


@pytest.fixture(scope="module")
def analysis(tree):
    return analyse(load_study(tree[0]))


def test_levels_are_the_mean_of_seeds(analysis) -> None:
    for arm in analysis.arms:
        runs = analysis.study.of(arm)
        for stratum in ("all", "visible", "occluded", "P", "F", "B", "N_hidden"):
            expected = np.mean([mean_of(r.predictions(), f"pck@0.1[clip]/{stratum}") for r in runs])
            assert analysis.arms[arm].level(stratum).estimate == pytest.approx(expected, abs=1e-12)


def test_differences_are_those_of_the_levels(analysis) -> None:
    for v in (*analysis.named, *analysis.others):
        both = {**analysis.arms, **analysis.references}
        expected = both[v.contrast.arm].level().estimate - both[v.contrast.control].level().estimate
        assert v.contrast.estimate == pytest.approx(expected, abs=1e-12)
        assert v.contrast.low < v.contrast.estimate < v.contrast.high


def test_gap_curve_against_a_loop(analysis) -> None:
    total, count = np.zeros(9), np.zeros(9)
    edges = [0, 1, 2, 3, 5, 9, 17, 33]
    for run in analysis.study.of("lstm"):
        p = run.predictions()
        size = p.norms[:, NORMS.index("clip")]
        for clip in np.unique(p.clip):
            rows = np.flatnonzero(p.clip == clip)
            rows = rows[np.argsort(p.frame[rows])]
            for k in range(p.visible.shape[1]):
                last = np.inf
                for r in rows:
                    last = last + 1 if p.visible[r, k] == OCCLUDED else 0
                    b = 8 if np.isinf(last) else sum(last >= e for e in edges) - 1
                    total[b] += np.linalg.norm(p.pred[r, k].astype(float) - p.joints[r, k]) / size[r]
                    count[b] += 1
    mean, low, high, n = gap_curve(analysis.arms["lstm"], "since")
    np.testing.assert_array_equal(n * 5, count)
    np.testing.assert_allclose(mean[count > 0], (total / np.maximum(count, 1))[count > 0], rtol=1e-9)
    assert (low[count > 0] <= mean[count > 0]).all()
    assert (high[count > 0] >= mean[count > 0]).all()
    assert len(gap_edges()) == 9


def test_the_simulated_truth_is_found(analysis) -> None:
    verdict = {(v.contrast.arm, v.contrast.control): v.verdict for v in analysis.named}
    assert verdict["bilstm", "none_matched"] == "better"
    assert verdict["lstm", "none_matched"] == "better"
    outcome = {(r.stratum, r.arm, r.control): r.passed for r in analysis.assay}
    assert outcome["F", "bilstm", "lstm"] is True
    assert outcome["P", "lstm", "none_matched"] is True


def test_references_are_marked(analysis) -> None:
    table = results.main_table(analysis)
    kinds = {row.name: row.reference for row in table.rows}
    assert not any(kinds[a] for a in analysis.arms)
    for name in ("hold last", "straight line", "One-Euro", "Savitzky-Golay", "Kalman", "RTS smoother"):
        assert kinds[name]
    assert "not tuned" in next(r.about for r in table.rows if r.name == "Kalman")


def test_all_columns_and_notes(analysis) -> None:
    main, cost = results.main_table(analysis), costs.cost_table(analysis)
    head = " ".join((*main.columns, *cost.columns))
    for part in (
        "pck@0.1[clip] %",
        "none_matched",
        "lstm_wide",
        "visible",
        "occluded",
        "P:",
        "F:",
        "B:",
        "never",
        "accel",
    ):
        assert part in head
    for part in ("parameters", "FLOPs", "ms/frame", "look-ahead", "training s"):
        assert part in head
    notes = " ".join(main.notes)
    for part in (
        "Estimand",
        "5 seeds x 24 clusters",
        "768 scored frames",
        "frozen per-frame features",
        "scored once",
        "0123456789ab",
    ):
        assert part in notes
    bilstm = next(r for r in cost.rows if r.name == "bilstm")
    assert "whole clip" in [c.main for c in bilstm.cells]
    assert "16.6M" in [c.main for c in bilstm.cells]


def test_renderers_show_the_same_numbers(analysis) -> None:
    table = results.main_table(analysis)
    console = Console(width=200, file=io.StringIO())
    console.print(tables.to_rich(table))
    terminal, markdown, page = console.file.getvalue(), tables.to_markdown(table), tables.to_html(table)
    for row in table.rows:
        for text in (terminal, markdown, page):
            assert row.name in text
            assert row.cells[0].main in text
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(table.columns) + 2}


@pytest.mark.parametrize("width", [70, 80, 100, 120, 133, 146, 160, 200])
def test_nothing_is_cut_off_on_any_terminal(analysis, width: int) -> None:
    table = results.main_table(analysis)
    console = Console(width=width, file=io.StringIO())
    for part in tables.fitting(table, width):
        console.print(part)
    text = console.file.getvalue()
    assert "…" not in text
    for column in range(len(table.columns)):
        for row in table.rows:
            cell = row.cells[column]
            assert all(piece in text for piece in (cell.main, cell.small, cell.verdict))
    assert text.count("px/f²") == text.count("pck@0.1[clip]") - table.title.count("pck@0.1[clip]") == 1
    assert max(map(len, text.splitlines())) <= width


def test_markup_and_pipes_are_harmless() -> None:
    table = Table("[bold]t", ("a|b",), (Row("<i>[red]x", (Cell("1|2", "<b>"),)),))
    console = Console(width=80, file=io.StringIO())
    console.print(tables.to_rich(table))
    assert "[bold]t" in console.file.getvalue()
    assert "[red]x" in console.file.getvalue()
    assert "1\\|2" in tables.to_markdown(table)
    assert "<i>" not in tables.to_html(table)


def read(text: str) -> list[dict[str, str]]:
    """Rows of a CSV, each with exactly the columns of the head."""
    assert len({len(line) for line in csv.reader(io.StringIO(text))}) == 1
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_is_tidy_and_keeps_every_bit(analysis) -> None:
    study = load_study(analysis.study.folder)
    own = replace(analysis, study=study)
    rows = read(tables.to_csv(own))
    assert list(rows[0]) == [
        *("name", "kind", "arm", "control", "seed", "metric", "stratum", "value", "low", "high", "p", "margin"),
        *("verdict", "measured"),
    ]
    keys = [(r["kind"], r["arm"], r["control"], r["seed"], r["metric"], r["stratum"]) for r in rows]
    assert len(keys) == len(set(keys))
    assert all(bool(r["measured"]) == r["metric"].startswith("measured/") for r in rows)
    for run in study.runs.values():
        run.result.measured = {k: v + 1 for k, v in run.result.measured.items()}
    for a, b in zip(rows, read(tables.to_csv(own)), strict=True):
        changed = {k for k in a if a[k] != b[k]}
        assert changed == ({"measured"} if a["metric"].startswith("measured/") else set())
    study.runs["lstm", 0].result.metrics = {"test/x": 0.1 + 0.2}
    assert "test/x,,0.30000000000000004," in tables.to_csv(own)


def test_csv_has_references_and_contrasts(analysis) -> None:
    rows = read(tables.to_csv(analysis))
    assert {r["kind"] for r in rows} == {"run", "reference", "named", "exploratory", "assay"}
    found = {(r["kind"], r["arm"], r["control"], r["stratum"]): r for r in rows if r["kind"] != "run"}
    assert all(r["metric"] == "test/pck@0.1[clip,clip-box]" for r in found.values())
    assert {arm for kind, arm, _, _ in found if kind == "reference"} == set(analysis.references)
    level = analysis.references["straight line"].level("P")
    row = found["reference", "straight line", "", "P"]
    assert [float(row[k]) for k in ("value", "low", "high")] == [level.estimate, level.low, level.high]
    assert (
        float(found["reference", "hold last", "", "N"]["value"]) == analysis.references["hold last"].level("N").estimate
    )
    for v in analysis.named:
        row = found["named", v.contrast.arm, v.contrast.control, "all"]
        told = [float(row[k]) for k in ("value", "low", "high", "p", "margin")]
        assert told == [v.contrast.estimate, v.contrast.low, v.contrast.high, v.p, v.margin]
        assert row["verdict"] == v.verdict
    assert {(r.arm, r.control, r.stratum) for r in analysis.assay} == {key[1:] for key in found if key[0] == "assay"}
    others = [r for r in rows if r["kind"] == "exploratory"]
    assert len(others) == len(analysis.others)
    assert {r["verdict"] for r in others} == {""}


def test_csv_of_a_trial_gives_no_verdict(analysis) -> None:
    study = replace(analysis.study, manifest=replace(analysis.study.manifest, trial=True))
    assert {r["verdict"] for r in read(tables.to_csv(replace(analysis, study=study)))} == {""}


def test_joints_that_never_change_are_a_regime(analysis) -> None:
    main, regimes = results.main_table(analysis), results.regime_table(analysis)
    column = main.columns.index("N: never changes")
    row = next(r for r in regimes.rows if r.name == "N: never changes")
    for i, arm in enumerate(analysis.arms):
        shown = f"{100 * analysis.arms[arm].level('N').estimate:.1f}"
        assert main.rows[i].cells[column].main == row.cells[1 + i].main == shown


def test_no_regime_stands_for_all_joints_again(small) -> None:
    for path in small[0].glob("*/seed*/predictions-test.npz"):
        p = Predictions.load(path)
        replace(p, visible=np.full_like(p.visible, 2)).save(path)
    seen = analyse(load_study(small[0]))
    assert "N: never changes" not in results.main_table(seen).columns
    assert [r.name for r in results.regime_table(seen).rows] == ["all", "visible"]


def test_further_metrics_are_means_of_seeds(analysis) -> None:
    study = load_study(analysis.study.folder)
    for (_, seed), run in study.runs.items():
        run.result.metrics |= {"test/pck@0.2[clip,clip-box]": 0.5 + 0.1 * seed, "test/error_px/occluded": 3.0}
    study.manifest = replace(study.manifest, metrics=("pck@0.2[clip]", "error_px/occluded"))
    table = results.further_table(replace(analysis, study=study))
    assert table is not None
    assert table.columns == ("pck@0.2[clip] %", "error_px/occluded")
    assert [row.name for row in table.rows] == list(analysis.arms)
    assert {(row.cells[0].main, row.cells[1].main) for row in table.rows} == {("70.0", "3.00")}
    assert results.further_table(analysis) is None


def test_the_assay_tells_its_margins(analysis) -> None:
    judged = [replace(r, margin=0.02) for r in analysis.assay]
    table = results.assay_table(replace(analysis, assay=judged))
    assert {row.cells[0].main for row in table.rows} == {"better", "equivalent (±2)"}
    assert "points of pck@0.1[clip]" in " ".join(table.notes)


def test_untuned_arms_are_a_caveat(analysis) -> None:
    def told(**change: object) -> bool:
        manifest = replace(analysis.study.manifest, raw={**analysis.study.manifest.raw, **change})
        return "not tuned" in " ".join(
            results.caveats(replace(analysis, study=replace(analysis.study, manifest=manifest)))
        )

    assert told()
    assert told(tune=None)
    assert not told(tune={"trials": 8})


def test_formats() -> None:
    nan = float("nan")
    assert tables.number(nan) == tables.percent(None) == tables.quantity(nan) == "–"
    assert tables.percent(0.12345) == "12.3"
    assert [tables.quantity(v) for v in (12, 1500, 16_600_000, 1.85e9)] == ["12", "1.5k", "16.6M", "1.85G"]
    assert tables.interval(-0.01, 0.02, sign=True) == "[-1.0, +2.0]"
    assert tables.interval(nan, 1) == ""


# --- a comparison: one table with costs ------------------------------------------------------------------------------


def compared(tree, **changed):
    """The simulated tree as a comparison, with a mean pose."""
    manifest = {
        **json.loads((tree[0] / "manifest.json").read_text()),
        "layout": "comparison",
        "contrasts": [],
        **changed,
    }
    return analyse(load_study(tree[0], manifest))


def test_a_comparison_has_costs_and_the_mean_pose_in_its_table(tree, analysis) -> None:
    a = compared(tree)
    a.references["mean pose"] = replace(a.references["hold last"], name="mean pose")
    table = costs.comparison_table(a)
    head = " ".join(table.columns)
    for part in (
        "pck@0.1[clip] %",
        "mean pose",
        "visible",
        "occluded",
        "sees",
        "parameters",
        "FLOPs",
        "ms/frame",
        "training s",
    ):
        assert part in head
    cells = {row.name: dict(zip(table.columns, row.cells, strict=True)) for row in table.rows}
    assert {name: c["sees"].main for name, c in cells.items() if name in ("none", "lstm", "bilstm", "mean pose")} == {
        "none": "frame",
        "lstm": "past",
        "bilstm": "clip",
        "mean pose": "–",
    }
    assert cells["bilstm"]["parameters"].main == "16.6M"
    found = costs.over_floor(a, a.arms["bilstm"], a.references["mean pose"])
    means = [s.level().estimate for s in (a.arms["bilstm"], a.references["mean pose"])]
    assert found.estimate == pytest.approx(means[0] - means[1])
    assert cells["bilstm"]["−\u00a0mean pose"].main == f"{100 * found.estimate:+.1f}"
    assert cells["mean pose"]["−\u00a0mean pose"].main == "–"


def test_arms_that_do_not_clear_the_mean_pose_are_named(tree) -> None:
    a = compared(tree)
    a.references.pop("mean pose", None)  # reports of other tests may have left one
    assert costs.floor_sentence(a) == ""
    a.references["mean pose"] = replace(a.arms["none"], name="mean pose", reference=True)
    text = costs.floor_sentence(a)
    assert "none" in text.split("not: ")[1].rstrip(".").split(", ")
    assert "(but above it cluster by cluster)" not in text.split("none")[1].split(",")[0], (
        "it is the mean pose itself here"
    )
    one = compared(tree, seeds=[0])
    one.references["mean pose"] = replace(one.arms["none"], name="mean pose", reference=True)
    assert "(over clusters alone, so of these runs and no others)" in costs.floor_sentence(one)
    low = {
        name: {seed: sums._replace(values=0 * sums.values) for seed, sums in s.items()}
        for name, s in a.arms["none"].sums.items()
    }
    a.references["mean pose"] = replace(a.arms["none"], name="mean pose", reference=True, sums=low)
    assert (
        costs.floor_sentence(a)
        == f"{len(a.arms)} of {len(a.arms)} trained arms lie above the mean pose with their whole intervals."
    )


def test_an_arm_that_overlaps_the_mean_pose_but_beats_it_clip_by_clip_is_told(tree) -> None:
    """A hundredth less in every cluster: the intervals overlap, the paired difference does not hold zero."""
    a = compared(tree)
    less = {
        name: {seed: sums._replace(values=0.99 * sums.values) for seed, sums in s.items()}
        for name, s in a.arms["none"].sums.items()
    }
    a.references["mean pose"] = replace(a.arms["none"], name="mean pose", reference=True, sums=less)
    assert "none (but above it cluster by cluster)" in costs.floor_sentence(a)


@pytest.mark.parametrize(
    ("back", "ahead", "word"), [(0, 0, "frame"), (None, 0, "past"), (None, 4, "past +4"), (None, None, "clip")]
)
def test_what_an_arm_sees(back, ahead, word) -> None:
    assert costs.sees([{"look_back_frames": back, "look_ahead_frames": ahead}]) == word


def test_one_seed_gives_intervals_over_clusters_and_says_so(tree) -> None:
    notes = " ".join(results.footnotes(compared(tree, seeds=[0])))
    assert "1 seed x" in notes
    assert "over clusters alone" in notes
    assert "crossed" not in notes
    assert "crossed" in " ".join(results.footnotes(compared(tree)))
