"""Histograms of oriented gradients: what parts looked like before networks learned to see them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from bipose_lit.models.base import Backbone
from bipose_lit.types import BiposeError, FeatureSpec

_CLIP, _DARK = 0.2, 0.01  # of L2-Hys; and what keeps the noise of a flat block small, in units of summed gradients


class HOGFeatures(Backbone):
    """HOG (Dalal and Triggs 2005) as a feature map: no parameters, nothing to learn.

    Gradients by (-1, 0, 1) of the square root of the values, of the colour whose gradient is largest; unsigned directions in
    `bins` bins; votes shared linearly between neighbouring bins and between the four nearest cells; blocks of 2x2 cells, one at
    every corner, normalised by L2-Hys. A cell has its histogram under each of its four blocks: 4 `bins` channels, block by block.
    `PartFilters` makes scores of linear templates of it, and `PictorialStructures` a deformable part model of these.

    Args:
        cell: side of a cell in pixels, the stride of the map.
        bins: directions between 0 and 180 degrees.

    Attributes:
        spec: channels and stride of the map.
        mean, std: 0 and 1: pictures stay in [0, 1].

    Raises:
        BiposeError: numbers out of range.
    """

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, cell: int = 4, bins: int = 9) -> None:
        super().__init__()
        if cell < 2 or bins < 2:
            raise BiposeError(f"HOGFeatures: cell {cell} must be at least 2 pixels and bins {bins} at least 2")
        self.cell, self.bins = cell, bins
        self.spec = FeatureSpec(4 * bins, cell)
        # Weights of a line of pixels in the cell around whose centre it lies: they reach to the centres of the next ones.
        reach = torch.arange(2 * cell - cell % 2, dtype=torch.float32)
        tent = 1 - (reach - reach.mean()).abs() / cell
        self.tent: Tensor
        self.register_buffer("tent", tent[:, None] * tent, persistent=False)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        with torch.autocast(
            images.device.type, enabled=False
        ):  # sums and the floor of a norm do not survive half precision
            return self.normalised(self.histograms(images))

    def histograms(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N bins h w"]:
        """Summed gradients of each cell by direction; bin b is about (b + 1/2) 180 / bins degrees."""
        padded = functional.pad(images.clamp(min=0).sqrt(), (1, 1, 1, 1), mode="replicate")
        dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        strength, colour = (dx.square() + dy.square()).max(1, keepdim=True)
        dx, dy = dx.gather(1, colour), dy.gather(1, colour)
        place = torch.atan2(dy, dx) / math.pi * self.bins - 0.5  # in bins; a turn of 180 degrees is all of them
        lower = place.floor()
        share = place - lower
        lower = lower.long()
        magnitude = strength.sqrt()
        votes = images.new_zeros(len(images), self.bins, *images.shape[-2:])
        votes.scatter_add_(1, lower % self.bins, magnitude * (1 - share))
        votes.scatter_add_(1, (lower + 1) % self.bins, magnitude * share)
        kernel = self.tent.to(votes.dtype).expand(self.bins, 1, -1, -1)
        return functional.conv2d(votes, kernel, stride=self.cell, padding=self.cell // 2, groups=self.bins)

    def normalised(self, cells: Float[Tensor, "N bins h w"]) -> Float[Tensor, "N C h w"]:
        """Each cell's histogram under its blocks to the upper left, upper right, lower left and lower right."""
        h, w = cells.shape[-2:]
        corners = [(y, x) for y in (0, 1) for x in (0, 1)]
        padded = functional.pad(cells, (1, 1, 1, 1))
        blocks = torch.stack([padded[..., y : y + h + 1, x : x + w + 1] for y, x in corners], dim=1)
        for limit in (_CLIP, math.inf):
            norm = (blocks.square().sum((1, 2), keepdim=True) + _DARK**2).sqrt()
            blocks = (blocks / norm).clamp(max=limit)
        # A block's lower right cell is the one that has the block at its upper left.
        return torch.cat([blocks[:, 3 - n][..., y : y + h, x : x + w] for n, (y, x) in enumerate(corners)], dim=1)


__all__ = ["HOGFeatures"]
