"""The study of a search: what was tried, what is being tried, what came out. Result files are the truth about single runs.

Every access happens in a process of its own that opens the storage, works and closes it, one at a time (`exclusive`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from bipose_lit.ablation.process import Lock
from bipose_lit.ablation.queue import PLACE
from bipose_lit.ablation.storage import close_storage, exclusive, open_storage, open_study
from bipose_lit.sweep.budget import Span, room, seconds, without
from bipose_lit.sweep.manifest import Sweep
from bipose_lit.sweep.space import MANY, key_of
from bipose_lit.sweep.tools import make_sampler
from bipose_lit.types import BiposeError

POINT, TWIN, GAPS, ERROR, CLUSTERS, RETRY = "point", "same_as", "gaps", "error", "clusters", "retry_of"
SEARCH = "search"
"""Attribute of a study: what it searches, so that another search does not go on in it."""
STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
AGAIN = 10
"""How often in a row a sampler may propose what was tried before a point is drawn from the rest."""


def study_name(sweep: str) -> str:
    """The study's name in its storage; the runs after the search are queued in one that is called like the sweep."""
    return f"{sweep}/search"


@dataclass(frozen=True)
class Entry:
    """One trial.

    Attributes:
        number: of the trial in its study.
        state: "running", "finished", "pruned" or "failed".
        point: its parameters; None if its process died while they were drawn.
        values: of the objectives; of a pruned trial, the last that was seen.
        intermediate: value of the objective by optimiser step.
        attributes: what else is kept.
        span: seconds since the epoch at which it was begun and ended (now, while it runs).
    """

    number: int
    state: str
    point: dict[str, Any] | None
    values: tuple[float, ...] = ()
    intermediate: Mapping[int, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    span: Span = (0.0, 0.0)

    @property
    def key(self) -> str:
        """Its folder below OUT/NAME, also the name of its lease."""
        return trial_key(self.number)

    @property
    def twin(self) -> int | None:
        """Number of an earlier trial at the same point, whose result is taken over."""
        return self.attributes.get(TWIN)

    @property
    def error(self) -> str:
        return str(self.attributes.get(ERROR, ""))

    def spans(self) -> list[Span]:
        """When somebody was at it."""
        return without(self.span, [(float(a), float(b)) for a, b in self.attributes.get(GAPS, [])])


def trial_key(number: int) -> str:
    """trials/trialNNNN."""
    return f"trials/trial{number:04d}"


class Study:
    """An open study.

    Args:
        storage: that it lies in.
        url: the storage's address.
        sweep: what is searched.

    Raises:
        BiposeError: a study of this name has other objectives.
    """

    def __init__(self, storage: BaseStorage, url: str, sweep: Sweep) -> None:
        self.storage, self.sweep = storage, sweep
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if o.maximize else "minimize" for o in sweep.objectives
        ]
        self.study = open_study(storage, url, study_name(sweep.name), *directions)
        self.study.sampler = RandomSampler()  # whoever draws a trial says by what
        if [d.name.lower() for d in self.study.directions] != directions:
            raise BiposeError(f"the study of {sweep.name} has other objectives; {OTHER}")

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Says what is searched, or checks that it is what was searched before.

        Raises:
            BiposeError: it is something else; the line says what.
        """
        known = self.study.user_attrs.get(SEARCH)
        if known is None:
            self.study.set_user_attr(SEARCH, dict(identity))
            return
        asked = json.loads(json.dumps(identity))
        changed = [k for k in asked if k in known and asked[k] != known[k]]
        if PLACE in changed and self.entries():
            raise BiposeError(
                f"the study of {self.sweep.name} belongs to another results folder, where its runs are; give that as --out, this "
                "search another name, or --fresh if nobody needs the other any more"
            )
        if changed and self.entries():
            raise BiposeError(f"the study of {self.sweep.name} was begun with another {changed[0]}; {OTHER}")
        self.study.set_user_attr(SEARCH, dict(identity))

    def entries(self) -> list[Entry]:
        """All trials, oldest first."""
        now = time.time()
        return [_entry(t, now) for t in self._trials()]

    def _trials(self) -> list[FrozenTrial]:
        return [t for t in self.study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]

    def ask(self) -> Entry | None:
        """A new trial at a point that nobody has tried; None if the budget or the space is used up.

        What was tried already is proposed at times, in small spaces often: such a trial takes the earlier one's result over
        (when it is there) and costs nothing.
        """
        while True:
            entries = self.entries()
            again = self.again()
            own = [e for e in entries if e.twin is None and e.number not in again]
            if not room(self.sweep.budget, len(own), [s for e in own for s in e.spans()]):
                return None
            known = {key_of(e.point): e.number for e in own if e.point is not None}
            if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                return self._draw(known)
            if len(known) >= self.sweep.space.count():
                return None
            repeats = len(list(itertools.takewhile(lambda e: e.twin is not None, reversed(entries))))
            if self.sweep.sampler["name"] == "grid" or repeats >= AGAIN:
                point = self._untried(known, repeats)
                if point is None:
                    return None
                self.study.enqueue_trial(self.sweep.space.params(point))
            entry = self._draw(known)
            if entry.twin is None:
                return entry

    def again(self) -> set[int]:
        """Numbers of the failed trials that are, or will be, tried again."""
        return {int(t.user_attrs[RETRY]) for t in self.study.get_trials(deepcopy=False) if RETRY in t.user_attrs}

    def retry(self) -> int:
        """Puts the failed trials at the head of the search, once each; returns how many."""
        again = self.again()
        failed = [e for e in self.entries() if e.state == "failed" and e.twin is None and e.number not in again]
        for entry in failed:
            if entry.point is not None:
                params = self.sweep.space.params(entry.point)
                self.study.enqueue_trial(params, user_attrs={RETRY: entry.number})
        return len(failed)

    def _untried(self, known: Mapping[str, int], repeats: int) -> dict[str, Any] | None:
        """The next point of a grid, or one of those that are left, at random."""
        space = self.sweep.space
        if self.sweep.sampler["name"] == "grid":
            return next((p for p in space.points() if key_of(p) not in known), None)
        if space.count() > MANY:
            return None if repeats > 10 * AGAIN else _random_point(self.sweep, len(self._trials()))
        left = [p for p in space.points() if key_of(p) not in known]
        seed = f"{self.sweep.sampler.get('seed', 0)} {len(self._trials())}"
        return random.Random(seed).choice(left) if left else None

    def _draw(self, known: Mapping[str, int]) -> Entry:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.sampler = make_sampler(self.sweep.sampler, len(self._trials()))
            trial = self.study.ask()
            return self._name(trial, known)

    def _name(self, trial: Trial, known: Mapping[str, int]) -> Entry:
        """Draws what is not drawn yet, and notes the point."""
        point = self.sweep.space.suggest(trial)
        twin = known.get(key_of(point))
        if twin is not None and RETRY not in trial.user_attrs:
            trial.set_user_attr(TWIN, twin)
        trial.set_user_attr(POINT, point)
        self.settle()
        return self.entry(trial.number)

    def resume(self, number: int) -> Entry:
        """A trial whose process is gone, with its point completed if it died while that was drawn."""
        entry = self.entry(number)
        if entry.point is not None:
            return entry
        known = {key_of(e.point): e.number for e in self.entries() if e.point is not None and e.twin is None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.sampler = make_sampler(self.sweep.sampler, number)
            return self._name(self._open(number), known)

    def entry(self, number: int) -> Entry:
        return _entry(self.study.get_trials(deepcopy=False)[number], time.time())

    def _open(self, number: int) -> Trial:
        # Optuna gives a trial's number to everybody and its id, by which storages know it, to nobody in public.
        return Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    def note(self, number: int, **attributes: Any) -> None:
        """Keeps something with a running trial."""
        self.study.sampler = RandomSampler()
        trial = self._open(number)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)

    def tell(self, number: int, state: str, values: Sequence[float] = (), **attributes: Any) -> None:
        """Ends a trial, and those that wait for its result; what has ended stays as it is."""
        if self.entry(number).state != "running":
            return
        self.note(number, **attributes)
        self._end(number, state, values)
        self.settle()

    def _end(self, number: int, state: str, values: Sequence[float]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if state == "finished":
                self.study.tell(number, list(values))
            elif state == "pruned":
                self.study.tell(number, state=TrialState.PRUNED)  # with the last intermediate value
            else:
                self.study.tell(number, state=TrialState.FAIL)

    def settle(self) -> None:
        """Hands results on to trials at the same point."""
        entries = {e.number: e for e in self.entries()}
        for entry in entries.values():
            if entry.state != "running" or entry.twin is None:
                continue
            twin = entries[entry.twin]
            if twin.state == "running":
                continue
            self.note(entry.number, **({ERROR: twin.error} if twin.error else {}))
            if twin.state == "pruned":
                for step, value in twin.intermediate.items():
                    self._open(entry.number).report(value, step)
            self._end(entry.number, twin.state, twin.values)


OTHER = "give another name, another --out, or --fresh to begin the search anew"


@contextlib.contextmanager
def opened(url: str, sweep: Sweep, lock: Lock) -> Iterator[Study]:
    """The study, for this process alone while the block runs.

    Raises:
        BiposeError: the storage cannot be opened.
    """
    storage = open_storage(url)
    try:
        with lock, exclusive(storage, study_name(sweep.name)):
            yield Study(storage, url, sweep)
    finally:
        close_storage(storage)


def forget(url: str, sweep: Sweep, lock: Lock) -> None:
    """Deletes the study of a sweep, whatever it searched, if there is one.

    Raises:
        BiposeError: the storage cannot be opened.
    """
    storage = open_storage(url)
    try:
        with lock, exclusive(storage, study_name(sweep.name)), contextlib.suppress(KeyError):
            optuna.delete_study(study_name=study_name(sweep.name), storage=storage)
    finally:
        close_storage(storage)


def _random_point(sweep: Sweep, number: int) -> dict[str, Any]:
    study = optuna.create_study(sampler=make_sampler({"name": "random", "seed": sweep.sampler.get("seed", 0)}, number))
    return sweep.space.suggest(study.ask())


def _entry(trial: FrozenTrial, now: float) -> Entry:
    attributes = dict(trial.user_attrs)
    start = seconds(trial.datetime_start, now)
    return Entry(
        number=trial.number,
        state=STATES.get(trial.state, "running"),
        point=attributes.get(POINT),
        values=tuple(trial.values or ()),
        intermediate=dict(sorted(trial.intermediate_values.items())),
        attributes=attributes,
        span=(start, seconds(trial.datetime_complete, now)),
    )
