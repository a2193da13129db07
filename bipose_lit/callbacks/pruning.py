"""Ends a training that a judge gives up, on all ranks at the same step; who judges, and by what, is not known here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as L

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.metrics.summary import per_cluster
from bipose_lit.types import BiposeError

_log = logging.getLogger(__name__)

Judge = Callable[[int, Mapping[str, float], Mapping[str, float]], bool]
"""Asked after each validation of a fit, on global rank 0 alone: (optimiser step, metrics by protocol name, value of the watched
metric by cluster). True: give this training up. A judge may have an attribute `watch`, the metric whose values by cluster it
wants to see; without one they are {}."""


class Pruning(L.Callback):
    """Asks the judge after each validation.

    What a judge raises ends no training: a study that cannot be reached gives nothing up. It is logged.

    Args:
        judge: who decides.
        evaluation: what has just scored the validation split; must come before this callback in the Trainer's list.

    Attributes:
        pruned_at: optimiser step at which the training was given up, None if it was not. A run that was stopped just then is
            still given up when it goes on.
        metrics: the validation's of that step.
    """

    def __init__(self, judge: Judge, evaluation: Evaluation) -> None:
        self.judge, self.evaluation = judge, evaluation
        self.pruned_at: int | None = None
        self._told = False
        self.metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"pruned_at": self.pruned_at, "metrics": dict(self.metrics)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pruned_at, self.metrics = state_dict["pruned_at"], dict(state_dict["metrics"])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.pruned_at is not None:
            return
        stop = self._ask(trainer.global_step) if trainer.is_global_zero else False
        if trainer.world_size > 1:  # only one rank knows
            stop = trainer.strategy.broadcast(stop)
        if stop:
            self.pruned_at, self.metrics = trainer.global_step, dict(self.evaluation.metrics["val"])
            trainer.should_stop = True

    def _ask(self, step: int) -> bool:
        try:
            return bool(self.judge(step, self.evaluation.metrics["val"], self._clusters()))
        except Exception as error:
            _log.error("not judged at step %d: %s: %s", step, type(error).__name__, error)
            return False

    def _clusters(self) -> dict[str, float]:
        """The watched metric by cluster; {} if none is watched, or if it is not a mean of terms (a set's own measure)."""
        watch = str(getattr(self.judge, "watch", ""))
        if not watch:
            return {}
        try:
            sums = per_cluster(self.evaluation.predictions["val"], watch)
        except BiposeError as error:
            if not self._told:
                _log.warning("not judged by clusters: %s", error)
            self._told = True
            return {}
        each = zip(sums.clusters, sums.values.tolist(), sums.weights.tolist(), strict=True)
        return {cluster: value / weight for cluster, value, weight in each if weight}


__all__ = ["Judge", "Pruning"]
