"""LSTMs over the rows and columns of one map: the reading of "BiLSTM on feature maps" that exists on still images."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bipose_lit.models.base import State, TemporalHead
from bipose_lit.models.temporal.recurrence import scan
from bipose_lit.types import FeatureSpec


class SpatialLSTM(TemporalHead):
    """LSTMs that sweep each map along x and y (ReNet, Visin et al. 2015), in a residual branch that starts at zero.

    No frame sees another, so the head is causal and works on stills.

    Args:
        hidden: channels of the state, per direction and axis.
        direction: "forward" (left to right and top to bottom) or "both".
        reduce: channels that the recurrence reads; null for as many as `hidden`.
        gain: factor on the residual, as `ConvLSTM`'s.
    """

    def __init__(
        self,
        hidden: int = 32,
        direction: Literal["forward", "both"] = "both",
        reduce: int | None = None,
        gain: float = 10.0,
    ) -> None:
        super().__init__()
        self.gain = gain
        self.hidden, self.directions, self.reduced = hidden, 2 if direction == "both" else 1, reduce or hidden
        self.causal, self.context = True, (0, 0)

    def build(self, spec: FeatureSpec) -> None:
        H, D = self.hidden, self.directions
        self.reduction = nn.Conv2d(spec.channels, self.reduced, 1)
        self.norm = nn.GroupNorm(1, self.reduced)
        self.input = nn.Conv2d(self.reduced, 2 * D * 4 * H, 1)
        self.recurrent = nn.Parameter(torch.empty(2, D, 4 * H, H, 1, 1))
        self.output = nn.Conv2d(2 * D * H, spec.channels, 1)
        for gate in self.input.weight.data.chunk(8 * D):
            nn.init.xavier_uniform_(gate)
        for gate in self.recurrent.data.flatten(0, 1).flatten(0, 1).chunk(8 * D):
            nn.init.orthogonal_(gate)
        bias = torch.zeros(2 * D, 4, H)
        bias[:, 1] = 1.0
        self.input.bias.data.copy_(bias.flatten())  # type: ignore[union-attr]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C h w"]:
        mask = valid[:, :, None, None, None]
        features = torch.where(mask, features, 0)
        return torch.where(mask, self._frames(features.flatten(0, 1)).view_as(features), 0)

    def init_state(self, features: Float[Tensor, "B C h w"]) -> State:
        return ()

    def step(self, features: Float[Tensor, "B C h w"], state: State) -> tuple[Float[Tensor, "B C h w"], State]:
        return self._frames(features), state

    def _frames(self, features: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        gates = self.input(self.norm(self.reduction(features))).to(features.dtype)
        gates = gates.unflatten(1, (2, self.directions, 4 * self.hidden))
        along_x = self._sweep(gates[:, 0], self.recurrent[0])
        along_y = self._sweep(gates[:, 1].transpose(-1, -2), self.recurrent[1]).transpose(-1, -2)
        written: Tensor = features + self.gain * self.output(torch.cat([along_x, along_y], dim=1)).to(features.dtype)
        return written

    def _sweep(
        self, gates: Float[Tensor, "N D G h w"], weight: Float[Tensor, "D G H 1 1"]
    ) -> Float[Tensor, "N D*H h w"]:
        """The last axis as the sequence, every row on its own."""
        steps = gates.permute(4, 0, 1, 2, 3).unsqueeze(-1)
        hidden = self._reverse_second(scan(self._reverse_second(steps).contiguous(), weight))
        return hidden.squeeze(-1).permute(1, 2, 3, 4, 0).flatten(1, 2)

    @staticmethod
    def _reverse_second(steps: Float[Tensor, "T N D G h 1"]) -> Float[Tensor, "T N D G h 1"]:
        if steps.shape[2] == 1:
            return steps
        return torch.stack([steps[:, :, 0], steps[:, :, 1].flip(0)], dim=2)


__all__ = ["SpatialLSTM"]
