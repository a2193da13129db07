"""Coordinates as they are, in units of the crop."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bipose_lit.codecs.base import TargetCodec
from bipose_lit.types import ABSENT, Encoded


class RegressionCodec(TargetCodec):
    """(x, y) as fractions of the crop's width and height from its centre: -0.5 and 0.5 are the crop's edges.

    Every labelled joint has weight 1, also outside the crop. Where the decoder also predicts "sigma", its own expected error
    in the same units, the score is 1 - the mean of both axes' (Li et al. 2021), cut to [0, 1]; else plain regression knows no
    confidence, and it is 1. It is 0, at the crop's centre, where the prediction is not finite.
    """

    keys = ("xy",)

    def encode(
        self, joints: Float[Tensor, "N K 2"], visible: Shaped[Tensor, "N K"]
    ) -> tuple[Encoded, Float[Tensor, "N K"]]:
        weight = (visible != ABSENT).float()
        xy = (joints.float() + 0.5) / self._extent(joints) - 0.5
        return {"xy": torch.where(weight.unsqueeze(-1) > 0, xy, 0)}, weight

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
        xy = encoded["xy"].detach().float()
        good = torch.isfinite(xy).all(-1)
        xy = torch.where(good.unsqueeze(-1), xy, 0)
        score = good.float()
        if "sigma" in encoded:
            certainty = 1 - encoded["sigma"].detach().float().mean(-1)
            score = torch.where(good & torch.isfinite(certainty), certainty.clamp(0, 1), 0)
        return (xy + 0.5) * self._extent(xy) - 0.5, score

    def flip(self, encoded: Encoded, order: Tensor | None = None) -> Encoded:
        order = self._flip_order(order, encoded["xy"].device)
        mirrored = {key: value[:, order] for key, value in encoded.items()}
        xy = mirrored["xy"]
        return {**mirrored, "xy": torch.cat([-xy[..., :1], xy[..., 1:]], dim=-1)}

    def _extent(self, like: Tensor) -> Tensor:
        return torch.tensor(self.size, dtype=torch.float32, device=like.device)


__all__ = ["RegressionCodec"]
