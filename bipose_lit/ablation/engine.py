"""`bipose ablate`: plans, makes what is missing, keeps workers busy until every run is done, then reports.

This process is the one that forks: it imports, reads files and draws, and nothing else. Making data, preparing features,
opening the queue and running are children's business. Kill it at any moment and start the same command again: finished
runs stay, the rest is done anew.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bipose_lit.ablation.backend import Backend
from bipose_lit.ablation.devices import check_names
from bipose_lit.ablation.keys import data_key, shared_key
from bipose_lit.ablation.manifest import load_manifest, read_seeds
from bipose_lit.ablation.overview import show_plan
from bipose_lit.ablation.plan import STAGE1, TUNE, Plan, check_arms, run_seconds
from bipose_lit.ablation.pool import Pool
from bipose_lit.ablation.process import Channel, Lock, Pending, call, redirect
from bipose_lit.ablation.progress import Progress
from bipose_lit.ablation.runner import COMMAND, Runner
from bipose_lit.ablation.start import QUEUE, Start, crew, make_data, parse_options, starting, tell_results
from bipose_lit.ablation.storage import was_opened
from bipose_lit.ablation.worker import Session, look
from bipose_lit.expected import landed
from bipose_lit.store import RunSpec, atomic
from bipose_lit.types import BiposeError

MANIFEST = "manifest.json"


def ablate(
    manifest: Path,
    *,
    workers: int | None = None,
    storage: str | None = None,
    out: Path = Path("runs"),
    plan_only: bool = False,
    seeds: Any = None,
    arms: Sequence[str] | None = None,
    options: Sequence[str] = (),
    wandb: bool = True,
    fresh: bool = False,
    devices: str | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> int:
    """Runs or resumes an ablation, then reports.

    Args:
        manifest: its file.
        workers: runs side by side; default: as many as the cores (or GPUs) carry.
        storage: the queue: a journal file or an SQLAlchemy URL; default: OUT/NAME/queue.journal. Several machines that see the
            same OUT share the work when each is given the same.
        out: folder of all ablations.
        plan_only: print the plan and end.
        seeds: instead of the manifest's: a count or a list.
        arms: only these.
        options: "KEY=VALUE", dotted options over every arm.
        wandb: mirror the results to W&B.
        fresh: repeat finished runs whose configuration has changed since.
        devices: GPUs to share out: "auto", "cpu", a number, or a list such as "0,2"; default: all.
        backend: the suite's functions.
        progress: the display.

    Returns:
        0 if all runs are finished, 1 if some failed, 128 + the signal's number if interrupted.

    Raises:
        BiposeError: the manifest, a configuration, the data or the queue is not usable.
    """
    with starting(backend or Backend(), progress) as start:
        asked = load_manifest(manifest)
        if seeds is not None:
            asked = replace(asked, seeds=read_seeds(seeds))
            if asked.tune is not None and asked.tune.seed in asked.seeds:
                raise BiposeError(f"--seeds: {asked.tune.seed} is the seed of the tuning; choose fresh ones")
        check_arms(asked, arms)
        settings = parse_options(options)
        start.load(out, storage)
        start.progress.phase("checking the configurations")
        plan = Plan(asked, out, start.backend.resolve, arms, settings, fresh)
        engine = Engine(plan, start, storage, workers, devices)
        start.code = engine.show_plan() if plan_only else engine.run(wandb)
    return start.code


class Engine:
    """One start of an ablation in the parent process."""

    def __init__(
        self, plan: Plan, start: Start, storage: str | None, workers: int | None, devices: str | None = None
    ) -> None:
        self.plan, self.backend, self.progress = plan, start.backend, start.progress
        owner = f"{os.uname().nodename}:{os.getpid()}:{Lock.start_of(os.getpid())}"
        configs = [plan.config(arm, {}) for arm in plan.arms]
        if plan.manifest.stage1 == "per_seed":
            check_names([plan.config(STAGE1, {})], devices)
        self.crew = crew(configs, plan.manifest.threads, devices, workers, len(plan.tasks), self.progress)
        frozen = plan.manifest.mode == "frozen"
        self.runner = Runner(
            plan.folder, self.backend, start.scratch, frozen, self.crew.devices, COMMAND, self.crew.each
        )
        self.session = Session(plan, self.runner, storage or str(plan.folder / QUEUE), owner)

    def run(self, wandb: bool) -> int:
        """Everything, in order."""
        plan = self.plan
        make_data(self.backend, plan.manifest.make, plan.config(plan.arms[0], {}), self.crew.asked, self.progress)
        todo = self.check()
        plan.folder.mkdir(parents=True, exist_ok=True)
        with atomic(plan.folder / MANIFEST) as handle:
            json.dump(plan.manifest.as_dict(), handle, indent=1)
            handle.write("\n")
        gc.collect()
        gc.freeze()  # children share the parent's memory until they write to it; so the collector must not
        if todo:
            self.progress.phase("opening the queue")
            failed = call(lambda channel: sorted(look(self.session)), self.progress.watch)
            self.session = replace(self.session, before=frozenset(failed))
            was_opened(self.session.storage)
            self.prepare()
            states = [plan.state(task) for task in plan.tasks.values()]
            done = [run_seconds(s.result) for s in states if s.name == "finished" and s.result is not None]
            self.progress.endpoint = plan.manifest.endpoint
            self.progress.start_runs(len(done), len(plan.tasks), self.crew.workers, done)
            Pool(self.session, self.crew.workers, self.progress).work_off()
        mirroring = self.mirror() if wandb else None
        try:
            return self.finish(mirroring)
        finally:
            if mirroring is not None:
                mirroring.stop()

    def check(self) -> bool:
        """Compares what is finished with what is asked for; whether anything is left to do."""
        plan = self.plan
        self.progress.phase("looking at what is finished")
        configs: dict[str, dict[str, Any]] = {}
        for task in plan.tasks.values():
            state = plan.state(task)
            if state.name in ("finished", "conflict"):
                spec = plan.bind(task)
                if spec is not None:
                    configs.setdefault(data_key(spec.config), spec.config)
        for key, config in configs.items():
            plan.fingerprints[key] = call(partial(self._fingerprint, config), self.progress.watch)
        plan.check()
        return any(plan.state(task).name != "finished" for task in plan.tasks.values())

    def _fingerprint(self, config: dict[str, Any], channel: Channel) -> str:
        return self.backend.fingerprint(config)

    def prepare(self) -> None:
        """Builds the features of all runs that can start now; a mistake ends the ablation here, not in every run."""
        plan = self.plan
        specs: dict[str, RunSpec] = {}
        for task in plan.tasks.values():
            if plan.state(task).name in ("todo", "failed") and (spec := plan.bind(task)) is not None:
                specs.setdefault(shared_key(spec.config), spec)
        if not specs or plan.manifest.mode != "frozen":
            return
        self.progress.phase("features")

        def body(channel: Any) -> None:
            redirect(plan.folder / "prepare.log")
            for spec in specs.values():
                self.runner.prepare_once(spec, 0, channel)

        call(body, self.progress.watch)

    def mirror(self) -> Pending:
        """Begins to mirror the results; the report is made meanwhile."""
        folder, tags = self.plan.folder, self.plan.manifest.tags

        def body(channel: Any) -> int:
            redirect(folder / "wandb.log")
            with self.session.lock("mirror"):
                return self.backend.mirror(folder, tags)

        return Pending(body)

    def finish(self, mirroring: Pending | None) -> int:
        """Report, then what failed, line by line."""
        plan = self.plan
        self.progress.phase("report")  # looking through thousands of results takes a moment
        states = {key: plan.state(task) for key, task in plan.tasks.items()}
        runs = [s for k, s in states.items() if plan.tasks[k].kind == "run"]
        failed = {k: s.why for k, s in states.items() if s.name == "failed"}
        worst = {k: failed.pop(k) for k in list(failed) if plan.tasks[k].kind == TUNE}
        blocked: dict[str, list[str]] = {}
        for key, state in states.items():
            if state.name in ("waiting", "todo", "conflict"):
                blocked.setdefault(state.why, []).append(key)
        some = self.backend.report is not None and any(s.name == "finished" for s in runs)
        problem = tell_results(self._report if some else None, mirroring, self.progress)
        done = [s.result for s in runs if s.name == "finished" and s.result is not None]
        for landing in landed(plan.manifest.expected, ((r.arm, r.metrics) for r in done)):
            print(landing.text)
        for key, why in failed.items():
            print(f"bipose: failed: {key}: {why}", file=sys.stderr)
        for key, why in worst.items():
            print(f"bipose: warning: tuning trial {key} failed and counts as the worst: {why}", file=sys.stderr)
        for why, keys in blocked.items():
            print(f"bipose: not run: {', '.join(keys)}{': ' if why else ''}{why}", file=sys.stderr)
        if problem:
            print(f"bipose: error: report: {problem}", file=sys.stderr)
        if failed or blocked or problem:
            if failed or blocked:
                left = len(failed) + sum(map(len, blocked.values()))
                print(
                    f"bipose: error: {left} of {len(states)} runs are not finished; the same command tries them again",
                    file=sys.stderr,
                )
            return 1
        return 0

    def _report(self, channel: Channel) -> str:
        plan = self.plan
        assert self.backend.report is not None
        with self.session.lock("report"):  # another start may be at its end too
            text = self.backend.report(plan.folder, plan.manifest.as_dict(), plan.config(plan.arms[0], {}))
        return text.rstrip()

    def show_plan(self) -> int:
        """Prints what would be done, and what it would take."""
        self.progress.phase("planning")
        show_plan(self.session, self.crew.workers, self.progress.watch, self.progress.close)
        return 0


__all__ = ["COMMAND", "Engine", "ablate"]
