"""After the search: the best trials trained anew on fresh seeds, beside the baselines, as an ordinary ablation.

The best of many trials is partly the luckiest; only runs that the search has not seen tell by how much.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bipose_lit.ablation.fields import Overlay
from bipose_lit.ablation.manifest import Manifest
from bipose_lit.ablation.plan import Plan
from bipose_lit.store import CONFIG, HISTORY, RESULT, SPEC, WEIGHTS, RunResult, RunSpec
from bipose_lit.sweep.plan import SweepPlan, read_overlay
from bipose_lit.sweep.record import ranked
from bipose_lit.sweep.space import Branch
from bipose_lit.sweep.study import Entry
from bipose_lit.types import BiposeError

BUDGET = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time", "data.batch_size", "data.clips.length")
"""Options that say how much a run learns from."""
OF_THE_PLACE = {
    "data": ("reader", "train_reader", "cache", "seed", "num_workers", "pin_memory"),
    "trainer": (
        "default_root_dir", "logger", "enable_progress_bar", "enable_model_summary", "log_every_n_steps", "accelerator",
        "strategy", "devices", "num_nodes",
    ),
}  # fmt: skip
"""What a finished run's configuration says of places, displays and machines: the sweep's own stand for it. The data are
compared by their fingerprint."""


@dataclass(frozen=True)
class Finished:
    """Finished runs of one arm, made elsewhere.

    Attributes:
        folder: where they are.
        runs: specification and result by seed; one configuration but for the seed.
    """

    folder: Path
    runs: Mapping[int, tuple[RunSpec, RunResult]]

    @property
    def config(self) -> dict[str, Any]:
        return next(iter(self.runs.values()))[0].config

    @property
    def fingerprint(self) -> str:
        return next(iter(self.runs.values()))[1].data_fingerprint


def load_finished(folder: Path, name: str) -> Finished:
    """The finished runs in OUT/NAME/ARM, or the one in OUT/NAME/ARM/seedK.

    Raises:
        BiposeError: there is none.
    """
    folders = [folder] if (folder / SPEC).is_file() else sorted(folder.glob("seed*"))
    runs: dict[int, tuple[RunSpec, RunResult]] = {}
    for each in folders:
        result = RunResult.load(each)
        if result is not None and result.status == "finished":
            runs[result.seed] = (RunSpec.load(each / SPEC), result)
    if not runs:
        raise BiposeError(
            f"baselines: {name}: {folder} holds no finished run; give a configuration file, or the folder OUT/NAME/ARM of some"
        )
    return Finished(folder, runs)


class Baselines:
    """What the best trials are compared with.

    Args:
        plan: the sweep.

    Raises:
        BiposeError: a folder holds no finished run, or runs of another training budget.
    """

    def __init__(self, plan: SweepPlan) -> None:
        self.plan = plan
        given = plan.sweep.baselines
        try:
            self.finished = {n: load_finished(v, n) for n, v in given.items() if isinstance(v, Path)}
            for name, finished in self.finished.items():
                self._same_budget(name, finished)
        except BiposeError as error:
            raise BiposeError(f"{plan.sweep.path}: {error}") from error

    def arms(self) -> dict[str, tuple[Overlay, ...]]:
        """Overlays by arm, in the order of the sweep's file."""
        given = self.plan.sweep.baselines
        return {n: (_settings(self.finished[n].config),) if isinstance(v, Path) else v for n, v in given.items()}

    def overlaid(self, arms: Plan) -> dict[str, dict[str, Any]]:
        """Configurations of the baselines that are given as files, by arm.

        Args:
            arms: the plan of `arms`.

        Raises:
            BiposeError: one trains longer, or on more, than the base.
        """
        own = self.plan.config({})
        found = {name: arms.config(name, {}) for name in self.plan.sweep.baselines if name not in self.finished}
        for name, config in found.items():
            for option in BUDGET:
                ours, theirs = _at(own, option), _at(config, option)
                if ours != theirs:
                    raise BiposeError(
                        f"{self.plan.sweep.path}: baselines: {name} has another training budget than the base ({option}: "
                        f"{theirs}, here {ours}); take it out of the baseline, or put it into the base for all"
                    )
        return found

    def unequal(self) -> list[str]:
        """Options of the training budget that the space searches: there the best trials may differ from the baselines."""
        entries = self.plan.sweep.space.entries.values()
        laid = [
            read_overlay(o) for e in entries if isinstance(e, Branch) for group in e.overlays.values() for o in group
        ]
        return [
            o for o in BUDGET if o in self.plan.sweep.space.entries or any(_at(each, o) is not None for each in laid)
        ]

    def check_data(self, fingerprint: str) -> None:
        """Refuses finished runs on other data or boxes.

        Raises:
            BiposeError: says which.
        """
        for name, finished in self.finished.items():
            if finished.fingerprint and fingerprint and finished.fingerprint != fingerprint:
                raise BiposeError(
                    f"{self.plan.sweep.path}: baselines: {name}: {finished.folder} was made on other data or boxes than the "
                    "sweep's; give its configuration as a file instead, so that it is trained anew on these"
                )

    def _same_budget(self, name: str, finished: Finished) -> None:
        own = self.plan.config({})
        searched = self.plan.sweep.space.entries
        for option in BUDGET:
            ours, theirs = _at(own, option), _at(finished.config, option)
            if ours != theirs and option not in searched:
                raise BiposeError(
                    f"baselines: {name}: {finished.folder} had another training budget ({option}: {theirs}, here {ours}); give "
                    "its configuration as a file instead, so that it is trained anew with this one"
                )

    def take_over(self, plan: Plan) -> int:
        """Copies finished runs whose configuration and seed are asked for; the others are run anew.

        Returns:
            How many were copied.
        """
        count = 0
        for name, finished in self.finished.items():
            for task in [t for t in plan.tasks.values() if t.of == name and t.seed in finished.runs]:
                spec = plan.bind(task)
                before, result = finished.runs[task.seed]
                same = spec is not None and spec.config_hash == result.config_hash
                if spec is None or not same or (spec.folder / RESULT).exists():
                    continue
                _copy(before.folder if before.folder.is_dir() else finished.folder / f"seed{task.seed}", spec, result)
                count += 1
        return count


def comparison(plan: SweepPlan, baselines: Baselines, entries: Sequence[Entry]) -> tuple[Manifest, dict[str, int]]:
    """The ablation after the search, and the trial behind each of its best arms.

    Every best arm is compared with every baseline; without baselines, with what the base is without any of the space.
    """
    chosen = ranked(plan.sweep, entries)[: plan.sweep.retrain.best]
    best = {f"best{rank}": entry for rank, entry in enumerate(chosen, 1)}
    arms = baselines.arms()
    named = list(arms)
    for arm, entry in best.items():
        assert entry.point is not None, "a finished trial has a point"
        arms[arm] = plan.overlays(entry.point)
    manifest = plan.manifest(
        arms,
        range(plan.sweep.retrain.seeds),
        baseline=named[0] if named else next(iter(arms)),
        contrasts=tuple((b, a) for b in best for a in named),
    )
    return manifest, {arm: entry.number for arm, entry in best.items()}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A finished run's configuration as an overlay."""
    found: dict[str, Any] = {}
    for group in ("model", "data", "trainer"):
        values = config.get(group)
        if isinstance(values, Mapping):
            found[group] = {k: v for k, v in values.items() if k not in OF_THE_PLACE.get(group, ())}
    return found


def _at(config: Mapping[str, Any], option: str) -> Any:
    value: Any = config
    for part in option.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _copy(folder: Path, spec: RunSpec, result: RunResult) -> None:
    """Puts a finished run into its new place; the result comes last, so that half a copy is no run."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, HISTORY, WEIGHTS, *result.predictions.values()):
        if (folder / name).is_file():
            shutil.copy2(folder / name, spec.folder / name)
    spec.save()
    moved = replace(result, name=spec.name, arm=spec.arm, facts={**result.facts, "taken_from": str(folder)})
    moved.save(spec.folder)
