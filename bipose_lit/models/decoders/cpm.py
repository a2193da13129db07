"""The stages of a convolutional pose machine."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.base import PoseDecoder
from bipose_lit.models.layers import centre_map, check_sizes, convolution, heatmap_head
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class CPMStages(PoseDecoder):
    """Belief maps from features, then from features, beliefs and a centre map, stage by stage (Wei et al. 2016).

    Stage 1 sees the features alone: 5x5, 9x9, 1x1, 1x1. Each later one reads a 5x5 convolution of the features (one for all of
    them), the maps of the stage before and a Gaussian about the crop's centre: three times 11x11, 1x1, 1x1. On `CPMTrunk` a
    prediction of stage 1 sees 160 pixels of the crop, and each further stage adds 240. All stages are supervised.

    There are K maps: the paper's map of the background, which no codec here makes, is left out. All layers but the last start
    after He et al. 2015, with which six stages train from the first step; the authors drew all weights with deviation 0.01.

    Args:
        stages: number of them; 1 is the decoder that `LSTMPoseMachine` goes with.
        reduced: channels of the 5x5 convolutions.
        wide: channels of the two layers after it in stage 1.
        wide_kernel: odd size of the first of these two.
        channels: of the later stages' layers.
        kernel: odd size of their first three convolutions.
        centre: deviation of the Gaussian about the centre, as a fraction of the crop's longer side; 21 pixels of 368 there.

    Raises:
        BiposeError: a number out of range.
    """

    def __init__(
        self,
        stages: int = 6,
        reduced: int = 32,
        wide: int = 512,
        wide_kernel: int = 9,
        channels: int = 128,
        kernel: int = 11,
        centre: float = 21 / 368,
    ) -> None:
        super().__init__()
        kernels = {"wide_kernel": wide_kernel, "kernel": kernel}
        check_sizes(self, kernels, stages=stages, reduced=reduced, wide=wide, channels=channels)
        if centre <= 0:
            raise BiposeError(f"CPMStages: centre {centre} must be above 0")
        self.number, self.reduced, self.wide, self.wide_kernel = stages, reduced, wide, wide_kernel
        self.channels, self.kernel, self.centre = channels, kernel, centre

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        R, W, C, k = self.reduced, self.wide, self.channels, self.kernel
        self.first = nn.Sequential(
            *convolution(spec.channels, R, 5),
            *convolution(R, W, self.wide_kernel),
            *convolution(W, W, 1),
            heatmap_head(W, joints),
        )
        if self.number > 1:
            self.reduction = nn.Sequential(*convolution(spec.channels, R, 5))
        self.later = nn.ModuleList(
            nn.Sequential(
                *convolution(R + joints + 1, C, k),
                *convolution(C, C, k),
                *convolution(C, C, k),
                *convolution(C, C, 1),
                heatmap_head(C, joints),
            )
            for _ in range(self.number - 1)
        )

    def forward(self, features: Float[Tensor, "N C h w"]) -> list[Encoded]:
        stages: list[Encoded] = [{"heatmaps": self.first(features)}]
        if self.later:
            seen = torch.cat([self.reduction(features), centre_map(features, self.centre)], dim=1)
        for stage in self.later:
            stages.append({"heatmaps": stage(torch.cat([seen, stages[-1]["heatmaps"]], dim=1))})
        return stages


__all__ = ["CPMStages"]
