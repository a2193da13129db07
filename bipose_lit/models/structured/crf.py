"""A conditional random field over the joints of a frame, by a few rounds of mean field that are trained end to end."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Complex, Float
from scipy.fft import next_fast_len
from torch import Tensor, nn

from bipose_lit.models.structured.frames import MapRefiner
from bipose_lit.types import BiposeError, FeatureSpec


class MeanFieldCRF(MapRefiner):
    """Places of joints as random variables, coupled along the limbs by potentials of their offset, which are learned freely.

    In the spirit of Tompson et al. 2014 (a joint's map convolved with where its neighbour usually is), Chu et al. 2016 and Zheng
    et al. 2015 (mean field as layers). Q_k is a distribution over the places of joint k, and a round of mean field over limbs is

        log Q_k(x) = trust_k log max(map_k(x), floor) + sum_l sum_y Q_l(y) potential_kl(x - y) + constant

    for all joints at once, the first from distributions of the maps alone. A limb has one potential, read in both directions and
    zero beyond `reach`. The sums are products in the frequency domain, exact but for rounding. The estimate is Q_k as a heatmap:
    2 pi sigma^2 Q_k has peak 1 for a clean Gaussian, but for the share of Q_k that `floor` gives to all other places (0.93 on
    maps of 32x32, 0.82 on 64x48), less where the joint may be in many places; sharper ones are scaled down to peak 1.

    Args:
        skeleton: as `SkeletonRefiner`'s; all limbs couple, also those that close a circle.
        rounds: of mean field.
        reach: largest offset of a potential along either axis, in map pixels.
        sigma: of the maps' Gaussians, in map pixels; that of the codec.
        floor: evidence that any place has.
        gain: factor on what is learned, as `ConvLSTM`'s.

    Raises:
        BiposeError: settings out of range, another number of joints, or predictions that are no heatmaps.
    """

    def __init__(
        self,
        skeleton: str | dict[str, Any] = "jhmdb",
        rounds: int = 3,
        reach: int = 12,
        sigma: float = 1.5,
        floor: float = 1e-3,
        gain: float = 10.0,
    ) -> None:
        super().__init__(skeleton, gain)
        if rounds < 1 or reach < 1 or sigma <= 0 or not 0 < floor < 1:
            raise BiposeError(
                f"MeanFieldCRF: rounds {rounds} and reach {reach} must be at least 1, sigma {sigma} above 0, floor {floor} "
                "between 0 and 1"
            )
        self.rounds, self.reach, self.sigma, self.floor = rounds, reach, sigma, floor

    def build(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> None:
        super().build(spec, predicted, joints)
        limbs = {(min(a, b), max(a, b)) for a, b in self.skeleton.limb_indices.tolist() if a != b}
        self.limbs = sorted(limbs | {(min(edge), max(edge)) for edge in self.tree.edges})
        side = 2 * self.reach + 1
        self.potential = nn.Parameter(torch.zeros(len(self.limbs), side, side))
        self.trust = nn.Parameter(torch.zeros(joints))

    def estimate(self, maps: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
        belief = self.beliefs(maps)
        unit = 2 * math.pi * self.sigma**2
        return belief * (1 / belief.amax((-2, -1), keepdim=True)).clamp(max=unit)

    def beliefs(self, maps: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
        """Q after the last round: a distribution over the places of each joint."""
        h, w = maps.shape[-2:]
        trust = torch.exp(torch.tanh(self.gain * self.trust)).to(maps.dtype)
        unary = trust[:, None, None] * maps.clamp(min=self.floor).log()
        # So long that what wraps around falls beyond the map, and that the potentials fit in.
        across, down = (next_fast_len(self.reach + max(n, self.reach + 1), real=True) for n in (w, h))
        size = (down, across)
        spectra = self._spectra(size, maps.dtype)
        belief = _distribution(unary)
        for _ in range(self.rounds):
            belief = _distribution(unary + self._messages(belief, spectra, size))
        return belief

    def _spectra(self, size: tuple[int, int], dtype: torch.dtype) -> Complex[Tensor, "L F G"]:
        """Of the potentials, with offset 0 at the origin."""
        kernels = self.gain * self.potential.to(dtype)
        side = 2 * self.reach + 1
        padded = nn.functional.pad(kernels, (0, size[1] - side, 0, size[0] - side))
        spectra: Tensor = torch.fft.rfft2(padded.roll((-self.reach, -self.reach), (-2, -1)))
        return spectra

    def _messages(
        self, belief: Float[Tensor, "N K h w"], spectra: Complex[Tensor, "L F G"], size: tuple[int, int]
    ) -> Float[Tensor, "N K h w"]:
        """Of all neighbours to each joint, summed. Limb (a, b) has the potential of place a less place b."""
        h, w = belief.shape[-2:]
        waves = torch.fft.rfft2(belief, s=size)
        first, second = ([limb[side] for limb in self.limbs] for side in (0, 1))
        heard = torch.zeros_like(waves)
        heard = heard.index_add(1, torch.tensor(first, device=waves.device), waves[:, second] * spectra)
        heard = heard.index_add(1, torch.tensor(second, device=waves.device), waves[:, first] * spectra.conj())
        summed: Tensor = torch.fft.irfft2(heard, s=size)
        return summed[..., :h, :w]


def _distribution(scores: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
    return scores.flatten(2).softmax(-1).view_as(scores)


__all__ = ["MeanFieldCRF"]
