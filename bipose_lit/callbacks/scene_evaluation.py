"""Metrics of whole images: collects people by image over ranks, scores them by the data set's measure, logs the numbers."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as L

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.codecs.assembly import People
from bipose_lit.metrics.scene_state import SceneCollector, scene_scores
from bipose_lit.metrics.summary import own_name
from bipose_lit.types import SceneBatch

_log = logging.getLogger(__name__)


class SceneEvaluation(Evaluation):
    """Scores validation and test predictions of a `SceneModule`: COCO's average precision over whole images, without boxes.

    Attributes:
        people: the last gathered people by split, by image id.
        metrics: the last numbers by split, e.g. "val/ap[whole-image]"; "val/persons" are those labelled, "val/found" those
            found, "val/images" the images.
        scorings: how often each split was scored (sanity checks do not count).
    """

    def __init__(self) -> None:
        self.people: dict[str, dict[int, People]] = {}
        super().__init__()

    def _start(self) -> None:
        super()._start()
        self._scenes = SceneCollector()

    def _add(self, batch: Any, outputs: Any) -> None:
        assert isinstance(batch, SceneBatch)
        images = batch.image[batch.valid].tolist()
        for image, people in zip(images, outputs["people"], strict=True):
            self._scenes.update(image, people)
        self._add_loss({(image, 0) for image in images}, outputs, 0)

    def _finish(self, trainer: L.Trainer, module: L.LightningModule, split: str) -> None:
        if trainer.sanity_checking:
            return
        datamodule: Any = getattr(trainer, "datamodule", None)
        index = datamodule.index(split)
        found = self._scenes.gather()
        self.people[split] = found
        metrics = {
            f"{split}/images": float(len(found)),
            f"{split}/persons": float((~index.truth.ignore).sum()),
            f"{split}/found": float(sum(map(len, found.values()))),
        }
        if len(found) < len(index.scenes):
            # Whoever is in an image that was not looked at counts as missed: a part of the split has no such number.
            _log.warning("%s: %d of %d images were scored: no measure of it", index.name, len(found), len(index.scenes))
        else:
            own = scene_scores(index.truth, found, index.category, index.skeleton.sigmas)
            metrics |= {own_name(name, index.name, split): v for name, v in own.items() if v == v}
        self._tell(trainer, module, split, metrics)


__all__ = ["SceneEvaluation"]
