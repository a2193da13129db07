"""Scoring predictions, and the report from result files."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np

from benchmarks.measure import ROOT, hottest, interleave, listed, profile, table
from benchmarks.setting import Setting, paragraphs
from bipose_lit.metrics.summary import mean_of, per_cluster, summarise
from bipose_lit.skeletons import JHMDB
from bipose_lit.store import Predictions
from bipose_lit.types import NORMS, OCCLUDED, VISIBLE

FAKE = ROOT / "tests" / "report" / "fake.py"
PERSONS, FRAMES = 3000, 30


def run(setting: Setting) -> str:
    """The section."""
    persons = setting.pick(PERSONS, 2 * FRAMES)
    found = simulated(persons)
    jobs: dict[str, Callable[[], object]] = {
        "summarise": lambda: summarise(found),
        "summarise, without joints and groups": lambda: summarise(found, detail=False),
        "one metric": lambda: mean_of(found),
        "one metric by cluster": lambda: per_cluster(found),
    }
    times = interleave(jobs, setting.pick(9, 1), 0.0, setting.tell)
    count = len(summarise(found))
    rows = [[name, t.ms, t.over(times["one metric"])] for name, t in times.items()]
    spots = listed(hottest(profile(jobs["summarise"])))
    return paragraphs(
        f"Predictions of {persons:,} frames x {len(JHMDB)} joints in {persons // FRAMES} clips; "
        f"`summarise` gives {count:,} numbers.",
        table(["scoring", "ms", "of one metric"], rows),
        f"What limits `summarise` now (share of profiled time): {spots}.",
        *_report(setting),
    )


def simulated(persons: int) -> Predictions:
    """Predictions that err by some pixels on labels with hidden runs."""
    rng = np.random.default_rng(0)
    clips, K = persons // FRAMES, len(JHMDB)
    joints = rng.uniform(20, 200, (clips, 1, K, 2)) + np.cumsum(rng.normal(0, 1, (clips, FRAMES, K, 2)), axis=1)
    visible = np.full((clips, FRAMES, K), VISIBLE, np.uint8)
    for c in range(clips):
        begin, end = sorted(rng.integers(0, FRAMES + 1, 2))
        visible[c, begin:end, rng.integers(0, K, 4)] = OCCLUDED
    labels = joints.reshape(-1, K, 2).astype(np.float32)
    norms = np.full((clips * FRAMES, len(NORMS)), np.nan, np.float32)
    norms[:, [NORMS.index("clip"), NORMS.index("bbox"), NORMS.index("torso")]] = (160, 150, 50)
    return Predictions(
        uid=np.arange(clips * FRAMES), clip=np.repeat(np.arange(clips), FRAMES), frame=np.tile(np.arange(FRAMES), clips),
        pred=(labels + rng.normal(0, 8, labels.shape)).astype(np.float32), score=np.ones(labels.shape[:2], np.float32),
        joints=labels, visible=visible.reshape(-1, K), norms=norms, fps=np.full(clips * FRAMES, 25, np.float32),
        clips=tuple(f"clip{c:04d}" for c in range(clips)), clusters=tuple(f"scene{c // 2:04d}" for c in range(clips)),
        joint_names=JHMDB.joints, data="simulated/test[clip-box]",
    )  # fmt: skip


def _report(setting: Setting) -> list[str]:
    """The report of a simulated result tree, where the tests that simulate it are at hand."""
    fake = _fake()
    if fake is None:
        return [f"The report was not timed: {FAKE.relative_to(ROOT)} is not there."]
    from bipose_lit.report.build import build_report

    setting.tell("simulating a result tree")
    arms = ("none_matched", "lstm", "lstm_wide", "bilstm")
    seeds, clusters, frames = setting.pick((5, 24, 32), (2, 4, 12))
    root = setting.work / "tree"
    shutil.rmtree(root, ignore_errors=True)
    folder, tracks = fake.write_tree(root, seeds=seeds, clusters=clusters, frames=frames, arms=arms)
    jobs: dict[str, Callable[[], object]] = {
        "without pictures": lambda: build_report(folder),
        "with pictures": lambda: build_report(folder, frames=tracks),
    }
    times = interleave(jobs, setting.pick(3, 1), 0.0, lambda line: setting.tell(f"report, {line}"))
    rows = [[name, t, t.over(times["without pictures"])] for name, t in times.items()]
    spots = listed(hottest(profile(jobs["with pictures"])))
    return [
        f"The whole report of {len(arms)} arms x {seeds} seeds with {clusters} clips of {frames} frames:",
        table(["report", "s", "of the one without pictures"], rows),
        f"What limits the report now (share of profiled time): {spots}.",
    ]


def _fake() -> ModuleType | None:
    if not FAKE.is_file():
        return None
    spec = importlib.util.spec_from_file_location("bipose_fake_results", FAKE)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
