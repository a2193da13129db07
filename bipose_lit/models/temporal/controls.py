"""Heads over time without a recurrence: what an LSTM has to beat before anybody may speak of learned order."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from bipose_lit.models.base import State, TemporalHead
from bipose_lit.types import BiposeError, FeatureSpec


class WindowMean(TemporalHead):
    """The mean of the valid frames in a window, in a residual branch that starts at zero.

    It knows its neighbours but not their order. The branch: 1x1 reduction, GroupNorm, mean, ReLU, 1x1.

    Args:
        past: frames before t in the window; null for all.
        future: frames after t in the window; null for all, 0 for a causal head.
        hidden: channels that are averaged.
        gain: factor on the residual, as `ConvLSTM`'s.
    """

    def __init__(
        self, past: int | None = None, future: int | None = None, hidden: int = 64, gain: float = 10.0
    ) -> None:
        super().__init__()
        if (past or 0) < 0 or (future or 0) < 0 or hidden < 1:
            raise BiposeError(
                f"WindowMean: past {past} and future {future} must not be below 0, hidden {hidden} not below 1"
            )
        self.past, self.future, self.hidden, self.gain = past, future, hidden, gain
        self.context = (past, future)
        self.causal = future == 0

    def build(self, spec: FeatureSpec) -> None:
        self.reduction = nn.Conv2d(spec.channels, self.hidden, 1)
        self.norm = nn.GroupNorm(1, self.hidden)
        self.output = nn.Conv2d(self.hidden, spec.channels, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C h w"]:
        mask = valid[:, :, None, None, None]
        features = torch.where(mask, features, 0)
        (B, T), (h, w) = valid.shape, features.shape[-2:]
        reduced = self.norm(self.reduction(features.flatten(0, 1)))
        ahead = torch.arange(T, device=valid.device) - torch.arange(T, device=valid.device)[:, None]  # s - t
        window = torch.ones_like(ahead, dtype=torch.bool)
        if self.past is not None:
            window &= ahead >= -self.past
        if self.future is not None:
            window &= ahead <= self.future
        share = (window & valid[:, None]).to(reduced.dtype)
        share = share / share.sum(-1, keepdim=True).clamp(min=1)
        mean = torch.bmm(share, reduced.view(B, T, -1)).view(B * T, self.hidden, h, w)
        return torch.where(mask, features + self._write(mean).view_as(features).to(features.dtype), 0)

    def init_state(self, features: Float[Tensor, "B C h w"]) -> State:
        if not self.causal:
            return super().init_state(features)
        B, _, h, w = features.shape
        kept = 1 if self.past is None else self.past + 1
        return features.new_zeros(B, kept, self.hidden, h, w), features.new_zeros(())

    def step(self, features: Float[Tensor, "B C h w"], state: State) -> tuple[Float[Tensor, "B C h w"], State]:
        if not self.causal:
            return super().step(features, state)
        frames, count = state
        reduced = self.norm(self.reduction(features)).unsqueeze(1)
        count = count + 1
        frames = frames + reduced if self.past is None else torch.cat([frames[:, 1:], reduced], dim=1)
        seen = count if self.past is None else count.clamp(max=self.past + 1)
        return features + self._write(frames.sum(1) / seen), (frames, count)

    def _write(self, mean: Float[Tensor, "N H h w"]) -> Float[Tensor, "N C h w"]:
        written: Tensor = self.gain * self.output(functional.relu(mean))
        return written


class TCN(TemporalHead):
    """Dilated convolutions over time at every place of the map, in a residual branch that starts at zero.

    After Bai et al. 2018, with GroupNorm before the first. `context` tells the receptive field. A frame that is not
    valid counts as zeros after every layer, like the time before a clip.

    Args:
        hidden: channels inside the branch.
        kernel: frames per convolution; odd unless causal.
        layers: number of convolutions; dilations 1, 2, 4, ...
        causal: read past frames alone.
        dropout: after each convolution.
        gain: factor on the residual, as `ConvLSTM`'s.
    """

    def __init__(
        self,
        hidden: int = 64,
        kernel: int = 3,
        layers: int = 3,
        causal: bool = False,
        dropout: float = 0.0,
        gain: float = 10.0,
    ) -> None:
        super().__init__()
        if min(hidden, layers) < 1 or kernel < 2 or (kernel % 2 == 0 and not causal):
            raise BiposeError(
                f"TCN: hidden {hidden} and layers {layers} must be at least 1, "
                f"kernel {kernel} at least 2 (odd unless causal)"
            )
        self.hidden, self.kernel, self.layers, self.dropout_rate = hidden, kernel, layers, dropout
        self.gain = gain
        self.causal = causal
        self.dilations = [2**i for i in range(layers)]
        reach = (kernel - 1) * sum(self.dilations)
        self.context = (reach, 0) if causal else (reach // 2, reach // 2)

    def build(self, spec: FeatureSpec) -> None:
        self.reduction = nn.Conv2d(spec.channels, self.hidden, 1)
        self.norm = nn.GroupNorm(1, self.hidden)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(self.hidden, self.hidden, self.kernel, dilation=d) for d in self.dilations
        )
        self.dropout = nn.Dropout(self.dropout_rate)
        self.output = nn.Conv2d(self.hidden, spec.channels, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C h w"]:
        mask = valid[:, :, None, None, None]
        features = torch.where(mask, features, 0)
        (B, T), (h, w) = valid.shape, features.shape[-2:]
        x = self.norm(self.reduction(features.flatten(0, 1))).view(B, T, self.hidden, h * w)
        x = x.permute(0, 3, 2, 1).flatten(0, 1)  # (B h w, H, T)
        present = valid.to(x.dtype).repeat_interleave(h * w, dim=0).unsqueeze(1)
        x = x * present
        for convolution, dilation in zip(self.convolutions, self.dilations, strict=True):
            reach = (self.kernel - 1) * dilation
            before = reach if self.causal else reach // 2
            x = (x + self.dropout(functional.relu(convolution(functional.pad(x, (before, reach - before)))))) * present
        x = x.view(B, h * w, self.hidden, T).permute(0, 3, 2, 1).reshape(B * T, self.hidden, h, w)
        return torch.where(mask, features + (self.gain * self.output(x)).view_as(features).to(features.dtype), 0)

    def init_state(self, features: Float[Tensor, "B C h w"]) -> State:
        if not self.causal:
            return super().init_state(features)
        rows = features.shape[0] * features.shape[2] * features.shape[3]
        return tuple(features.new_zeros(rows, self.hidden, (self.kernel - 1) * d) for d in self.dilations)

    def step(self, features: Float[Tensor, "B C h w"], state: State) -> tuple[Float[Tensor, "B C h w"], State]:
        if not self.causal:
            return super().step(features, state)
        B, _, h, w = features.shape
        x = self.norm(self.reduction(features)).flatten(2).transpose(1, 2).reshape(B * h * w, self.hidden, 1)
        kept = []
        for convolution, past in zip(self.convolutions, state, strict=True):
            seen = torch.cat([past, x], dim=-1)
            kept.append(seen[..., 1:])
            x = x + self.dropout(functional.relu(convolution(seen)))
        x = x.view(B, h * w, self.hidden).transpose(1, 2).reshape(B, self.hidden, h, w)
        return features + self.gain * self.output(x), tuple(kept)


__all__ = ["TCN", "WindowMean"]
