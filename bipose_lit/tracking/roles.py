"""What a run is within its sweep, told by files alone: sweep.json and trials.json in the sweep's folder, OUT/NAME.

A run of an ablation has no such files above it: it is an arm, called ARM/seedK.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bipose_lit.store import RESULT, SPEC, RunResult, RunSpec

SWEEP, TRIALS = "sweep.json", "trials.json"
TRIAL, BEST, BASELINE = "trial", "best", "baseline"
_ARM = re.compile(r"trials/(trial(\d+))")
_RETRAINED = re.compile(r"best\d+")


@dataclass(frozen=True)
class Role:
    """How W&B shows a run.

    Attributes:
        job_type: "trial", or the arm.
        name: what it is called.
        tags: "best" and "baseline", where it is one.
        state: of the trial, or the run's own status: "finished", "pruned", "failed" or "running".
        config: what its configuration does not say: a trial's parameters.
        summary: what its result does not say: a trial's objective values.
        trial: whether it is one.
    """

    job_type: str
    name: str
    tags: tuple[str, ...] = ()
    state: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    trial: bool = False

    @property
    def marked(self) -> bool:
        """One of those that people look at: their predictions are handed over."""
        return BEST in self.tags or BASELINE in self.tags


class Roles:
    """Roles of runs, each sweep's files read once.

    Files that are not there or cannot be read cost the sweep's words about a run, never the run.
    """

    def __init__(self) -> None:
        self._sweeps: dict[Path, _Sweep | None] = {}

    def of(self, folder: Path, spec: RunSpec, result: RunResult | None) -> Role:
        """The role of the run in a folder.

        Args:
            folder: OUT/NAME/ARM/seedK.
            spec: who the run is.
            result: its result; None while it has none.
        """
        status = result.status if result is not None else "running"
        sweep = self._sweep(folder, spec.arm)
        arm = _ARM.fullmatch(spec.arm)
        if arm is not None:
            told = sweep.trials.get(int(arm[2]), {}) if sweep else {}
            # A trial of several runs is one only as a whole; what it is goes with all of them.
            several = sweep is not None and sweep.several
            return Role(
                job_type=TRIAL,
                name=f"{arm[1]}/seed{spec.seed}" if several else arm[1],
                tags=(BEST,) if sweep and int(arm[2]) in sweep.best else (),
                state=str(told.get("state") or status),
                config={"sweep/params": dict(told.get("params") or {})},
                summary={
                    **{f"objective/{k}": v for k, v in (sweep.values(told) if sweep else {}).items()},
                    **{k: told[k] for k in ("pruned_at", "error") if k in told},
                },
                trial=True,
            )
        tags: tuple[str, ...] = ()
        if sweep is not None:
            tags = (BEST,) if _RETRAINED.fullmatch(spec.arm) else (BASELINE,) if spec.arm in sweep.baselines else ()
        return Role(job_type=spec.arm, name=f"{spec.arm}/seed{spec.seed}", tags=tags, state=status)

    def without_result(self, out: Path) -> list[Path]:
        """Folders of trials below `out` that were begun and left no result: stopped, and perhaps to go on, or dead."""
        found = []
        for path in sorted(out.rglob(TRIALS)):
            sweep = self._read(path.parent)
            for number in sorted(sweep.trials) if sweep else ():
                found += sorted(p.parent for p in path.parent.glob(f"trials/trial{number:04d}/seed*/{SPEC}"))
        return [folder for folder in found if not (folder / RESULT).exists()]

    def _sweep(self, folder: Path, arm: str) -> _Sweep | None:
        above = folder.resolve().parents
        depth = arm.count("/") + 1
        return self._read(above[depth]) if len(above) > depth else None

    def _read(self, folder: Path) -> _Sweep | None:
        folder = folder.resolve()
        if folder not in self._sweeps:
            there = (folder / SWEEP).is_file() or (folder / TRIALS).is_file()
            self._sweeps[folder] = _Sweep(folder) if there else None
        return self._sweeps[folder]


class _Sweep:
    """What is told of one sweep."""

    def __init__(self, folder: Path) -> None:
        told, trials = _json(folder / SWEEP), _json(folder / TRIALS)
        told = told if isinstance(told, Mapping) else {}
        rows = trials.get("trials") if isinstance(trials, Mapping) else trials
        rows = rows if isinstance(rows, list) else []
        rows = [t for t in rows if isinstance(t, Mapping) and isinstance(t.get("number"), int)]
        self.trials: dict[int, Mapping[str, Any]] = {t["number"]: t for t in rows}
        self.baselines = frozenset(map(str, told.get("baselines") or ()))
        objectives = [o for o in told.get("objectives") or () if isinstance(o, Mapping)]
        self.metrics = [str(o.get("metric")) for o in objectives]
        self.signs = [1.0 if o.get("maximize", True) else -1.0 for o in objectives]
        rows = told.get("best")
        chosen = [b.get("trial") for b in rows if isinstance(b, Mapping)] if isinstance(rows, list) else []
        self.best = frozenset(n for n in chosen if isinstance(n, int)) or self._best()
        seeds = told.get("seeds")
        self.several = isinstance(seeds, int) and seeds > 1

    def values(self, trial: Mapping[str, Any]) -> dict[str, float]:
        """Objective values by metric."""
        values = trial.get("values") or ()
        if isinstance(values, Mapping):
            return {str(k): float(v) for k, v in values.items() if v is not None}
        names = self.metrics if len(self.metrics) == len(values) else [str(i) for i in range(len(values))]
        return {k: float(v) for k, v in zip(names, values, strict=True) if v is not None}

    def _best(self) -> frozenset[int]:
        """Number of the best trial, where none was trained anew; with several objectives those that no other beats in all."""
        points: dict[int, Sequence[float]] = {}
        for number, trial in self.trials.items():
            values = list(self.values(trial).values())
            if trial.get("state") == "finished" and len(values) == len(self.signs) > 0:
                points[number] = [s * v for s, v in zip(self.signs, values, strict=True)]
        if len(self.signs) == 1:
            return frozenset(sorted(points, key=lambda n: (-points[n][0], n))[:1])
        return frozenset(n for n, p in points.items() if not any(_beats(q, p) for q in points.values()))


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
