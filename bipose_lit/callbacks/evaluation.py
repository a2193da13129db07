"""Metrics outside the module: collects predictions by uid over ranks, summarises them, logs them under plain aliases."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L

from bipose_lit.metrics.state import PredictionCollector
from bipose_lit.metrics.summary import alias, summarise
from bipose_lit.store import Predictions
from bipose_lit.types import ClipBatch


class Evaluation(L.Callback):
    """Scores validation and test predictions.

    Attributes:
        predictions: the last gathered predictions by split ("val", "test").
        metrics: the last summary by split, protocol name to number.
        scorings: how often each split was scored (sanity checks do not count).
    """

    def __init__(self) -> None:
        self.predictions: dict[str, Predictions] = {}
        self.metrics: dict[str, dict[str, float]] = {}
        self.scorings: dict[str, int] = {}
        self._collector = PredictionCollector()
        self._loss = 0.0
        self._batches = 0

    def _start(self) -> None:
        self._collector = PredictionCollector()
        self._loss, self._batches = 0.0, 0

    def _add(self, batch: ClipBatch, outputs: Any) -> None:
        self._collector.update(batch, outputs["joints"], outputs["score"])
        if "loss" in outputs:
            self._loss += float(outputs["loss"])
            self._batches += 1

    def _finish(self, trainer: L.Trainer, module: L.LightningModule, split: str) -> None:
        if trainer.sanity_checking:
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        predictions = self._collector.compute(datamodule.index(split))
        metrics = summarise(predictions, split, detail=trainer.state.fn != "fit")
        self.predictions[split], self.metrics[split] = predictions, metrics
        self.scorings[split] = self.scorings.get(split, 0) + 1
        # Every rank holds the same gathered numbers, so nothing is reduced again.
        module.log_dict({alias(name): value for name, value in metrics.items()}, add_dataloader_idx=False)
        if self._batches:
            metrics[f"{split}/loss"] = self._loss / self._batches
            module.log(f"{split}/loss", metrics[f"{split}/loss"], sync_dist=True)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        self._add(batch, outputs)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start()

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        self._add(batch, outputs)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, pl_module, "test")
