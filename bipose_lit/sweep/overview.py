"""`bipose sweep --plan`: the space, what is done, and what the rest would cost."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bipose_lit.ablation.keys import shared_key
from bipose_lit.ablation.plan import run_seconds, steps
from bipose_lit.ablation.process import Channel, call
from bipose_lit.ablation.progress import clock
from bipose_lit.store import RESULT, SPEC, RunResult
from bipose_lit.sweep.compare import Baselines
from bipose_lit.sweep.plan import SweepPlan
from bipose_lit.sweep.space import Branch, Choice, Entry, label
from bipose_lit.sweep.turn import Search
from bipose_lit.types import BiposeError

TAKEN_OVER, RETRIED = "taken over", "failed and tried again"
"""Trials that do not count against the budget."""


def show_plan(
    search: Search,
    baselines: Baselines,
    workers: int,
    total: int,
    watch: Callable[[dict[str, Any]], None],
    close: Callable[[], None],
) -> None:
    """Prints the space, the states of trials, and the time and disk space that the sweep takes.

    Args:
        search: what is searched and by whom.
        baselines: what the best are compared with.
        workers: side by side.
        total: trials of the whole search; 0 where only hours tell.
        watch: sees the progress of what is computed for this.
        close: ends the progress display before the tables are printed.
    """
    from rich.console import Console
    from rich.table import Table

    plan, s = search.plan, search.sweep
    states: dict[str, int] = {}
    if plan.folder.is_dir():  # reading a study that is not there would make it
        states = call(lambda channel: _states(search), watch)
    points = s.space.count()
    disk = _disk(search, watch)
    seconds, source = cost(plan)
    close()
    table = Table(title=f"{s.name}: {s.question}", title_justify="left")
    for column in ("parameter", "values", "only where"):
        table.add_column(column, overflow="fold")
    for name, entry in s.space.entries.items():
        table.add_row(name, _values(entry), _condition(entry))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
    goals = ", ".join(f"{o.metric} {'up' if o.maximize else 'down'}" for o in s.objectives)
    print(f"objective: {goals}")
    print(f"sampler: {_tool(s.sampler)}, pruner: {_tool(s.pruner)}")
    print(f"points: {'endless' if math.isinf(points) else f'{points:.0f}'}")
    budget = [f"{s.budget.trials} trials"] if s.budget.trials else []
    budget += [f"{s.budget.hours:g} hours"] if s.budget.hours else []
    print(f"budget: {' or '.join(budget) or 'all points'}; runs per trial: {s.seeds}")
    done = sum(n for state, n in states.items() if state not in ("running", TAKEN_OVER, RETRIED))
    print("trials: " + (", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none yet"))
    arms = len(s.baselines) + s.retrain.best
    later = arms * s.retrain.seeds if s.retrain.best else 0
    ready = len([p for p in plan.folder.glob(f"*/seed*/{RESULT}") if _seconds(p) is not None])
    if later:
        taken = sum(len(set(f.runs) & set(range(s.retrain.seeds))) for f in baselines.finished.values())
        words = f" (up to {taken} of them are finished elsewhere)" if taken else ""
        names = ", ".join([*s.baselines, *(f"best{k + 1}" for k in range(s.retrain.best))])
        words += f", {ready} finished" if ready else ""
        print(f"afterwards: {names} on {s.retrain.seeds} fresh seeds: {later} runs{words}")
    gpus = f", GPUs: {len(search.runner.devices)}" if search.runner.devices else ""
    print(f"steps per run: {steps(plan.config({}))}; workers: {workers}, threads each: {s.threads}{gpus}")
    print(f"disk: {disk}")
    print(
        f"time: {_time(seconds, source, max(0, total - done) * s.seeds, max(0, later - ready), workers, s.budget.hours, total)}"
    )
    print(f"folder: {plan.folder}")


def cost(plan: SweepPlan) -> tuple[float, str]:
    """Seconds of one run by those that are there, and which these were: the sweep's trials, else others of the same length below
    OUT (median); NaN without any.
    """
    own = [s for p in (plan.folder / "trials").glob(f"*/*/{RESULT}") if (s := _seconds(p)) is not None]
    if own:
        return statistics.median(own), f"{len(own)} finished runs of this sweep"
    wanted = _length(plan.config({}))
    other = [
        s
        for p in sorted(plan.out.glob(f"*/*/seed*/{RESULT}"))
        if _length(_config(p.parent)) == wanted and (s := _seconds(p)) is not None
    ]
    return (
        (statistics.median(other), f"{len(other)} runs of the same length in {plan.out}") if other else (math.nan, "")
    )


def _seconds(path: Path) -> float | None:
    try:
        result = RunResult.load(path.parent)
    except BiposeError:
        return None
    if result is None or result.status != "finished":
        return None
    seconds = run_seconds(result)
    return seconds if math.isfinite(seconds) else None


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads((folder / SPEC).read_text())["config"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def _length(config: Mapping[str, Any]) -> Any:
    """What a run's time depends on most."""
    trainer, data, model = (config.get(k) or {} for k in ("trainer", "data", "model"))
    frozen = bool(model.get("freeze_backbone"))
    return trainer.get("max_steps"), trainer.get("max_epochs"), data.get("batch_size"), data.get("size"), frozen


def _states(search: Search) -> dict[str, int]:
    states: dict[str, int] = {}
    with search.study() as study:
        again = study.again()
        for entry in study.entries():
            name = entry.state if entry.twin is None else TAKEN_OVER
            name = RETRIED if entry.number in again else name
            states[name] = states.get(name, 0) + 1
    return states


def _disk(search: Search, watch: Callable[[dict[str, Any]], None]) -> str:
    plan = search.plan
    if plan.sweep.mode != "frozen":
        return "no cached features (mode: full)"
    deciding = tuple(n for n, e in plan.sweep.space.entries.items() if isinstance(e, Branch))
    points = list(plan.sweep.space.branches(deciding))[:64] if deciding else [{}]
    configs = {shared_key(c): c for c in map(plan.config, points)}

    def body(channel: Channel) -> int:
        return sum(search.runner.backend.cache_bytes(dict(c)) for c in configs.values())

    try:
        return f"{call(body, watch) / 1e9:.3f} GB of cached features"
    except BiposeError as error:
        return f"cache unknown until the data are {'made' if plan.sweep.make else 'there'} ({error})"


def _time(seconds: float, source: str, search: int, later: int, workers: int, hours: float | None, total: int) -> str:
    if not math.isfinite(seconds):
        bound = f"at most {hours:g} hours of search, then " if hours else ""
        return f"{bound}unknown until the first run is finished"
    span = seconds * search / max(1, min(workers, search)) if total else math.inf
    if hours:
        span = min(span, hours * 3600)
    words = f"about {clock(span)} of search" if math.isfinite(span) else "search without an end"
    after = f" and {clock(seconds * later / max(1, min(workers, later)))} afterwards" if later else ""
    return f"{words}{after} ({clock(seconds)} a run, by {source}; pruning saves some)"


def _values(entry: Entry) -> str:
    if isinstance(entry, Branch | Choice):
        return ", ".join(str(label(v)) for v in entry.values)
    words = [w for w, on in (("logarithmic", entry.log), ("whole", entry.whole)) if on]
    words += [f"in steps of {entry.step:g}"] if entry.step else []
    return f"{entry.low:g} to {entry.high:g}" + (f" ({', '.join(words)})" if words else "")


def _condition(entry: Entry) -> str:
    return ", ".join(f"{n} is {' or '.join(str(label(v)) for v in allowed)}" for n, allowed in entry.when.items())


def _tool(tool: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{k} {v}" for k, v in tool.items() if k != "name")
    return f"{tool['name']}{f' ({rest})' if rest else ''}"
