"""Optuna's samplers and pruners, made from a sweep's words."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

optuna.logging.set_verbosity(optuna.logging.ERROR)

STARTUP = 10
"""Random trials before a model of the objective is trusted, unless the sweep says otherwise."""


HEAVY: Mapping[str, tuple[str, ...]] = {
    "gp": ("torch", "scipy.optimize", "scipy.stats", "optuna._gp.gp"),
    "wilcoxon": ("scipy.stats",),
    "tpe": ("optuna.samplers._tpe.parzen_estimator",),
    "://": (
        "sqlalchemy.orm",
        "sqlalchemy.dialects.sqlite",
        "alembic.command",
        "alembic.config",
        "alembic.script",
        "psycopg",
    ),
}
"""Modules that Optuna imports when it first needs them: a second for each process that is forked before that."""


def warm(*words: str) -> None:
    """Imports what samplers, pruners and storages of these names (or addresses) will need; does nothing else."""
    for key, modules in HEAVY.items():
        if any(key in word for word in words):
            for module in modules:
                with contextlib.suppress(ImportError):  # what is missing is told when it is used
                    importlib.import_module(module)


def make_sampler(tool: Mapping[str, Any], number: int) -> BaseSampler:
    """The sampler of one trial.

    Every trial is drawn by a process of its own, so the seed follows from the sweep's and from how many trials there are: a
    search by one worker is the same however often it was stopped. Grids are walked through by the study itself.

    Args:
        tool: {"name", ...} of `manifest.SAMPLERS`.
        number: of trials in the study.
    """
    name = tool["name"]
    digest = hashlib.sha256(f"{tool.get('seed', 0)} {number}".encode()).hexdigest()
    seed = int(digest[:8], 16) % 2**31
    startup = int(tool.get("startup", STARTUP))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is new in Optuna is announced as experimental
        if (
            name == "tpe"
        ):  # `group`: parameters that exist together are drawn together, also where a condition hides others
            return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True)
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        if name == "nsga2":
            return NSGAIISampler(seed=seed, population_size=max(2, int(tool.get("population", 20))))
        return RandomSampler(seed=seed)


def make_pruner(tool: Mapping[str, Any]) -> BasePruner:
    """The pruner of a trial.

    Args:
        tool: {"name", ...} of `manifest.PRUNERS`, for Hyperband completed by `complete`.
    """
    name = tool["name"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "median":
            return MedianPruner(n_startup_trials=int(tool.get("startup", 5)), n_warmup_steps=int(tool.get("warmup", 0)))
        if name == "hyperband":
            return HyperbandPruner(
                min_resource=max(1, int(tool.get("min", 1))),
                max_resource=int(tool["max"]) if tool.get("max") else "auto",
                reduction_factor=int(tool.get("factor", 3)),
            )
        if name == "wilcoxon":
            return WilcoxonPruner(p_threshold=float(tool.get("p", 0.1)), n_startup_steps=int(tool.get("startup", 2)))
        return NopPruner()


def complete(tool: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A pruner's words with what follows from the runs: Hyperband's steps, from the first validation to the last step."""
    found = dict(tool)
    if found["name"] != "hyperband":
        return found
    trainer = config.get("trainer") or {}
    steps, every = trainer.get("max_steps"), trainer.get("val_check_interval")
    if type(steps) is int and steps > 0:
        found.setdefault("max", steps)
        found.setdefault("min", every if type(every) is int and 0 < every <= steps else max(1, steps // 9))
        found["min"] = min(found["min"], found["max"])  # where runs differ in length, the shortest have one rung
    return found
