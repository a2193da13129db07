"""A sweep as its files tell: the space, the trials in all their states, and what follows from them. Nothing is drawn here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bipose_lit.report.load import Run, metric_of
from bipose_lit.report.statistics import LEVEL, MIN_SEEDS_INTERVAL
from bipose_lit.report.tables import quantity
from bipose_lit.types import BiposeError

SWEEP, TRIALS = "sweep.json", "trials.json"
SHORT = 7
"""Characters of a number that is shown as it is."""
FINISHED, PRUNED, FAILED, RUNNING = STATES = ("finished", "pruned", "failed", "running")


@dataclass(frozen=True)
class Objective:
    """What the search optimises: a metric of the validation split, "facts/..." or "measured/..."."""

    metric: str
    maximize: bool = True

    @property
    def short(self) -> str:
        """As shown: without the split, which is always the validation's, or the words of a fact or measured time."""
        kind, _, name = self.metric.partition("/")
        return name.replace("_", " ") if kind in ("facts", "measured") else self.metric.removeprefix("val/")

    @property
    def factor(self) -> float:
        """By which a value is multiplied for print: fractions are shown in percent."""
        return 100.0 if self.short.startswith(("pck@", "auc@")) else 1.0

    @property
    def label(self) -> str:
        """With the unit, for axes and heads of tables."""
        return self.short + (" %" if self.factor == 100 else "")

    def better(self, a: float, b: float) -> bool:
        return a > b if self.maximize else a < b

    def show(self, value: float | None) -> str:
        """As printed: percent with one digit, other numbers with three figures (284M)."""
        if value is None or not math.isfinite(value):
            return "–"
        return f"{value * self.factor:.1f}" if self.factor == 100 else quantity(value)


@dataclass(frozen=True)
class Axis:
    """One parameter of the space.

    Attributes:
        option: its name: a dotted option, or a choice among overlays.
        short: the shortest ending that names it alone.
        choices: what it is chosen from, as text; empty for a range.
        low, high: ends of the range.
        log: spread by its logarithm.
        conditional: it exists under conditions alone.
    """

    option: str
    short: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    conditional: bool = False


@dataclass(frozen=True)
class Trial:
    """One trial; values and steps as the search saw them.

    Attributes:
        number: in the study; a trial that another worker took up keeps it.
        state: one of `STATES`.
        params: by option; what its conditions exclude is missing.
        values: one for each objective, None where there is none. Of a pruned trial: the last one before it was stopped.
        intermediate: value by optimiser step.
        seconds: of work.
        folder: relative to the sweep's.
        error: why it failed, one line.
        pruned_at: step, if it was pruned.
        copied_from: number of the trial with the same point whose result was taken over.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    values: tuple[float | None, ...]
    intermediate: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    folder: str = ""
    error: str = ""
    pruned_at: int | None = None
    copied_from: int | None = None

    def value(self, objective: int = 0) -> float:
        """Of one objective, NaN where there is none."""
        found = self.values[objective] if objective < len(self.values) else None
        return math.nan if found is None else found


@dataclass(frozen=True)
class Optimism:
    """The best trials flatter themselves: their value in the search beside the mean of runs on fresh seeds.

    Attributes:
        arm: of the runs on fresh seeds.
        trial: whose setting they repeat.
        searched: its value in the search.
        fresh: mean of the same metric on the same split over fresh seeds.
        low, high: 95% interval of that mean over seeds; NaN below three seeds.
        seeds: how many.
        luck: by how much the search's value is better than the fresh mean; negative where it is worse.
    """

    arm: str
    trial: int
    searched: float
    fresh: float
    low: float
    high: float
    seeds: int
    luck: float

    @property
    def sure(self) -> bool:
        """The fresh seeds' interval leaves out the search's value, on its worse side."""
        return self.low == self.low and self.luck > 0 and not self.low <= self.searched <= self.high


@dataclass
class Sweep:
    """All of one sweep that is on disk."""

    folder: Path
    name: str
    question: str
    objectives: tuple[Objective, ...]
    axes: tuple[Axis, ...]
    trials: tuple[Trial, ...]
    importances: Mapping[str, Mapping[str, float]]
    best: Mapping[str, int]
    raw: Mapping[str, Any]

    def of(self, *states: str) -> list[Trial]:
        """Trials in some states, in their order."""
        return [t for t in self.trials if t.state in states]

    @property
    def scored(self) -> list[Trial]:
        """Finished trials with a number for each objective."""
        count = len(self.objectives)
        return [t for t in self.of(FINISHED) if all(math.isfinite(t.value(i)) for i in range(count))]

    @property
    def ended(self) -> int:
        """Trials that competed, to the end or until they were pruned; a result that was taken over competes once."""
        return sum(t.copied_from is None for t in self.of(FINISHED, PRUNED))

    def ranked(self) -> list[Trial]:
        """Scored trials of their own, the best by the first objective first; the earlier of equals first."""
        sign = -1 if self.objectives[0].maximize else 1
        return sorted((t for t in self.scored if t.copied_from is None), key=lambda t: (sign * t.value(), t.number))

    def so_far(self) -> list[tuple[int, float]]:
        """(number, best value among the finished trials up to it) of the first objective, in the order of numbers."""
        found: list[tuple[int, float]] = []
        for t in self.scored:
            best = found[-1][1] if found else t.value()
            found.append((t.number, t.value() if self.objectives[0].better(t.value(), best) else best))
        return found

    def front(self) -> list[Trial]:
        """Trials that no other one matches in all objectives and beats in one, the best by the first."""

        def beats(a: Trial, b: Trial) -> bool:
            pairs = [(a.value(i), b.value(i), o) for i, o in enumerate(self.objectives)]
            return all(x == y or o.better(x, y) for x, y, o in pairs) and any(o.better(x, y) for x, y, o in pairs)

        return [t for t in self.ranked() if not any(beats(other, t) for other in self.scored)]

    def shown(self) -> list[Trial]:
        """Trials for tables: the front of several objectives, else the best."""
        return self.front() if len(self.objectives) > 1 else self.ranked()

    def important(self) -> list[Axis]:
        """Axes, the most important for the first objective first; without importances in the manifest's order."""
        shares = self.importances.get(self.objectives[0].metric, {})
        return sorted(self.axes, key=lambda a: -shares.get(a.option, 0.0))


def load_sweep(folder: Path) -> Sweep:
    """Reads FOLDER/sweep.json and trials.json.

    Raises:
        BiposeError: they are missing, damaged or contradict each other.
    """
    raw, rows = _json(folder / SWEEP), _json(folder / TRIALS)
    try:
        objectives = tuple(Objective(str(o["metric"]), bool(o.get("maximize", True))) for o in raw["objectives"])
        if not objectives:
            raise ValueError("no objective")
        space = raw["space"]
        short = shortened(space)
        axes = tuple(_axis(str(name), entry, short[str(name)]) for name, entry in space.items())
        trials = tuple(
            sorted(
                (_trial(row) for row in (rows["trials"] if isinstance(rows, Mapping) else rows)), key=lambda t: t.number
            )
        )
        importances = _importances(raw.get("importances") or {}, objectives)
        best = {str(b["arm"]): int(b["trial"]) for b in raw.get("best") or ()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BiposeError(
            f"{folder}: {SWEEP} and {TRIALS} cannot be read ({type(error).__name__}: {error}); start the sweep again to "
            "rewrite them (finished trials are kept)"
        ) from error
    sweep = Sweep(
        folder, str(raw.get("name") or folder.name), str(raw.get("question") or ""), objectives, axes, trials, importances,
        best, raw,
    )  # fmt: skip
    if not best:
        sweep.best = {f"best{i}": t.number for i, t in enumerate(sweep.ranked(), 1)}
    return sweep


def optimism(sweep: Sweep, runs: Iterable[Run]) -> list[Optimism]:
    """How much the best trials flattered themselves, arm by arm; for the first objective.

    The interval is over seeds alone: search and fresh runs are scored on the same validation clips, so the clips' share of
    chance is in both.

    Args:
        sweep: the search.
        runs: finished runs of the arms that repeat its best trials.
    """
    objective, numbers = sweep.objectives[0], {t.number: t for t in sweep.trials}
    fresh: dict[str, list[float]] = {}
    for run in runs:
        value = value_of(run, objective)
        if run.arm in sweep.best and value is not None and math.isfinite(value):
            fresh.setdefault(run.arm, []).append(value)
    found = []
    for arm, number in sweep.best.items():
        trial, values = numbers.get(number), fresh.get(arm)
        if trial is None or not values or not math.isfinite(trial.value()):
            continue
        mean, low, high = interval_over_seeds(values)
        luck = (trial.value() - mean) * (1 if objective.maximize else -1)
        found.append(Optimism(arm, number, trial.value(), mean, low, high, len(values), luck))
    return found


def interval_over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95% interval by Student's t; NaN ends below `MIN_SEEDS_INTERVAL` values."""
    mean, n = float(np.mean(values)), len(values)
    if n < MIN_SEEDS_INTERVAL:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def value_of(run: Run, objective: Objective) -> float | None:
    """An objective's value of a run, None where it has none."""
    kind, _, name = objective.metric.partition("/")
    if kind in ("facts", "measured"):
        found = getattr(run.result, kind).get(name)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
    return metric_of(run.result.metrics, objective.short, "val")


def shortened(options: Iterable[str]) -> dict[str, str]:
    """The shortest ending of each dotted option that names it alone: "model.recipe.lr" is "lr"."""
    every = [str(o) for o in options]
    parts = {o: [p for p in o.split(".") if p != "init_args"] for o in every}
    found = {}
    for option, mine in parts.items():
        endings = (".".join(mine[-n:]) for n in range(1, len(mine) + 1))
        others = [".".join(p) for o, p in parts.items() if o != option]
        alone = (e for e in endings if not any(o == e or o.endswith(f".{e}") for o in others))
        found[option] = next(alone, option)
    return found


def told(value: Any) -> str:
    """A parameter's value as text: floats with three significant digits, short ones as they are (0.9999 is not 1)."""
    if isinstance(value, float):
        exact, rounded = f"{value:.15g}", f"{value:.3g}"
        return exact if len(exact) <= SHORT else rounded
    return value if isinstance(value, str) else json.dumps(value)


def _axis(option: str, entry: Any, short: str) -> Axis:
    if not isinstance(entry, Mapping):
        return Axis(option, short, tuple(told(v) for v in entry))
    conditional = bool(entry.get("when"))
    for key in ("choices", "overlays"):
        if key in entry:
            return Axis(option, short, tuple(told(v) for v in entry[key]), conditional=conditional)
    low, high = float(entry["low"]), float(entry["high"])
    return Axis(option, short, (), low, high, bool(entry.get("log")), conditional)


def _trial(row: Mapping[str, Any]) -> Trial:
    state = str(row["state"])
    if state not in STATES:
        raise ValueError(f"trial {row['number']}: state {state!r} is none of {', '.join(STATES)}")
    at, copied = row.get("pruned_at"), row.get("copied_from")
    return Trial(
        number=int(row["number"]),
        state=state,
        params=dict(row.get("params") or {}),
        values=tuple(None if v is None else float(v) for v in row.get("values") or ()),
        intermediate={int(k): float(v) for k, v in (row.get("intermediate") or {}).items() if v is not None},
        seconds=float(row.get("seconds") or 0.0),
        folder=str(row.get("folder") or ""),
        error=" ".join(str(row.get("error") or "").split()),
        pruned_at=None if at is None else int(at),
        copied_from=None if copied is None else int(copied),
    )


def _importances(raw: Mapping[str, Any], objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
    """By objective; a plain mapping of options to shares is the first one's."""
    if not any(isinstance(v, Mapping) for v in raw.values()):
        raw = {objectives[0].metric: raw}
    return {str(m): {str(k): float(v) for k, v in (shares or {}).items()} for m, shares in raw.items()}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BiposeError(f"{path.parent} holds no {path.name}; start the sweep again to write it") from error
    except ValueError as error:
        raise BiposeError(f"{path} is no JSON ({error}); start the sweep again to rewrite it") from error
