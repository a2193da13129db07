"""PoseModule: a network, a codec, a loss and a recipe as a LightningModule. Metrics are a callback's business."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from bipose_lit import geometry
from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.callbacks.guard import Guard
from bipose_lit.codecs.base import TargetCodec
from bipose_lit.compatibility import check_data, check_launch, check_parts, check_precision
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.losses import PoseLoss
from bipose_lit.losses.steps import StepLoss
from bipose_lit.models.base import Backbone, PoseDecoder, Refiner, TemporalHead, plain, uncompiled
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.sharding import shard
from bipose_lit.recipe import Recipe
from bipose_lit.types import ABSENT, BiposeError, ClipBatch, Encoded
from bipose_lit.weights import load_parts


class PoseModule(L.LightningModule):
    """Trains and evaluates a `PoseNetwork`.

    The hyperparameters in its checkpoints are plain data (class paths and arguments), whether it was made by the command line or
    in a notebook, so `PoseModule.load_from_checkpoint(path)` alone rebuilds it.

    Args:
        backbone: images to feature maps.
        decoder: feature maps to what the codec decodes.
        codec: joints to training targets and predictions to joints.
        loss: compares the two.
        temporal: head over time on feature maps; null for the per-frame model.
        pool: head over time on pooled vectors, before a regression decoder.
        refiner: the decoder's predictions over time to better ones; both are supervised.
        joints: number of joints K.
        size: width and height of the crops.
        weights: safetensors file that parts start from (`bipose_lit.weights`); null for the parts' own start.
        weights_for: which parts: "backbone", "decoder", "temporal", "pool", "refiner"; or layers of one ("decoder.layers").
        freeze_backbone: train everything but the backbone, whose BatchNorm stays as it is.
        flip_test: average predictions with those of the mirrored pictures.
        recipe: optimiser and schedule.
        compile: run the parts through torch.compile in training (a minute or more at the start, again where a batch has another
            number of frames; needs a C++ compiler on processors); scoring is not compiled, so that the same weights score the
            same; weights and checkpoints keep their plain names.
        intermediate: weight of the loss of every stage but the last one, where decoder and refiner have several.

    Raises:
        BiposeError: parts that do not fit together, or a weight below 0.
    """

    evaluation: type[Evaluation] = Evaluation
    """The callback that scores it."""

    def __init__(
        self,
        backbone: Backbone,
        decoder: PoseDecoder,
        codec: TargetCodec,
        loss: PoseLoss,
        temporal: TemporalHead | None = None,
        pool: TemporalHead | None = None,
        refiner: TemporalHead | Refiner | None = None,
        joints: int = 15,
        size: tuple[int, int] = (128, 128),
        weights: str | None = None,
        weights_for: list[str] | None = None,
        freeze_backbone: bool = False,
        flip_test: bool = False,
        recipe: Recipe | None = None,
        compile: bool = False,
        intermediate: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= intermediate < math.inf:
            raise BiposeError(f"model.intermediate is {intermediate}, and must be a number of at least 0")
        recipe = recipe or Recipe()
        weights_for = weights_for or ["backbone", "decoder"]
        hyperparameters = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        self.save_hyperparameters({**hyperparameters, "_instantiator": "lightning.pytorch.cli.instantiate_module"})
        size = (size[0], size[1])
        codec.build(joints, size)
        loss.check(codec)
        self.network = PoseNetwork(
            backbone, decoder, temporal, pool, refiner, joints=joints, size=size, freeze_backbone=freeze_backbone
        )
        self.codec = codec
        self.loss = loss
        self._check_parts()
        self.joints, self.size = joints, size
        self.recipe = recipe
        self.weights, self.weights_for = weights, weights_for
        self.flip_test = flip_test
        self.intermediate = intermediate
        self._compiles = compile
        self._step = StepLoss(1, 1, lambda tensor: tensor)
        self._val_every: int | None = None
        self._sharded = False
        self._restored = False
        self._missing: BiposeError | None = None

    def _check_parts(self) -> None:
        check_parts(self.network, self.codec, self.loss)

    def setup(self, stage: str) -> None:
        """Refuses data that the model was not made for, and loads the starting weights of a model that is scored as it is.

        Raises:
            BiposeError: another number or order of joints, crops of another size, or coordinates in half precision.
        """
        check_precision(str(self.trainer.precision))
        if stage == "fit":
            self._prepare_steps()
        else:
            # Lightning does not tell yet whether a checkpoint will replace them: then it is no mistake that they are missing.
            try:
                self.start_from_weights()
            except BiposeError as error:
                self._missing = error
        data: Any = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PoseDataModule):
            check_data(self.joints, self.size, self.codec, data)

    def _prepare_steps(self) -> None:
        """What depends on the number of processes and accumulated batches, and compilation."""
        trainer, accumulate = self.trainer, int(self.trainer.accumulate_grad_batches)
        self._step = StepLoss(
            trainer.world_size, accumulate, lambda sums: trainer.strategy.reduce(sums, reduce_op="sum")
        )
        # Lightning counts batches here; a recipe counts steps, and only between steps may a checkpoint be written.
        every = trainer.val_check_interval
        if accumulate > 1 and isinstance(every, int) and every != self._val_every:
            trainer.val_check_interval = self._val_every = every * accumulate
        if self._compiles:
            self.network.compile_parts()

    def configure_model(self) -> None:
        """Under a strategy that shards the model, gives each process its share of every part's weights."""
        try:
            trainer = self.trainer
        except RuntimeError:  # load_from_checkpoint calls this too, and there is no Trainer then
            return
        check_launch(trainer, self._compiles, self.loss)
        if isinstance(trainer.strategy, ModelParallelStrategy) and not self._sharded:
            self.start_from_weights()
            mesh: Any = self.device_mesh
            shard(self.network, mesh["data_parallel"])
            self._sharded = True

    def start_from_weights(self) -> None:
        """Loads the parts' pretrained weights and `weights`, once; a module from a checkpoint keeps its own."""
        if self._restored:
            return
        if self.weights is None or "backbone" not in self.weights_for:  # else what it fetches would be replaced
            self.network.backbone.initialise()
        if self.weights is not None:
            load_parts(self.network, Path(self.weights), self.weights_for)
        self._restored = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.expect_checkpoint()

    def expect_checkpoint(self) -> None:
        """Leaves out the starting weights, and so a download: a checkpoint replaces them."""
        self._restored, self._missing = True, None

    def on_validation_start(self) -> None:
        if self._missing is not None:
            raise self._missing

    on_test_start = on_predict_start = on_validation_start

    def on_validation_epoch_start(self) -> None:
        """All processes score one model, rank 0's, which is what is saved: only training evens out BatchNorm's statistics."""
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)

    on_test_epoch_start = on_validation_epoch_start

    def configure_callbacks(self) -> list[L.Callback]:
        """Adds the metrics, and the guard that tells in one line why a fit failed."""
        there: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return [kind() for kind in (self.evaluation, Guard) if not any(isinstance(c, kind) for c in there)]

    def configure_optimizers(self) -> Any:
        """The recipe's, over the starting weights: at this point a checkpoint would have been loaded."""
        if not self._restored:
            self.start_from_weights()
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):  # its copy was taken before
                    callback.setup(self.trainer, self, "fit")
        # Lightning refuses to clip gradients between mixed precision and a fused optimiser.
        clipped_mixed = bool(self.trainer.gradient_clip_val) and "mixed" in str(self.trainer.precision)
        data: Any = getattr(self.trainer, "datamodule", None)
        scale = self.recipe.scale(getattr(data, "batch_size", None))
        fused = not clipped_mixed and not self._sharded  # torch has no fused SGD for shards
        optimizer = self.recipe.build(self, self.network.backbone, fused=fused, scale=scale)  # a loss may learn too
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = {"scheduler": self.recipe.scheduler(optimizer, total), "interval": "step", "name": "lr"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        """One batch of an optimiser step.

        Returns:
            loss: what is sent backward; step_loss: the step's loss so far over all processes, detached, which is logged.
        """
        select = batch.valid if batch.supervise is None else batch.supervise
        target, weight = self._target(batch, select)
        parts: dict[str, Tensor] = {}
        stages = self.network(batch, select)
        for number, stage in enumerate(stages, 1):
            share = 1.0 if number == len(stages) else self.intermediate
            for name, value in self.loss(stage, target, weight).items():
                parts[name] = parts.get(name, value.new_zeros(())) + share * value
        first = batch_idx % self._step.accumulate == 0
        loss, step = self._step.part(parts, self.loss.normaliser(target, weight), first)
        self.log_dict({f"train/{k}": v for k, v in step.items()}, batch_size=len(batch))
        return {"loss": loss, "step_loss": step["loss"]}

    def _target(self, batch: Any, select: Tensor) -> tuple[Encoded, Tensor]:
        """Targets of the selected frames, and what weighs them."""
        return self.codec.encode(batch.joints[select], batch.visible[select])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._step.rescale(p for group in optimizer.param_groups for p in group["params"])

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        return self.predict_step(batch, batch_idx)

    def test_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        return self.predict_step(batch, batch_idx)

    @torch.no_grad()
    def predict_step(self, batch: ClipBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Joints in original pixels.

        Returns:
            joints (B, T, K, 2), score (B, T, K), zero where not valid; loss (), over labelled joints of all valid frames, and
            normaliser (), its weight in a mean over batches.
        """
        with uncompiled(self.network):
            encoded = self._encoded(batch)
            if self.flip_test:
                mirrored = self.codec.flip(self._encoded(batch.flipped()))
                encoded = {key: (value + mirrored[key]) / 2 for key, value in encoded.items()}
        # Coordinates of hundreds of pixels do not survive bfloat16.
        with torch.autocast(self.device.type, enabled=False):
            return self._located(batch, encoded)

    def _encoded(self, batch: ClipBatch) -> Encoded:
        return {key: value.float() for key, value in self.network(batch, batch.valid)[-1].items()}

    def _located(self, batch: ClipBatch, encoded: Encoded) -> dict[str, Tensor]:
        """Predictions of the valid frames in original pixels, and their loss."""
        rows, row_score = self.codec.decode(encoded)
        rows = geometry.apply(batch.to_image[batch.valid], rows.float())
        joints = batch.joints.new_zeros(batch.joints.shape)
        joints[batch.valid] = rows
        score = batch.joints.new_zeros(batch.joints.shape[:-1])
        score[batch.valid] = row_score.float()
        out = {"joints": joints, "score": score}
        visible = batch.visible[batch.valid]
        if bool((visible != ABSENT).any()):
            target, weight = self.codec.encode(batch.joints[batch.valid], visible)
            out["loss"] = self.loss(encoded, target, weight)["loss"]
            out["normaliser"] = self.loss.normaliser(target, weight)
        return out

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        return batch.to(device, non_blocking=True)
