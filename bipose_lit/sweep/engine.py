"""`bipose sweep`: checks the space, searches it with many workers, trains the best anew beside the baselines, reports.

Like an ablation's, this process only imports, reads files and forks. Kill it at any moment, or any worker, and start the same
command again: finished trials stay, the others go on from their checkpoints.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bipose_lit.ablation.backend import Backend
from bipose_lit.ablation.devices import check_names
from bipose_lit.ablation.engine import Engine
from bipose_lit.ablation.keys import data_key, shared_key
from bipose_lit.ablation.plan import Plan
from bipose_lit.ablation.pool import Pool
from bipose_lit.ablation.process import Channel, Pending, call, redirect
from bipose_lit.ablation.progress import Progress
from bipose_lit.ablation.queue import PLACE
from bipose_lit.ablation.runner import COMMAND, Runner
from bipose_lit.ablation.start import QUEUE, Start, crew, make_data, parse_options, starting, tell_results
from bipose_lit.ablation.storage import was_opened
from bipose_lit.store import SPEC, RunResult, RunSpec, folder_mark
from bipose_lit.sweep.check import check_space
from bipose_lit.sweep.compare import Baselines, comparison
from bipose_lit.sweep.judge import STORAGE, make_judge
from bipose_lit.sweep.manifest import load_sweep
from bipose_lit.sweep.overview import show_plan
from bipose_lit.sweep.plan import SweepPlan
from bipose_lit.sweep.record import SWEEP, found_before, importances, ranked, write_sweep, write_trials
from bipose_lit.sweep.study import Entry, forget
from bipose_lit.sweep.tools import warm
from bipose_lit.sweep.turn import Search
from bipose_lit.types import BiposeError


def sweep(
    manifest: Path,
    *,
    workers: int | None = None,
    storage: str | None = None,
    out: Path = Path("runs"),
    plan_only: bool = False,
    options: Sequence[str] = (),
    wandb: bool = True,
    fresh: bool = False,
    retry: bool = False,
    devices: str | None = None,
    trials: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> int:
    """Runs or resumes a search, then compares its best with the baselines and reports.

    Args:
        manifest: the sweep's file.
        workers: trials side by side; default: as many as the cores (or GPUs) carry.
        storage: of the study: a journal file or an SQLAlchemy URL; default: OUT/NAME/queue.journal. Several machines that see
            the same OUT share the work when each is given the same.
        out: folder of all sweeps and ablations.
        plan_only: print the plan and end.
        options: "KEY=VALUE", dotted options over every run.
        wandb: mirror the results to W&B.
        fresh: forget what was searched under this name and begin anew.
        retry: run failed trials again; without it they stay as they are and count as tried.
        devices: GPUs to share out: "auto", "cpu", a number, or a list such as "0,2"; default: all.
        trials: instead of the sweep's budget in trials.
        backend: the suite's functions.
        progress: the display.

    Returns:
        0 if the search found something and all runs after it are finished (trials may fail: that is told); 1 if no trial
        finished or a run of the comparison failed; 128 + the signal's number if interrupted.

    Raises:
        BiposeError: the sweep, a configuration, the data or the storage is not usable.
    """
    with starting(replace(backend or Backend(), judge=make_judge), progress) as start:
        asked = load_sweep(manifest)
        if trials is not None:
            asked = replace(asked, budget=replace(asked.budget, trials=trials))
        settings = parse_options(options)
        start.load(out, storage)
        warm(asked.sampler["name"], asked.pruner["name"], storage or "")
        start.progress.phase("checking the space")
        plan = SweepPlan(asked, out, start.backend.resolve, settings)
        check_space(plan)
        engine = SweepEngine(plan, start, storage, workers, devices)
        start.code = engine.show_plan() if plan_only else engine.run(wandb, fresh, retry)
    return start.code


class SweepEngine:
    """One start of a sweep in the parent process."""

    def __init__(
        self, plan: SweepPlan, start: Start, storage: str | None, workers: int | None, devices: str | None = None
    ) -> None:
        self.plan, self.backend, self.progress = plan, start.backend, start.progress
        self.base = plan.config({})
        self.baselines = Baselines(plan)
        self.overlaid: dict[str, dict[str, Any]] = {}
        if plan.sweep.baselines:  # every mistake in a configuration is told before anything starts
            arms = Plan(plan.manifest(self.baselines.arms(), (0,)), plan.out, plan.resolve, options=plan.options)
            self.overlaid = self.baselines.overlaid(arms)
            if unequal := self.baselines.unequal():
                self.progress.line(
                    f"bipose: warning: the space searches {', '.join(unequal)}: the best trials may have another training budget "
                    "than the baselines"
                )
        least, most = plan.sweep.pruner.get("min", 0), int((self.base.get("trainer") or {}).get("max_steps") or -1)
        if 0 < most < least and "trainer.max_steps" not in plan.sweep.space.entries:
            raise BiposeError(f"{plan.sweep.path}: pruner: min is {least} steps, and runs have {most}; lower it")
        address = storage or str(plan.folder / QUEUE)
        address = address if "://" in address else os.path.abspath(address)
        os.environ[STORAGE] = address  # runs inherit it; their files do not name it in full, as it may hold a password
        check_names(self.overlaid.values(), devices)
        self.crew = crew([self.base], plan.sweep.threads, devices, workers, None, self.progress)
        frozen = plan.sweep.mode == "frozen"
        self.runner = Runner(
            plan.folder, self.backend, start.scratch, frozen, self.crew.devices, COMMAND, self.crew.each
        )
        self.search = Search(plan, self.runner, address)
        self.compare = partial(Engine, start=start, storage=storage, workers=self.crew.workers, devices=devices)

    def run(self, wandb: bool, fresh: bool, retry: bool = False) -> int:
        """Everything, in order."""
        plan = self.plan
        make_data(self.backend, plan.sweep.make, self.base, self.crew.asked, self.progress)
        plan.folder.mkdir(parents=True, exist_ok=True)
        gc.collect()
        gc.freeze()  # children share the parent's memory until they write to it; so the collector must not
        self.progress.phase("looking at what is finished")
        if fresh:
            call(self._forget, self.progress.watch)
        self.check_data(call(partial(self._fingerprint, self.base), self.progress.watch))
        done = call(lambda channel: self._begin(retry), self.progress.watch)
        was_opened(self.search.storage)
        self.prepare()
        self.progress.endpoint = plan.sweep.objectives[0].metric
        self.progress.start_runs(len(done), self.total(), self.crew.workers, done)
        Pool(self.search, self.crew.workers, self.progress).work_off()
        entries = self.entries()
        if not ranked(plan.sweep, entries):
            return self.nothing(entries)
        return self.finish(entries, wandb)

    def total(self) -> int:
        """Trials of the whole search; 0 where only the hours tell."""
        most = min(self.plan.sweep.budget.trials or math.inf, self.plan.sweep.space.count())
        return 0 if math.isinf(most) else int(most)

    def entries(self) -> list[Entry]:
        """All trials of the study, read by a process of its own."""
        found = call(self._entries, self.progress.watch)
        return [
            Entry(
                **{
                    **e,
                    "values": tuple(e["values"]),
                    "intermediate": {int(step): value for step, value in e["intermediate"].items()},
                    "span": tuple(e["span"]),
                }
            )
            for e in found
        ]

    def _entries(self, channel: Channel) -> list[dict[str, Any]]:
        with self.search.study() as study:
            return [vars(e) for e in study.entries()]

    def _forget(self, channel: Channel) -> None:
        forget(self.search.storage, self.plan.sweep, self.search.lock("queue"))
        for path in [self.plan.folder / "trials", *self.plan.folder.glob("best*")]:
            shutil.rmtree(path, ignore_errors=True)
        (self.plan.folder / SWEEP).unlink(missing_ok=True)

    def _begin(self, retry: bool) -> list[float]:
        """Opens the study, refuses one of another search; seconds of the trials that have ended."""
        with self.search.study() as study:
            study.claim({**self.plan.identity(), PLACE: folder_mark(self.plan.folder)})
            if retry:
                study.retry()
            entries = study.entries()
            write_trials(self.plan, entries)
            write_sweep(self.plan, *found_before(self.plan.folder))  # until this search has found its own
            ended = [e for e in entries if e.state != "running" and e.twin is None]
            return [float(e.attributes.get("seconds", 0.0)) for e in ended]

    def _fingerprint(self, config: dict[str, Any], channel: Channel) -> str:
        return self.backend.fingerprint(config)

    def check_data(self, fingerprint: str) -> None:
        """What was made before must have been made from the data that are there now.

        Raises:
            BiposeError: a trial or a baseline was not.
        """
        self.baselines.check_data(fingerprint)
        here = data_key(self.base)
        for name, config in self.overlaid.items():
            if (
                data_key(config) != here
                and call(partial(self._fingerprint, config), self.progress.watch) != fingerprint
            ):
                raise BiposeError(
                    f"{self.plan.sweep.path}: baselines: {name} reads other data or boxes than the base; take them out of the "
                    "baseline, or put them into the base for all"
                )
        for path in sorted((self.plan.folder / "trials").glob("*/seed*")):
            result = RunResult.load(path)
            if result is None or not result.data_fingerprint or data_key(RunSpec.load(path / SPEC).config) != here:
                continue  # a space may range over data
            if result.data_fingerprint != fingerprint:
                raise BiposeError(
                    f"{path} was made from other data: files have changed since; give another --out, or --fresh to begin anew"
                )
            return

    def prepare(self) -> None:
        """Builds the features that trials share; a mistake ends the sweep here, not in every trial."""
        plan = self.plan
        if plan.sweep.mode != "frozen":
            return
        self.progress.phase("features")
        specs = {shared_key(spec.config): spec for spec in map(self._first, _first_points(plan))}

        def body(channel: Channel) -> None:
            redirect(plan.folder / "prepare.log")
            for key, spec in specs.items():
                self.runner.prepare_once(replace(spec, folder=plan.folder / ".prepare" / key), 0, channel)

        call(body, self.progress.watch)

    def _first(self, point: Mapping[str, Any]) -> Any:
        return self.plan.runs(0, point)[0]

    def nothing(self, entries: Sequence[Entry]) -> int:
        """No trial finished: says why."""
        self.progress.close()
        self._failures(entries)
        states = ", ".join(f"{sum(e.state == s for e in entries)} {s}" for s in ("failed", "pruned", "running"))
        print(
            f"bipose: error: no trial of {self.plan.sweep.name} has finished ({states}); mend what is wrong, then start "
            "with --retry, or with --fresh if the search itself changes",
            file=sys.stderr,
        )
        return 1

    def finish(self, entries: Sequence[Entry], wandb: bool) -> int:
        """Trains the best anew beside the baselines, and reports; or reports the search alone."""
        plan = self.plan
        shares = call(self._importances, self.progress.watch)
        if plan.sweep.retrain.best:
            manifest, best = comparison(plan, self.baselines, entries)
            write_sweep(plan, best, shares)
            # `fresh`: a longer search may have found others, whose runs then take the place of those before.
            compared = Plan(manifest, plan.out, plan.resolve, options=plan.options, fresh=True)
            self.baselines.take_over(compared)
            code = self.compare(compared).run(wandb)
        else:
            write_sweep(plan, {}, shares)
            code = self.report(wandb)
        self._failures(entries)
        return code

    def _importances(self, channel: Channel) -> dict[str, Any]:
        with self.search.study() as study:
            return importances(study)

    def report(self, wandb: bool) -> int:
        """The report of a search without a comparison."""
        mirroring = Pending(self._mirror) if wandb else None
        try:
            report = self._report if self.backend.report is not None else None
            problem = tell_results(report, mirroring, self.progress)
        finally:
            if mirroring is not None:
                mirroring.stop()
        if problem:
            print(f"bipose: error: report: {problem}", file=sys.stderr)
        return 1 if problem else 0

    def _mirror(self, channel: Channel) -> int:
        redirect(self.plan.folder / "wandb.log")
        return self.backend.mirror(self.plan.folder, self.plan.sweep.tags)

    def _report(self, channel: Channel) -> str:
        assert self.backend.report is not None
        return self.backend.report(self.plan.folder, self.plan.sweep.as_dict(), self.base).rstrip()

    @staticmethod
    def _failures(entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.state == "failed" and entry.twin is None:
                print(f"bipose: failed: {entry.key}: {entry.error}", file=sys.stderr)

    def show_plan(self) -> int:
        """Prints what would be searched, and what it would take."""
        self.progress.phase("planning")
        show_plan(
            self.search, self.baselines, self.crew.workers, self.total(), self.progress.watch, self.progress.close
        )
        return 0


def _first_points(plan: SweepPlan) -> list[dict[str, Any]]:
    """A point of every branch: what may need features of its own and is known beforehand."""
    space = plan.sweep.space
    deciding = tuple(n for n, e in space.entries.items() if hasattr(e, "overlays"))
    return list(space.branches(deciding))[:64] if deciding else [{}]


__all__ = ["SweepEngine", "sweep"]
