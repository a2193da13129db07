"""What refiners of single frames share: they read K heatmaps, and every frame is a case of its own."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bipose_lit.models.base import State, flat, unflat
from bipose_lit.models.tree import SkeletonRefiner
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class MapRefiner(SkeletonRefiner):
    """Heatmaps to an estimate of where the whole body has its joints, mixed in by a weight for each joint that starts at zero.

        refined = (1 - gain * mix) * maps + gain * mix * estimate

    So it starts as the identity, and with gain * mix = 1 (`settle`) it is the estimate alone, whose peaks lie in [0, 1] as a
    heatmap's do. No frame sees another: it is causal and works on stills.

    Args:
        skeleton: as `SkeletonRefiner`'s.
        gain: factor on what is learned, as `ConvLSTM`'s.
    """

    causal, context = True, (0, 0)

    def __init__(self, skeleton: str | dict[str, Any], gain: float) -> None:
        super().__init__(skeleton)
        if gain <= 0:
            raise BiposeError(f"{type(self).__name__}: gain {gain} must be above 0")
        self.gain = gain

    def build(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> None:
        self.check_joints(joints)
        if predicted.channels != joints:
            raise BiposeError(
                f"model.refiner ({type(self).__name__}) reads heatmaps, and the decoder predicts coordinates; use DeconvDecoder, "
                "or set model.refiner null"
            )
        self.mix = nn.Parameter(torch.zeros(joints))

    def estimate(self, maps: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
        """What the whole body says; maps of peaks in [0, 1] if the given ones have such."""
        raise NotImplementedError

    @torch.no_grad()
    def settle(self) -> None:
        """Lets the estimate stand alone."""
        self.mix.fill_(1 / self.gain)

    def forward(self, encoded: Encoded, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Encoded:
        return {"heatmaps": unflat(self._refined(flat(self._maps(encoded), valid)), valid)}

    def init_state(self, encoded: Encoded, features: Float[Tensor, "B C h w"]) -> State:
        return ()

    def step(self, encoded: Encoded, features: Float[Tensor, "B C h w"], state: State) -> tuple[Encoded, State]:
        return {"heatmaps": self._refined(self._maps(encoded))}, state

    def _refined(self, maps: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
        # Sums over a body of logarithms do not survive half precision.
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
            share = self.gain * self.mix.to(maps.dtype)[:, None, None]
            return torch.lerp(maps, self.estimate(maps), share)

    def _maps(self, encoded: Encoded) -> Tensor:
        if list(encoded) != ["heatmaps"]:
            raise BiposeError(
                f"model.refiner ({type(self).__name__}) reads heatmaps alone, not {', '.join(encoded)}; use DeconvDecoder and "
                "HeatmapCodec, or set model.refiner null"
            )
        return encoded["heatmaps"]


__all__ = ["MapRefiner"]
