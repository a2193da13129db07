"""One turn of a sweep's worker: take up a dead worker's trial or ask for a new one, run it, tell how it ended."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bipose_lit.ablation.plan import run_seconds, steps
from bipose_lit.ablation.pool import Outcome
from bipose_lit.ablation.process import Channel, Lock
from bipose_lit.ablation.runner import LeaseLostError, Runner, fail, progress_of
from bipose_lit.ablation.storage import shown
from bipose_lit.ablation.tune import find_metric
from bipose_lit.ablation.worker import DEATHS
from bipose_lit.store import SPEC, RunResult, RunSpec
from bipose_lit.sweep.judge import JudgeSpec
from bipose_lit.sweep.manifest import Objective, Sweep
from bipose_lit.sweep.plan import SweepPlan
from bipose_lit.sweep.record import write_trials
from bipose_lit.sweep.study import GAPS, Entry, Study, opened, study_name
from bipose_lit.sweep.tools import complete
from bipose_lit.types import BiposeError, Preempted


@dataclass(frozen=True)
class Taken:
    """A trial in this process's hands.

    Attributes:
        entry: the trial.
        lease: its held lock.
        again: it was begun by a process that is gone.
        specs: its runs.
    """

    entry: Entry
    lease: Lock
    again: bool
    specs: tuple[RunSpec, ...]


@dataclass(frozen=True)
class Search:
    """One start of the search; the `Turns` of its pool.

    Attributes:
        plan: what is searched.
        runner: who does a run.
        storage: the study's address.
        deaths: by trial, how often its process died in this start without a checkpoint in between, and the checkpoints' state.
    """

    plan: SweepPlan
    runner: Runner
    storage: str
    deaths: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def sweep(self) -> Sweep:
        return self.plan.sweep

    def lock(self, key: str) -> Lock:
        """A lock of this sweep, by name: a trial's key, "queue", or what is prepared."""
        return self.runner.lock(key)

    @contextmanager
    def study(self) -> Iterator[Study]:
        """The study, for this process alone while the block runs."""
        with opened(self.storage, self.sweep, self.lock("queue")) as study:
            yield study

    def ended(self, key: str) -> None:
        """Nothing: the study says what has ended."""

    def value_name(self, key: str) -> str:
        return self.sweep.objectives[0].metric

    def turn(self, slot: int, channel: Channel) -> None:
        """Takes and does one trial, or tells "empty"."""
        with self.study() as study:
            taken, elsewhere = self._take(study)
        if taken is None:
            channel.send("empty", elsewhere=elsewhere, conflict=[])
            return
        key, lease = taken.entry.key, taken.lease
        channel.send("taken", key=key, steps=steps(taken.specs[0].config))
        try:
            results = self._run(taken, slot, channel)
        except Preempted:
            lease.clear()
            lease.release()
            raise
        if not lease.mine():
            raise LeaseLostError(f"{key}: another machine has taken it over, as this one gave no sign of life")
        state, values, line, mistake = self._outcome(results)
        seconds = sum(s for s in map(run_seconds, results) if math.isfinite(s))
        with self.study() as study:
            study.tell(taken.entry.number, state, values, seconds=seconds, error=line, **_pruned_at(results))
            entries = study.entries()
            write_trials(self.plan, entries)
            lease.clear()
            lease.release()
        if mistake:
            channel.send("abort", line=f"{self.sweep.path}: {line}")
        value = entries[taken.entry.number].values
        channel.send("ended", key=key, status=state, error=line, value=value[0] if value else None, seconds=seconds)

    def _take(self, study: Study) -> tuple[Taken | None, list[str]]:
        """A trial whose process is gone, else a new one, else none; and the keys of those that others are at."""
        study.settle()
        elsewhere: list[str] = []
        for entry in study.entries():
            if entry.state != "running" or entry.twin is not None:
                continue
            lease = self.lock(entry.key)
            seen = last_sign(lease)
            if lease.held() or not lease.acquire(wait=False):
                elsewhere.append(entry.key)
                continue
            entry = study.resume(entry.number)
            if entry.twin is not None:
                _free(lease)
                continue
            if seen is not None:
                study.note(entry.number, **{GAPS: [*entry.attributes.get(GAPS, []), [seen, time.time()]]})
            taken = self._bind(study, entry, lease, True)
            if taken is not None:
                return taken, elsewhere
        while (new := study.ask()) is not None:
            lease = self.lock(new.key)
            if not lease.acquire(wait=False):  # a lock left by another study of this name
                raise BiposeError(
                    f"{lease.path} is held by {lease.holder()}; is the same sweep running on another storage?"
                )
            taken = self._bind(study, new, lease, False)
            if taken is not None:
                return taken, elsewhere
        return None, elsewhere

    def _bind(self, study: Study, entry: Entry, lease: Lock, again: bool) -> Taken | None:
        """A trial with its runs; one that cannot even be configured has failed."""
        assert entry.point is not None, "a point is drawn before its trial is handed out"
        try:
            return Taken(entry, lease, again, tuple(self.plan.runs(entry.number, entry.point)))
        except BiposeError as error:
            study.tell(entry.number, "failed", error=str(error))
            _free(lease)
            return None

    def _run(self, taken: Taken, slot: int, channel: Channel) -> list[RunResult]:
        """The trial's runs one after the other, those left out that are done; ends with the first that failed or was pruned."""
        results: list[RunResult] = []
        for index, spec in enumerate(taken.specs):
            result = _done(spec, taken.again)
            if result is None:
                result = self.runner.run(spec, slot, channel, self._judge(taken, spec, index), taken.lease)
            results.append(result)
            if result.status != "finished":
                break
        return results

    def _judge(self, taken: Taken, spec: RunSpec, index: int) -> dict[str, Any] | None:
        if self.sweep.pruner["name"] == "none":
            return None
        return JudgeSpec(
            storage=shown(self.storage),
            study=study_name(self.sweep.name),
            trial=taken.entry.number,
            metric=self.sweep.objectives[0].metric,
            seed_index=index,
            pruner=complete(self.sweep.pruner, spec.config),
            steps=max(0, int((spec.config.get("trainer") or {}).get("max_steps") or 0)),
        ).as_dict()

    def _outcome(self, results: list[RunResult]) -> tuple[str, tuple[float, ...], str, bool]:
        """State, values, what went wrong, and whether that is the sweep's mistake and not the trial's."""
        last = results[-1]
        if last.status == "pruned":
            return "pruned", (), "", False
        if last.status != "finished":
            return "failed", (), last.error or f"the run ended as {last.status}", False
        try:
            values = tuple(_mean([value_of(r, o) for r in results]) for o in self.sweep.objectives)
        except BiposeError as error:
            return "failed", (), str(error), True
        if not all(map(math.isfinite, values)):
            bad = next(o.metric for o, v in zip(self.sweep.objectives, values, strict=True) if not math.isfinite(v))
            return "failed", (), f"{bad} is not a number", False
        return "finished", values, "", False

    def buried(self, key: str, line: str) -> Outcome:
        """The process at a trial died: the trial is taken up again, but not for ever."""
        folders = sorted((self.plan.folder / key).glob("seed*"))
        place = sum(map(progress_of, folders)) + len(folders)
        count, before = self.deaths.get(key, (0, -1))
        count = count + 1 if place == before else 1
        self.deaths[key] = (count, place)
        if count < DEATHS:
            return Outcome("left", line=f"{line}; it is taken up again")
        if not any((folder / SPEC).is_file() for folder in folders):  # nothing to be failed by: it would go on for ever
            raise BiposeError(f"{key}: {line}, {count} times in a row before its first run had begun")
        lease = self.lock(key)
        if not lease.acquire(wait=False):
            return Outcome("left", line=line)  # another process has taken it up already
        for folder in folders:
            with contextlib.suppress(BiposeError):
                if RunResult.load(folder) is None:
                    fail(RunSpec.load(folder / SPEC), line, died=count)  # the next look at the study tells it
        _free(lease)
        return Outcome(
            "left", line=f"{line}, {count} times in a row without a checkpoint in between: it counts as failed"
        )


def value_of(result: RunResult, objective: Objective) -> float:
    """An objective's value in a finished run.

    Raises:
        BiposeError: the result has no such number.
    """
    head, _, rest = objective.metric.partition("/")
    if objective.outside:
        numbers: Mapping[str, Any] = result.facts if head == "facts" else result.measured
        value = numbers.get(rest)
        if isinstance(value, bool) or not isinstance(value, int | float):
            known = ", ".join(sorted(k for k, v in numbers.items() if type(v) in (int, float)))
            raise BiposeError(f"objective {objective.metric}: a run has no such number in its {head}; it has {known}")
        return float(value)
    return float(result.metrics[find_metric(result.metrics, objective.metric, "val")])


def last_sign(lease: Lock) -> float | None:
    """When the lease's holder last gave a sign of life, seconds since the epoch; None if there never was one."""
    try:
        return lease.path.stat().st_mtime
    except OSError:
        return None


def _done(spec: RunSpec, again: bool) -> RunResult | None:
    """What a run has left, if it counts: a failure only where this very trial is taken up."""
    try:
        result = RunResult.load(spec.folder)
    except BiposeError:
        return None
    if result is None or result.config_hash != spec.config_hash:
        return None
    return result if result.status in ("finished", "pruned") or (again and result.status == "failed") else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _pruned_at(results: list[RunResult]) -> dict[str, Any]:
    step = results[-1].facts.get("pruned_at")
    return {} if step is None else {"pruned_at": step}


def _free(lease: Lock) -> None:
    lease.clear()
    lease.release()


def folder_of(plan: SweepPlan, entry: Entry) -> Path:
    """Folder of a trial."""
    return plan.folder / entry.key
