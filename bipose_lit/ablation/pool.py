"""The workers of one start: each turn is a forked process; this side starts them, listens, and buries the dead.

It knows neither ablations nor sweeps: what a turn does, and what a death means, is told by its `Turns`.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bipose_lit.ablation.process import HEARTBEAT, Channel, Child, Lock, describe_exit, fork, stop
from bipose_lit.ablation.progress import Progress
from bipose_lit.ablation.storage import StorageLostError
from bipose_lit.types import BiposeError, Preempted

RETRY_SECONDS = 2.0
"""Between two looks at the queue while another process has what this one waits for."""
QUEUE_LOCK, QUEUE_SECONDS = "queue", 10.0
"""The lock under which the queue is read and written, and how long a worker waits for it before that is told."""
GRACE_SECONDS = 60.0
"""For runs to write a checkpoint after a signal; SLURM and others give two minutes' notice, or kill after half of one."""

ASKED = (-signal.SIGTERM, -signal.SIGUSR1)
"""Ends of a process that somebody asked to end; they say nothing about its run."""
EARLY_DEATHS = 20
"""Workers in a row that are killed before they have taken anything, after which something is wrong with more than them."""


class Stopped(BaseException):
    """A signal asks this start to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Outcome(NamedTuple):
    """How a run ended, for the display.

    Attributes:
        status: "finished", "failed", "pruned", or "left": it will be taken up again.
        seconds: that it took; NaN if unknown.
        value: of the deciding metric, if any.
        line: what went wrong.
    """

    status: str
    seconds: float = math.nan
    value: float | None = None
    line: str = ""


class Turns(Protocol):
    """What the workers do."""

    def turn(self, slot: int, channel: Channel) -> None:
        """In a forked process: takes one piece of work and does it.

        Sends "taken" (key, steps); then "step" (step, total, metrics), "phase" (text), "tell" (line: a warning); at last
        "ended" (key, status, seconds, value, error), or "empty" (elsewhere: keys that others are at) if nothing was to be had.
        "abort" (line) ends the whole start. `Preempted` may be raised: the work is taken up later.
        """

    def buried(self, key: str, line: str) -> Outcome:
        """In the parent: the process at `key` died without a word, of what `line` says. Opens no storage."""

    def ended(self, key: str) -> None:
        """In the parent: this one has ended. What the parent remembers of it, later turns need not find out."""

    def lock(self, key: str) -> Lock:
        """The lease of a piece of work."""

    def value_name(self, key: str) -> str:
        """The name of the value that its "ended" tells; "" for none."""


class Pool:
    """Runs side by side.

    Args:
        turns: what is to be done.
        workers: how many at a time.
        progress: the display; `start_runs` has been called.
        grace: seconds that runs have to write a checkpoint when this start is stopped.
    """

    def __init__(self, turns: Turns, workers: int, progress: Progress, grace: float = GRACE_SECONDS) -> None:
        self.turns, self.workers, self.progress, self.grace = turns, workers, progress, grace
        self.children: list[Child] = []
        self._ended = self._early = 0
        self._beat = time.monotonic()

    def work_off(self) -> None:
        """Keeps the workers busy until nothing is left that can be done.

        Raises:
            Stopped: a signal arrived; the runs have written their checkpoints, as far as time allowed.
            BiposeError: nothing can be done at all.
        """
        progress = self.progress
        idle: dict[int, float] = {}
        waiting_for: list[str] = []
        try:
            while True:
                now = time.monotonic()
                busy = {child.slot for child in self.children}
                for slot in range(self.workers):
                    if slot not in busy and idle.get(slot, 0.0) <= now:
                        self.start(slot)
                for child in list(self.children):
                    ended = child.poll()
                    self.listen(child)
                    if not ended:
                        continue
                    self.children.remove(child)
                    child.close()
                    self.bury(child)
                    empty = child.info.get("empty")
                    if empty is None:
                        self._ended += 1
                        idle.clear()  # an ended run may have made others possible
                        continue
                    if child.info["ended before"] != self._ended:
                        continue  # it looked before the last one ended
                    own = {c.info.get("key") for c in self.children}
                    waiting_for = [key for key in empty["elsewhere"] if key not in own]
                    idle[child.slot] = now + RETRY_SECONDS if waiting_for else math.inf
                if not self.children and all(idle.get(s, 0.0) == math.inf for s in range(self.workers)):
                    break
                self.beat()
                progress.note = self.note(waiting_for)
                progress.tick()
                time.sleep(0.02)
        except Stopped as stopped:
            self.drain(stopped)
            raise
        finally:
            stop(self.children)
            for child in self.children:
                child.close()
            self.children.clear()

    def note(self, waiting_for: Sequence[str]) -> str:
        """What the workers wait for, in words."""
        now = time.monotonic()
        if any(now - c.started > QUEUE_SECONDS and not c.info.keys() & {"key", "empty"} for c in self.children):
            return f"waiting for the queue, which {self.turns.lock(QUEUE_LOCK).holder() or 'nobody'} holds"
        return f"waiting for {', '.join(waiting_for[:3])} of another process" if waiting_for else ""

    def beat(self) -> None:
        """A sign of life of every run, every HEARTBEAT seconds."""
        if time.monotonic() - self._beat > HEARTBEAT:
            self._beat = time.monotonic()
            for child in self.children:
                if "key" in child.info:
                    self.turns.lock(child.info["key"]).touch()

    def drain(self, why: Stopped) -> None:
        """Lets the runs write their checkpoints and end; a second signal ends the waiting."""
        busy = [child for child in self.children if not child.poll()]
        at = [child.info["key"] for child in busy if "key" in child.info]
        if at:
            self.progress.line(
                f"bipose: {why}: letting {', '.join(at[:3])}{' ...' if len(at) > 3 else ''} write a checkpoint "
                "(the same signal again ends at once)"
            )
        for child in busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        end = time.monotonic() + self.grace
        try:
            while any(not child.poll() for child in busy) and time.monotonic() < end:
                for child in busy:
                    list(child.events())  # a full pipe would hold the run up
                self.beat()
                self.progress.tick()
                time.sleep(0.02)
        except Stopped:
            for child in busy:
                if not child.poll():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGKILL)

    def start(self, slot: int) -> None:
        """Lets a worker take its turn."""

        def body(channel: Channel) -> None:
            try:
                self.turns.turn(slot, channel)
            except Preempted as stopped:
                channel.send("preempted", line=str(stopped))
            except StorageLostError:
                channel.send("lost")
                raise

        child = fork(body, slot, tuple(self.children))
        child.info["ended before"] = self._ended
        self.children.append(child)

    def listen(self, child: Child) -> None:
        """Hands a worker's events to the display."""
        progress, slot = self.progress, child.slot
        for event in child.events():
            kind = event["event"]
            if kind == "taken":
                child.info["key"] = event["key"]
                progress.taken(slot, event["key"])
            elif kind == "step":
                progress.run_step(slot, event["step"], event["total"], event.get("metrics", {}), event.get("text", ""))
            elif kind == "phase":
                progress.run_phase(slot, event["text"])
            elif kind == "tell":
                progress.line(f"bipose: warning: {event['line']}")
            elif kind == "empty":
                child.info["empty"] = event
            elif kind == "lost":
                child.info["lost"] = True
            elif kind == "error":
                child.info["error"] = event["line"]
            elif kind == "preempted":
                child.info["left"] = event["line"]
            elif kind == "abort":
                raise BiposeError(event["line"])
            elif kind == "ended":
                child.info["ended"] = True
                self.turns.ended(event["key"])
                seconds = event["seconds"] if event["seconds"] is not None else math.nan
                self.show(child, event["key"], Outcome(event["status"], seconds, event["value"], event["error"]))

    def show(self, child: Child, key: str, outcome: Outcome) -> None:
        """Puts the end of a run on the display."""
        if outcome.status == "left":
            self.progress.left(child.slot, key, outcome.line)
            return
        name = self.turns.value_name(key) if outcome.value is not None else ""
        self.progress.ended(child.slot, key, outcome.status, outcome.seconds, outcome.value, outcome.line, name)

    def bury(self, child: Child) -> None:
        """A worker that ended without a word: its run is taken up again or failed, unless the result was out already."""
        if "ended" in child.info or "empty" in child.info:
            return
        key = child.info.get("key")
        line = child.info.get("error") or f"the process {describe_exit(child.code)}"
        if "left" in child.info:
            if key is not None:
                self.show(child, key, Outcome("left", line=child.info["left"]))
            return
        if key is not None and child.code in ASKED:  # between two pieces of work that would have written a checkpoint
            self.show(child, key, Outcome("left", line=line))
            return
        if key is None:
            self._early += 1
            if "lost" in child.info and self._early < EARLY_DEATHS:
                self.progress.line(f"bipose: warning: {line}; trying again")
                return
            if child.code is not None and child.code < 0 and self._early < EARLY_DEATHS:
                return  # killed before it had taken anything: another turn will
            raise BiposeError(line)  # it could not even look into the queue
        self._early = 0
        self.show(child, key, self.turns.buried(key, line))
