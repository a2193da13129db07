"""One turn of an ablation's worker: take a run from the queue, do it, say how it ended. Every turn is a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bipose_lit.ablation.plan import Plan, Task, run_seconds, steps
from bipose_lit.ablation.pool import Outcome
from bipose_lit.ablation.process import Channel, Lock
from bipose_lit.ablation.queue import Entry, Queue
from bipose_lit.ablation.runner import LeaseLostError, Runner, begin, fail, progress_of
from bipose_lit.ablation.storage import exclusive
from bipose_lit.ablation.tune import find_metric
from bipose_lit.store import RunResult, RunSpec, folder_mark
from bipose_lit.types import BiposeError, Preempted

DEATHS = 3
"""Deaths of a run without a checkpoint in between, after which it counts as failed: nobody kills it, it kills itself."""


@dataclass(frozen=True)
class Session:
    """One start of `bipose ablate`; the `Turns` of its pool.

    Attributes:
        plan: what is to be done.
        runner: who does it.
        storage: the queue's address.
        owner: this engine's name in the queue.
        before: numbers of the attempts that had failed at the start: what failed before is tried again, what fails now is not.
        deaths: by key, how often its process died in this start, and the state of its checkpoints then.
        opened: this process's queue, by its number: a forked process opens its own.
    """

    plan: Plan
    runner: Runner
    storage: str
    owner: str
    before: frozenset[int] = frozenset()
    deaths: dict[str, tuple[int, int]] = field(default_factory=dict)
    opened: dict[int, Queue] = field(default_factory=dict)

    def lock(self, name: str) -> Lock:
        """A lock of this ablation, by name: a task's key, "queue", or what is prepared."""
        return self.runner.lock(name)

    @contextmanager
    def queue(self) -> Iterator[Queue]:
        """The queue, for this process alone while the block runs."""
        name = self.plan.manifest.name
        with self.lock("queue"):
            queue = self.opened.pop(os.getpid(), None) or Queue(self.storage, name)
            try:
                with exclusive(queue.storage, name):
                    queue.place = folder_mark(self.plan.folder)
                    yield queue
                if queue.keeps_no_connection:  # reading a journal from its beginning takes longer than all else
                    self.opened[os.getpid()] = queue
            finally:
                queue.close()

    def turn(self, slot: int, channel: Channel) -> None:
        """Takes and does one run, or tells "empty"."""
        work(self, slot, channel)

    def buried(self, key: str, line: str) -> Outcome:
        """The process at a run died: its run is taken up again, but not for ever."""
        task = self.plan.tasks[key]
        state = self.plan.state(task)
        if state.name == "finished" and state.result is not None:
            return Outcome("finished", run_seconds(state.result))
        place = progress_of(self.plan.run_folder(task))
        count, before = self.deaths.get(key, (0, -1))
        count = count + 1 if place == before else 1
        self.deaths[key] = (count, place)
        if count < DEATHS:
            return Outcome("left", line=f"{line}; it is taken up again")
        lease, spec = self.lock(key), self.plan.bind(task)
        if spec is None or not lease.acquire(wait=False):
            return Outcome("left", line=line)  # another turn has taken it up already
        fail(spec, line, died=count)
        lease.clear()
        lease.release()
        return Outcome("failed", line=line)

    def ended(self, key: str) -> None:
        """Reads the result, which every later turn would otherwise read once more."""
        self.plan.result(self.plan.tasks[key])

    def value_name(self, key: str) -> str:
        """The metric that a run's value is of."""
        m, kind = self.plan.manifest, self.plan.tasks[key].kind
        if kind == "stage1":
            return ""
        return m.tune.metric if m.tune is not None and kind == "tune" else m.endpoint


def look(session: Session) -> frozenset[int]:
    """Creates the queue if need be; the numbers of the failed attempts in it."""
    with session.queue() as queue:
        return frozenset(e.number for e in queue.entries() if e.state == "failed")


def advance(session: Session, queue: Queue) -> dict[str, list[str]]:
    """Brings the queue in line with the result files: ends what has a result, adds what can run now.

    Returns:
        Keys by what became of them: "ready", "elsewhere" (another process is at it), "conflict".
    """
    attempts: dict[str, list[Entry]] = {}
    for entry in queue.entries():
        attempts.setdefault(entry.key, []).append(entry)
    found: dict[str, list[str]] = {"ready": [], "elsewhere": [], "conflict": []}
    for key, task in session.plan.tasks.items():
        mine = attempts.get(key, [])
        live = [e for e in mine if e.state in ("waiting", "running")]
        if not live and any(e.state == "done" for e in mine) and session.plan.state(task).name == "finished":
            continue
        if session.lock(key).held():  # before the result is read: a holder that ends now has published by then
            if session.plan.state(task).name != "finished":
                found["elsewhere"].append(key)
            continue
        state = session.plan.state(task)
        if state.name == "finished" and state.result is not None:
            for entry in live:
                queue.tell(entry.number, _value(session.plan, task, state.result))
            continue
        failed_now = [e for e in mine if e.state == "failed" and e.number not in session.before and not e.reaped]
        if state.name == "failed":  # an attempt begins without a result: this one's process died before it could tell
            for entry in [e for e in live if e.state == "running"]:
                queue.tell(entry.number, None, error=state.why)
                live.remove(entry)
                failed_now.append(entry)
        again = {*found["ready"], *found["elsewhere"]}.isdisjoint(task.needs)  # a tuning trial may be tried again
        if state.name in ("waiting", "conflict") or failed_now or not again or session.plan.settled(task):
            for entry in live:
                queue.tell(entry.number, None, reaped=True)
            if state.name == "conflict":
                found["conflict"].append(key)
            continue
        if not live:
            queue.put(key, arm=task.arm, seed=task.seed, kind=task.kind)
        found["ready"].append(key)
    return found


def take(session: Session, channel: Channel) -> tuple[Entry, Lock, RunSpec] | None:
    """The next run with its lease, marked as running in the queue; None if there is none, which is told."""
    plan = session.plan
    with session.queue() as queue:
        found = advance(session, queue)
        for key in found["ready"]:
            lock = session.lock(key)
            if not lock.acquire(wait=False):
                found["elsewhere"].append(key)
                continue
            task = plan.tasks[key]
            # Another engine with a queue of its own may have done it in the meantime.
            if plan.state(task).name != "finished" and (spec := plan.bind(task)) is not None:
                begin(spec)
                entry = queue.take([key], session.owner)
                if entry is not None:
                    return entry, lock, spec
            lock.clear()
            lock.release()
    channel.send("empty", elsewhere=found["elsewhere"], conflict=found["conflict"])
    return None


def work(session: Session, slot: int, channel: Channel) -> None:
    """Takes and does one run, or tells "empty"."""
    plan = session.plan
    taken = take(session, channel)
    if taken is None:
        return
    entry, lock, spec = taken
    task = plan.tasks[entry.key]
    channel.send("taken", key=task.key, steps=steps(spec.config))
    try:
        result = session.runner.run(spec, slot, channel, lease=lock)
    except Preempted:
        lock.clear()
        lock.release()
        raise
    if not lock.mine():
        raise LeaseLostError(f"{task.key}: another machine has taken it over, as this one gave no sign of life")
    line, value = "", None
    if result.status == "finished":
        try:
            value = _value(plan, task, result)
        except BiposeError as error:
            line = str(error)
    with session.queue() as queue:
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
