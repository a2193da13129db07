"""The convolutional pose machine whose stages are the frames of a video."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bipose_lit.models.base import Refiner, State
from bipose_lit.models.layers import centre_map, check_sizes, convolution, heatmap_head
from bipose_lit.models.temporal.recurrence import cell, hidden_gates
from bipose_lit.types import BiposeError, Encoded, FeatureSpec

BIASES = (1.4, 1.0, 0.2, 0.0)
"""Of the input, forget and output gates and the candidate, as the authors' networks start."""


class LSTMPoseMachine(Refiner):
    """A stage of a convolutional pose machine for every frame, all with the same weights and a ConvLSTM inside (Luo et al. 2018).

    A frame's features, through a 5x5 convolution, the belief maps of the frame before and a Gaussian about the crop's centre go
    into the ConvLSTM; three 11x11 and two 1x1 convolutions turn its hidden state into the frame's belief maps. In a clip's first
    frame the decoder's maps stand for those of the frame before; goes with `CPMStages(stages=1)` on `CPMTrunk`.

    Sizes and the gates' first biases are those of the authors' lawy623/LSTM_Pose_Machines. One trunk serves decoder and refiner,
    which have one each there (with dropout of a half after two layers of the first, and 3x3 pooling), and the decoder's maps are
    supervised in all frames, there in the first. No background map.

    Args:
        hidden: channels of the ConvLSTM's state.
        reduced: channels of the 5x5 convolution.
        channels: of the layers after the ConvLSTM.
        kernel: odd size of the first three of them.
        centre: deviation of the Gaussian, as a fraction of the crop's longer side.
        reset: "never", or "every_frame": the same module without memory; every frame is a first one.
        residual: false as in the paper, where later frames do not see the decoder's maps and an untrained network knows nothing
            of them; true: maps are the decoder's plus what the module adds, which starts at zero, as in other refiners.
        gain: factor on what is added, as `ConvLSTM`'s (residual true).

    Raises:
        BiposeError: a number out of range; predictions that are not one heatmap per joint at the features' stride.
    """

    causal = True

    def __init__(
        self,
        hidden: int = 48,
        reduced: int = 32,
        channels: int = 128,
        kernel: int = 11,
        centre: float = 21 / 368,
        reset: Literal["never", "every_frame"] = "never",
        residual: bool = False,
        gain: float = 10.0,
    ) -> None:
        super().__init__()
        check_sizes(self, {"kernel": kernel}, hidden=hidden, reduced=reduced, channels=channels)
        if centre <= 0 or gain <= 0:
            raise BiposeError(f"LSTMPoseMachine: centre {centre} and gain {gain} must be above 0")
        if reset not in ("never", "every_frame"):
            raise BiposeError(f"LSTMPoseMachine: reset {reset!r} is not one of 'never', 'every_frame'")
        self.hidden, self.reduced, self.channels, self.kernel, self.centre = hidden, reduced, channels, kernel, centre
        self.forgets, self.residual, self.gain = reset == "every_frame", residual, gain
        self.identity = residual
        self.context = (0, 0) if self.forgets else (None, 0)

    def build(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> None:
        if predicted != FeatureSpec(joints, spec.stride):
            raise BiposeError(
                f"LSTMPoseMachine: it reads one heatmap per joint at the features' stride {spec.stride}, but the decoder gives "
                f"{predicted.channels} channels at {predicted.stride}; use CPMStages, or another one that keeps the map's size"
            )
        H, C, k = self.hidden, self.channels, self.kernel
        self.reduction = nn.Sequential(*convolution(spec.channels, self.reduced, 5))
        self.input = nn.Conv2d(self.reduced + joints + 1, 4 * H, 3, padding=1)
        self.recurrent = nn.Parameter(torch.empty(1, 4 * H, H, 3, 3))
        head = heatmap_head(C, joints)
        self.layers = nn.Sequential(
            *convolution(H, C, k), *convolution(C, C, k), *convolution(C, C, k), *convolution(C, C, 1), head
        )
        for gate in (*self.input.weight.data.chunk(4), *self.recurrent.data[0].chunk(4)):
            nn.init.xavier_uniform_(gate)
        self.input.bias.data.copy_(torch.tensor(BIASES).repeat_interleave(H))  # type: ignore[union-attr]
        if self.residual:
            nn.init.zeros_(head.weight)

    def forward(self, encoded: Encoded, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Encoded:
        mask = valid[:, :, None, None, None]
        own = torch.where(mask, self._maps(encoded), 0)
        seen = self._seen(torch.where(mask, features, 0).flatten(0, 1))
        if self.forgets:
            beliefs, _ = self._frame(own.flatten(0, 1), seen, self._start(own.flatten(0, 1)))
            return {"heatmaps": torch.where(mask, beliefs.view_as(own), 0)}
        seen, state = seen.view(*valid.shape, *seen.shape[1:]), self._start(own[:, 0])
        frames = []
        for t in range(valid.shape[1]):
            beliefs, after = self._frame(own[:, t], seen[:, t], state)
            state = tuple(
                torch.where(mask[:, t].view(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(after, state, strict=True)
            )
            frames.append(beliefs)
        return {"heatmaps": torch.where(mask, torch.stack(frames, dim=1), 0)}

    def init_state(self, encoded: Encoded, features: Float[Tensor, "B C h w"]) -> State:
        return () if self.forgets else self._start(self._maps(encoded))

    def step(self, encoded: Encoded, features: Float[Tensor, "B C h w"], state: State) -> tuple[Encoded, State]:
        own = self._maps(encoded)
        beliefs, after = self._frame(own, self._seen(features), self._start(own) if self.forgets else state)
        return {"heatmaps": beliefs}, () if self.forgets else after

    @staticmethod
    def _maps(encoded: Encoded) -> Tensor:
        if list(encoded) != ["heatmaps"]:
            raise BiposeError(f"LSTMPoseMachine reads heatmaps alone, not {', '.join(encoded)}; use another refiner")
        maps = encoded["heatmaps"]
        return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps

    def _start(self, own: Float[Tensor, "B K h w"]) -> State:
        """Hidden state, memory, beliefs of the frame before, and whether there was one."""
        B, _, h, w = own.shape
        zero = own.new_zeros(B, 1, self.hidden, h, w)
        return zero, zero, torch.zeros_like(own), own.new_zeros(B, 1, 1, 1)

    def _seen(self, features: Float[Tensor, "N C h w"]) -> Float[Tensor, "N R+1 h w"]:
        """What a frame sees apart from beliefs."""
        reduced = self.reduction(features)
        return torch.cat([reduced, centre_map(reduced, self.centre)], dim=1)

    def _frame(
        self, own: Float[Tensor, "B K h w"], seen: Float[Tensor, "B R+1 h w"], state: State
    ) -> tuple[Float[Tensor, "B K h w"], State]:
        hidden, memory, beliefs, started = state
        before = torch.where(started > 0, beliefs, own)
        gates = self.input(torch.cat([seen, before], dim=1)).to(own.dtype)
        with torch.autocast(own.device.type, enabled=False):  # a recurrence in half precision drifts
            hidden, memory = cell(gates.unsqueeze(1) + hidden_gates(hidden, self.recurrent), memory)
        told = self.layers(hidden.squeeze(1)).to(own.dtype)
        beliefs = own + self.gain * told if self.residual else told
        return beliefs, (hidden, memory, beliefs, torch.ones_like(started))


__all__ = ["LSTMPoseMachine"]
