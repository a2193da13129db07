"""ConvLSTM over feature maps: the LSTM and BiLSTM arms and their controls; with `kernel: 1` the LSTM on pooled vectors.

All arms are settings of one class:

    lstm           direction: forward
    bilstm         direction: both
    lstm_wide      direction: forward, match: bilstm            as many parameters as bilstm, one direction
    none_matched   direction: both, reset: every_frame          the very module of bilstm, without memory
    repeated       direction: both, reset: every_frame, repeats: 8   the same depth in steps, one frame shown eight
        times
    shuffled       direction: both, order: shuffled             the same frames in a fixed wrong order
    delayed        direction: forward, delay: L                 causal but for L frames
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bipose_lit.models.base import State, TemporalHead
from bipose_lit.models.temporal.recurrence import cell, hidden_gates, scan
from bipose_lit.types import BiposeError, FeatureSpec


class ConvLSTM(TemporalHead):
    """A ConvLSTM (Shi et al. 2015) in a residual branch: 1x1 reduction, GroupNorm, recurrence, 1x1 back to C channels.

    The last convolution starts at zero, so an untrained head hands the features on unchanged. Frames that are not
    valid are left
    out of the sequence: they change no state, the backward direction starts at the last valid frame, and the output
        there is zero.
    GroupNorm (one group) sees one frame at a time, so nothing passes between the frames or clips of a batch through it.

    Args:
        hidden: channels H of the state, per direction.
        kernel: odd size of the input and hidden convolutions; 1 for vectors (the `pool` slot).
        direction: "forward" (causal) or "both".
        reduce: channels that the recurrence reads; null for as many as `hidden`.
        reset: "never", or "every_frame": the state is zero before every frame, so no frame sees another.
        order: "time", or "shuffled": frames are read in an order that depends on `seed` and the clip's number of valid
            frames alone.
        delay: frames of look-ahead L (direction forward): the output for frame t is written after frame t + L was read.
        match: "bilstm": hidden and reduce are chosen so that the head has as many parameters (within 1%) as the one
            with the same `hidden` and `reduce` in both directions.
        norm: "group" or "none".
        dropout: on the hidden states before the last convolution.
        repeats: how often each frame is shown (reset every_frame alone); with 1 the recurrent weights have no effect.
        seed: of the shuffled order.
        memory: longest time scale, in frames, that the untrained state forgets at. The channels' forget gates start spread over
            1 to `memory` frames, the input gates at the opposite (chrono initialisation, Tallec and Ollivier 2018); with 0 all
            forget gates start at bias 1, a memory of three frames, through which no gradient reaches a joint hidden for ten.
        gain: factor on the residual. Adam's steps do not grow with the gradient, so this is how fast a last layer that starts
            at zero reaches the size of the features.

    Raises:
        BiposeError: settings that exclude each other.
    """

    def __init__(
        self,
        hidden: int = 32,
        kernel: int = 3,
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
        super().__init__()
        _choice("direction", direction, "forward", "both")
        _choice("reset", reset, "never", "every_frame")
        _choice("order", order, "time", "shuffled")
        _choice("match", match, None, "bilstm")
        _choice("norm", norm, "group", "none")
        if hidden < 1 or (reduce is not None and reduce < 1) or repeats < 1 or delay < 0:
            raise BiposeError(
                f"{type(self).__name__}: hidden {hidden}, reduce {reduce} and repeats {repeats} must be at least 1 "
                f"and delay {delay} at least 0"
            )
        if memory < 0 or 0 < memory <= 2 or gain <= 0:
            raise BiposeError(
                f"{type(self).__name__}: memory {memory} must be 0 or above 2 frames, gain {gain} above 0"
            )
        if kernel < 1 or kernel % 2 == 0:
            raise BiposeError(f"{type(self).__name__}: kernel {kernel} must be odd, so that maps keep their size")
        if delay and (direction == "both" or reset == "every_frame" or order == "shuffled"):
            raise BiposeError(f"{type(self).__name__}: delay needs direction forward, reset never and order time")
        if repeats > 1 and reset == "never":
            raise BiposeError(f"{type(self).__name__}: repeats {repeats} needs reset every_frame")
        self.hidden, self.kernel, self.directions = hidden, kernel, 2 if direction == "both" else 1
        self.reduced = reduce or hidden
        self.reset, self.order, self.delay, self.match = reset, order, delay, match
        self.normalised, self.dropout_rate, self.repeats, self.seed = norm == "group", dropout, repeats, seed
        self.memory, self.gain = memory, gain
        self.causal = reset == "every_frame" or (direction == "forward" and order == "time" and delay == 0)
        if reset == "every_frame":
            self.context = (0, 0)
        elif direction == "forward" and order == "time":
            self.context = (None, delay)
        else:
            self.context = (None, None)

    def build(self, spec: FeatureSpec) -> None:
        if self.match == "bilstm" and self.directions == 1:
            self.hidden, self.reduced = self._matched(spec.channels)
        C, R, H, D, k = spec.channels, self.reduced, self.hidden, self.directions, self.kernel
        self.reduction = nn.Conv2d(C, R, 1)
        self.norm = nn.GroupNorm(1, R) if self.normalised else nn.Identity()
        self.input = nn.Conv2d(R, D * 4 * H, k, padding=k // 2)
        self.recurrent = nn.Parameter(torch.empty(D, 4 * H, H, k, k))
        self.dropout = nn.Dropout(self.dropout_rate)
        self.output = nn.Conv2d(D * H, self._written(C), 1)
        for gate in self.input.weight.data.chunk(4 * D):
            nn.init.xavier_uniform_(gate)
        for direction in self.recurrent.data:
            for gate in direction.chunk(4):
                nn.init.orthogonal_(gate)
        bias = torch.zeros(D, 4, H)
        if self.memory:
            frames = 1 + (self.memory - 2) * (torch.arange(H) + 0.5) / H
            bias[:, 1], bias[:, 0] = frames.log(), -frames.log()
        else:
            bias[:, 1] = 1.0  # the forget gate starts open (Jozefowicz et al. 2015)
        self.input.bias.data.copy_(bias.flatten())  # type: ignore[union-attr]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C h w"]:
        mask = valid[:, :, None, None, None]
        features = torch.where(mask, features, 0)
        rows = self._gates(features.flatten(0, 1))
        hidden = self._memoryless(rows) if self.reset == "every_frame" else self._remember(rows, valid)
        written = self._write(features.flatten(0, 1), hidden.flatten(1, 2))
        return torch.where(mask, written.view(*valid.shape, *written.shape[1:]), 0)

    def init_state(self, features: Float[Tensor, "B C h w"]) -> State:
        if not self.causal:
            return super().init_state(features)
        h, w = self._read(features).shape[-2:]
        size = (features.shape[0], self.directions, self.hidden, h, w)
        zero = features.new_zeros(size, dtype=_state_type(features))
        return zero, zero

    def step(self, features: Float[Tensor, "B C h w"], state: State) -> tuple[Float[Tensor, "B C h w"], State]:
        if not self.causal:
            return super().step(features, state)
        gates = self._gates(features)
        if self.reset == "every_frame":
            hidden = self._memoryless(gates)
        else:
            with torch.autocast(features.device.type, enabled=False):
                hidden, memory = cell(gates + hidden_gates(state[0], self.recurrent), state[1])
            state = (hidden, memory)
        return self._write(features, hidden.flatten(1, 2)), state

    def _read(self, features: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h2 w2"]:
        """What the recurrence looks at."""
        return features

    def _written(self, channels: int) -> int:
        """Channels that the last convolution writes."""
        return channels

    def _write(self, features: Float[Tensor, "N C h w"], hidden: Float[Tensor, "N D*H h2 w2"]) -> Tensor:
        """Features and hidden states to the output."""
        written: Tensor = features + self.gain * self.output(self.dropout(hidden)).to(features.dtype)
        return written

    def _gates(self, features: Float[Tensor, "N C h w"]) -> Float[Tensor, "N D G h2 w2"]:
        gates: Tensor = self.input(self.norm(self.reduction(self._read(features))))
        return gates.to(_state_type(features)).reshape(-1, self.directions, 4 * self.hidden, *gates.shape[-2:])

    def _memoryless(self, gates: Float[Tensor, "N D G h w"]) -> Float[Tensor, "N D H h w"]:
        with torch.autocast(gates.device.type, enabled=False):
            # A zero state of one pixel keeps the recurrent weights in the graph: DDP wants every parameter used.
            zero = gates.new_zeros(1, self.directions, self.hidden, 1, 1)
            hidden, memory = cell(gates + hidden_gates(zero, self.recurrent), zero)
            for _ in range(self.repeats - 1):
                hidden, memory = cell(gates + hidden_gates(hidden, self.recurrent), memory)
        return hidden

    def _remember(self, gates: Float[Tensor, "N D G h w"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "N D H h w"]:
        (B, T), D = valid.shape, self.directions
        order = self._order(valid)
        clip = torch.arange(B, device=valid.device)[None, :, None]
        side = torch.arange(D, device=valid.device)
        into = (clip * T + order) * D + side  # (T, B, D): the row of `gates` read at each step
        back = torch.empty_like(into.flatten())
        back[into.flatten()] = torch.arange(into.numel(), device=valid.device)
        hidden = scan(
            _permute(gates.flatten(0, 1), into.flatten(), back).view(T, B, D, *gates.shape[2:]), self.recurrent
        )
        hidden = hidden.flatten(0, 2)
        if self.delay:
            rank, last = valid.cumsum(1) - 1, valid.sum(1, keepdim=True) - 1
            late = torch.minimum(rank + self.delay, last).clamp(min=0)
            chosen = hidden.index_select(0, (late * B + clip.view(B, 1)).flatten())
        else:
            chosen = _permute(hidden, back, into.flatten())
        return chosen.view(B * T, D, *hidden.shape[1:])

    def _order(self, valid: Bool[Tensor, "B T"]) -> Int[Tensor, "T B D"]:
        """The frame that each direction reads at each step: valid frames, then the others, for nobody to use."""
        T = valid.shape[1]
        present = torch.argsort((~valid).to(torch.uint8), dim=1, stable=True)
        count = valid.sum(1, keepdim=True)
        step = torch.arange(T, device=valid.device).expand_as(valid)
        ahead = step
        if self.order == "shuffled":
            table = torch.from_numpy(_shuffles(T, self.seed)).to(valid.device)
            ahead = table[count.squeeze(1)]
        orders = [ahead]
        if self.directions == 2:
            reverse = torch.where(step < count, count - 1 - step, step)
            orders.append(ahead.gather(1, reverse))
        return torch.stack([present.gather(1, o).T for o in orders], dim=-1)

    def _matched(self, channels: int) -> tuple[int, int]:
        """Hidden and reduced channels of the one-directional head with bilstm's parameter count."""
        R, H = self.reduced, self.hidden
        target = self._size(channels, R, H, 2)
        best, found = float("inf"), (H, R)
        # One more hidden channel is 1 to 3% of the parameters: a few reduced channels more or less make up the rest.
        for reduced in sorted(range(max(1, R // 2), 2 * R + 1), key=lambda r: abs(r - R)):
            hidden = min(
                range(max(1, H // 2), 3 * H + 2), key=lambda n: abs(self._size(channels, reduced, n, 1) - target)
            )
            off = abs(self._size(channels, reduced, hidden, 1) - target) / target
            if off < best:
                best, found = off, (hidden, reduced)
            if best <= 0.005:
                break
        if best > 0.01:
            raise BiposeError(
                f"{type(self).__name__}: no forward head has bilstm's {target} parameters within 1% "
                f"(closest {best:.1%}); raise hidden {H}"
            )
        return found

    def _size(self, C: int, R: int, H: int, D: int) -> int:
        """Parameters of the head."""
        k2 = self.kernel**2
        norm = 2 * R if self.normalised else 0
        written = self._written(C)
        return C * R + R + norm + D * 4 * H * (R * k2 + 1) + D * 4 * H * H * k2 + D * H * written + written


def _state_type(features: Tensor) -> torch.dtype:
    """At least float32: under mixed precision features come in half, in which a recurrence drifts."""
    return torch.promote_types(features.dtype, torch.float32)


class _Permute(torch.autograd.Function):
    """Rows in another order; the gradient is a gather too, which index_select's own (a scatter) is not."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


def _permute(rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return rows.index_select(0, order)
    permuted: Tensor = _Permute.apply(rows, order, inverse)
    return permuted


@lru_cache(maxsize=256)
def _shuffles(length: int, seed: int) -> np.ndarray:
    """(length + 1, length): row n permutes the first n positions and leaves the others."""
    table = np.tile(np.arange(length), (length + 1, 1))
    for n in range(length + 1):
        table[n, :n] = np.random.default_rng(np.random.SeedSequence([seed, n])).permutation(n)
    return table


def _choice(name: str, value: object, *allowed: object) -> None:
    if value not in allowed:
        raise BiposeError(f"temporal head: {name} {value!r} is not one of {', '.join(map(repr, allowed))}")


__all__ = ["ConvLSTM"]
