"""Trials per hour by workers, and what the engine itself costs per trial."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import Spread, table
from benchmarks.setting import Setting, paragraphs
from bipose_lit.ablation.backend import Backend
from bipose_lit.ablation.process import call
from bipose_lit.store import RunResult, RunSpec

WORKERS = (1, 2)
OBJECTIVE = "pck@0.1[clip]"


def run(setting: Setting) -> str:
    """The section."""
    base = call(lambda channel: str(_base(setting)), None)
    rows = []
    shares: list[float] = []
    for name, few, many, empty in (("empty", 4, 20, True), ("training a head", 1, 4, False)):
        for workers in WORKERS:
            values = []
            for r in range(setting.pick(2, 1)):
                setting.tell(f"{name} trials, {workers} workers, round {r + 1}")
                short, long = setting.pick((few, many), (1, 3))
                first, _ = _seconds(setting, base, short, workers, empty, r)
                whole, trained = _seconds(setting, base, long, workers, empty, r)
                values.append((whole - first) / (long - short))
                if not empty and workers == 1:
                    shares.append(trained / long / values[-1])
            each = Spread(tuple(values))
            rows.append([name, workers, each.map(lambda s: 3600 / s), each.map(lambda s, w=workers: s * w).ms])  # type: ignore[misc]
    return paragraphs(
        "`bipose sweep` with random points, a journal file as its storage, one thread a trial. A value is the difference of the "
        "wall times of a long and a short search, by the number of trials between them: the command's start is not in it.",
        table(["trials", "workers", "trials an hour", "ms of one worker per trial"], rows),
        "An empty trial publishes a result at once: what it takes is the engine's own (a fork, two visits to the study, files). "
        f"A trained one makes {setting.pick(40, 2)} steps of an LSTM on cached features and scores the validation split twice.",
        f"What limits a trained trial now: {statistics.median(shares):.0%} of its time is the run itself, the rest the engine.",
    )


def _base(setting: Setting) -> Path:
    options = {"trainer.max_steps": setting.pick(40, 2), "trainer.val_check_interval": setting.pick(20, 1)}
    path = setting.work / "sweep-base.yaml"
    path.write_text(yaml.safe_dump(setting.config("temporal/lstm.yaml", options=options), sort_keys=False))
    return path


def _seconds(
    setting: Setting, base: str, trials: int, workers: int, empty: bool, round_number: int
) -> tuple[float, float]:
    """Wall time of a whole search from nothing, in a process of its own; and the sum of its runs' own times."""
    name = f"bench{'-empty' if empty else ''}-{workers}-{trials}-{round_number}"
    manifest = setting.work / f"{name}.yaml"
    asked = {
        "question": "How long does it take?",
        "name": name,
        "base": [base],
        "mode": "frozen",
        "space": {"model.recipe.lr": {"low": 1e-5, "high": 1e-4, "log": True}},
        "objective": OBJECTIVE,
        "sampler": {"name": "random", "seed": 0},
        "budget": {"trials": trials},
    }
    manifest.write_text(yaml.safe_dump(asked))
    seconds = float(call(lambda channel: _search(setting, manifest, workers, empty), None))
    found = json.loads((setting.work / "runs" / name / "trials.json").read_text())
    listed = found["trials"] if isinstance(found, dict) else found
    return seconds, sum(float(t.get("seconds") or 0.0) for t in listed)


def _search(setting: Setting, manifest: Path, workers: int, empty: bool) -> float:
    from bipose_lit.ablation.progress import Progress
    from bipose_lit.sweep.engine import sweep

    backend = replace(Backend(), execute=_publish) if empty else Backend()
    start = time.perf_counter()
    code = sweep(
        manifest, workers=workers, out=setting.work / "runs", wandb=False, backend=backend, progress=Progress(_Quiet())  # type: ignore[arg-type]
    )  # fmt: skip
    if code:
        raise RuntimeError(f"the search {manifest.stem} ended with {code}")
    return time.perf_counter() - start


def _publish(spec: RunSpec, report: Any, judge: Any = None) -> RunResult:
    """A run of no time at all."""
    metrics: Mapping[str, float] = {f"{split}/{OBJECTIVE[:-1]},clip-box]": 0.5 for split in spec.score}
    result = RunResult(
        spec.name, spec.arm, spec.seed, "finished", metrics=dict(metrics), config_hash=spec.config_hash,
        measured={"total_seconds": 0.0},
    )  # fmt: skip
    result.publish(spec.folder)
    return result


class _Quiet:
    """A stream for nobody."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing."""

    def isatty(self) -> bool:
        return False


__all__ = ["run"]
