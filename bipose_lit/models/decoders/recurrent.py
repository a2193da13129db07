"""One module that goes over its own answer again and again."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bipose_lit.models.base import PoseDecoder
from bipose_lit.models.layers import check_sizes, convolution, heatmap_head
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class RecurrentDecoder(PoseDecoder):
    """A feed-forward module and a recurrent one, run `iterations` times with the same weights (Belagiannis and Zisserman 2017).

    Feed-forward: 9x9, 9x9, 1x1, 1x1. Recurrent: 7x7, 13x13, 13x13, 1x1 on the features beside the last layer of what ran before,
    be it the feed-forward module or the iteration before; that layer, from which a 1x1 reads the maps, is the state. Maps are
    supervised after the feed-forward module and after every iteration. Widths and the place of each layer are those of the
    authors' ox-vgg/keypoint_detection; with `RecurrentTrunk` it is their network, but for three things: no maps of body parts,
    which are a second objective there; maps are linear, since behind a ReLU a map below zero gets no gradient; and iterations
    share the weights of BatchNorm too. Its statistics each iteration has for itself, there and here.

    Args:
        iterations: of the recurrent module; with 0 the feed-forward one is alone.
        channels: of the state and of the first feed-forward layer; the second has twice as many, the recurrent layers a
            quarter, a quarter and a half.
        kernel: odd size of the feed-forward convolutions.
        entry: odd size of the first recurrent convolution.
        reach: odd size of the other two.

    Raises:
        BiposeError: a number out of range.
    """

    def __init__(
        self, iterations: int = 3, channels: int = 256, kernel: int = 9, entry: int = 7, reach: int = 13
    ) -> None:
        super().__init__()
        check_sizes(self, {"kernel": kernel, "entry": entry, "reach": reach}, channels=channels)
        if iterations < 0 or channels % 4:
            raise BiposeError(
                f"RecurrentDecoder: iterations {iterations} must not be below 0, channels {channels} a multiple of 4"
            )
        self.iterations, self.channels, self.kernel, self.entry, self.reach = iterations, channels, kernel, entry, reach

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        C = self.channels
        self.forward_module = nn.Sequential(
            *convolution(spec.channels, C, self.kernel, norm=True),
            *convolution(C, 2 * C, self.kernel, norm=True),
            *convolution(2 * C, C, 1),
            *convolution(C, C, 1),
        )
        self.forward_head = heatmap_head(C, joints)
        if self.iterations:
            self.recurrent_module = Recurrent(spec.channels, C, self.entry, self.reach, self.iterations)
            self.recurrent_head = heatmap_head(C, joints)

    def forward(self, features: Float[Tensor, "N C h w"]) -> list[Encoded]:
        state = self.forward_module(features)
        stages: list[Encoded] = [{"heatmaps": self.forward_head(state)}]
        for iteration in range(self.iterations):
            state = self.recurrent_module(torch.cat([features, state], dim=1), iteration)
            stages.append({"heatmaps": self.recurrent_head(state)})
        return stages


class Recurrent(nn.Module):
    """The recurrent module: features and state to the next state."""

    def __init__(self, features: int, state: int, entry: int, reach: int, iterations: int) -> None:
        super().__init__()
        widths = [features + state, state // 4, state // 4, state // 2]
        self.convolutions = nn.ModuleList(
            convolution(before, after, kernel)[0]
            for before, after, kernel in zip(widths, widths[1:], (entry, reach, reach), strict=False)
        )
        self.norms = nn.ModuleList(IteratedNorm(width, iterations) for width in widths[1:])
        self.last = nn.Sequential(*convolution(widths[-1], state, 1))

    def forward(self, x: Float[Tensor, "N D h w"], iteration: int) -> Float[Tensor, "N C h w"]:
        for conv, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.relu(norm(conv(x), iteration))
        state: Tensor = self.last(x)
        return state


class IteratedNorm(nn.Module):
    """BatchNorm whose weights all iterations share while each has its own statistics: those of the first are not the third's."""

    def __init__(self, channels: int, iterations: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.statistics = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for _ in range(iterations))

    def forward(self, x: Float[Tensor, "N C h w"], iteration: int) -> Float[Tensor, "N C h w"]:
        normal: Tensor = self.statistics[iteration](x)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


__all__ = ["RecurrentDecoder"]
