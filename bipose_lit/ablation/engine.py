"""`bipose ablate`: plans, makes what is missing, keeps workers busy until every run is done, then reports.

This process is the one that forks: it imports, reads files and draws, and nothing else. Making data, preparing features,
opening the queue and running are children's business. Kill it at any moment and start the same command again: finished
runs stay, the rest is done anew.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bipose_lit.ablation.backend import Backend
from bipose_lit.ablation.devices import VISIBLE, choose, cores, device_count, needs_command
from bipose_lit.ablation.keys import data_key, shared_key
from bipose_lit.ablation.manifest import load_manifest, read_seeds
from bipose_lit.ablation.overview import show_plan
from bipose_lit.ablation.plan import TUNE, Plan, check_arms, run_seconds
from bipose_lit.ablation.pool import Pool, Stopped
from bipose_lit.ablation.process import Channel, Lock, Pending, call, limit_threads, redirect
from bipose_lit.ablation.progress import Progress, make_progress
from bipose_lit.ablation.runner import COMMAND, Runner
from bipose_lit.ablation.slurm import leave_allocation
from bipose_lit.ablation.storage import warm, was_opened
from bipose_lit.ablation.text import read_yaml
from bipose_lit.ablation.worker import Session, look
from bipose_lit.memory import reuse_freed_memory
from bipose_lit.store import RunSpec, atomic, innermost
from bipose_lit.types import BiposeError

MANIFEST, QUEUE = "manifest.json", "queue.journal"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SECOND_SIGNAL = 1.0
"""Seconds after which another signal means that whoever sends it will not wait."""


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
    backend = backend or Backend()
    progress = progress or make_progress()
    scratch = Path(tempfile.mkdtemp(prefix="bipose-"))
    try:
        with stopping():
            asked = load_manifest(manifest)
            if seeds is not None:
                asked = replace(asked, seeds=read_seeds(seeds))
                if asked.tune is not None and asked.tune.seed in asked.seeds:
                    raise BiposeError(f"--seeds: {asked.tune.seed} is the seed of the tuning; choose fresh ones")
            check_arms(asked, arms)
            settings = parse_options(options)
            check_folder(out)
            leave_allocation()
            limit_threads(1)
            reuse_freed_memory()
            progress.phase("loading libraries")
            backend.warm()
            warm(storage or "")  # children inherit it

            progress.phase("checking the configurations")
            plan = Plan(asked, out, backend.resolve, arms, settings, fresh)
            engine = Engine(plan, backend, progress, storage, workers, scratch, devices)
            if plan_only:
                return engine.show_plan()
            return engine.run(wandb)
    except Stopped as stopped:
        progress.close()
        print(f"bipose: interrupted ({stopped}); the same command goes on where it stopped", file=sys.stderr)
        return 128 + stopped.number
    finally:
        gc.unfreeze()
        progress.close()
        shutil.rmtree(scratch, ignore_errors=True)


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """ "model.recipe.lr=0.01" and the like, by dotted option.

    Raises:
        BiposeError: one has no "=".
    """
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.strip():
            raise BiposeError(f"--set {option}: write KEY=VALUE, e.g. --set trainer.max_steps=100")
        parsed[key.strip().removeprefix("--")] = read_yaml(value)
    return parsed


def check_folder(out: Path) -> None:
    """Refuses a place where no run could be kept, before minutes are spent on data; makes nothing.

    Raises:
        BiposeError: it is a file, or it or the folder that it would be made in cannot be written.
    """
    place = out.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise BiposeError(f"--out {out}: {place} is no folder; give another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise BiposeError(f"--out {out}: {place} cannot be written; give another place")


class Engine:
    """One start of an ablation in the parent process."""

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        progress: Progress,
        storage: str | None,
        workers: int | None,
        scratch: Path,
        asked: str | None = None,
    ) -> None:
        self.plan, self.backend, self.progress = plan, backend, progress
        owner = f"{os.uname().nodename}:{os.getpid()}:{Lock.start_of(os.getpid())}"
        devices = choose(asked)
        if asked == "cpu":
            os.environ[VISIBLE] = ""  # runs that leave the choice to Lightning would take a GPU each
        configs = [plan.config(arm, {}) for arm in plan.arms]
        on_gpu = bool(devices) and all(needs_command(c, True) for c in configs)
        each = max(map(device_count, configs))
        frozen = plan.manifest.mode == "frozen"
        self.runner = Runner(plan.folder, backend, scratch, frozen, devices if on_gpu else (), COMMAND, each)
        self.session = Session(plan, self.runner, storage or str(plan.folder / QUEUE), owner)
        threads, available = plan.manifest.threads, cores()
        if workers is None:
            workers = max(1, len(devices) // each) if on_gpu else max(1, available // (threads * each))
        elif workers < 1:
            raise BiposeError(f"--workers must be at least 1, not {workers}")
        self.makers, self.workers = workers, max(1, min(workers, len(plan.tasks)))
        if on_gpu and self.workers * each > len(devices):
            progress.line(
                f"bipose: warning: {self.workers} workers of {each} GPUs each share {len(devices)} GPUs; --workers "
                f"{max(1, len(devices) // each)} gives each its own"
            )
        if not on_gpu and self.workers * threads > available:
            progress.line(
                f"bipose: warning: {self.workers} workers with {threads} threads each on {available} cores will be slower than "
                f"--workers {max(1, available // threads)}"
            )

    def run(self, wandb: bool) -> int:
        """Everything, in order."""
        plan = self.plan
        self.make_data()
        todo = self.check()
        plan.folder.mkdir(parents=True, exist_ok=True)
        with atomic(plan.folder / MANIFEST) as handle:
            json.dump(plan.manifest.as_dict(), handle, indent=1)
            handle.write("\n")
        gc.collect()
        gc.freeze()  # children share the parent's memory until they write to it; so the collector must not
        if todo:
            failed = call(lambda channel: sorted(look(self.session)))
            self.session = replace(self.session, before=frozenset(failed))
            was_opened(self.session.storage)
            self.prepare()
            states = [plan.state(task) for task in plan.tasks.values()]
            done = [run_seconds(s.result) for s in states if s.name == "finished" and s.result is not None]
            self.progress.endpoint = plan.manifest.endpoint
            self.progress.start_runs(len(done), len(plan.tasks), self.workers, done)
            Pool(self.session, self.workers, self.progress).work_off()
        mirroring = self.mirror() if wandb else None
        try:
            return self.finish(mirroring)
        finally:
            if mirroring is not None:
                mirroring.stop()

    def make_data(self) -> None:
        recipe = self.plan.manifest.make
        if recipe is None:
            return
        root = data_root(self.plan.config(self.plan.arms[0], {}))
        self.progress.phase("making data")
        call(lambda channel: make_once(self.backend, recipe, root, self.makers, channel), self._watch)

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
            plan.fingerprints[key] = call(partial(self._fingerprint, config), self._watch)
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

        call(body, self._watch)

    def _watch(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            self.progress.step(event["step"], event["total"], event.get("text", ""))
        elif event["event"] == "tell":
            self.progress.line(f"bipose: warning: {event['line']}")
        self.progress.tick()

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
        self.progress.phase("report")
        states = {key: plan.state(task) for key, task in plan.tasks.items()}
        runs = [s for k, s in states.items() if plan.tasks[k].kind == "run"]
        failed = {k: s.why for k, s in states.items() if s.name == "failed"}
        worst = {k: failed.pop(k) for k in list(failed) if plan.tasks[k].kind == TUNE}
        blocked: dict[str, list[str]] = {}
        for key, state in states.items():
            if state.name in ("waiting", "todo", "conflict"):
                blocked.setdefault(state.why, []).append(key)
        problem = text = ""
        if self.backend.report is not None and any(s.name == "finished" for s in runs):
            try:
                text = call(self._report, self._watch)
            except BiposeError as error:
                problem = str(error)
        if mirroring is not None:
            self.progress.phase("mirroring to W&B")
            try:
                mirroring.result(self._watch)
            except BiposeError as error:  # a dashboard out of reach loses nothing: result files are the truth
                self.progress.line(f"bipose: warning: {error}")
        self.progress.close()
        if text:
            print(text)
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
        show_plan(self.session, self.workers, self._watch, self.progress.close)
        return 0


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGUSR1 (SLURM's notice) end a start in good order; a second one, at once."""
    arrived: list[float] = []

    def handle(number: int, frame: Any) -> None:
        arrived.append(time.monotonic())
        if len(arrived) == 1 or arrived[-1] - arrived[0] > SECOND_SIGNAL:  # a scheduler may send one twice in a row
            raise Stopped(number)

    before = {number: signal.signal(number, handle) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_once(backend: Backend, recipe: Mapping[str, Any], root: Path, workers: int, channel: Channel) -> None:
    """Makes data unless they are there; several machines may begin together."""
    with Lock(root.with_name(f".{root.name}.lock")):
        backend.make(recipe, root, workers, channel.step_text)


def data_root(config: Mapping[str, Any]) -> Path:
    """The folder that a configuration's reader, or the one that it wraps, reads.

    Raises:
        BiposeError: it names none.
    """
    reader = innermost((config.get("data") or {}).get("reader"))
    root = (reader.get("init_args") or {}).get("root")
    if not root:
        raise BiposeError("make: data.reader has no root to write the data to; set data.reader.init_args.root")
    return Path(root)


__all__ = ["Engine", "Stopped", "ablate", "parse_options"]
