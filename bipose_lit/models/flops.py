"""Floating-point operations of a network per frame, and blank batches to run one with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bipose_lit.types import NORMS, ClipBatch, FeatureSpec


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parameters: by part and in total.
        gflops: 1e9 floating-point operations per frame (a multiply-add counts two), of a forward pass over a clip.
        gflops_by_part: the same by part.
        frames: length of the clip that was counted.
        lookahead: frames after t that a prediction waits for; None for the whole clip.
    """

    parameters: dict[str, int]
    gflops: float
    gflops_by_part: dict[str, float]
    frames: int
    lookahead: int | None


def blank_batch(
    clips: int, frames: int, size: tuple[int, int], joints: int, features: FeatureSpec | None = None
) -> ClipBatch:
    """A batch of black frames (or of zero features of this spec) with no labels, all valid."""
    width, height = size
    B, T = clips, frames
    return ClipBatch(
        valid=torch.ones(B, T, dtype=torch.bool),
        joints=torch.zeros(B, T, joints, 2),
        visible=torch.zeros(B, T, joints, dtype=torch.uint8),
        to_image=torch.eye(2, 3).expand(B, T, 2, 3).clone(),
        norms=torch.ones(B, T, len(NORMS)),
        box_score=torch.ones(B, T),
        uid=torch.arange(B * T).view(B, T),
        clip=torch.arange(B),
        frame=torch.arange(T).expand(B, T).clone(),
        fps=torch.zeros(B),
        images=torch.zeros(B, T, 3, height, width, dtype=torch.uint8) if features is None else None,
        features=None
        if features is None
        else torch.zeros(B, T, features.channels, height // features.stride, width // features.stride),
    )


def measure_cost(network: Any, frames: int = 16) -> Cost:
    """Counts one clip of `frames` frames through a `PoseNetwork` in eval mode.

    Counted are matrix products, convolutions and attention (torch.utils.flop_counter); element-wise work,
    normalisation and resizing are not. Heads over time are included at this clip length, whose cost per frame does not
    depend on it except for WindowMean and TemporalAttention.
    """
    training = network.training
    network.eval()
    device = next(network.parameters()).device
    batch = blank_batch(1, frames, network.size, network.joints).to(device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(batch, batch.valid)
    network.train(training)
    by_module = counter.get_flop_counts()
    root = type(network).__name__
    parts = {
        name: sum(by_module.get(f"{root}.{name}", {}).values()) / frames / 1e9 for name, _ in network.named_children()
    }
    return Cost(
        parameters=network.count_parameters(),
        gflops=counter.get_total_flops() / frames / 1e9,
        gflops_by_part=parts,
        frames=frames,
        lookahead=network.context[1],
    )


__all__ = ["Cost", "blank_batch", "measure_cost"]
