"""How long a run took, over all its parts."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as L


class Clock(L.Callback):
    """When the first optimiser step was done and how long the fit took, in seconds, over all parts of an interrupted run.

    What was computed after the last checkpoint and lost is not in it.
    """

    def __init__(self, start: float) -> None:
        self.start, self.first_step, self.fit = start, float("nan"), float("nan")
        self._fit_start = start
        self._resumed, self._earlier, self._earlier_fit = 0, 0.0, 0.0

    def state_dict(self) -> dict[str, Any]:
        now = time.perf_counter()
        return {
            "first_step": self.first_step,
            "fit": self._earlier_fit + now - self._fit_start,
            "total": self._earlier + now - self.start,
            "resumed": self._resumed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first_step, self._resumed = state_dict["first_step"], state_dict["resumed"] + 1
        self._earlier_fit, self._earlier = state_dict["fit"], state_dict["total"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._fit_start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        if self.first_step != self.first_step:
            self.first_step = time.perf_counter() - self.start

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.fit = self._earlier_fit + time.perf_counter() - self._fit_start

    def measured(self) -> dict[str, float]:
        """Seconds, and how often the run was resumed."""
        return {
            "start_seconds": self.first_step,
            "train_seconds": self.fit,
            "total_seconds": self._earlier + time.perf_counter() - self.start,
            "resumed": float(self._resumed),
        }
