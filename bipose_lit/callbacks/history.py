"""Training history as one JSON object a line, without a logger's machinery; dashboards mirror it afterwards."""

from __future__ import annotations

import json
import os
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
        path: history.jsonl; emptied when training starts anew. A resumed training drops the rows after its checkpoint.
        every: optimiser steps between two lines of training metrics.
        report: called with (step, total steps, metrics) for progress displays.
    """

    def __init__(self, path: Path, every: int = 10, report: Report | None = None) -> None:
        self.path, self.every, self.report = path, every, report
        self._last = -1
        self._keep: int | None = 0  # bytes of the file that stay when the first row is written; None: all

    def state_dict(self) -> dict[str, Any]:
        """How much of the file belongs to the steps so far; what is told is on the disk before the checkpoint is."""
        size = 0
        if self.path.is_file():
            with self.path.open("rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                os.fsync(handle.fileno())
        return {"bytes": size if self._keep is None else self._keep, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._keep, self._last = int(state_dict["bytes"]), int(state_dict["last"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._keep is None and trainer.global_step == 0:  # the same callback in another fit
            self._keep = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin(trainer)

    def _begin(self, trainer: L.Trainer) -> None:
        if self._keep is None:
            return
        keep, self._keep = self._keep, None
        if not trainer.is_global_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as handle:
            if handle.tell() > keep:
                handle.truncate(keep)

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
        self._begin(trainer)
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
