"""What must agree before a model trains: decoder and codec, model and data."""

from __future__ import annotations

import torch

from bipose_lit.codecs.base import TargetCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.losses import PoseLoss
from bipose_lit.models.network import PoseNetwork
from bipose_lit.skeletons import find_skeleton
from bipose_lit.types import BiposeError


@torch.no_grad()
def check_parts(network: PoseNetwork, codec: TargetCodec, loss: PoseLoss) -> None:
    """Sends one blank frame through decoder and loss; draws no random number and leaves the network as it was.

    Raises:
        BiposeError: the codec makes other entries or maps of another size than the decoder predicts.
    """
    decoder, spec = network.decoder, network.backbone.spec
    rows, columns = (1, 1) if decoder.pooled else (n // spec.stride for n in reversed(network.size))
    training = decoder.training
    predicted = decoder.eval()(torch.zeros(1, spec.channels, rows, columns))
    decoder.train(training)
    target, weight = codec.encode(torch.zeros(1, network.joints, 2), torch.ones(1, network.joints))
    loss(predicted, target, weight)


def check_data(joints: int, size: tuple[int, int], codec: TargetCodec, data: PoseDataModule) -> None:
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


__all__ = ["check_data", "check_parts", "check_precision"]
