"""The queue of runs as an Optuna study: durable, shared by workers of several machines, shown by optuna-dashboard.

Result files are the truth; the queue says who does what now. Every access happens in a process of its own that opens
the storage and closes it again, under one file lock, so a parent that forks never holds a connection.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from bipose_lit.ablation.process import Lock
from bipose_lit.ablation.storage import close_storage, open_storage, open_study

PLACE = "results folder"
"""Attribute that tells the folder of a study's runs from others: leases and checkpoints lie there."""


@dataclass(frozen=True)
class Entry:
    """One attempt at a task.

    Attributes:
        number: of the Optuna trial.
        key: of the task.
        state: "waiting", "running", "done" or "failed".
        owner: the engine that took it, as `engine_id` names it.
        reaped: failed because its process was gone, not because the run failed.
    """

    number: int
    key: str
    state: str
    owner: str = ""
    reaped: bool = False


def engine_id() -> str:
    """Names this process: host, pid, and its start, since pids come again."""
    return f"{socket.gethostname()}:{os.getpid()}:{Lock.start_of(os.getpid())}"


class Queue:
    """The study OUT/NAME's runs are queued in.

    Args:
        url: storage: a path (journal file) or an SQLAlchemy URL.
        name: of the study.
        place: marks the folder of results that this queue is for. Another folder's ablation of the same name may lie in the same
            database: its attempts are not seen here. None: all are.

    Raises:
        BiposeError: the storage cannot be opened.
    """

    def __init__(self, url: str, name: str, place: str | None = None) -> None:
        self.name, self.place = name, place
        self.storage = open_storage(url)
        self.study = open_study(self.storage, url, name, "maximize")

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives connections back; the queue opens them again when it is used."""
        close_storage(self.storage)

    @property
    def keeps_no_connection(self) -> bool:
        """Whether it may lie open while a run takes its time."""
        return isinstance(self.storage, JournalStorage)

    def entries(self) -> list[Entry]:
        """All attempts, oldest first."""
        names = {TrialState.WAITING: "waiting", TrialState.RUNNING: "running", TrialState.COMPLETE: "done"}
        return [
            Entry(
                t.number,
                str(t.user_attrs.get("key", "")),
                names.get(t.state, "failed"),
                str(t.user_attrs.get("owner", "")),
                bool(t.user_attrs.get("reaped", False)),
            )
            for t in self.study.get_trials(deepcopy=False)
            if self._here(t)
        ]

    def _here(self, trial: FrozenTrial) -> bool:
        return self.place is None or trial.user_attrs.get(PLACE, self.place) == self.place

    def put(self, key: str, **attributes: Any) -> None:
        """Adds an attempt at a task."""
        self.study.enqueue_trial({}, user_attrs={"key": key, PLACE: self.place, **attributes})

    def take(self, order: Sequence[str], owner: str) -> Entry | None:
        """The open attempt at the first possible of these tasks, now running; None if none of them has one.

        An attempt that runs already is taken too, under the number it has: the caller knows that its process is gone.
        """
        place = {key: i for i, key in enumerate(order)}
        live = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))
        mine = [t for t in live if self._here(t) and t.user_attrs.get("key") in place]
        for trial in sorted(mine, key=lambda t: (place[t.user_attrs["key"]], t.number)):
            # trial._trial_id: the storage speaks of trials by it, and only the storage can start a waiting one by choice.
            if trial.state == TrialState.WAITING and not self.storage.set_trial_state_values(
                trial._trial_id, TrialState.RUNNING
            ):
                continue
            self.storage.set_trial_user_attr(trial._trial_id, "owner", owner)
            if self.place is not None and PLACE not in trial.user_attrs:  # of a version that knew no places
                self.storage.set_trial_user_attr(trial._trial_id, PLACE, self.place)
            return Entry(trial.number, str(trial.user_attrs["key"]), "running", owner)
        return None

    def tell(self, number: int, value: float | None, reaped: bool = False, **attributes: Any) -> None:
        """Ends an attempt: done with the endpoint's value, failed with None. What has ended stays as it is."""
        trial = self.study.get_trials(deepcopy=False)[number]
        if trial.state.is_finished():
            return
        for key, attribute in {**attributes, **({"reaped": True} if reaped else {})}.items():
            self.storage.set_trial_user_attr(trial._trial_id, key, attribute)
        if trial.state == TrialState.WAITING:
            self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        if value is None or value != value:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, value)

    def record(
        self, arm: str, trial: int, point: Mapping[str, Any], space: Mapping[str, Any], value: float, maximize: bool
    ) -> None:
        """Shows a tuning trial in a study of the arm's own, with its parameters, for dashboards; once."""
        study = optuna.create_study(
            storage=self.storage,
            study_name=f"{self.name}/tune/{arm}",
            direction="maximize" if maximize else "minimize",
            load_if_exists=True,
        )
        if any(t.user_attrs.get("trial") == trial and self._here(t) for t in study.get_trials(deepcopy=False)):
            return
        distributions = {key: _distribution(space[key]) for key in point}
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(point),
                distributions=distributions,
                value=value,
                user_attrs={"trial": trial, PLACE: self.place},
            )
        )


def _distribution(entry: Any) -> BaseDistribution:
    if isinstance(entry, list):
        return CategoricalDistribution(entry)
    kind = IntDistribution if entry.get("int") else FloatDistribution
    return kind(entry["low"], entry["high"], log=bool(entry.get("log")))
