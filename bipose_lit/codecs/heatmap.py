"""Gaussian heatmaps: places, targets and decoding of this package's own kind and of the reference codes'."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bipose_lit.codecs.base import TargetCodec
from bipose_lit.codecs.peaks import dark, parabola, peak, quarter
from bipose_lit.geometry import from_map, to_map
from bipose_lit.types import ABSENT, BiposeError, Encoded

Refine = Literal["dark", "parabola", "quarter", "none"]
Grid = Literal["pixel", "msra", "udp"]


class HeatmapCodec(TargetCodec):
    """One map per joint: a Gaussian of peak 1 about the joint's own sub-pixel place, so encoding loses nothing.

    A joint whose place rounds to no pixel of the map has weight 0. `quantised`, `patch` and `reach` change this to what the
    reference codes do.

    Where crop pixel x lies on a map of stride s (`grid`; W and w are the widths of crop and map):
        pixel: (x + 0.5) / s - 0.5. Edges fall on edges, so a mirrored map is the map of the mirrored crop.
        msra: x / s, as in the code of Simple Baselines (Xiao et al. 2018) and HRNet. The map of the mirrored crop lies
            1 - 1 / s pixels to the right of the mirrored map; `shift_flipped` makes that -1 / s.
        udp: x (w - 1) / (W - 1) (Huang et al. 2020). The centres of the outermost pixels fall on each other; mirrors as "pixel".

    Decoding starts at the largest value (the first in row-major order among equals) and refines it:
        quarter: a quarter pixel towards the higher neighbour on each axis (Newell et al. 2016); error up to 0.25 map
            pixels.
        parabola: the vertex of a parabola through the logarithms of three pixels on each axis; exact for a clean
            Gaussian.
        dark: the map is smoothed by the training Gaussian and one Newton step taken on its logarithm (Zhang et al.
            2020); best on predictions, which are not Gaussian. Only the pixels that this needs are read. Where they
            leave the map: parabola.
    The score is the largest value, cut to [0, 1]. A map whose largest value is not finite gives the crop's centre and
    score 0.

    Simple Baselines is grid msra, quantised, patch 3, refine quarter, shift_flipped; DARK is grid msra, reach 3, refine dark,
    shift_flipped; UDP is grid udp, patch 3, refine dark. Their decoding differs from that: Simple Baselines' code refines no
    peak in the first two and the last rows or columns; DARK's pads maps with zeros before it smooths, where this one takes the
    parabola (within 2.5 sigma + 2 pixels of the edge); UDP's smooths by 7 taps of deviation 1.4 and takes second differences one
    pixel away, DARK's and this one two. Their patch is lop-sided where 3 sigma is no whole number. Their crops are framed
    a little differently, which these laws do not mind, as they go from crop to map alone: Simple Baselines' crop shows everything
    half a crop pixel further right and down than `geometry.crop_matrix`, UDP's is smaller by the factor (W - 1) / W, which is
    half a pixel at the edge.

    Args:
        stride: of the maps against the crop.
        sigma: of the Gaussian in map pixels.
        refine: "dark", "parabola", "quarter" or "none".
        skeleton: name, YAML file or fields of the skeleton; only a flip needs it.
        grid: "pixel", "msra" or "udp".
        quantised: the Gaussian is about the nearest map pixel (a half up, and -1 to -0.5 are 0), not the joint's own place.
        patch: the Gaussian is zero more than so many sigmas from the nearest pixel, along either axis, and a joint keeps its
            weight unless this patch lies behind the map, or ends more than a pixel before it. Null: no limit.
        reach: without a patch, a joint keeps its weight as long as so many sigmas about its place touch the map, by DARK's rule
            (a pixel and a bit more before the map). Null: as long as its own pixel is on the map.
        shift_flipped: `flip` moves mirrored maps one pixel to the right (the reference code's SHIFT_HEATMAP).

    Raises:
        BiposeError: a number that is out of range, an unknown word, or a shift where mirrored maps lie well.
    """

    keys = ("heatmaps",)

    def __init__(
        self,
        stride: int = 4,
        sigma: float = 2.0,
        refine: Refine = "dark",
        skeleton: str | dict[str, Any] | None = None,
        grid: Grid = "pixel",
        quantised: bool = False,
        patch: float | None = None,
        shift_flipped: bool = False,
        reach: float | None = None,
    ) -> None:
        super().__init__(skeleton)
        if stride < 1 or sigma <= 0:
            raise BiposeError(f"HeatmapCodec: stride {stride} must be at least 1 and sigma {sigma} above 0")
        for name, word, known in (("refine", refine, get_args(Refine)), ("grid", grid, get_args(Grid))):
            if word not in known:
                raise BiposeError(f"HeatmapCodec: {name} {word!r} is not one of {', '.join(map(repr, known))}")
        for name, number in (("patch", patch), ("reach", reach)):
            if number is not None and not 0 < number < math.inf:
                raise BiposeError(f"HeatmapCodec: {name} {number} is a number of sigmas above 0 (3 is usual), or null")
        if patch is not None and reach is not None:
            raise BiposeError("HeatmapCodec: patch says which joints keep their weight; give patch or reach, not both")
        if shift_flipped and grid != "msra":
            raise BiposeError(
                f"HeatmapCodec: shift_flipped is for grid msra; mirrored maps of grid {grid} lie where they belong: set it false"
            )
        self.stride, self.sigma, self.refine = stride, sigma, refine
        self.grid, self.quantised, self.patch, self.reach = grid, quantised, patch, reach
        self.shift_flipped = shift_flipped

    def build(self, joints: int, size: tuple[int, int]) -> None:
        super().build(joints, size)
        if size[0] % self.stride or size[1] % self.stride:
            raise BiposeError(
                f"HeatmapCodec: stride {self.stride} does not divide the crop {size[0]}x{size[1]}; change one of them"
            )
        if min(size) // self.stride < 3:
            raise BiposeError(
                f"HeatmapCodec: crops of {size[0]}x{size[1]} at stride {self.stride} give maps below 3x3; "
                "lower the stride"
            )

    @property
    def map_size(self) -> tuple[int, int]:
        """Width and height of the maps."""
        return self.size[0] // self.stride, self.size[1] // self.stride

    def encode(
        self, joints: Float[Tensor, "N K 2"], visible: Shaped[Tensor, "N K"]
    ) -> tuple[Encoded, Float[Tensor, "N K"]]:
        w, h = self.map_size
        places = to_map(joints.float(), *self._law(joints.device))
        nearest = (places + 0.5).trunc()  # as the reference code's int()
        extent = None if self.patch is None else math.floor(self.patch * self.sigma)
        limits = torch.tensor([w, h], device=places.device)
        if extent is not None:
            inside = ((nearest + extent + 1 >= 0) & (nearest - extent < limits)).all(-1)
        elif self.reach is not None:
            far = self.reach * self.sigma
            # The corners of the box, cut towards zero, as the reference code's int(): one before the map may lie within a pixel.
            inside = ((places + far + 1 > -1) & (places - far < limits)).all(-1)
        else:
            inside = ((places >= -0.5) & (places < limits - 0.5)).all(-1)
        weight = (inside & (visible != ABSENT)).float()
        # Somewhere finite for what has no weight: NaN times zero would still be NaN.
        places, nearest = (torch.where(weight.unsqueeze(-1) > 0, p, 0) for p in (places, nearest))
        centres = nearest if self.quantised else places
        across, down = (self._profile(centres[..., a], nearest[..., a], n, extent) for a, n in enumerate((w, h)))
        return {"heatmaps": (down * weight.unsqueeze(-1)).unsqueeze(-1) * across.unsqueeze(-2)}, weight

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
        maps = encoded["heatmaps"].detach().float()
        N, K, h, w = maps.shape
        rows = maps.reshape(N * K, h * w)
        index, value = peak(rows)
        x, y = index % w, index // w
        if self.refine == "none":
            offset = torch.zeros(N * K, 2, device=maps.device)
        elif self.refine == "quarter":
            offset = quarter(rows, x, y, w, h)
        elif self.refine == "parabola":
            offset = parabola(rows, x, y, w, h)
        else:
            offset = dark(rows, x, y, w, h, self.sigma)
        places = torch.stack([x, y], dim=-1) + offset
        good = torch.isfinite(value) & torch.isfinite(places).all(-1)
        stride, origin = self._law(maps.device)
        centre = to_map(torch.tensor([(n - 1) / 2 for n in self.size], device=maps.device), stride, origin)
        places = torch.where(good.unsqueeze(-1), places, centre)
        score = torch.where(good, value, 0).clamp(0, 1)
        return from_map(places.view(N, K, 2), stride, origin), score.view(N, K)

    def flip(self, encoded: Encoded, order: Tensor | None = None) -> Encoded:
        maps = encoded["heatmaps"]
        maps = maps[:, self._flip_order(order, maps.device)].flip(-1)
        if self.shift_flipped:  # the first column has nothing to its left, and stays
            maps = torch.cat([maps[..., :1], maps[..., :-1]], dim=-1)
        return {"heatmaps": maps}

    def _law(self, device: torch.device) -> tuple[float | Tensor, float]:
        """Stride and origin as `geometry.to_map` takes them."""
        if self.grid == "udp":
            pairs = zip(self.size, self.map_size, strict=True)
            return torch.tensor([(whole - 1) / (cells - 1) for whole, cells in pairs], device=device), 0.0
        return self.stride, 0.5 if self.grid == "pixel" else 0.0

    def _profile(
        self, centre: Float[Tensor, "N K"], nearest: Float[Tensor, "N K"], cells: int, extent: int | None
    ) -> Float[Tensor, "N K n"]:
        """The Gaussian along one axis."""
        at = torch.arange(cells, device=centre.device)
        value = torch.exp((at - centre.unsqueeze(-1)).square() * (-0.5 / self.sigma**2))
        return value if extent is None else value * ((at - nearest.unsqueeze(-1)).abs() <= extent)


__all__ = ["HeatmapCodec"]
