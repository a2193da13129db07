"""An LSTM on pooled vectors that modulates the full maps: global context over time, no space lost."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from bipose_lit.models.temporal.conv_lstm import ConvLSTM


class FiLM(ConvLSTM):
    """Feature-wise modulation (Perez et al. 2018): features * (1 + gamma) + beta, from an LSTM over mean features.

    gamma and beta start at zero. The arguments are those of `ConvLSTM`, whose kernel is 1 here.
    """

    def __init__(
        self,
        hidden: int = 64,
        direction: Literal["forward", "both"] = "both",
        reduce: int | None = None,
        reset: Literal["never", "every_frame"] = "never",
        order: Literal["time", "shuffled"] = "time",
        delay: int = 0,
        match: Literal["bilstm"] | None = None,
        norm: Literal["group", "none"] = "group",
        dropout: float = 0.0,
        repeats: int = 1,
        seed: int = 0,
        memory: float = 32.0,
        gain: float = 10.0,
    ) -> None:
        super().__init__(
            hidden, 1, direction, reduce, reset, order, delay, match, norm, dropout, repeats, seed, memory, gain
        )

    def _read(self, features: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C 1 1"]:
        return features.mean((-2, -1), keepdim=True)

    def _written(self, channels: int) -> int:
        return 2 * channels

    def _write(self, features: Float[Tensor, "N C h w"], hidden: Float[Tensor, "N D*H 1 1"]) -> Tensor:
        gamma, beta = (self.gain * self.output(self.dropout(hidden))).to(features.dtype).chunk(2, dim=1)
        written: Tensor = features * (1 + gamma) + beta
        return written


__all__ = ["FiLM"]
