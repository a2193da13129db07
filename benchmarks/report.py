"""How the report's time grows with the number of runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measure import hottest, interleave, listed, profile, table
from benchmarks.metrics import simulated
from benchmarks.setting import Setting, paragraphs
from bipose_lit.metrics.condensed import condense
from bipose_lit.metrics.summary import summarise
from bipose_lit.store import HISTORY, Predictions, RunResult, run_folder

SIZES = ((2, 5), (10, 10), (20, 50))
"""Arms and seeds."""
QUICK = ((2, 3), (3, 3))
NAME, FRAMES = "many", 720
ARM = "none_matched"


def run(setting: Setting) -> str:
    """The section."""
    from bipose_lit.report.build import build_report

    sizes = setting.pick(SIZES, QUICK)
    folders: dict[int, Path] = {}
    for arms, seeds in sizes:
        setting.tell(f"making {arms * seeds} runs")
        folders[arms * seeds] = write(setting.work / f"runs{arms * seeds}", arms, seeds, setting.pick(FRAMES, 60))
    spreads = {}
    for count, folder in folders.items():
        rounds = setting.pick(3 if count < 1000 else 2, 1)
        spreads |= interleave(
            {count: lambda folder=folder: build_report(folder)},  # type: ignore[dict-item, misc]
            rounds,
            0.0,
            lambda line, count=count: setting.tell(f"{count} runs, {line}"),  # type: ignore[misc]
        )
    largest = max(folders)
    rows = []
    for count, folder in folders.items():
        page = (folder / "report.html").stat().st_size
        csv = (folder / "summary.csv").stat().st_size
        rows.append([f"{count:,} runs", spreads[count], f"{page / 1e6:.1f}", f"{csv / 1e6:.1f}"])
    start = time.perf_counter()
    spots = listed(hottest(profile(lambda: build_report(folders[largest]))))
    setting.tell(f"profiled in {time.perf_counter() - start:.0f} s")
    metrics = len(RunResult.load(folders[largest] / ARM / "seed0").metrics)  # type: ignore[union-attr]
    return paragraphs(
        "The whole report without pictures (tables, intervals, figures, CSV of every number) from result files alone; "
        f"arms x seeds: {', '.join(f'{a} x {s}' for a, s in sizes)}, {metrics:,} metrics a run, "
        f"{setting.pick(FRAMES, 60)} scored frames. Filters and oracles are computed on ten seeds of one arm at most.",
        table(["report of", "s", "page, MB", "CSV, MB"], rows),
        f"What limits the report of {largest:,} runs now (share of profiled time): {spots}.",
    )


def write(out: Path, arms: int, seeds: int, frames: int) -> Path:
    """OUT/NAME as an ablation of so many arms and seeds leaves it; prediction files for the first arm alone.

    The report reads no others: whoever deletes them to save space gets the same tables.
    """
    p, val, names = simulated(frames), simulated(frames // 2), (ARM, *(f"arm{i:02d}" for i in range(1, arms)))
    for a, arm in enumerate(names):
        metrics: Mapping[str, float] = {}
        for seed in range(seeds):
            rng = np.random.default_rng([a, seed])
            noise = rng.normal(0, 8 - 0.1 * a + 0.2 * rng.normal(), p.pred.shape)
            own = replace(p, pred=(p.joints + noise).astype(np.float32))
            # a thousand numbers, computed once an arm: their making is not what is measured
            metrics = metrics or {**summarise(own), **summarise(own, "val")}
            folder = run_folder(out, NAME, arm, seed)
            _run(folder, arm, seed, own, {k: v * (1 + 0.01 * rng.normal()) for k, v in metrics.items()})
            if a == 0:
                own.save(folder / "predictions-test.npz")
                val.save(folder / "predictions-val.npz")
    manifest = {
        "name": NAME, "question": "How long does a report take?", "arms": list(names), "baseline": ARM,
        "contrasts": [[name, ARM] for name in names[1:4]], "seeds": list(range(seeds)), "mode": "frozen",
    }  # fmt: skip
    (out / NAME / "manifest.json").write_text(json.dumps(manifest))
    return out / NAME


def _run(folder: Path, arm: str, seed: int, p: Predictions, metrics: Mapping[str, float]) -> None:
    RunResult(
        name=NAME, arm=arm, seed=seed, status="finished", metrics=dict(metrics),
        measured={"train_seconds": 41.0, "ms_per_frame": 4.1, "peak_memory_mb": 800.0},
        facts={"parameters": 2_000_000, "flops_per_frame": 3e8, "look_ahead_frames": 0, "steps": 200},
        scorings={"test": 1}, predictions={"test": "predictions-test.npz"}, clusters={"test": condense(p).plain()},
        config_hash=f"c{arm}{seed}", data_fingerprint="d41d8c", weights_hash=f"w{arm}{seed}", commit="0123456789abcdef",
        versions={"torch": "2.15.0"},
    ).save(folder)  # fmt: skip
    validation = dict([item for item in metrics.items() if item[0].startswith("val/")][:200])
    rows = [{"step": s, "epoch": s // 50, "train/loss": float(np.exp(-s / 80))} for s in range(0, 200, 20)]
    rows += [{"step": s, "epoch": s // 50, **{k: v * s / 200 for k, v in validation.items()}} for s in (99, 199)]
    (folder / HISTORY).write_text("".join(f"{json.dumps(row)}\n" for row in sorted(rows, key=lambda r: int(r["step"]))))
