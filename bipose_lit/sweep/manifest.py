"""A sweep is a search space over a base, objectives, a budget, and what the best trials are set beside; read as a manifest is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bipose_lit.ablation.fields import NAME, RESERVED, Overlay, read_mapping
from bipose_lit.ablation.manifest import CONFIGURATION, MODES
from bipose_lit.ablation.text import close
from bipose_lit.sweep.fields import SpaceFields, is_number
from bipose_lit.sweep.space import FIRST_SEED, Space
from bipose_lit.types import BiposeError

MAIN = "experiments/sweeps/heads.yaml"
SAMPLERS: Mapping[str, tuple[str, ...]] = {
    "tpe": ("seed", "startup"),
    "random": ("seed",),
    "grid": (),
    "gp": ("seed", "startup"),
    "nsga2": ("seed", "population"),
}
"""What each sampler can be told."""
PRUNERS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "median": ("startup", "warmup"),
    "hyperband": ("min", "max", "factor"),
    "wilcoxon": ("p", "startup"),
}
"""What each pruner can be told: `startup` trials (Wilcoxon: clips) before anything is pruned, `warmup` steps of a trial in which
it is not; Hyperband's smallest and largest number of steps and the factor between rungs; Wilcoxon's p-value."""
SMALLEST = {"factor": 2, "population": 2, "min": 1, "max": 1}
"""The least that an option of a sampler or pruner may be, where it is not 0."""
OUTSIDE = ("facts", "measured")
"""Objectives that are no metric: facts/NAME and measured/NAME of result.json."""


@dataclass(frozen=True)
class Objective:
    """One number to be made large or small.

    Attributes:
        metric: of the validation split, in full or short as in a manifest; or facts/NAME, measured/NAME of result.json.
        maximize: whether more of it is better.
    """

    metric: str
    maximize: bool = True

    @property
    def outside(self) -> bool:
        return self.metric.partition("/")[0] in OUTSIDE


@dataclass(frozen=True)
class Budget:
    """When a search ends; what has begun is finished.

    Attributes:
        trials: points that are run, failed and pruned ones included; None: no such limit.
        hours: in which any trial was running, over all starts and machines together; None: no such limit.
    """

    trials: int | None = None
    hours: float | None = None


@dataclass(frozen=True)
class Retrain:
    """After the search: the best trials anew, beside the baselines.

    Attributes:
        best: how many trials; 0: no comparison.
        seeds: fresh ones, 0 to seeds - 1, the same for all arms.
    """

    best: int = 1
    seeds: int = 5


@dataclass(frozen=True)
class Sweep:
    """One search.

    Attributes:
        path: the file.
        name: of the sweep: its folder below OUT and its W&B group.
        question: what is asked, in one sentence.
        base: configuration files that all trials share.
        space: what is searched.
        objectives: one, or several for a Pareto front.
        sampler: {"name", ...}, see `SAMPLERS`.
        pruner: {"name", ...}, see `PRUNERS`.
        budget: when the search ends.
        seeds: runs of a trial, whose mean counts; their seeds follow from the trial's parameters.
        baselines: by arm, overlays over the base, or the folder of finished runs (OUT/NAME/ARM or OUT/NAME/ARM/seedK).
        retrain: the comparison after the search.
        mode, weights, threads, make, margin, metrics, trial, notes, tags: as in a manifest.
        endpoint: metric of the test split that decides the comparison.
    """

    path: Path
    name: str
    question: str
    base: tuple[Path, ...]
    space: Space
    objectives: tuple[Objective, ...]
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    budget: Budget
    seeds: int = 1
    baselines: Mapping[str, tuple[Overlay, ...] | Path] = field(default_factory=dict)
    retrain: Retrain = field(default_factory=Retrain)
    mode: str = "frozen"
    weights: Path | None = None
    threads: int = 1
    make: Mapping[str, Any] | None = None
    endpoint: str = "pck@0.1[clip]"
    margin: float = 0.005
    metrics: tuple[str, ...] = ()
    trial: bool = False
    notes: str = ""
    tags: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for reports: sweep.json without what the search has found."""
        return {
            "name": self.name,
            "question": self.question,
            "space": self.space.plain(),
            "objectives": [{"metric": o.metric, "maximize": o.maximize} for o in self.objectives],
            "sampler": dict(self.sampler),
            "pruner": dict(self.pruner),
            "budget": {"trials": self.budget.trials, "hours": self.budget.hours},
            "seeds": self.seeds,
            "baselines": list(self.baselines),
            "retrain": {"best": self.retrain.best, "seeds": self.retrain.seeds},
            "endpoint": self.endpoint,
            "margin": self.margin,
            "metrics": list(self.metrics),
            "mode": self.mode,
            "threads": self.threads,
            "trial": self.trial,
            "notes": self.notes,
            "tags": list(self.tags),
        }


def load_sweep(path: Path) -> Sweep:
    """Reads and checks a sweep's file; file names in it are relative to it.

    Raises:
        BiposeError: one line with the file, what is wrong and what is meant.
    """
    path = Path(path)
    data = read_mapping(path, "sweep", MAIN, "question, base, space, objective and budget")
    try:
        return _Reader(path, data).sweep()
    except BiposeError as error:
        raise BiposeError(f"{path}: {error}") from error


class _Reader(SpaceFields):
    """Takes a sweep's mapping apart."""

    def __init__(self, path: Path, data: Mapping[Any, Any]) -> None:
        super().__init__(path, data)
        if "space" not in data and {"arms", "axes"} & set(data):
            raise BiposeError(f"this is an ablation's manifest, not a sweep: run it by 'bipose ablate {path}'")
        if "space" not in data and CONFIGURATION & set(data):
            raise BiposeError(f"this is a configuration, not a sweep: train with it by 'bipose fit -c {path}'")
        self.only([f.name for f in fields(Sweep) if f.name != "path"] + ["objective", "maximize"])

    def sweep(self) -> Sweep:
        space = self.space()
        objectives = self.objectives()
        sampler = self.tool("sampler", SAMPLERS, "tpe")
        pruner = self.tool("pruner", PRUNERS, "none")
        if pruner["name"] != "none" and len(objectives) > 1:
            raise BiposeError(
                "pruner: trials with several objectives cannot be pruned (Optuna has no rule for it); say pruner: none"
            )
        if pruner["name"] != "none" and objectives[0].outside:
            raise BiposeError(
                f"pruner: {objectives[0].metric} is known only when a run has ended; prune by a metric or say pruner: none"
            )
        if sampler["name"] == "nsga2" and len(objectives) == 1:
            raise BiposeError("sampler: nsga2 is for several objectives; use tpe, gp or random for one")
        if sampler["name"] == "grid" and (endless := space.endless()):
            raise BiposeError(
                f"sampler: a grid needs single values, and {endless[0]} is a continuous range; give it choices or a step"
            )
        first = objectives[0].metric
        seeds = self.take("seeds", int, 1)
        if not 1 <= seeds <= 100:
            raise BiposeError(f"seeds is the number of runs of each trial, 1 to 100, not {seeds}")
        weights = self.data.get("weights")
        return Sweep(
            path=self.path,
            name=self.name(),
            question=self.take("question", str),
            base=tuple(self.file(f, "base") for f in self.strings("base", required=True)),
            space=space,
            objectives=objectives,
            sampler=sampler,
            pruner=pruner,
            budget=self.budget(sampler["name"] == "grid"),
            seeds=seeds,
            baselines=self.baselines(),
            retrain=self.retrain(),
            mode=self.one_of("mode", MODES),
            weights=None if weights is None else self.file(weights, "weights"),
            threads=self.threads(),
            make=self.make(),
            endpoint=self.take(
                "endpoint", str, "pck@0.1[clip]" if objectives[0].outside else first.removeprefix("val/")
            ),
            margin=self.margin(),
            metrics=self.strings("metrics"),
            trial=self.take("trial", bool, False),
            notes=self.take("notes", str, ""),
            tags=self.strings("tags"),
        )

    def objectives(self) -> tuple[Objective, ...]:
        if ("objective" in self.data) == ("objectives" in self.data):
            raise BiposeError(
                "give either objective (a metric) with maximize, or objectives, a list of {metric, maximize}"
            )
        if "objective" in self.data:
            return (self.objective(self.take("objective", str), self.take("maximize", bool, True)),)
        if "maximize" in self.data:
            raise BiposeError("maximize belongs to objective; each of the objectives has its own")
        value = self.data["objectives"]
        if not isinstance(value, list) or not value:
            raise BiposeError(f"objectives must be a list of {{metric, maximize}}, not {value!r}")
        found = []
        for item in value:
            if (
                not isinstance(item, Mapping)
                or set(item) - {"metric", "maximize"}
                or not isinstance(item.get("metric"), str)
            ):
                raise BiposeError(f"objectives: each is {{metric: NAME, maximize: true or false}}, not {item!r}")
            maximize = item.get("maximize", True)
            if not isinstance(maximize, bool):
                raise BiposeError(f"objectives: maximize of {item['metric']} must be true or false, not {maximize!r}")
            found.append(self.objective(item["metric"], maximize))
        if len({o.metric for o in found}) < len(found):
            raise BiposeError("objectives: one metric is named twice")
        return tuple(found)

    @staticmethod
    def objective(metric: str, maximize: bool) -> Objective:
        head, slash, rest = metric.partition("/")
        if head in ("test", "train") and slash:
            raise BiposeError(
                f"objective {metric}: a search sees the validation split alone; name the metric without a split"
            )
        if head in OUTSIDE and not rest:
            raise BiposeError(f"objective {metric}: say which, e.g. facts/flops_per_frame or measured/ms_per_frame")
        return Objective(metric, maximize)

    def tool(self, key: str, known: Mapping[str, tuple[str, ...]], default: str) -> dict[str, Any]:
        value = self.data.get(key, default)
        given: Any = {"name": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            raise BiposeError(
                f"{key} must be a name or {{name: ..., options}}, one of {', '.join(known)}, not {value!r}"
            )
        name = given["name"]
        if name not in known:
            raise BiposeError(f"{key}: there is no '{name}'{close(name, known)}; it is one of: {', '.join(known)}")
        for option, number in given.items():
            if option == "name":
                continue
            if option not in known[name]:
                raise BiposeError(
                    f"{key}: {name} has no option '{option}'{close(str(option), known[name])}; "
                    f"it has: {', '.join(known[name]) or 'none'}"
                )
            if option == "p":
                if not is_number(number) or not 0 < number < 1:
                    raise BiposeError(f"{key}: p must be between 0 and 1, not {number!r}")
            elif isinstance(number, bool) or not isinstance(number, int) or number < SMALLEST.get(option, 0):
                least = SMALLEST.get(option, 0)
                raise BiposeError(f"{key}: {option} must be a whole number, {least} or more, not {number!r}")
        if given.get("max", math.inf) < given.get("min", 0):
            raise BiposeError(f"{key}: max must not be below min, and {given['max']} is below {given['min']}")
        return dict(given)

    def budget(self, grid: bool) -> Budget:
        value = self.data.get("budget")
        if value is None and grid:
            return Budget()
        if not isinstance(value, Mapping) or not value or set(value) - {"trials", "hours"}:
            raise BiposeError(f"budget must be {{trials: N}}, {{hours: H}} or both, not {value!r}")
        trials, hours = value.get("trials"), value.get("hours")
        if trials is not None and (type(trials) is not int or trials < 1):
            raise BiposeError(f"budget: trials must be a whole number above 0, not {trials!r}")
        if hours is not None and (not is_number(hours) or hours <= 0):
            raise BiposeError(f"budget: hours must be a number above 0, not {hours!r}")
        return Budget(trials, None if hours is None else float(hours))

    def retrain(self) -> Retrain:
        value = self.data.get("retrain", {})
        if not isinstance(value, Mapping) or set(value) - {"best", "seeds"}:
            raise BiposeError(f"retrain must be {{best: K, seeds: N}}, not {value!r}")
        best, seeds = value.get("best", 1), value.get("seeds", 5)
        if type(best) is not int or best < 0:
            raise BiposeError(f"retrain: best must be a number of trials (0: none), not {best!r}")
        if type(seeds) is not int or not 1 <= seeds <= FIRST_SEED:
            raise BiposeError(f"retrain: seeds must be a number of seeds, not {seeds!r}")
        if best == 0 and self.data.get("baselines"):
            raise BiposeError(
                "retrain: best: 0 leaves nothing to set beside the baselines; say best: 1, or remove them"
            )
        return Retrain(best, seeds)

    def baselines(self) -> dict[str, tuple[Overlay, ...] | Path]:
        value = self.data.get("baselines")
        if value is None or value == {}:
            return {}
        if not isinstance(value, Mapping):
            raise BiposeError(
                f"baselines must map names to configuration files or folders of finished runs, not {value!r}"
            )
        found: dict[str, tuple[Overlay, ...] | Path] = {}
        for name, overlay in value.items():
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise BiposeError(f"baselines: the name {name!r} must consist of letters, digits and _ . + -")
            if name in RESERVED or (name.startswith("best") and name[4:].isdigit()):
                raise BiposeError(f"baselines: the name '{name}' is reserved; choose another")
            folder = (self.path.parent / overlay).resolve() if isinstance(overlay, str) else None
            found[name] = (
                folder if folder is not None and folder.is_dir() else self.overlays(overlay, f"baselines.{name}")
            )
        return found


__all__ = ["Budget", "Objective", "Retrain", "Sweep", "load_sweep"]
