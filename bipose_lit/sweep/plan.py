"""From a point of the space to runs: they are arms of a manifest, as what is trained anew later is, with the same settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bipose_lit.ablation.fields import Overlay
from bipose_lit.ablation.manifest import Manifest
from bipose_lit.ablation.plan import WEIGHTS_OPTION, Plan, Resolve
from bipose_lit.ablation.text import read_yaml
from bipose_lit.store import RunSpec, config_hash
from bipose_lit.sweep.manifest import Sweep
from bipose_lit.sweep.space import layers, seeds_of
from bipose_lit.sweep.study import trial_key
from bipose_lit.types import BiposeError

SEEDS = ("seed_everything", "data.seed")
BASE = "base"
"""The arm that a sweep without baselines is planned by: the base alone."""


class SweepPlan:
    """A sweep over the files that it names. Reading it touches files only; no tensor is made.

    Args:
        sweep: what is searched.
        out: folder of all sweeps and ablations.
        resolve: files and dotted options to a complete configuration.
        options: dotted options over every run.

    Raises:
        BiposeError: an option is searched and set at once, or is not for searching.
    """

    def __init__(self, sweep: Sweep, out: Path, resolve: Resolve, options: Mapping[str, Any] | None = None) -> None:
        self.sweep, self.out, self.resolve, self.options = sweep, out.resolve(), resolve, dict(options or {})
        self.folder = self.out / sweep.name
        for option in self.options:
            for name in sweep.space.entries:
                if option == name or option.startswith(f"{name}.") or name.startswith(f"{option}."):
                    raise BiposeError(
                        f"--set {option}: {sweep.path} searches {'it' if option == name else name}; take it out of the "
                        "space, or do not set it"
                    )
        for name in sweep.space.entries:
            if name in SEEDS:
                raise BiposeError(
                    f"{sweep.path}: space: {name}: seeds of trials follow from their parameters; give each trial several "
                    "by 'seeds: N'"
                )
        if WEIGHTS_OPTION in sweep.space.entries and sweep.weights is not None:
            raise BiposeError(
                f"{sweep.path}: space: {WEIGHTS_OPTION}: 'weights' of the file gives it to every run; remove one of the two"
            )

    def overlays(self, point: Mapping[str, Any]) -> tuple[Overlay, ...]:
        """What a point lays over the base."""
        space = self.sweep.space
        return (*space.overlays(point), *layers(space.options(point)))

    def manifest(self, arms: Mapping[str, tuple[Overlay, ...]], seeds: Sequence[int], **changes: Any) -> Manifest:
        """A manifest over the sweep's base."""
        s = self.sweep
        found = Manifest(
            path=s.path,
            name=s.name,
            question=s.question,
            base=s.base,
            arms=dict(arms),
            baseline=next(iter(arms)),
            seeds=tuple(seeds),
            endpoint=s.endpoint,
            margin=s.margin,
            mode=s.mode,
            weights=s.weights,
            threads=s.threads,
            make=s.make,
            metrics=s.metrics,
            trial=s.trial,
            notes=s.notes,
            tags=s.tags,
        )
        return replace(found, **changes)

    def runs(self, number: int, point: Mapping[str, Any]) -> list[RunSpec]:
        """The runs of a trial: one per seed, scored on the validation split alone.

        Raises:
            BiposeError: the configuration is wrong, or weights are missing.
        """
        arm = trial_key(number)
        plan = Plan(
            self.manifest({arm: self.overlays(point)}, seeds_of(point, self.sweep.seeds)),
            self.out,
            self.resolve,
            options=self.options,
        )
        specs: list[RunSpec] = []
        for task in plan.tasks.values():
            spec = plan.bind(task)
            assert spec is not None, "a trial needs no other run"
            specs.append(replace(spec, score=("val",), tags=(*spec.tags, "search")))
        return specs

    def config(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a point, without its seed.

        Raises:
            BiposeError: it is wrong.
        """
        return Plan(
            self.manifest({BASE: self.overlays(point)}, (0,)), self.out, self.resolve, options=self.options
        ).config(BASE, {})

    def identity(self) -> dict[str, Any]:
        """What a search is told apart by; the budget, sampler, pruner and baselines may change while it goes on."""
        s, base = self.sweep, self.config({})
        weights = (base.get("model") or {}).get("weights")
        found = _file_hash(Path(weights)) if weights and Path(weights).is_file() else str(weights)
        plain = {name: self._content(entry) for name, entry in s.space.plain().items()}
        return {
            "space": hash_of([plain, [read_overlay(o) for e in s.space.entries.values() for o in _all_overlays(e)]]),
            "objective": [f"{o.metric} {'up' if o.maximize else 'down'}" for o in s.objectives],
            "number of seeds per trial": s.seeds,
            "base configuration": config_hash({**base, "threads": s.threads}, {WEIGHTS_OPTION: ""}),
            "starting weights": found,
        }

    @staticmethod
    def _content(entry: Mapping[str, Any]) -> dict[str, Any]:
        """An entry without the places of its files, which may move."""
        return {k: sorted(v) if k == "overlays" else v for k, v in entry.items()}


def read_overlay(overlay: Overlay) -> Any:
    """What an overlay says."""
    return read_yaml(overlay.read_text()) if isinstance(overlay, Path) else dict(overlay)


def hash_of(value: Any) -> str:
    """sha256 (16 digits) of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _all_overlays(entry: Any) -> list[Overlay]:
    return [o for group in getattr(entry, "overlays", {}).values() for o in group]


def _file_hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]
