"""Training history as one JSON object a line, without a logger's machinery; dashboards mirror it afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from torch import Tensor

from bipose_lit.callbacks.evaluation import Evaluation

Report = Callable[[int, int, Mapping[str, float]], None]


class History(L.Callback):
    """Appends {"step", "epoch", metrics...} to a file every `every` optimiser steps and after each validation.

    Args:
        path: history.jsonl; emptied when training starts from step 0.
        every: optimiser steps between two lines of training metrics.
        report: called with (step, total steps, metrics) for progress displays.
    """

    def __init__(self, path: Path, every: int = 10, report: Report | None = None) -> None:
        self.path, self.every, self.report = path, every, report
        self._last = -1

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if trainer.global_step == 0:
                self.path.write_text("")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step in (0, self._last) or (step % self.every and step != 1):
            return
        self._training(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._last not in (-1, trainer.global_step):
            self._training(trainer)

    def _training(self, trainer: L.Trainer) -> None:
        self._last = trainer.global_step
        rates = {"lr": trainer.optimizers[0].param_groups[0]["lr"]} if trainer.optimizers else {}
        self._write(trainer, {**_numbers(trainer.callback_metrics, "train/"), **rates})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Evaluation):
                self._write(trainer, callback.metrics["val"])

    def _write(self, trainer: L.Trainer, numbers: Mapping[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        row = {"step": trainer.global_step, "epoch": trainer.current_epoch, **numbers}
        with self.path.open("a") as handle:
            handle.write(json.dumps(row, sort_keys=True) + "\n")
        if self.report is not None:
            self.report(trainer.global_step, int(trainer.estimated_stepping_batches), numbers)


def _numbers(metrics: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {
        k: float(v)
        for k, v in sorted(metrics.items())
        if k.startswith(prefix) and isinstance(v, (Tensor, float, int)) and float(v) == float(v)
    }
