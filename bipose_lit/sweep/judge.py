"""Whether a trial is given up: reports each validation to the study and asks the pruner. Lives in the run's own process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from bipose_lit.ablation.storage import close_storage, open_storage
from bipose_lit.ablation.tune import find_metric
from bipose_lit.sweep.study import CLUSTERS
from bipose_lit.sweep.tools import make_pruner
from bipose_lit.types import BiposeError

STORAGE = "BIPOSE_STORAGE"
"""Variable of the environment that names the storage: an address may hold a password, which belongs in no file."""


@dataclass(frozen=True)
class JudgeSpec:
    """What a judge needs to know; plain data, kept beside a run's specification.

    Attributes:
        storage: of the study, its password left out; `STORAGE` goes before.
        study: the study's name.
        trial: the trial's number.
        metric: of the validation split, in full or short.
        seed_index: which of the trial's runs this is; the first alone is judged.
        pruner: {"name", ...}, complete.
        steps: of the whole run, at which nothing is left to be saved, so nothing is pruned; 0: unknown.
    """

    storage: str
    study: str
    trial: int
    metric: str
    seed_index: int
    pruner: dict[str, Any]
    steps: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JudgeSpec:
        """Reads what `as_dict` gave.

        Raises:
            BiposeError: it is something else.
        """
        try:
            return cls(**data)
        except TypeError as error:
            raise BiposeError(f"the judge's description is damaged ({error}); start the sweep again") from error


def make_judge(data: Mapping[str, Any] | JudgeSpec) -> StudyJudge:
    """The judge that plain data describe."""
    return StudyJudge(data if isinstance(data, JudgeSpec) else JudgeSpec.from_dict(data))


class StudyJudge:
    """Called after each validation of a fit with (step, metrics, values of `watch` by cluster); True: give the trial up.

    The storage is opened for each question and closed again: a run forks loading processes, which must inherit no connection.

    Attributes:
        watch: the metric whose values by cluster are wanted; "" for none.
    """

    def __init__(self, spec: JudgeSpec) -> None:
        self.spec = spec
        self.watch = spec.metric if spec.pruner["name"] == "wilcoxon" else ""

    def __call__(self, step: int, metrics: Mapping[str, float], clusters: Mapping[str, float]) -> bool:
        spec = self.spec
        if spec.seed_index:
            return False
        value = float(metrics[find_metric(metrics, spec.metric, "val")])
        storage = open_storage(os.environ.get(STORAGE) or spec.storage)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                study = optuna.load_study(
                    study_name=spec.study, storage=storage, sampler=RandomSampler(), pruner=make_pruner(spec.pruner)
                )
                # The id, by which storages know a trial, is given to nobody in public.
                trial = Trial(study, study.get_trials(deepcopy=False)[spec.trial]._trial_id)
                trial.report(value, step)
                if self.watch:
                    trial.set_user_attr(f"{CLUSTERS}/{step}", dict(clusters))
                if 0 < spec.steps <= step:
                    return False
                if not self.watch:
                    return trial.should_prune()
                return prune_by_clusters(study, step, clusters, spec.pruner)
        finally:
            close_storage(storage)


def prune_by_clusters(study: optuna.Study, step: int, clusters: Mapping[str, float], pruner: Mapping[str, Any]) -> bool:
    """Wilcoxon's signed-rank test over clips: is this trial worse than the best finished one was at the same validation?

    Optuna's pruner pairs values by their "step". Here a pair is a cluster at one validation, so the pruner is asked about a small
    study of its own: the best trial's values at this step, and this trial's. (With 13 clips or fewer and equal differences among
    them SciPy counts all permutations, which takes seconds.)

    Args:
        study: the search.
        step: of the validation.
        clusters: this trial's values by cluster.
        pruner: Wilcoxon's words.
    """
    finished = [
        t
        for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if f"{CLUSTERS}/{step}" in t.user_attrs
    ]
    if not finished:
        return False
    sign = 1 if study.direction.name == "MAXIMIZE" else -1
    best = max(finished, key=lambda t: (sign * float(t.value or 0.0), -t.number))
    before: Mapping[str, float] = best.user_attrs[f"{CLUSTERS}/{step}"]
    shared = sorted(set(before) & set(clusters))
    if len(shared) < 2:
        return False
    pair = optuna.create_study(direction="maximize" if sign > 0 else "minimize", sampler=RandomSampler())
    pair.add_trial(_trial({i: before[c] for i, c in enumerate(shared)}, TrialState.COMPLETE))
    return make_pruner(pruner).prune(pair, _trial({i: clusters[c] for i, c in enumerate(shared)}, TrialState.RUNNING))


def _trial(values: Mapping[int, float], state: TrialState) -> FrozenTrial:
    mean = sum(values.values()) / len(values)
    return create_trial(
        state=state,
        value=mean if state == TrialState.COMPLETE else None,
        params={"x": 0.5},
        distributions={"x": FloatDistribution(0, 1)},
        intermediate_values=dict(values),
    )
