"""Layers that backbones, decoders and refiners share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bipose_lit.types import BiposeError


class Residual(nn.Module):
    """Pre-activation bottleneck (He et al. 2016b) as in the hourglass: BatchNorm, ReLU, convolution (1x1, 3x3, 1x1), three times.

    The convolutions have biases; the two inner widths are half of `after`; where the width changes, the shortcut is a bare 1x1
    convolution of the input.

    Args:
        before: channels of the input.
        after: channels of the output, even.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = after // 2
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, half, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(half), nn.Conv2d(half, half, 3, padding=1)
        self.norm3, self.conv3 = nn.BatchNorm2d(half), nn.Conv2d(half, after, 1)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Float[Tensor, "N before h w"]) -> Float[Tensor, "N after h w"]:
        out = self.conv1(functional.relu(self.norm1(x)))
        out = self.conv2(functional.relu(self.norm2(out)))
        out = self.conv3(functional.relu(self.norm3(out)))
        added: Tensor = out + self.skip(x)
        return added


def convolution(before: int, after: int, kernel: int, norm: bool = False) -> list[nn.Module]:
    """A convolution that keeps the map's size, BatchNorm if asked for, and ReLU; initialised after He et al. 2015."""
    conv = nn.Conv2d(before, after, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return [conv, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU(inplace=True)]


def heatmap_head(channels: int, maps: int, kernel: int = 1) -> nn.Conv2d:
    """The convolution that writes the maps. They start near zero: the first steps are not spent on unlearning noise."""
    head = nn.Conv2d(channels, maps, kernel, padding=kernel // 2)
    nn.init.normal_(head.weight, std=0.001)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return head


def centre_map(features: Float[Tensor, "N C h w"], sigma: float) -> Float[Tensor, "N 1 h w"]:
    """A Gaussian of peak 1 about the crop's centre, which says whose joints are asked for (Wei et al. 2016).

    Args:
        features: give the size, type and device of the map.
        sigma: as a fraction of the crop's longer side.
    """
    N, _, h, w = features.shape
    scale = -0.5 / (sigma * max(h, w)) ** 2
    down, across = (
        torch.exp((torch.arange(n, device=features.device) - (n - 1) / 2).square() * scale).to(features.dtype)
        for n in (h, w)
    )
    return (down[:, None] * across).expand(N, 1, h, w)


def check_sizes(part: object, kernels: dict[str, int], **widths: int) -> None:
    """Raises BiposeError for a width below 1, or for a kernel that would not keep a map's size."""
    name = type(part).__name__
    for argument, value in {**widths, **kernels}.items():
        if value < 1:
            raise BiposeError(f"{name}: {argument} {value} must be at least 1")
    for argument, value in kernels.items():
        if value % 2 == 0:
            raise BiposeError(f"{name}: {argument} {value} must be odd, so that maps keep their size")


__all__ = ["Residual", "centre_map", "check_sizes", "convolution", "heatmap_head"]
