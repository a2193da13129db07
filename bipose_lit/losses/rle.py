"""Regression by likelihood: how errors are distributed is learned beside where joints are."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.losses import PoseLoss
from bipose_lit.types import BiposeError, Encoded

Residual = Literal["laplace", "gaussian", "none"]


class RLE(PoseLoss):
    """Residual log-likelihood estimation (Li et al. 2021): the decoder predicts each coordinate and its own sigma.

    With e the error of a joint divided by sigma, axis by axis, the loss is the negative logarithm of two densities of the joint's
    place, the mean over weighted joints:

        loss = -log [q(e) / (sigma_x sigma_y)]  -  log [g(e) / (sigma_x sigma_y)]

    q is a fixed one, of independent axes: Laplace's of scale sqrt(2) (that of the paper's code) or the normal one. g is learned
    by a `RealNVP`, which starts as the normal density; it is here, not in the network, as only training asks for it. Both sum
    to 1 over the plane. (The paper writes one density: q g and a factor that makes it sum to 1. Its code is the above without
    the factor, and with log g(e) taken twice, once for each axis.)

    The loss is in nats, of places in units of the crop: it may be below 0.

    Args:
        residual: q, "laplace" or "gaussian"; "none" leaves g alone (the paper's direct likelihood estimation).
        layers: of the flow; 6 in the paper.
        hidden: width of the flow's layers; 64 in the paper.
        least: sigma below which nothing is gained, as a fraction of the crop; without a limit a network that learns its data by
            heart would gain without end.

    Raises:
        BiposeError: a number out of range or an unknown residual; a decoder that predicts no sigma.
    """

    keys = ("xy",)

    def __init__(self, residual: Residual = "laplace", layers: int = 6, hidden: int = 64, least: float = 1e-3) -> None:
        super().__init__()
        if residual not in get_args(Residual):
            raise BiposeError(f"RLE: residual {residual!r} is not one of {', '.join(map(repr, get_args(Residual)))}")
        if layers < 0 or hidden < 1 or not 0 < least < 1:
            raise BiposeError(
                f"RLE: layers {layers} must not be below 0, hidden {hidden} at least 1, least {least} between 0 and 1"
            )
        if residual == "none" and not layers:
            raise BiposeError("RLE: residual 'none' without layers has nothing to learn; set one of them")
        self.residual, self.least = residual, least
        with torch.random.fork_rng(devices=[]):  # the network's initial weights stay what they are under another loss
            self.flow = RealNVP(layers, hidden)

    def forward(self, pred: Encoded, target: Encoded, weight: Float[Tensor, "N K"]) -> dict[str, Tensor]:
        xy, wanted = self._pair(pred, target, "xy")
        if "sigma" not in pred:
            raise BiposeError(
                f"loss RLE needs sigma, but the decoder predicts {', '.join(pred)}; set decoder.init_args.sigma true"
            )
        with torch.autocast(xy.device.type, enabled=False):
            parts = self.log_densities(wanted - xy, pred["sigma"].float())
        cost = -sum(parts, start=torch.zeros_like(weight))
        return {"loss": (cost * weight).sum() / self.normaliser(target, weight)}

    def log_densities(
        self, error: Float[Tensor, "*any 2"], sigma: Float[Tensor, "*any 2"]
    ) -> tuple[Float[Tensor, "*any"], ...]:
        """Logarithms of the densities at these errors: the fixed one, if there is one, and the learned one."""
        sigma = sigma.clamp(min=self.least)
        scaled, volume = error / sigma, sigma.log().sum(-1)
        learned = self.flow(scaled) - volume
        if self.residual == "none":
            return (learned,)
        if self.residual == "gaussian":
            fixed = _normal(scaled)
        else:
            fixed = -(scaled.abs() / math.sqrt(2) + math.log(2 * math.sqrt(2))).sum(-1)
        return fixed - volume, learned


class RealNVP(nn.Module):
    """A density of the plane, as a normal one that invertible layers have bent (Dinh et al. 2017).

    Each layer scales and shifts one coordinate by what two small networks say of the other; which one alternates.

    Args:
        layers: number of layers; without any, and at the start of training, it is the normal density.
        hidden: width of the networks.
    """

    def __init__(self, layers: int = 6, hidden: int = 64) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_small(hidden) for _ in range(layers))
        self.shifts = nn.ModuleList(_small(hidden) for _ in range(layers))

    def normalise(self, points: Float[Tensor, "*any 2"]) -> tuple[Float[Tensor, "*any 2"], Float[Tensor, "*any"]]:
        """Where the points come from under the normal density, and the logarithm of that mapping's Jacobian determinant."""
        first, second = points.unbind(-1)
        volume = torch.zeros_like(first)
        for scale, shift in zip(self.scales, self.shifts, strict=True):
            fixed = first.unsqueeze(-1)
            log_scale = scale(fixed).squeeze(-1).tanh()
            moved = (second - shift(fixed).squeeze(-1)) * torch.exp(-log_scale)
            volume = volume - log_scale
            first, second = moved, first  # the other coordinate's turn
        if len(self.scales) % 2:
            first, second = second, first
        return torch.stack([first, second], dim=-1), volume

    def forward(self, points: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any"]:
        """Logarithm of the density."""
        origin, volume = self.normalise(points)
        return _normal(origin) + volume


def _normal(points: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any"]:
    return -(points.square() / 2 + math.log(2 * math.pi) / 2).sum(-1)


def _small(hidden: int) -> nn.Sequential:
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(1, hidden), nn.LeakyReLU(), nn.Linear(hidden, hidden), nn.LeakyReLU(), last)


__all__ = ["RLE", "RealNVP"]
