"""What a search leaves for reports and dashboards: trials.json and sweep.json, plain data beside the runs."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from bipose_lit.store import atomic
from bipose_lit.sweep.manifest import Sweep
from bipose_lit.sweep.plan import SweepPlan
from bipose_lit.sweep.space import seeds_of
from bipose_lit.sweep.study import Entry, Study

TRIALS, SWEEP = "trials.json", "sweep.json"
LEAST = 4
"""Finished trials before it is told which parameters mattered."""


def write_trials(plan: SweepPlan, entries: Sequence[Entry]) -> None:
    """Writes OUT/NAME/trials.json."""
    with atomic(plan.folder / TRIALS) as handle:
        json.dump({"trials": [trial_row(plan.sweep, e) for e in entries]}, handle, indent=1, sort_keys=True)
        handle.write("\n")


def trial_row(sweep: Sweep, entry: Entry) -> dict[str, Any]:
    """One trial as plain data; what was taken over from another trial has that one's folder and took no time."""
    point = entry.point or {}
    row: dict[str, Any] = {
        "number": entry.number,
        "state": entry.state,
        "params": point,
        "values": [v if math.isfinite(v) else None for v in entry.values],
        "intermediate": {str(step): value for step, value in entry.intermediate.items() if math.isfinite(value)},
        "seconds": 0.0 if entry.twin is not None else float(entry.attributes.get("seconds", 0.0)),
        "folder": _folder(entry),
        "seeds": list(seeds_of(point, sweep.seeds)),
    }
    row |= {"error": entry.error} if entry.error else {}
    row |= {"pruned_at": entry.attributes["pruned_at"]} if "pruned_at" in entry.attributes else {}
    return row | ({"copied_from": entry.twin} if entry.twin is not None else {})


def write_sweep(plan: SweepPlan, best: Mapping[str, int], importances: Mapping[str, Any] | None = None) -> None:
    """Writes OUT/NAME/sweep.json.

    Args:
        plan: the sweep.
        best: number of the trial behind each arm that is trained anew.
        importances: as `importances` gives them.
    """
    found = plan.sweep.as_dict()
    found["best"] = [{"arm": arm, "trial": number} for arm, number in best.items()]
    found["importances"] = dict(importances or {})
    with atomic(plan.folder / SWEEP) as handle:
        json.dump(found, handle, indent=1)
        handle.write("\n")


def found_before(folder: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """The trial behind each best arm that was trained anew, and the importances, as OUT/NAME/sweep.json has them, if it has."""
    try:
        found = json.loads((folder / SWEEP).read_text())
        return {str(b["arm"]): int(b["trial"]) for b in found["best"]}, dict(found["importances"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}


def ranked(sweep: Sweep, entries: Sequence[Entry]) -> list[Entry]:
    """Finished trials, the best first: by the objective, or of several objectives the Pareto front by the first of them.

    What was taken over from another trial is left out; of equals the earlier comes first.
    """
    signs = [1 if o.maximize else -1 for o in sweep.objectives]

    def signed(entry: Entry) -> tuple[float, ...]:
        return tuple(s * v for s, v in zip(signs, entry.values, strict=True))

    finished = [e for e in entries if e.state == "finished" and e.twin is None]
    if len(signs) > 1:
        finished = [e for e in finished if not any(_dominates(signed(o), signed(e)) for o in finished)]
    return sorted(finished, key=lambda e: (-signed(e)[0], e.number))


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


def importances(study: Study) -> dict[str, Any]:
    """Share of each parameter in what the objective varies by (Optuna's default measure), by objective where there are several.

    Parameters that not every trial has are left out, as Optuna does; {} with fewer than `LEAST` finished trials.
    """
    objectives = study.sweep.objectives
    finished = study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < LEAST:
        return {}
    found = {o.metric: _importances(study.study, i) for i, o in enumerate(objectives)}
    return found if len(objectives) > 1 else found[objectives[0].metric]


def _importances(study: optuna.Study, index: int) -> dict[str, float]:
    def target(trial: FrozenTrial) -> float:
        return float(trial.values[index])

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            several = len(study.directions) > 1
            shares = optuna.importance.get_param_importances(study, target=target if several else None)
    except (ValueError, RuntimeError):  # one value of everything, or no parameter that all trials have
        return {}
    return {name: float(share) for name, share in shares.items() if math.isfinite(share)}


def _folder(entry: Entry) -> str:
    return entry.key if entry.twin is None else f"{entry.key[: -len(f'{entry.number:04d}')]}{entry.twin:04d}"
