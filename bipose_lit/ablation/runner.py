"""One run of any plan (an ablation's, a sweep's), here or as a fresh command: it goes on from its last checkpoint.

A run's folder is its identity. Who works in it holds its lease, a lock of the same name; whoever finds the lease free and no
result may go on with the run from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bipose_lit.ablation.backend import Backend
from bipose_lit.ablation.devices import VISIBLE, device_count, needs_command, share
from bipose_lit.ablation.keys import shared_key
from bipose_lit.ablation.process import (
    HEARTBEAT,
    Channel,
    Lock,
    call,
    describe_exit,
    limit_threads,
    one_line,
    redirect,
)
from bipose_lit.lifeline import die_with_parent
from bipose_lit.memory import reuse_freed_memory
from bipose_lit.store import RESULT, SPEC, RunResult, RunSpec, atomic
from bipose_lit.types import BiposeError, Preempted

LOG, JUDGE, CHECKPOINTS = "log.txt", "judge.json", "checkpoints"
COMMAND = (sys.executable, "-m", "bipose_lit", "run-one")
RENDEZVOUS = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "LOCAL_WORLD_SIZE",
)
"""What a launcher tells processes of one run. Runs side by side must not meet: each finds a free port of its own."""
DIED = "died"
"""Key in `facts` of a failed run whose process ended without a word: it may go on from its checkpoint when it is tried again."""


@dataclass(frozen=True)
class Runner:
    """What runs of one plan share.

    Attributes:
        folder: OUT/NAME; leases lie in its .locks.
        backend: who does a run.
        prepared: folder of marks of what was prepared in this session.
        frozen: runs share features of a frozen backbone, prepared before the first of them.
        devices: GPUs, shared out among the slots; empty without any.
        each: devices that a slot has; a run of fewer leaves some of them idle.
        command: how a run is started as a fresh process.
    """

    folder: Path
    backend: Backend
    prepared: Path
    frozen: bool = False
    devices: tuple[str, ...] = ()
    command: Sequence[str] = COMMAND
    each: int = 1

    def lock(self, name: str) -> Lock:
        """A lock of this plan, by name: a run's key (its lease), "queue", or what is prepared."""
        return Lock(self.folder / ".locks" / f"{name.replace('/', '__')}.lock")

    def run(
        self,
        spec: RunSpec,
        slot: int,
        channel: Channel,
        judge: Mapping[str, Any] | None = None,
        lease: Lock | None = None,
    ) -> RunResult:
        """Does a run, or what is left of it; a failure is recorded in result.json as one line.

        Args:
            spec: the run.
            slot: number of the worker, which decides its GPUs.
            channel: where steps are told.
            judge: decides about pruning; plain data, which `Backend.judge` makes a function of.
            lease: the held lock of the run. With it the run ends by itself if another machine has taken it over.

        Raises:
            Preempted: a signal asked it to stop; it goes on from its checkpoint when it is run again.
            LeaseLostError: another machine has taken it over.
            DiedError: its process was killed; it goes on from its checkpoint likewise.
        """
        begin(spec)
        path = spec.save()
        with contextlib.suppress(FileNotFoundError):
            (spec.folder / JUDGE).unlink()
        if judge is not None:
            with atomic(spec.folder / JUDGE) as handle:
                json.dump(dict(judge), handle)
        redirect(spec.folder / LOG)
        limit_threads(spec.threads)
        start = time.perf_counter()
        try:
            self.prepare_once(spec, slot, channel)
            if needs_command(spec.config, bool(self.devices)):
                self._command(path, spec, slot, channel, lease)
            else:
                pulse = Pulse(lease)

                def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
                    pulse.beat()
                    channel.step(step, total, metrics={k: float(v) for k, v in metrics.items()})

                execute(self.backend, spec, report, judge)
            result = RunResult.load(spec.folder)
            if result is None or result.config_hash != spec.config_hash:
                raise BiposeError("the run ended without a result of its own")
            return result
        except (Preempted, LeaseLostError, DiedError):
            raise
        except (Exception, SystemExit) as error:
            if not isinstance(error, BiposeError):
                traceback.print_exc()
            if lease is not None and not lease.mine():  # a failure that may come of two in one folder
                raise LeaseLostError(f"{lease.path}: the run was taken over by {lease.holder()}") from error
            line = one_line(error) + ("" if isinstance(error, BiposeError) else f" (see {spec.folder / LOG})")
            return fail(spec, line, time.perf_counter() - start)

    def prepare_once(self, spec: RunSpec, slot: int, channel: Channel) -> None:
        """Builds what runs like this one share, in a process of its own, once in a session whoever asks first."""
        if not self.frozen:
            return
        key = shared_key(spec.config)
        mark = self.prepared / key
        if mark.exists():
            return
        channel.send("phase", text="waiting for features")
        with self.lock(f"prepare-{key}"):
            if mark.exists():
                return
            channel.send("phase", text="features")
            if needs_command(spec.config, bool(self.devices)):
                own = replace(spec, folder=self.prepared / f"{key}.run")  # another may be at work in the run's folder
                self._command(own.save(), spec, slot, channel, None, "--prepare")
            else:
                notes = call(lambda inner: self._prepare(spec, inner), lambda event: _forward(channel, event))
                _tell(channel, notes)
            mark.touch()

    def _prepare(self, spec: RunSpec, channel: Channel) -> list[str] | None:
        limit_threads(spec.threads)
        return self.backend.prepare(dict(spec.config), channel.step_text)

    def _command(self, path: Path, spec: RunSpec, slot: int, channel: Channel, lease: Lock | None, *extra: str) -> None:
        """Runs `bipose run-one` on the worker's share of the GPUs and waits for it; hands signals on to it."""
        environment = {k: v for k, v in os.environ.items() if k not in RENDEZVOUS}
        if self.devices:
            own = device_count(spec.config)
            environment[VISIBLE] = ",".join(share(self.devices, max(self.each, own), slot)[:own])
        arguments = [*self.command, str(path), "--events", str(channel.fd), "--parent", str(os.getpid()), *extra]
        pulse, told = Pulse(lease), path.with_suffix(".error")
        told.unlink(missing_ok=True)
        with _handing_on() as hand_on:
            held = lease.descriptors() if lease is not None else ()  # a command outlives a killed worker by a moment
            process = subprocess.Popen(arguments, env=environment, pass_fds=(channel.fd, *held))
            hand_on(process)
            try:
                while True:
                    try:
                        code = process.wait(HEARTBEAT)
                        break
                    except subprocess.TimeoutExpired:
                        pulse.beat()
            except BaseException:
                process.kill()
                process.wait()
                raise
        for number in (signal.SIGTERM, signal.SIGUSR1):
            if code in (128 + number, -number):  # the latter: it was still loading, and leaves what was there before
                raise Preempted(f"{spec.arm}/seed{spec.seed} was asked to stop by {number.name}", number)
        if code and told.is_file():
            raise BiposeError(told.read_text().strip())
        if code:
            raise (DiedError if code < 0 else BiposeError)(f"the run's process {describe_exit(code)}")


class LeaseLostError(BiposeError):
    """Another machine has taken over this run, because this one gave no sign of life; what was done here must not count."""


class DiedError(BiposeError):
    """The run's own process was killed; as if its worker had been, the run is taken up again."""


class Pulse:
    """Signs of life of a run, at most one every HEARTBEAT seconds.

    Args:
        lease: the held lock; None: nothing is done.
    """

    def __init__(self, lease: Lock | None) -> None:
        self.lease, self._next = lease, 0.0

    def beat(self) -> None:
        """Touches the lease.

        Raises:
            LeaseLostError: it is another's.
        """
        if self.lease is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + HEARTBEAT
        if not self.lease.mine():
            raise LeaseLostError(
                f"{self.lease.path}: the run was taken over by {self.lease.holder() or 'another process'}"
            )
        self.lease.touch()


def begin(spec: RunSpec) -> None:
    """Makes the folder ready: what an interrupted attempt at the same run left stays, everything else goes.

    A failed run starts anew, unless its process just ended without a word: then nothing is known to be wrong with its checkpoint.
    """
    try:
        before = RunSpec.load(spec.folder / SPEC)
        result = RunResult.load(spec.folder)
        same = before.config_hash == spec.config_hash and (result is None or bool(result.facts.get(DIED)))
    except BiposeError:
        same = False
    if same:
        with contextlib.suppress(FileNotFoundError):
            (spec.folder / RESULT).unlink()
    else:
        shutil.rmtree(spec.folder, ignore_errors=True)
    spec.folder.mkdir(parents=True, exist_ok=True)


def progress_of(folder: Path) -> int:
    """A number that changes when a run writes a checkpoint to go on from: its time of writing, nanoseconds; 0 without one.

    What else lies beside it (final weights, half a file of a killed attempt) is written in every attempt and is no progress.
    """
    times = [0]
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder / CHECKPOINTS):
            if entry.name.startswith("last."):
                with contextlib.suppress(OSError):
                    times.append(entry.stat().st_mtime_ns)
    return max(times)


def execute(backend: Backend, spec: RunSpec, report: Any, judge: Mapping[str, Any] | None) -> RunResult:
    """`Backend.execute`, with a judge where there is one.

    Raises:
        BiposeError: a judge that nobody can make.
    """
    if judge is None:
        return backend.execute(spec, report)
    if backend.judge is None:
        raise BiposeError(f"{spec.folder / JUDGE}: this command cannot judge trials; start it by 'bipose sweep'")
    return backend.execute(spec, report, backend.judge(judge))


def fail(spec: RunSpec, line: str, seconds: float = 0.0, died: int = 0) -> RunResult:
    """Records a failed run, unless it has a result.

    Args:
        spec: the run.
        line: what went wrong.
        seconds: that it took.
        died: how often its process ended without a word; 0: it failed by itself.
    """
    result = RunResult(
        spec.name,
        spec.arm,
        spec.seed,
        "failed",
        measured={"total_seconds": seconds},
        facts={DIED: died} if died else {},
        config_hash=spec.config_hash,
        error=line,
    )
    return result if result.publish(spec.folder) else RunResult.load(spec.folder) or result


@contextlib.contextmanager
def _handing_on() -> Iterator[Any]:
    """SIGTERM and SIGUSR1 go to a process that is named once it is there; one that came before is not lost."""
    process: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if not process:
            early.append(number)
        elif process[0].poll() is None:
            process[0].send_signal(number)

    def name(started: subprocess.Popen[bytes]) -> None:
        process.append(started)
        for number in early:
            started.send_signal(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield name
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(channel: Channel | None, lines: Sequence[str] | None) -> None:
    for line in lines or ():
        if channel is not None:
            channel.send("tell", line=line)


def _forward(channel: Channel, event: dict[str, Any]) -> None:
    if event["event"]:
        channel.send(**event)


def run_one(
    path: Path, events: int = -1, parent: int = 0, prepare: bool = False, backend: Backend | None = None
) -> int:
    """`bipose run-one`: one run of a specification in this process, for GPU and DDP runs.

    Returns:
        0, or 128 + the number of the signal that stopped it with a checkpoint.

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
    file = path.parent / JUDGE
    judge = json.loads(file.read_text()) if file.is_file() and not prepare else None

    def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if channel is not None:
            channel.step(step, total, metrics={k: float(v) for k, v in metrics.items()})

    def progress(step: int, total: int, text: str = "") -> None:
        if channel is not None:
            channel.step_text(step, total, text)

    told = path.with_suffix(".error")
    if first:
        told.unlink(missing_ok=True)
    try:
        if prepare:
            _tell(channel, backend.prepare(dict(spec.config), progress))
        else:
            execute(backend, spec, report, judge)
    except Preempted as stopped:
        return stopped.code
    except BiposeError as error:
        if first:
            told.write_text(one_line(error))
        raise
    except Exception as error:
        if first:
            told.write_text(one_line(error) + ("" if prepare else f" (see {path.parent / LOG})"))
        raise
    return 0
