"""Metrics outside the module: collects predictions by uid over ranks, summarises them, logs them under plain aliases."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as L
import torch

from bipose_lit.metrics.state import PredictionCollector
from bipose_lit.metrics.summary import alias, aliases, own_name, summarise
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, BiposeError, ClipBatch

_log = logging.getLogger(__name__)


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
        self._start()

    def _start(self) -> None:
        self._collector = PredictionCollector()
        self._loss, self._weight = 0.0, 0.0
        self._met: set[tuple[int, int]] = set()

    def _add(self, batch: ClipBatch, outputs: Any) -> None:
        self._collector.update(batch, outputs["joints"], outputs["score"])
        windows = set(zip(batch.clip.tolist(), batch.frame[:, 0].tolist(), strict=True))
        self._add_loss(windows, outputs, (batch.visible[batch.valid] != ABSENT).sum())

    def _add_loss(self, samples: set[tuple[int, int]], outputs: Any, labels: Any) -> None:
        """Adds the loss of a batch, by its normaliser or the number of its labels."""
        repeated = samples <= self._met  # what a sampler adds to even out the ranks fills a batch of its own
        self._met |= samples
        if "loss" in outputs and not repeated:
            # Sums over sums, as in training: the mean does not depend on how clips were dealt to batches and processes.
            weight = float(outputs.get("normaliser", labels))
            self._loss += float(outputs["loss"]) * weight
            self._weight += weight

    def _finish(self, trainer: L.Trainer, module: L.LightningModule, split: str) -> None:
        if trainer.sanity_checking:
            return
        datamodule: Any = getattr(trainer, "datamodule", None)
        if datamodule is None:
            raise BiposeError("metrics need the data's index: pass datamodule=PoseDataModule(...), not bare loaders")
        index = datamodule.index(split)
        predictions = self._collector.compute(index)
        metrics = summarise(predictions, split, detail=trainer.state.fn != "fit")
        whole = sum(len(track) for track in index.tracks)
        if index.scoring is not None and len(predictions.uid) < whole:
            # Its owners' measure counts who was not looked at as missed: a part of the split has no such number.
            _log.warning(
                "%s: %d of %d persons were scored: no measure of its own", index.name, len(predictions.uid), whole
            )
        elif index.scoring is not None:
            own = index.scoring.score(predictions)
            metrics |= {own_name(name, predictions.data, split): v for name, v in own.items() if v == v}
        self.predictions[split] = predictions
        self._tell(trainer, module, split, metrics)

    def _tell(self, trainer: L.Trainer, module: L.LightningModule, split: str, metrics: dict[str, float]) -> None:
        """Keeps and logs the numbers of a split, with its loss."""
        aliases(metrics)  # two numbers under one alias would overwrite each other
        self.metrics[split] = metrics
        self.scorings[split] = self.scorings.get(split, 0) + 1
        loss, weight = self._loss, self._weight
        if trainer.world_size > 1:  # summed by all ranks, also by one that met no label
            totals = torch.tensor([loss, weight], dtype=torch.float64, device=module.device)
            loss, weight = trainer.strategy.reduce(totals, reduce_op="sum").tolist()
        if weight:
            metrics[f"{split}/loss"] = loss / weight
        # Every rank holds the same numbers now, so nothing is reduced again.
        headlines = {n: v for n, v in metrics.items() if trainer.state.fn == "fit" or n.count("/") == 1}
        module.log_dict({n if n.endswith("/loss") else alias(n): v for n, v in headlines.items()})
        rest = {alias(n): v for n, v in metrics.items() if n not in headlines}
        for logger in trainer.loggers if rest else ():
            logger.log_metrics(rest, step=trainer.global_step)

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
