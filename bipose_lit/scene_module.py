"""SceneModule: a bottom-up network of whole images, trained and scored without boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bipose_lit import geometry
from bipose_lit.callbacks.scene_evaluation import SceneEvaluation
from bipose_lit.codecs.assembly import People
from bipose_lit.codecs.scene import SceneCodec
from bipose_lit.compatibility import check_data
from bipose_lit.losses.scene import SceneMSE
from bipose_lit.module import PoseModule
from bipose_lit.scene_datamodule import SceneDataModule
from bipose_lit.types import BiposeError, Encoded, SceneBatch


class SceneModule(PoseModule):
    """Trains and evaluates a `PoseNetwork` that finds all people of an image: `SceneCodec`, `SceneMSE`, `OpenPoseDecoder`.

    It takes the options of `PoseModule` and has its optimisers, checkpoints and laws over processes; `size` is that of the frame
    that images are fitted into in training. Optimiser steps count images for clips.

    Raises:
        BiposeError: as `PoseModule`, and a codec or loss of single persons, or a refiner.
    """

    evaluation = SceneEvaluation
    codec: SceneCodec

    def _check_parts(self) -> None:
        if not isinstance(self.codec, SceneCodec) or not isinstance(self.loss, SceneMSE):
            raise BiposeError(
                f"SceneModule: codec {type(self.codec).__name__} with loss {type(self.loss).__name__} is of single persons; use "
                "bipose_lit.codecs.scene.SceneCodec and bipose_lit.losses.scene.SceneMSE"
            )
        if self.network.refiner is not None:
            raise BiposeError("model.refiner refines single persons; leave it null for whole images")
        super()._check_parts()

    def setup(self, stage: str) -> None:
        """As `PoseModule.setup`.

        Raises:
            BiposeError: data of single persons, or with another stride, number or order of joints.
        """
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, SceneDataModule):
            raise BiposeError(
                f"SceneModule learns from whole images, not from {type(data).__name__}: fit it with a SceneDataModule"
            )
        if data.stride != self.codec.stride:
            raise BiposeError(f"data.stride is {data.stride}, that of model.codec {self.codec.stride}; make them equal")
        check_data(self.joints, self.size, self.codec, data)

    def _target(self, batch: SceneBatch, select: Tensor) -> tuple[Encoded, Tensor]:
        return self.codec.encode(batch.joints[select], batch.visible[select], batch.ignore[select])

    def _located(self, batch: Any, encoded: Encoded) -> dict[str, Any]:
        """The people of the valid images in original pixels, and the loss over what is known.

        Returns:
            people: a `People` for each valid image, row-major; loss () and normaliser ().
        """
        found = self.codec.people(encoded)
        matrices = batch.to_image[batch.valid].double().cpu().numpy()
        people = [
            People(np.asarray(geometry.apply(m[None].repeat(len(p), axis=0), p.joints)), p.confidence, p.score)
            for m, p in zip(matrices, found, strict=True)
        ]
        target, weight = self._target(batch, batch.valid)
        return {
            "people": people,
            "loss": self.loss(encoded, target, weight)["loss"],
            "normaliser": self.loss.normaliser(target, weight),
        }


__all__ = ["SceneModule"]
