"""What every start of a plan (an ablation's, a sweep's) has in common: its frame, its workers, its data, and how it ends."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bipose_lit.ablation.backend import Backend
from bipose_lit.ablation.devices import VISIBLE, check_names, choose, cores, device_count, needs_command
from bipose_lit.ablation.pool import Stopped
from bipose_lit.ablation.process import Channel, Lock, Pending, call, limit_threads
from bipose_lit.ablation.progress import Progress, make_progress
from bipose_lit.ablation.slurm import leave_allocation
from bipose_lit.ablation.storage import warm
from bipose_lit.ablation.text import read_yaml
from bipose_lit.memory import reuse_freed_memory
from bipose_lit.store import innermost
from bipose_lit.types import BiposeError

QUEUE = "queue.journal"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SECOND_SIGNAL = 1.0
"""Seconds after which another signal means that whoever sends it will not wait."""


@dataclass
class Start:
    """One start.

    Attributes:
        backend: the suite's functions.
        progress: the display; closed at the end.
        scratch: a folder that goes with the start.
        code: what the command returns; 128 + the signal's number if one ended it.
    """

    backend: Backend
    progress: Progress
    scratch: Path
    code: int = 0

    def load(self, out: Path, storage: str | None) -> None:
        """Everything that is the same before a plan can be made; mistakes in files are best told before, it takes seconds.

        Raises:
            BiposeError: no run could be kept in `out`.
        """
        check_folder(out)
        leave_allocation()
        limit_threads(1)
        reuse_freed_memory()
        self.progress.phase("loading libraries")
        self.backend.warm()
        warm(storage or "")  # children inherit it


@contextlib.contextmanager
def starting(backend: Backend, progress: Progress | None = None) -> Iterator[Start]:
    """The frame of one start: a scratch folder, and signals that end it in good order wherever they arrive."""
    start = Start(backend, progress or make_progress(), Path(tempfile.mkdtemp(prefix="bipose-")))
    try:
        with stopping():
            yield start
    except Stopped as stopped:
        start.progress.close()
        print(f"bipose: interrupted ({stopped}); the same command goes on where it stopped", file=sys.stderr)
        start.code = 128 + stopped.number
    finally:
        gc.unfreeze()
        start.progress.close()
        shutil.rmtree(start.scratch, ignore_errors=True)


@dataclass(frozen=True)
class Crew:
    """The workers of a start.

    Attributes:
        workers: side by side.
        asked: workers before there were found to be fewer runs: for what is made once.
        devices: GPUs that they share out; empty on CPUs.
        each: devices of one run at most.
    """

    workers: int
    asked: int
    devices: tuple[str, ...]
    each: int


def crew(
    configs: Sequence[Mapping[str, Any]],
    threads: int,
    devices: str | None,
    workers: int | None,
    runs: int | None,
    progress: Progress,
) -> Crew:
    """How many workers, on what; warns of more than the machine carries.

    Args:
        configs: of the runs.
        threads: of a run on CPUs.
        devices: as `--devices` gives it.
        workers: as `--workers` gives it; None: as many as the cores or GPUs carry.
        runs: how many there are, if that is known: no more workers are needed.
        progress: for warnings.

    Raises:
        BiposeError: devices that are not there, or not for the workers to share out; no worker.
    """
    found, available = choose(devices), cores()
    if devices == "cpu":
        os.environ[VISIBLE] = ""  # runs that leave the choice to Lightning would take a GPU each
    on_gpu = bool(found) and all(needs_command(c, True) for c in configs)
    each = max(map(device_count, configs))
    check_names(configs, devices)
    carried = max(1, len(found) // each if on_gpu else available // (threads * each))
    if workers is None:
        workers = carried
    elif workers < 1:
        raise BiposeError(f"--workers must be at least 1, not {workers}")
    used = workers if runs is None else max(1, min(workers, runs))
    if on_gpu and used * each > len(found):
        progress.line(
            f"bipose: warning: {used} workers of {each} GPUs each share {len(found)} GPUs; --workers {carried} gives each its own"
        )
    if not on_gpu and used * threads > available:
        progress.line(
            f"bipose: warning: {used} workers with {threads} threads each on {available} cores will be slower than --workers "
            f"{max(1, available // threads)}"
        )
    return Crew(used, workers, found if on_gpu else (), each)


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


def make_data(
    backend: Backend, recipe: Mapping[str, Any] | None, config: Mapping[str, Any], workers: int, progress: Progress
) -> None:
    """Makes what a plan's `make` asks for, unless it is there; several machines may begin together.

    Raises:
        BiposeError: the configuration names no place for it.
    """
    if recipe is None:
        return
    progress.phase("making data")
    root = data_root(config)

    def body(channel: Channel) -> None:
        with Lock(root.with_name(f".{root.name}.lock")):
            backend.make(recipe, root, workers, channel.step_text)

    call(body, progress.watch)


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


def tell_results(report: Callable[[Channel], str] | None, mirroring: Pending | None, progress: Progress) -> str:
    """Reports while the results are mirrored, waits for both, ends the display and prints the report.

    Args:
        report: makes the report and returns its text; None: there is nothing to report.
        mirroring: results on their way to W&B, if they are.
        progress: the display.

    Returns:
        What went wrong with the report, "" if nothing. A dashboard out of reach is a warning: result files are the truth.
    """
    problem = text = ""
    progress.phase("report")
    if report is not None:
        try:
            text = call(report, progress.watch)
        except BiposeError as error:
            problem = str(error)
    if mirroring is not None:
        progress.phase("mirroring to W&B")
        try:
            mirroring.result(progress.watch)
        except BiposeError as error:
            progress.line(f"bipose: warning: {error}")
    progress.close()
    if text:
        print(text)
    return problem


__all__ = [
    "QUEUE",
    "Crew",
    "Start",
    "check_folder",
    "crew",
    "data_root",
    "make_data",
    "parse_options",
    "starting",
    "tell_results",
]
