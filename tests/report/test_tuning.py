"""Tuning curves: the numbers of the trials' results, failed ones marked, the chosen point the one that the engine chooses."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from test_html import check

from bipose_lit.ablation import tune as engine
from bipose_lit.ablation.manifest import Tune
from bipose_lit.report import tuning
from bipose_lit.report.analysis import analyse
from bipose_lit.report.build import build_report
from bipose_lit.report.load import load_study
from bipose_lit.store import RunResult, RunSpec

TUNE = Tune(
    trials=6, space={"model.recipe.lr": {"low": 1e-4, "high": 1e-2, "log": True}}, metric="pck@0.1[clip]",
    arms={"bilstm": {"model.temporal.init_args.hidden": [16, 32]}}, seed=1000,
)  # fmt: skip
NAME = "val/pck@0.1[clip,clip-box]"


@pytest.fixture
def tuned(small) -> Path:
    """The small tree with a tuning of its arms; trials 2 of lstm and 4 of bilstm went wrong, 5 of none_matched is not there."""
    folder = small[0]
    manifest = json.loads((folder / "manifest.json").read_text())
    plain = {
        "trials": TUNE.trials,
        "space": TUNE.space,
        "arms": TUNE.arms,
        "metric": TUNE.metric,
        "maximize": True,
        "seed": 1000,
    }
    (folder / "manifest.json").write_text(json.dumps({**manifest, "tune": plain}))
    for a, arm in enumerate(("none_matched", "lstm", "bilstm")):
        for t, point in enumerate(engine.points(TUNE, arm)):
            run = folder / "tune" / arm / f"trial{t}" / "seed1000"
            if (arm, t) == ("none_matched", 5):
                continue
            config = {"model": {"recipe": {"lr": point["model.recipe.lr"]}, "temporal": {"init_args": {}}}}
            if arm == "bilstm":
                config["model"]["temporal"]["init_args"]["hidden"] = point["model.temporal.init_args.hidden"]
            RunSpec("x", f"tune/{arm}/trial{t}", 1000, run, config).save()
            value = 0.6 + 0.02 * a + 0.01 * math.sin(3.0 * t + a)
            lost = (arm, t) == ("lstm", 2)
            metrics = {} if lost else {NAME: math.nan if (arm, t) == ("bilstm", 4) else value}
            status = "failed" if lost else "finished"
            RunResult("x", f"tune/{arm}/trial{t}", 1000, status, metrics=metrics, error="diverged" * lost).save(run)
    return folder


def test_values_states_and_points(tuned: Path) -> None:
    found = {t.arm: t for t in tuning.load_tuning(load_study(tuned))}
    assert list(found) == ["none_matched", "lstm", "bilstm"]
    assert found["none_matched"].states == (*["finished"] * 5, "missing")
    assert found["lstm"].states[2] == "failed"
    assert found["bilstm"].states[4] == "failed"
    for arm, t in found.items():
        points = engine.points(TUNE, arm)
        assert t.best == engine.best(TUNE, t.values)
        assert t.best is not None
        assert dict(t.points[t.best]) == points[t.best]
        assert sum(math.isfinite(v) for v in t.values) == 5


def test_the_page_and_the_tables_show_them(tuned: Path) -> None:
    report = build_report(tuned)
    page = report.page.read_text()
    ids = check(page).ids
    assert ids.index("tuning") < ids.index("learning")
    assert "the same 6 trials" in page
    assert "Failed trials count as the worst (lstm: 2; bilstm: 4)." in page
    table = tuning.points_table(load_study(tuned), tuning.load_tuning(load_study(tuned)), tuning.Objective(TUNE.metric))
    assert table.columns == ("trial", "best pck@0.1[clip] %", "median", "lr", "hidden", "finished")
    cells = {row.name: [c.main for c in row.cells] for row in table.rows}
    assert cells["lstm"][4] == "–"
    assert cells["bilstm"][4] in ("16", "32")
    assert [cells[arm][-1] for arm in cells] == ["5/6", "5/6", "5/6"]
    assert "### tuning" in report.markdown.read_text()
    assert "were not tuned one by one" not in page


def test_the_curve_is_the_best_so_far(tuned: Path) -> None:
    """Heights of the drawn steps, taken back from the picture, are the running maxima."""
    study = load_study(tuned)
    found = tuning.load_tuning(study)
    a = analyse(study)
    text = tuning.curve("t", found, tuning.Objective(TUNE.metric), tuning.styles(a, found), "d")
    paths = re.findall(r'<path d="([^"]+)"[^>]*fill: none; stroke: var\(--(?:c\d|muted)\); stroke-width: 1.7', text)
    steps = [np.array(re.findall(r"[\d.]+ ([\d.]+)", p), float) for p in paths]
    curves = [np.unique(np.round(s, 3)) for s in steps if len(s) > 3]
    curves = curves[:3]  # then the legend
    for t, drawn in zip(found, curves, strict=True):
        running = np.unique(np.fmax.accumulate(np.array(t.values)))
        assert len(drawn) == len(running)
        if len(running) > 2:
            ratio = np.diff(running) / np.diff(running).sum()
            heights = -np.diff(np.sort(-drawn))
            np.testing.assert_allclose(heights / heights.sum(), ratio, atol=2e-3)


def test_a_metric_that_should_be_small(tuned: Path) -> None:
    manifest = json.loads((tuned / "manifest.json").read_text())
    manifest["tune"]["maximize"] = False
    (tuned / "manifest.json").write_text(json.dumps(manifest))
    for t in tuning.load_tuning(load_study(tuned)):
        assert t.best is not None
        assert t.values[t.best] == min(v for v in t.values if math.isfinite(v))


def test_arms_without_a_single_value(tuned: Path) -> None:
    for path in (tuned / "tune" / "lstm").glob("trial*/seed*"):
        RunResult("x", "lstm", 1000, "failed", error="out of memory").save(path)
    (tuned / "tune" / "bilstm" / "trial0" / "seed1000" / "result.json").write_text("{")
    (tuned / "tune" / "bilstm" / "trial1" / "seed1000" / "spec.json").unlink()
    found = {t.arm: t for t in tuning.load_tuning(load_study(tuned))}
    assert found["lstm"].best is None
    assert found["bilstm"].states[0] == "missing"
    assert found["bilstm"].points[1] == {}
    check(build_report(tuned).page.read_text())


def test_without_tuning_there_is_no_section(small) -> None:
    assert tuning.load_tuning(load_study(small[0])) == []
    assert tuning.section(analyse(load_study(small[0]))).body == ""
