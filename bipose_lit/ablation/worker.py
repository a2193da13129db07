"""One worker's turn: take a run from the queue, do it, say how it ended. Every turn is a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bipose_lit.ablation.backend import Backend
from bipose_lit.ablation.plan import Plan, Task, run_seconds, shared_key, steps
from bipose_lit.ablation.process import (
    Channel,
    Lock,
    call,
    describe_exit,
    limit_threads,
    one_line,
    redirect,
)
from bipose_lit.ablation.queue import Queue
from bipose_lit.ablation.tune import find_metric
from bipose_lit.lifeline import die_with_parent
from bipose_lit.memory import reuse_freed_memory
from bipose_lit.store import RunResult, RunSpec
from bipose_lit.types import BiposeError

LOG = "log.txt"
COMMAND = (sys.executable, "-m", "bipose_lit", "run-one")


@dataclass(frozen=True)
class Session:
    """One start of `bipose ablate`.

    Attributes:
        plan: what is to be done.
        backend: who does it.
        storage: the queue's address.
        owner: this engine's name in the queue.
        prepared: folder of marks of what was prepared in this session.
        since: number of attempts in the queue at the start: what failed before is tried again, what fails now is not.
        devices: GPUs, to be shared out among the workers; empty without any.
        command: how a run is started as a fresh process.
    """

    plan: Plan
    backend: Backend
    storage: str
    owner: str
    prepared: Path
    since: int = 0
    devices: tuple[str, ...] = ()
    command: Sequence[str] = COMMAND

    def lock(self, name: str) -> Lock:
        """A lock of this ablation, by name: a task's key, "queue", or what is prepared."""
        return Lock(self.plan.folder / ".locks" / f"{name.replace('/', '__')}.lock")

    def queue(self) -> Queue:
        return Queue(self.storage, self.plan.manifest.name)


def count(session: Session) -> int:
    """Creates the queue if need be; the number of attempts in it."""
    with session.lock("queue"), session.queue() as queue:
        return len(queue.entries())


def advance(session: Session, queue: Queue) -> dict[str, list[str]]:
    """Brings the queue in line with the result files: buries the dead, adds what can run now.

    Returns:
        Keys by what became of them: "ready", "elsewhere" (another process is at it), "conflict".
    """
    attempts: dict[str, list[Any]] = {}
    for entry in queue.entries():
        attempts.setdefault(entry.key, []).append(entry)
    found: dict[str, list[str]] = {"ready": [], "elsewhere": [], "conflict": []}
    for key, task in session.plan.tasks.items():
        mine = attempts.get(key, [])
        live = [e for e in mine if e.state in ("waiting", "running")]
        state = session.plan.state(task)
        held = session.lock(key).held()
        if state.name == "finished" and state.result is not None:
            for entry in live:
                if not held:
                    queue.tell(entry.number, _value(session.plan, task, state.result))
            continue
        if held:
            found["elsewhere"].append(key)
            continue
        failed_now = {e.number for e in mine if e.state == "failed" and e.number >= session.since and not e.reaped}
        for entry in live:
            if entry.state == "running":
                queue.tell(entry.number, None, reaped=entry.owner != session.owner)
                if entry.owner == session.owner:
                    failed_now.add(entry.number)
        waiting = [e for e in live if e.state == "waiting"]
        if state.name in ("waiting", "conflict") or failed_now:
            for entry in waiting:
                queue.tell(entry.number, None, reaped=True)
            if state.name == "conflict":
                found["conflict"].append(key)
            continue
        if not waiting:
            queue.put(key, arm=task.arm, seed=task.seed, kind=task.kind)
        found["ready"].append(key)
    return found


def work(session: Session, slot: int, channel: Channel) -> None:
    """Takes and does one run, or tells "empty"."""
    plan = session.plan
    with session.lock("queue"), session.queue() as queue:
        found = advance(session, queue)
        entry = queue.take(found["ready"], session.owner)
        if entry is not None:
            lock = session.lock(entry.key)
            if not lock.acquire(wait=False):
                queue.tell(entry.number, None, reaped=True)
                found["elsewhere"].append(entry.key)
                entry = None
    if entry is None:
        channel.send("empty", elsewhere=found["elsewhere"], conflict=found["conflict"])
        return
    task = plan.tasks[entry.key]
    spec = plan.bind(task)
    assert spec is not None, "a task is taken only when what it needs is finished"
    channel.send("taken", key=task.key, steps=steps(spec.config))
    result = run(session, spec, slot, channel)
    line, value = "", None
    if result.status == "finished":
        try:
            value = _value(plan, task, result)
        except BiposeError as error:
            line = str(error)
    with session.lock("queue"), session.queue() as queue:
        queue.tell(entry.number, value, seconds=run_seconds(result), error=result.error)
        if task.kind == "tune" and value is not None and plan.manifest.tune is not None:
            t = plan.manifest.tune
            trial = int(task.arm.rsplit("trial", 1)[1])
            queue.record(task.of, trial, task.point, {**t.space, **t.arms.get(task.of, {})}, value, t.maximize)
        lock.clear()
        lock.release()
    if line:
        channel.send("abort", line=f"{plan.manifest.path}: {line}")
    channel.send(
        "ended", key=task.key, status=result.status, error=result.error, value=value, seconds=run_seconds(result)
    )


def _value(plan: Plan, task: Task, result: RunResult) -> float:
    """What decides: the endpoint, the tuning's metric; stage 1 has none (0)."""
    m = plan.manifest
    if task.kind == "stage1":
        return 0.0
    name = m.tune.metric if task.kind == "tune" and m.tune is not None else m.endpoint
    return result.metrics[find_metric(result.metrics, name, "val" if task.kind == "tune" else "test")]


def run(session: Session, spec: RunSpec, slot: int, channel: Channel) -> RunResult:
    """Does a run in a folder that holds nothing of earlier attempts; a failure is recorded in result.json as one line."""
    shutil.rmtree(spec.folder, ignore_errors=True)
    path = spec.save()
    redirect(spec.folder / LOG)
    limit_threads(spec.threads)
    start = time.perf_counter()
    try:
        prepare_once(session, spec, slot, channel)
        if needs_command(spec.config, bool(session.devices)):
            _command(session, path, spec, slot, channel)
        else:

            def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
                channel.step(step, total, metrics={k: float(v) for k, v in metrics.items()})

            session.backend.execute(spec, report)
        result = RunResult.load(spec.folder)
        if result is None or result.config_hash != spec.config_hash:
            raise BiposeError("the run ended without a result of its own")
        return result
    except (Exception, SystemExit) as error:
        if not isinstance(error, BiposeError):
            traceback.print_exc()
        line = one_line(error) + ("" if isinstance(error, BiposeError) else f" (see {spec.folder / LOG})")
        return fail(spec, line, time.perf_counter() - start)


def fail(spec: RunSpec, line: str, seconds: float = 0.0) -> RunResult:
    """Records a failed run."""
    result = RunResult(
        spec.name,
        spec.arm,
        spec.seed,
        "failed",
        measured={"total_seconds": seconds},
        config_hash=spec.config_hash,
        error=line,
    )
    result.save(spec.folder)
    return result


def prepare_once(session: Session, spec: RunSpec, slot: int, channel: Channel) -> None:
    """Builds what runs like this one share, in a process of its own, once in a session whoever asks first."""
    if session.plan.manifest.mode != "frozen":
        return
    key = shared_key(spec.config)
    mark = session.prepared / key
    if mark.exists():
        return
    channel.send("phase", text="waiting for features")
    with session.lock(f"prepare-{key}"):
        if mark.exists():
            return
        channel.send("phase", text="features")

        if needs_command(spec.config, bool(session.devices)):
            _command(session, spec.save(), spec, slot, channel, "--prepare")
        else:
            notes = call(lambda inner: _prepare(session, spec, inner), lambda event: _forward(channel, event))
            _tell(channel, notes)
        mark.touch()


def _prepare(session: Session, spec: RunSpec, channel: Channel) -> list[str] | None:
    limit_threads(spec.threads)
    return session.backend.prepare(dict(spec.config), channel.step_text)


def _tell(channel: Channel | None, lines: Sequence[str] | None) -> None:
    for line in lines or ():
        if channel is not None:
            channel.send("tell", line=line)


def _forward(channel: Channel, event: dict[str, Any]) -> None:
    if event["event"]:
        channel.send(**event)


def needs_command(config: Mapping[str, Any], gpus: bool) -> bool:
    """Whether a run starts as a fresh command: GPU runs, and runs of several processes."""
    trainer = config.get("trainer") or {}
    accelerator = str(trainer.get("accelerator") or "auto")
    return device_count(config) > 1 or (gpus if accelerator == "auto" else accelerator != "cpu")


def device_count(config: Mapping[str, Any]) -> int:
    """Devices (processes) of one run; 1 where its Trainer decides."""
    trainer = config.get("trainer") or {}
    devices = trainer.get("devices")
    nodes = int(trainer.get("num_nodes") or 1)
    if isinstance(devices, list):
        return len(devices) * nodes
    if isinstance(devices, str) and "," in devices:
        return len([d for d in devices.split(",") if d.strip()]) * nodes
    try:
        return max(1, int(devices)) * nodes  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return nodes


def gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, found without touching CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(d.strip() for d in visible.split(",") if d.strip() and d.strip() != "-1")
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(found.stdout.split()) if found.returncode == 0 else ()


def _command(session: Session, path: Path, spec: RunSpec, slot: int, channel: Channel, *extra: str) -> None:
    """Runs `bipose run-one` on the worker's share of the GPUs and waits for it."""
    environment = dict(os.environ)
    each = device_count(spec.config)
    if session.devices:
        shares = max(1, len(session.devices) // each)
        first = (slot % shares) * each
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(session.devices[first : first + each])
    arguments = [*session.command, str(path), "--events", str(channel.fd), "--parent", str(os.getpid()), *extra]
    process = subprocess.run(arguments, env=environment, pass_fds=(channel.fd,))
    told = path.with_suffix(".error")
    if process.returncode:
        line = told.read_text().strip() if told.is_file() else f"the run's process {describe_exit(process.returncode)}"
        raise BiposeError(line)


def run_one(
    path: Path, events: int = -1, parent: int = 0, prepare: bool = False, backend: Backend | None = None
) -> None:
    """`bipose run-one`: one run of a specification in this process, for GPU and DDP runs.

    Raises:
        BiposeError: whatever the run complains of.
    """
    backend = backend or Backend()
    spec = RunSpec.load(path)
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # Lightning starts the other ranks with the same arguments
    if parent:
        die_with_parent(parent if first else os.getppid())
    channel = Channel(events) if events >= 0 and first else None
    limit_threads(spec.threads)
    reuse_freed_memory()
    backend.warm()
    limit_threads(spec.threads)

    def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if channel is not None:
            channel.step(step, total, metrics={k: float(v) for k, v in metrics.items()})

    def progress(step: int, total: int, text: str = "") -> None:
        if channel is not None:
            channel.step_text(step, total, text)

    told = path.with_suffix(".error")
    told.unlink(missing_ok=True)
    try:
        if prepare:
            _tell(channel, backend.prepare(dict(spec.config), progress))
        else:
            backend.execute(spec, report)
    except BiposeError as error:
        if first:
            told.write_text(one_line(error))
        raise
    except Exception as error:
        if first:
            told.write_text(f"{one_line(error)} (see {path.parent / LOG})")
        raise
