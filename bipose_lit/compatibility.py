"""What must agree before a model trains: decoder and codec, model and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from bipose_lit.codecs.base import TargetCodec
from bipose_lit.datamodule_base import SeededData
from bipose_lit.losses import PoseLoss
from bipose_lit.models.base import PoseDecoder, as_stages
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.tree import SkeletonRefiner
from bipose_lit.skeletons import find_skeleton
from bipose_lit.types import BiposeError, Encoded


@torch.no_grad()
def check_parts(network: PoseNetwork, codec: TargetCodec, loss: PoseLoss) -> None:
    """Sends one blank frame through decoder, refiner and loss; draws no random number and leaves the network as it was.

    Raises:
        BiposeError: the codec makes other entries or maps of another size than the decoder predicts, or a refiner does not suit.
    """
    decoder, spec = network.decoder, network.backbone.spec
    rows, columns = (1, 1) if decoder.pooled else (n // spec.stride for n in reversed(network.size))
    training = decoder.training
    features = torch.zeros(1, spec.channels, rows, columns)
    with torch.set_grad_enabled(not torch.is_inference_mode_enabled()):
        stages = as_stages(decoder.eval()(features))
        decoder.train(training)
        target, weight = codec.encode(torch.zeros(1, network.joints, 2), torch.ones(1, network.joints))
        total = torch.stack([loss(predicted, target, weight)["loss"] for predicted in stages]).sum()
    _check_read(decoder, stages, total, loss)
    stages = [{key: value.detach() for key, value in predicted.items()} for predicted in stages]
    refiner = network.refiner
    if refiner is None:
        return
    sigmas = getattr(refiner, "sigma", None), getattr(codec, "sigma", None)
    if None not in sigmas and sigmas[0] != sigmas[1]:
        raise BiposeError(
            f"model.refiner.init_args.sigma is {sigmas[0]}, the codec's {sigmas[1]}: it would write blobs of another width; make "
            "them equal"
        )
    if isinstance(refiner, SkeletonRefiner) and codec.skeleton is not None:
        known = find_skeleton(codec.skeleton)
        if known.joints != refiner.skeleton.joints:
            raise BiposeError(
                f"model.refiner.init_args.skeleton is {refiner.skeleton.name}, the codec's {known.name}: it would connect the "
                "wrong joints; set it to the data's skeleton"
            )
    training = refiner.training
    refiner.eval()
    clips = {k: v.unsqueeze(0) for k, v in stages[-1].items()}
    refined = network.refine(clips, features.unsqueeze(0), torch.ones(1, 1, dtype=torch.bool))
    refiner.train(training)
    loss({k: v.squeeze(0) for k, v in refined.items()}, target, weight)


def _check_read(decoder: PoseDecoder, stages: Sequence[Encoded], total: torch.Tensor, loss: PoseLoss) -> None:
    """Refuses layers for predictions that the loss does not read: they would stay as they began, and DDP would wait for them."""
    further = sorted({key for predicted in stages for key in predicted} - set(loss.keys))
    own = {name: p for name, p in decoder.named_parameters() if p.requires_grad}
    if not further or not own or not total.requires_grad:
        return
    gradients = torch.autograd.grad(total, list(own.values()), allow_unused=True)
    idle = [name for name, gradient in zip(own, gradients, strict=True) if gradient is None]
    if idle:
        raise BiposeError(
            f"{type(decoder).__name__} predicts {', '.join(further)} besides, which loss {type(loss).__name__} does not read: "
            f"{', '.join(idle[:3])} would not be trained; change the decoder's options or the loss"
        )


def check_data(joints: int, size: tuple[int, int], codec: TargetCodec, data: SeededData) -> None:
    """Compares a model's joints, crops and skeleton with those of the data.

    Raises:
        BiposeError: another number or order of joints, or crops of another size.
    """
    if data.num_joints != joints:
        raise BiposeError(
            f"model.joints is {joints}, but the data's skeleton ({data.skeleton.name}) has {data.num_joints}; "
            f"set model.joints to {data.num_joints}"
        )
    if data.size != size:
        raise BiposeError(f"model.size is {size}, data.size {data.size}; make them equal")
    if codec.skeleton is None:
        return
    own = find_skeleton(codec.skeleton)
    if own.joints != data.skeleton.joints or own.flip.tolist() != data.skeleton.flip.tolist():
        raise BiposeError(
            f"model.codec.skeleton is {own.name}, but the data have the joints and sides of {data.skeleton.name}: a "
            "flip test would exchange the wrong ones; set it to the data's skeleton"
        )


def check_precision(precision: str) -> None:
    """Refuses precisions in which the Trainer converts the whole batch, labels and affines too.

    Raises:
        BiposeError: one of them (says which to take).
    """
    if precision.endswith("-true") and precision != "32-true":
        raise BiposeError(
            f"trainer.precision {precision} would convert labels and coordinates as well; use 32-true, bf16-mixed or 16-mixed"
        )


def check_launch(trainer: L.Trainer, compiles: bool = False, loss: PoseLoss | None = None) -> None:
    """Refuses what would fail in the middle of the first step, or do something else than asked.

    Args:
        trainer: made for several processes, or for one.
        compiles: the model is to be compiled.
        loss: that of the model.

    Raises:
        BiposeError: strategies and options that do not go together (says what to set).
    """
    if isinstance(trainer.strategy, FSDPStrategy):
        raise BiposeError(
            "trainer.strategy fsdp is torch's first FSDP, which needs GPUs, cannot clip gradients by their norm and keeps no "
            "plain checkpoints; use -c experiments/trainer/fsdp.yaml, which is its second"
        )
    if not isinstance(trainer.strategy, ModelParallelStrategy):
        return
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise BiposeError(
            "trainer.callbacks: a model that is spread over processes cannot be copied, so its weights cannot be averaged; leave "
            "EMAWeightAveraging out, or use trainer.strategy ddp"
        )
    if compiles:
        raise BiposeError(
            "model.compile: not together with a model that is spread over processes; set it false, or use ddp"
        )
    if loss is not None and any(p.requires_grad for p in loss.parameters()):
        raise BiposeError(
            f"model.loss {type(loss).__name__} learns parameters of its own, which a model that is spread over processes would "
            "train apart in each; use trainer.strategy ddp"
        )


def check_asked(options: Mapping[str, Any]) -> None:
    """Refuses Trainer options that Lightning would silently change, or that fail in the first step.

    Args:
        options: the Trainer's arguments as configured.

    Raises:
        BiposeError: half precision on a processor, which Lightning takes for bfloat16; synchronised BatchNorm there.
    """
    accelerator = str(options.get("accelerator") or "auto")
    on_cpu = accelerator == "cpu" or (
        accelerator == "auto" and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    )
    several = str(options.get("devices") or 1) != "1" or (options.get("num_nodes") or 1) != 1
    if on_cpu and several and options.get("sync_batchnorm"):
        raise BiposeError(
            "trainer.sync_batchnorm works on GPUs alone (torch's limit), and this run is on the processor; set it false: each "
            "process then normalises by its own share of the batch"
        )
    if on_cpu and str(options.get("precision")) in ("16", "16-mixed"):
        raise BiposeError(
            "trainer.precision 16-mixed needs a GPU, and this run is on the processor; use bf16-mixed or 32-true, or "
            "trainer.accelerator gpu"
        )


def check_whole(trainer: L.Trainer) -> None:
    """Refuses to score, time and export a model that no process holds in one piece.

    Raises:
        BiposeError: the strategy spreads the model over processes.
    """
    if isinstance(trainer.strategy, ModelParallelStrategy):
        raise BiposeError(
            "trainer.strategy: runs of an ablation or a sweep are scored, timed and exported by one process, but this one "
            "spreads the model over several; use ddp, or train by 'bipose fit'"
        )


__all__ = ["check_asked", "check_data", "check_launch", "check_parts", "check_precision", "check_whole"]
