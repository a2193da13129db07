"""An LSTM over each joint's own track: place, confidence and the feature found there."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from bipose_lit.codecs.peaks import parabola, peak
from bipose_lit.models.base import Refiner, State
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class JointLSTM(Refiner):
    """One recurrence over the tokens of every joint, with weights that all joints share; what a joint is, an embedding tells it.

    A token is a joint's place (x, y from the crop's centre, in units of the crop), its confidence (the map's largest value; 1 for
    coordinates), a feature sampled there, and how far away its held place is: the mean of its places in all frames that the head
    may read, weighted by the fourth power of their confidence and by exp(-frames / hold). A joint that is hidden has no place of
    its own; the held one is a first guess. Tokens carry no gradient back into the predictions, only into the features.

    GroupNorm runs over all tokens of a frame, so the joints of a frame see each other's spread; the recurrence does not mix them.

    From heatmaps the answer is two Gaussians in each map. One lies between the own and the held place, moved by (dx, dy) map
    pixels, and says where the joint is; the other lies at the own place and says how much of that peak to believe. From
    coordinates it is (dx, dy) in units of the crop. All answers start at zero.

    Args:
        hidden: channels of the state, per direction.
        direction: "forward" (causal) or "both".
        sampled: channels of the sampled feature; 0 for none.
        embedding: numbers that stand for a joint.
        sigma: of the Gaussians, in map pixels; that of the codec.
        hold: frames over which a held place forgets.
        reset: "never", or "every_frame": the same module without memory, its held places its own.
        memory: as `ConvLSTM`'s.
        gain: factor on the answer, as `ConvLSTM`'s.

    Raises:
        BiposeError: settings that exclude each other.
    """

    def __init__(
        self,
        hidden: int = 64,
        direction: Literal["forward", "both"] = "both",
        sampled: int = 16,
        embedding: int = 8,
        sigma: float = 1.5,
        hold: float = 3.0,
        reset: Literal["never", "every_frame"] = "never",
        memory: float = 32.0,
        gain: float = 10.0,
    ) -> None:
        super().__init__()
        if hidden < 1 or sampled < 0 or embedding < 0 or sigma <= 0 or hold <= 0:
            raise BiposeError(
                f"JointLSTM: hidden {hidden} must be at least 1, sampled {sampled} and embedding {embedding} not below 0, "
                f"sigma {sigma} and hold {hold} above 0"
            )
        self.sampled, self.embedding, self.sigma = sampled, embedding, sigma
        self.keep = 0.0 if reset == "every_frame" else math.exp(-1 / hold)
        self.both = direction == "both"
        self.lstm = _Answer(hidden, 1, direction, reset=reset, memory=memory, gain=gain)
        self.causal, self.context = self.lstm.causal, self.lstm.context

    def build(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> None:
        self.maps = predicted.channels == joints
        self.reduction = nn.Conv2d(spec.channels, self.sampled, 1) if self.sampled else None
        self.joint = nn.Parameter(torch.randn(self.embedding, joints))
        self.lstm.answers = 5 if self.maps else 2
        self.lstm.build(FeatureSpec(5 + self.sampled + self.embedding, spec.stride))

    def forward(self, encoded: Encoded, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Encoded:
        key, values = self._only(encoded)
        values = torch.where(_as_mask(valid, values), values, 0)
        features = torch.where(valid[:, :, None, None, None], features, 0)
        rows = values.flatten(0, 1)
        places, confidence = self._found(rows)
        weight = _weight(_clips(confidence, valid)) * valid[..., None]
        held = self._held(_clips(places, valid), weight).flatten(0, 1)
        tokens = self._tokens(rows, places, confidence, held, features.flatten(0, 1))
        answer = self.lstm(_clips(tokens, valid), valid).flatten(0, 1)
        refined = _clips(self._corrected(rows, places, held, answer), valid)
        return {key: torch.where(_as_mask(valid, refined), refined, 0)}

    def init_state(self, encoded: Encoded, features: Float[Tensor, "B C h w"]) -> State:
        if not self.causal:
            return super().init_state(encoded, features)
        values = self._only(encoded)[1]
        places, confidence = self._found(values)
        tokens = self._tokens(values, places, confidence, places, features)
        return (torch.zeros_like(places), torch.zeros_like(confidence), *self.lstm.init_state(tokens))

    def step(self, encoded: Encoded, features: Float[Tensor, "B C h w"], state: State) -> tuple[Encoded, State]:
        if not self.causal:
            return super().step(encoded, features, state)
        key, values = self._only(encoded)
        places, confidence = self._found(values)
        weight = _weight(confidence)
        sums = self.keep * state[0] + weight[..., None] * places
        weights = self.keep * state[1] + weight
        held = sums / weights[..., None]
        tokens = self._tokens(values, places, confidence, held, features)
        answer, own = self.lstm.step(tokens, state[2:])
        return {key: self._corrected(values, places, held, answer)}, (sums, weights, *own)

    @staticmethod
    def _only(encoded: Encoded) -> tuple[str, Tensor]:
        if len(encoded) != 1:
            raise BiposeError(
                f"JointLSTM reads heatmaps or coordinates alone, not {', '.join(encoded)}; use another refiner"
            )
        return next(iter(encoded.items()))

    @torch.no_grad()
    def _found(self, values: Tensor) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
        """Places, in map pixels or in units of the crop, and confidences in [0, 1]."""
        if self.maps:
            places, value = peaks(_full(values))
            return places, value.clamp(0, 1)
        places = torch.nan_to_num(_full(values))
        return places, torch.ones_like(places[..., 0])

    @torch.no_grad()
    def _held(self, places: Float[Tensor, "B T K 2"], weight: Float[Tensor, "B T K"]) -> Float[Tensor, "B T K 2"]:
        """Weighted means of the places in the frames that may be read."""
        own = torch.cat([weight[..., None] * places, weight[..., None]], dim=-1)
        sums = self._decayed(own)
        if self.both:
            sums = sums + self._decayed(own.flip(1)).flip(1) - own
        return sums[..., :2] / sums[..., 2:].clamp(min=1e-12)  # a frame that is not valid may see none

    def _decayed(self, values: Float[Tensor, "B T K n"]) -> Float[Tensor, "B T K n"]:
        sums = [values[:, 0]]
        for t in range(1, values.shape[1]):
            sums.append(self.keep * sums[-1] + values[:, t])
        return torch.stack(sums, dim=1)

    def _tokens(
        self,
        values: Tensor,
        places: Float[Tensor, "N K 2"],
        confidence: Float[Tensor, "N K"],
        held: Float[Tensor, "N K 2"],
        features: Float[Tensor, "N C h w"],
    ) -> Float[Tensor, "N D K 1"]:
        extent = places.new_tensor(values.shape[:-3:-1] if self.maps else (1, 1))  # w, h
        xy = (places + 0.5) / extent - 0.5 if self.maps else places
        parts = [xy.transpose(1, 2), ((held - places) / extent).transpose(1, 2), confidence.unsqueeze(1)]
        if self.reduction is not None:
            reduced = self.reduction(features).to(features.dtype)
            grid = (2 * xy).unsqueeze(2).to(features.dtype)
            sampled = functional.grid_sample(reduced, grid, padding_mode="border", align_corners=False)
            parts.append(sampled.squeeze(-1))
        parts.append(self.joint.expand(len(values), -1, -1))
        return torch.cat([p.to(features.dtype) for p in parts], dim=1).unsqueeze(-1)

    def _corrected(
        self,
        values: Tensor,
        places: Float[Tensor, "N K 2"],
        held: Float[Tensor, "N K 2"],
        answer: Float[Tensor, "N A K 1"],
    ) -> Tensor:
        told, values = answer.squeeze(-1).transpose(1, 2).to(places.dtype), values.to(places.dtype)  # told: (N, K, A)
        if not self.maps:
            return values + told
        height, width = values.shape[-2:]
        between = places + told[..., 2:3].sigmoid() * (held - places) + told[..., :2]
        new, old = (self._gaussian(p, width, height) for p in (between, places))
        return values + told[..., 3, None, None] * new + told[..., 4, None, None] * old

    def _gaussian(self, places: Float[Tensor, "N K 2"], width: int, height: int) -> Float[Tensor, "N K h w"]:
        """Of peak 1."""
        x, y = places.unsqueeze(-1).unbind(-2)
        scale = -0.5 / self.sigma**2
        across = torch.exp((torch.arange(width, device=x.device) - x).square() * scale)
        down = torch.exp((torch.arange(height, device=x.device) - y).square() * scale)
        return down.unsqueeze(-1) * across.unsqueeze(-2)


class _Answer(ConvLSTM):
    """`ConvLSTM` on tokens, joints in the place of rows; it hands nothing on but its answer."""

    answers = 5

    def _written(self, channels: int) -> int:
        return self.answers

    def _write(self, features: Float[Tensor, "N D K 1"], hidden: Float[Tensor, "N H K 1"]) -> Tensor:
        written: Tensor = (self.gain * self.output(self.dropout(hidden))).to(features.dtype)
        return written


def peaks(maps: Float[Tensor, "N K h w"]) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
    """Sub-pixel place (map pixels) of the largest value of each map, and that value; 0 where a map is not finite."""
    (N, K), (height, width) = maps.shape[:2], maps.shape[-2:]
    rows = torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0).reshape(N * K, -1)
    index, value = peak(rows)
    x, y = index % width, index // width
    places = torch.stack([x, y], dim=-1) + parabola(rows, x, y, width, height)
    return places.view(N, K, 2), value.view(N, K)


def _full(values: Tensor) -> Tensor:
    """At least float32: places of tens of pixels do not survive half precision."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _weight(confidence: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Of a place in the mean; never zero, so that there always is one."""
    return confidence**4 + 1e-6


def _clips(rows: Tensor, valid: Bool[Tensor, "B T"]) -> Tensor:
    """(B T, ...) as (B, T, ...)."""
    return rows.view(*valid.shape, *rows.shape[1:])


def _as_mask(valid: Bool[Tensor, "B T"], like: Tensor) -> Tensor:
    return valid.view(*valid.shape, *(1,) * (like.ndim - 2))


__all__ = ["JointLSTM", "peaks"]
