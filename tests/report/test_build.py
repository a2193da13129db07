"""The whole report from a result tree: complete, offline, deterministic, without torch, honest about what is missing."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fake
import numpy as np
import pytest
from test_html import check

from bipose_lit.report.build import build_report, tracks_by_clip
from bipose_lit.store import Predictions, RunResult
from bipose_lit.types import BiposeError

ANCHORS = [
    "differences", "table", "time", "spread", "latency", "learning", "joints", "regimes", "clips", "worst", "run", "caveats",
]  # fmt: skip


@pytest.fixture(scope="module")
def report(tree):
    folder, frames = tree
    return build_report(folder, frames=frames, train=list(frames.values()))


def test_page_is_complete_offline_and_small(report) -> None:
    page = report.page.read_text()
    checker = check(page)
    assert set(ANCHORS) <= set(checker.ids)
    assert checker.ids.index("differences") < checker.ids.index("time") < checker.ids.index("spread")
    assert page.count("<video") == 4
    assert page.count("<img") == 3
    assert report.page.stat().st_size < 15_000_000
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page)
    assert "Does the order of frames help" in page
    assert "given frozen per-frame features" in page.lower()


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        folder, frames = fake.write_tree(
            tmp_path / name, seeds=3, clusters=6, frames=12, arms=("none_matched", "lstm", "bilstm")
        )
        report = build_report(folder, frames=frames)
        pages.append([p.read_bytes() for p in (report.page, report.markdown, report.summary)])
    assert pages[0] == pages[1]


def test_mean_pose_follows_the_boxes(small) -> None:
    """Annotation ids do not tell that a box rule has changed: a row kept from an earlier report must not stand in for it."""
    folder, frames = small
    wide = {n: replace(t, boxes=t.boxes * np.float32((1, 1, 3, 3))) for n, t in frames.items()}
    levels = []
    for boxes in (frames, wide, frames):
        built = build_report(folder, frames=boxes, train=list(frames.values()))
        levels.append(built.analysis.references["mean pose"].level().estimate)
    assert levels[0] == levels[2] > levels[1]


def test_mean_pose_is_a_row_and_stays_one_offline(report, tree) -> None:
    assert report.analysis.references["mean pose"].about == "training labels' mean in the box, no picture"
    again = build_report(tree[0])
    level = again.analysis.references["mean pose"].level().estimate
    assert level == report.analysis.references["mean pose"].level().estimate
    assert 0 < level < 1


def test_stills_are_pictures_not_videos(tmp_path: Path) -> None:
    folder, frames = fake.write_tree(tmp_path, seeds=3, clusters=6, frames=1, arms=("none", "none_matched"))
    page = build_report(folder, frames=tracks_by_clip(frames.values())).page.read_text()
    check(page)
    assert "<video" not in page
    assert "image/jpeg" in page


def test_without_pictures_it_says_so(small) -> None:
    page = build_report(small[0]).page.read_text()
    check(page)
    assert "the data was not at hand" in page
    assert "<video" not in page


def test_pictures_that_are_gone_cost_only_themselves(small) -> None:
    class Gone:
        def read(self, frames):
            raise BiposeError("frame 3 is missing; restore it")

    folder, frames = small
    page = build_report(folder, frames={k: replace(t, frames=Gone()) for k, t in frames.items()}).page.read_text()
    check(page)
    assert "frame 3 is missing" in page


def test_missing_and_failed_runs_are_reported(small) -> None:
    folder, _ = small
    shutil.rmtree(folder / "bilstm" / "seed2")
    RunResult(fake.NAME, "lstm", 1, "failed", error="out of <memory>").save(folder / "lstm" / "seed1")
    report = build_report(folder)
    page = report.page.read_text()
    check(page)
    assert "2 of 9 runs are missing" in page
    assert "out of &lt;memory&gt;" in page
    assert "bilstm/seed2: has not run" in report.markdown.read_text()
    contrast = report.analysis.named[0].contrast
    assert (contrast.arm, contrast.seeds) == ("bilstm", (0, 1))


def test_an_arm_without_any_run_is_left_out(small) -> None:
    shutil.rmtree(small[0] / "bilstm")
    report = build_report(small[0])
    assert list(report.analysis.arms) == ["none_matched", "lstm"]
    assert "no run for the named contrasts bilstm - none_matched" in " ".join(report.analysis.notes)


def test_a_run_that_scored_other_frames_is_left_out(small) -> None:
    path = small[0] / "lstm" / "seed1" / "predictions-test.npz"
    p = Predictions.load(path)
    replace(p, uid=p.uid + 1).save(path)
    report = build_report(small[0])
    assert ("lstm", 1) in [(arm, seed) for arm, seed, _ in report.analysis.study.missing]


def test_a_trial_gives_no_verdict(small) -> None:
    path = small[0] / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "trial": True}))
    report = build_report(small[0])
    text = report.markdown.read_text().split("### assay")[0]
    assert "trial, not a verdict" in text
    assert "as expected" not in report.page.read_text()
    for word in ("better", "worse", "equivalent", "beats"):
        assert word not in text.replace("is better", "")
    assert '<span class="verdict better"' not in report.page.read_text()


def test_few_seeds_give_no_verdict(small) -> None:
    report = build_report(small[0])
    assert {v.verdict for v in report.analysis.named} == {"not enough seeds"}
    assert "not enough seeds" in report.markdown.read_text()


def test_one_arm_and_one_seed(tmp_path: Path) -> None:
    folder, frames = fake.write_tree(tmp_path, seeds=1, clusters=3, frames=8, arms=("none",))
    report = build_report(folder, frames=frames)
    check(report.page.read_text())
    assert report.analysis.named == []


def test_without_occlusion_or_history(small) -> None:
    for path in small[0].glob("*/seed*/predictions-test.npz"):
        p = Predictions.load(path)
        replace(p, visible=np.full_like(p.visible, 2)).save(path)
        path.with_name("history.jsonl").unlink()
    report = build_report(small[0])
    page = report.page.read_text()
    assert not {"time", "learning"} & set(check(page).ids)
    assert report.analysis.assay == []
    assert "No joint is marked as occluded" in page


def test_filters_are_tuned_on_validation(small) -> None:
    for path in small[0].glob("none_matched/seed*/predictions-test.npz"):
        Predictions.load(path).save(path.with_name("predictions-val.npz"))
    report = build_report(small[0])
    assert "tuned on validation: " in report.analysis.references["One-Euro"].about
    plain = report.analysis.arms["none_matched"].level().estimate
    assert report.analysis.references["Kalman"].level().estimate >= plain - 1e-9


def test_terminal(report, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    report.show(Console(width=160))
    text = capsys.readouterr().out
    assert "bilstm beats none_matched" in text
    assert "pck@0.1[clip]" in text
    assert "(RTS smoother)" in text
    assert "Assay: " in text
    assert str(report.page) in text


def test_summary_has_every_run(report) -> None:
    rows = list(csv.DictReader(report.summary.open()))
    runs = {(r["arm"], r["seed"]) for r in rows if r["kind"] == "run"}
    assert runs == {(arm, str(s)) for arm in fake.ARMS for s in range(5)}
    assert "mean pose" in {r["arm"] for r in rows if r["kind"] == "reference"}


def test_named_metrics_are_in_the_files(small) -> None:
    path = small[0] / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": ["pck@0.1[clip]"]}))
    report = build_report(small[0])
    assert "### further metrics" in report.markdown.read_text()
    page = report.page.read_text()
    check(page)
    assert "<h3>Further metrics</h3>" in page


def test_torch_is_never_imported(small) -> None:
    code = (
        "import sys; from pathlib import Path; from bipose_lit.report.build import build_report;"
        f"build_report(Path({str(small[0])!r}));"
        "print(sorted({'torch', 'lightning', 'wandb', 'timm', 'optuna'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
