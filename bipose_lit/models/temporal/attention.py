"""Attention over the frames of a clip, at every place of the map: the paper's future work."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bipose_lit.models.base import State, TemporalHead
from bipose_lit.types import BiposeError, FeatureSpec


class TemporalAttention(TemporalHead):
    """Self-attention over time (Vaswani et al. 2017) in a residual branch that starts at zero.

    Each place of the map attends to the same place in other frames, as `ConvLSTM` with kernel 1 remembers it. The branch: 1x1
    reduction, GroupNorm, attention, 1x1. Order is known by a learned bias of each head for each distance in frames (Shaw et al.
    2018, in T5's form), equal beyond `reach`; so a clip may start anywhere and be of any length.

    Args:
        hidden: channels of the branch, shared by the heads.
        heads: number of them; divides `hidden`.
        past: frames before t that it reads; null for all.
        future: frames after t that it reads; null for all, 0 for a causal head, whose state in a stream holds the keys and values
            of `past` frames (and grows without end where that is null).
        reach: distance in frames up to which each has a bias of its own.
        dropout: on the attended values before the last convolution.
        gain: factor on the residual, as `ConvLSTM`'s.

    Raises:
        BiposeError: settings that are no attention.
    """

    def __init__(
        self,
        hidden: int = 40,
        heads: int = 4,
        past: int | None = None,
        future: int | None = None,
        reach: int = 16,
        dropout: float = 0.0,
        gain: float = 10.0,
    ) -> None:
        super().__init__()
        if hidden < 1 or heads < 1 or hidden % heads:
            raise BiposeError(f"TemporalAttention: heads {heads} must divide hidden {hidden}, both at least 1")
        if (past or 0) < 0 or (future or 0) < 0 or reach < 1 or gain <= 0:
            raise BiposeError(
                f"TemporalAttention: past {past} and future {future} must not be below 0, reach {reach} not below 1, gain {gain} "
                "above 0"
            )
        self.hidden, self.heads, self.past, self.future, self.reach = hidden, heads, past, future, reach
        self.dropout_rate, self.gain = dropout, gain
        self.context = (past, future)
        self.causal = future == 0

    def build(self, spec: FeatureSpec) -> None:
        H = self.hidden
        self.reduction = nn.Conv2d(spec.channels, H, 1)
        self.norm = nn.GroupNorm(1, H)
        self.tokens = nn.Conv2d(H, 3 * H, 1)
        self.distance = nn.Parameter(torch.zeros(self.heads, 2 * self.reach + 1))
        self.dropout = nn.Dropout(self.dropout_rate)
        self.output = nn.Conv2d(H, spec.channels, 1)
        for part in self.tokens.weight.data.chunk(3):
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.tokens.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C h w"]:
        mask = valid[:, :, None, None, None]
        features = torch.where(mask, features, 0)
        T = valid.shape[1]
        query, key, value = self._tokens(features)
        frames = torch.arange(T, device=valid.device)
        ahead = frames - frames[:, None]  # of the key, seen from the query
        seen = torch.ones_like(ahead, dtype=torch.bool)
        if self.past is not None:
            seen &= ahead >= -self.past
        if self.future is not None:
            seen &= ahead <= self.future
        # Every frame sees itself: a row without any key would be no distribution. What padding sees is thrown away.
        allowed = (seen & valid[:, None]) | (ahead == 0)
        attended = self._attend(query, key, value, ahead, allowed[:, None, None])
        return torch.where(mask, features + self._write(attended, features), 0)

    def init_state(self, features: Float[Tensor, "B C h w"]) -> State:
        if not self.causal:
            return super().init_state(features)
        B, _, h, w = features.shape
        none = features.new_zeros(B, h * w, self.heads, 0, self.hidden // self.heads)
        return none, none

    def step(self, features: Float[Tensor, "B C h w"], state: State) -> tuple[Float[Tensor, "B C h w"], State]:
        if not self.causal:
            return super().step(features, state)
        query, key, value = self._tokens(features.unsqueeze(1))
        key, value = torch.cat([state[0], key], dim=3), torch.cat([state[1], value], dim=3)
        count = key.shape[3]
        ahead = torch.arange(1 - count, 1, device=features.device)[None]
        attended = self._attend(query, key, value, ahead, torch.ones_like(ahead, dtype=torch.bool))
        kept = count if self.past is None else min(self.past, count)
        written = features + self._write(attended, features.unsqueeze(1)).squeeze(1)
        return written, (key[..., count - kept :, :], value[..., count - kept :, :])

    def _tokens(self, features: Float[Tensor, "B T C h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, h w, heads, T, hidden / heads)."""
        B, T = features.shape[:2]
        tokens = self.tokens(self.norm(self.reduction(features.flatten(0, 1)))).to(features.dtype)
        rows = tokens.reshape(B, T, 3, self.heads, self.hidden // self.heads, -1)
        query, key, value = rows.permute(2, 0, 5, 3, 1, 4).unbind(0)
        return query, key, value

    def _attend(
        self,
        query: Float[Tensor, "B P heads Q d"],
        key: Float[Tensor, "B P heads S d"],
        value: Float[Tensor, "B P heads S d"],
        ahead: Int[Tensor, "Q S"],
        allowed: Bool[Tensor, "*any Q S"],
    ) -> Float[Tensor, "B P heads Q d"]:
        bias = self.distance[:, ahead.clamp(-self.reach, self.reach) + self.reach].to(query.dtype)
        score = query @ key.transpose(-1, -2) / (self.hidden // self.heads) ** 0.5 + bias
        attended: Tensor = score.masked_fill(~allowed, -torch.inf).softmax(-1) @ value
        return attended

    def _write(
        self, attended: Float[Tensor, "B P heads T d"], like: Float[Tensor, "B T C h w"]
    ) -> Float[Tensor, "B T C h w"]:
        B, T, _, h, w = like.shape
        maps = attended.permute(0, 3, 2, 4, 1).reshape(B * T, self.hidden, h, w)
        written: Tensor = self.gain * self.output(self.dropout(maps))
        return written.view_as(like).to(like.dtype)


__all__ = ["TemporalAttention"]
