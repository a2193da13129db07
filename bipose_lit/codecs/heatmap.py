"""Gaussian heatmaps with sub-pixel targets and sub-pixel decoding."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from bipose_lit.codecs.base import TargetCodec
from bipose_lit.geometry import from_map, to_map
from bipose_lit.types import ABSENT, BiposeError, Encoded

_TINY = 1e-10


class HeatmapCodec(TargetCodec):
    """One map per joint: a Gaussian of peak 1 about the joint's own sub-pixel place, so encoding loses nothing.

    A joint whose place rounds to no pixel of the map has weight 0.

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

    Args:
        stride: of the maps against the crop.
        sigma: of the Gaussian in map pixels.
        refine: "dark", "parabola", "quarter" or "none".
        skeleton: name, YAML file or fields of the skeleton; only a flip needs it.
    """

    keys = ("heatmaps",)

    def __init__(
        self,
        stride: int = 4,
        sigma: float = 2.0,
        refine: Literal["dark", "parabola", "quarter", "none"] = "dark",
        skeleton: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(skeleton)
        if stride < 1 or sigma <= 0:
            raise BiposeError(f"HeatmapCodec: stride {stride} must be at least 1 and sigma {sigma} above 0")
        if refine not in ("dark", "parabola", "quarter", "none"):
            raise BiposeError(f"HeatmapCodec: refine {refine!r} is not one of 'dark', 'parabola', 'quarter', 'none'")
        self.stride, self.sigma, self.refine = stride, sigma, refine
        # Zhang et al. smooth with a kernel as wide as the training Gaussian: 11 taps for sigma 2.
        self.radius = max(1, round(2.5 * sigma))

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
        places = to_map(joints.float(), self.stride)
        x, y = places.unbind(-1)
        inside = (x >= -0.5) & (x < w - 0.5) & (y >= -0.5) & (y < h - 0.5)
        weight = (inside & (visible != ABSENT)).float()
        # Somewhere finite for what has no weight: NaN times zero would still be NaN.
        x, y = torch.where(weight > 0, x, 0), torch.where(weight > 0, y, 0)
        scale = -0.5 / self.sigma**2
        across = torch.exp((torch.arange(w, device=x.device) - x.unsqueeze(-1)).square() * scale)
        down = torch.exp((torch.arange(h, device=x.device) - y.unsqueeze(-1)).square() * scale)
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
            offset = _quarter(rows, x, y, w, h)
        else:
            offset = parabola(rows, x, y, w, h)
            if self.refine == "dark":
                self._dark(rows, x, y, w, h, offset)
        places = torch.stack([x, y], dim=-1) + offset
        good = torch.isfinite(value) & torch.isfinite(places).all(-1)
        centre = torch.tensor([(w - 1) / 2, (h - 1) / 2], device=maps.device)
        places = torch.where(good.unsqueeze(-1), places, centre)
        score = torch.where(good, value, 0).clamp(0, 1)
        return from_map(places.view(N, K, 2), self.stride), score.view(N, K)

    def flip(self, encoded: Encoded, order: Tensor | None = None) -> Encoded:
        maps = encoded["heatmaps"]
        return {"heatmaps": maps[:, self._flip_order(order, maps.device)].flip(-1)}

    def _dark(
        self,
        rows: Float[Tensor, "M P"],
        x: Int[Tensor, " M"],
        y: Int[Tensor, " M"],
        w: int,
        h: int,
        offset: Float[Tensor, "M 2"],
    ) -> None:
        """Replaces the offsets wherever the smoothed neighbourhood lies inside the map."""
        r = self.radius
        reach = r + 2
        inside = (x >= reach) & (x < w - reach) & (y >= reach) & (y < h - reach)
        chosen = inside.nonzero().squeeze(1)
        if not len(chosen):
            return
        around = torch.arange(-reach, reach + 1, device=rows.device)
        steps = (around[:, None] * w + around).flatten()
        start = chosen * rows.shape[1] + y[chosen] * w + x[chosen]
        patch = rows.reshape(-1)[start[:, None] + steps].view(-1, 2 * reach + 1, 2 * reach + 1)
        taps = torch.exp(-0.5 * (torch.arange(-r, r + 1, device=rows.device) / self.sigma) ** 2)
        blur = torch.stack([torch.nn.functional.pad(taps / taps.sum(), (i, 4 - i)) for i in range(5)])  # (5, 2 r + 5)
        p = torch.log((blur @ patch @ blur.T).clamp(min=_TINY))
        dx, dy = (p[:, 2, 3] - p[:, 2, 1]) / 2, (p[:, 3, 2] - p[:, 1, 2]) / 2
        dxx = (p[:, 2, 4] - 2 * p[:, 2, 2] + p[:, 2, 0]) / 4
        dyy = (p[:, 4, 2] - 2 * p[:, 2, 2] + p[:, 0, 2]) / 4
        dxy = (p[:, 3, 3] - p[:, 1, 3] - p[:, 3, 1] + p[:, 1, 1]) / 4
        det = dxx * dyy - dxy * dxy
        step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / det.unsqueeze(-1)
        # A Newton step of more than a pixel leaves its peak; a flat or saddle-shaped top has no maximum.
        sound = (det > 0) & (dxx < 0) & (step.abs() <= 1).all(-1)
        offset[chosen[sound]] = step[sound]


def peak(rows: Float[Tensor, "M P"]) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"]]:
    """Index and value of the first largest entry of each row."""
    # numpy finds it several times faster than torch.max on the CPU.
    index = torch.from_numpy(rows.numpy().argmax(axis=1)) if rows.device.type == "cpu" else rows.argmax(dim=1)
    return index, rows.gather(1, index.unsqueeze(1)).squeeze(1)


def _along(
    rows: Float[Tensor, "M P"], x: Int[Tensor, " M"], y: Int[Tensor, " M"], w: int, h: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Three pixels along x and along y, shifted inwards at the map's edge: (M, 2, 3), and their middles x, y."""
    cx, cy = x.clamp(1, w - 2), y.clamp(1, h - 2)
    side = torch.arange(-1, 2, device=rows.device)
    across = (y * w + cx).unsqueeze(1) + side
    down = (cy * w + x).unsqueeze(1) + side * w
    return rows.gather(1, torch.cat([across, down], dim=1)).view(-1, 2, 3), cx, cy


def _quarter(
    rows: Float[Tensor, "M P"], x: Int[Tensor, " M"], y: Int[Tensor, " M"], w: int, h: int
) -> Float[Tensor, "M 2"]:
    triple, cx, cy = _along(rows, x, y, w, h)
    towards = torch.sign(triple[..., 2] - triple[..., 0]) / 4
    return towards * torch.stack([cx == x, cy == y], dim=-1)


def parabola(
    rows: Float[Tensor, "M P"], x: Int[Tensor, " M"], y: Int[Tensor, " M"], w: int, h: int
) -> Float[Tensor, "M 2"]:
    """Vertex of the parabola through the logarithms of three pixels on each axis, from the largest pixel x, y."""
    triple, cx, cy = _along(rows, x, y, w, h)
    before, middle, after = torch.log(triple.clamp(min=_TINY)).unbind(-1)
    bend = before - 2 * middle + after
    vertex = 0.5 * (before - after) / torch.where(bend < 0, bend, torch.inf)
    inwards = torch.stack([cx - x, cy - y], dim=-1)
    # The true peak lies within half a pixel of the largest one.
    return (torch.where(bend < 0, vertex + inwards, 0)).clamp(-0.5, 0.5)


__all__ = ["HeatmapCodec", "parabola", "peak"]
