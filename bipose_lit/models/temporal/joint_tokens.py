"""Joints as tokens, and what an answer to a token does to the prediction: what refiners over joints share."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from bipose_lit.codecs.peaks import parabola, peak
from bipose_lit.models.base import Refiner, State
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class JointRefiner(Refiner):
    """A refiner that makes a token of every joint in every frame, and corrects the prediction by what is answered to it.

    A token is a joint's place (x, y from the crop's centre, in units of the crop), its confidence (the map's largest value; 1 for
    coordinates), a feature sampled there, and how far away its held place is: the mean of its places in all frames that the head
    may read, weighted by the fourth power of their confidence and by exp(-frames / hold). A joint that is hidden has no place of
    its own; the held one is a first guess. Tokens carry no gradient back into the predictions, only into the features. What a
    joint is, an embedding tells.

    From heatmaps the answer is two Gaussians in each map. One lies between the own and the held place, moved by (dx, dy) map
    pixels, and says where the joint is; the other lies at the own place and says how much of that peak to believe. From
    coordinates it is (dx, dy) in units of the crop.

    Args:
        hidden: channels of the state.
        sampled: channels of the sampled feature; 0 for none.
        embedding: numbers that stand for a joint.
        sigma: of the Gaussians, in map pixels; that of the codec.
        hold: frames over which a held place forgets.
        alone: no frame sees another, and held places are a frame's own.
        both: held places are those of later frames too.

    Raises:
        BiposeError: numbers out of range.
    """

    def __init__(
        self, hidden: int, sampled: int, embedding: int, sigma: float, hold: float, alone: bool, both: bool
    ) -> None:
        super().__init__()
        if hidden < 1 or sampled < 0 or embedding < 0 or sigma <= 0 or hold <= 0:
            raise BiposeError(
                f"{type(self).__name__}: hidden {hidden} must be at least 1, sampled {sampled} and embedding {embedding} not "
                f"below 0, sigma {sigma} and hold {hold} above 0"
            )
        self.sampled, self.embedding, self.sigma = sampled, embedding, sigma
        self.keep = 0.0 if alone else math.exp(-1 / hold)
        self.both = both

    def build_tokens(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> tuple[int, int]:
        """Makes the layers that tokens need; returns the numbers of a token and of an answer."""
        self.maps = predicted.channels == joints
        self.reduction = nn.Conv2d(spec.channels, self.sampled, 1) if self.sampled else None
        self.joint = nn.Parameter(torch.randn(self.embedding, joints))
        return 5 + self.sampled + self.embedding, 5 if self.maps else 2

    def answer(self, tokens: Float[Tensor, "B T D K 1"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T A K 1"]:
        """To the tokens of whole clips; zeros for an untrained refiner."""
        raise NotImplementedError

    def answer_state(self, tokens: Float[Tensor, "B D K 1"]) -> State:
        """Before the first frame, for tokens of this shape (causal refiners)."""
        raise NotImplementedError

    def answer_step(self, tokens: Float[Tensor, "B D K 1"], state: State) -> tuple[Float[Tensor, "B A K 1"], State]:
        """To the tokens of the next frame (causal refiners)."""
        raise NotImplementedError

    def forward(self, encoded: Encoded, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Encoded:
        key, values = self._only(encoded)
        values = torch.where(_as_mask(valid, values), values, 0)
        features = torch.where(valid[:, :, None, None, None], features, 0)
        rows = values.flatten(0, 1)
        places, confidence = self._found(rows)
        weight = _weight(_clips(confidence, valid)) * valid[..., None]
        held = self._held(_clips(places, valid), weight).flatten(0, 1)
        tokens = self._tokens(rows, places, confidence, held, features.flatten(0, 1))
        answer = self.answer(_clips(tokens, valid), valid).flatten(0, 1)
        refined = _clips(self._corrected(rows, places, held, answer), valid)
        return {key: torch.where(_as_mask(valid, refined), refined, 0)}

    def init_state(self, encoded: Encoded, features: Float[Tensor, "B C h w"]) -> State:
        if not self.causal:
            return super().init_state(encoded, features)
        values = self._only(encoded)[1]
        places, confidence = self._found(values)
        tokens = self._tokens(values, places, confidence, places, features)
        return (torch.zeros_like(places), torch.zeros_like(confidence), *self.answer_state(tokens))

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
        answer, own = self.answer_step(tokens, state[2:])
        return {key: self._corrected(values, places, held, answer)}, (sums, weights, *own)

    def _only(self, encoded: Encoded) -> tuple[str, Tensor]:
        if len(encoded) != 1:
            raise BiposeError(
                f"{type(self).__name__} reads heatmaps or coordinates alone, not {', '.join(encoded)}; use another refiner"
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
        dtype = _full(features).dtype
        extent = places.new_tensor(values.shape[:-3:-1] if self.maps else (1, 1))  # w, h
        xy = (places + 0.5) / extent - 0.5 if self.maps else places
        parts = [xy.transpose(1, 2), ((held - places) / extent).transpose(1, 2), confidence.unsqueeze(1)]
        if self.reduction is not None:
            reduced = self.reduction(features).to(dtype)
            grid = (2 * xy).unsqueeze(2).to(dtype)
            sampled = functional.grid_sample(reduced, grid, padding_mode="border", align_corners=False)
            parts.append(sampled.squeeze(-1))
        parts.append(self.joint.expand(len(values), -1, -1))
        return torch.cat([p.to(dtype) for p in parts], dim=1).unsqueeze(-1)

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


__all__ = ["JointRefiner", "peaks"]
