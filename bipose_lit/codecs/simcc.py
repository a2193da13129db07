"""Coordinates as two classifications: which column, which row."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bipose_lit.codecs.base import TargetCodec
from bipose_lit.geometry import from_map, to_map
from bipose_lit.types import ABSENT, BiposeError, Encoded


class SimCCCodec(TargetCodec):
    """SimCC (Li et al. 2022): each axis is cut into bins, and a joint is a distribution over the columns and one over the rows.

    Both sides speak in logits: a target is the logarithm of a Gaussian about the joint's own sub-pixel place, whose sum is 1. A
    joint outside the crop has weight 0.

    Decoding takes the largest logit of each axis and the vertex of the parabola through it and its neighbours, which is exact for
    a Gaussian. The score is the smaller of the two probabilities, as a share of the one that a clean target has.

    Args:
        ratio: bins per crop pixel; the paper's splitting factor.
        sigma: of the Gaussian, in bins.
        skeleton: name, YAML file or fields of the skeleton; only a flip needs it.

    Raises:
        BiposeError: a ratio or sigma that is none.
    """

    keys = ("x", "y")

    def __init__(self, ratio: float = 2.0, sigma: float = 6.0, skeleton: str | dict[str, Any] | None = None) -> None:
        super().__init__(skeleton)
        if ratio <= 0 or sigma <= 0:
            raise BiposeError(f"SimCCCodec: ratio {ratio} and sigma {sigma} must be above 0")
        self.ratio, self.sigma = ratio, sigma

    def build(self, joints: int, size: tuple[int, int]) -> None:
        super().build(joints, size)
        if any(n * self.ratio != round(n * self.ratio) or n * self.ratio < 3 for n in size):
            raise BiposeError(
                f"SimCCCodec: ratio {self.ratio} makes no whole number of bins, 3 or more, of a crop of {size[0]}x{size[1]}"
            )

    @property
    def bins(self) -> tuple[int, int]:
        """Columns and rows."""
        return round(self.size[0] * self.ratio), round(self.size[1] * self.ratio)

    def encode(
        self, joints: Float[Tensor, "N K 2"], visible: Shaped[Tensor, "N K"]
    ) -> tuple[Encoded, Float[Tensor, "N K"]]:
        places = to_map(joints.float(), 1 / self.ratio)
        limits = torch.tensor(self.bins, device=places.device)
        weight = (((places >= -0.5) & (places < limits - 0.5)).all(-1) & (visible != ABSENT)).float()
        # Somewhere finite for what has no weight: NaN times zero would still be NaN.
        places = torch.where(weight.unsqueeze(-1) > 0, places, 0)
        encoded = {}
        for axis, (key, bins) in enumerate(zip(self.keys, self.bins, strict=True)):
            distance = torch.arange(bins, device=places.device) - places[..., axis, None]
            encoded[key] = (-0.5 * (distance / self.sigma).square()).log_softmax(-1) * weight.unsqueeze(-1)
        return encoded, weight

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
        found = [_vertex(encoded[key].detach().float()) for key in self.keys]
        places = torch.stack([place for place, _ in found], dim=-1)
        probability = torch.minimum(found[0][1], found[1][1])
        good = torch.isfinite(places).all(-1) & torch.isfinite(probability)
        centre = torch.tensor([(n - 1) / 2 for n in self.bins], device=places.device)
        places = torch.where(good.unsqueeze(-1), places, centre)
        share = probability * (self.sigma * math.sqrt(2 * math.pi))
        return from_map(places, 1 / self.ratio), torch.where(good, share, 0).clamp(0, 1)

    def flip(self, encoded: Encoded, order: Tensor | None = None) -> Encoded:
        order = self._flip_order(order, encoded["x"].device)
        return {"x": encoded["x"][:, order].flip(-1), "y": encoded["y"][:, order]}


def _vertex(logits: Float[Tensor, "N K n"]) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N K"]]:
    """Place of the largest logit, refined by a parabola, and its probability."""
    peak = logits.argmax(-1, keepdim=True)
    probability = logits.softmax(-1).gather(-1, peak).squeeze(-1)
    middle = peak.clamp(1, logits.shape[-1] - 2)
    before, at, after = (logits.gather(-1, middle + step).squeeze(-1) for step in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = torch.where(bend < 0, 0.5 * (before - after) / torch.where(bend < 0, bend, -1.0), 0.0)
    peak, middle = peak.squeeze(-1), middle.squeeze(-1)
    # The true peak lies within half a bin of the largest one.
    offset = (middle - peak + shift).clamp(-0.5, 0.5)
    return torch.where(torch.isfinite(at), peak + offset, torch.nan), probability


__all__ = ["SimCCCodec"]
