"""The loss of whole images: heat maps and part affinity fields of all people."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from bipose_lit.losses import SMALLEST, PoseLoss
from bipose_lit.types import BiposeError, Encoded


class SceneMSE(PoseLoss):
    """Squared error of heat maps and fields (Cao et al. 2017), summed over maps, meaned over pixels that are known.

        loss = sum_pixels weight * sum_maps (pred - target)^2  /  sum_pixels weight

    A stage may predict one of the two; it then has that one's share, in the same unit.
    """

    keys = ("heatmaps", "pafs")

    def forward(self, pred: Encoded, target: Encoded, weight: Float[Tensor, "N h w"]) -> dict[str, Tensor]:
        parts = {}
        for key in self.keys:
            if key in pred:
                maps, wanted = self._maps(pred, target, key)
                parts[key] = ((maps - wanted).square().sum(1) * weight).sum() / self.normaliser(target, weight)
        if not parts:
            raise BiposeError(
                f"loss SceneMSE needs heatmaps or pafs, but the decoder predicts {', '.join(pred)}; change the decoder or the "
                "loss"
            )
        return {"loss": sum(parts.values(), weight.new_zeros(())), **parts}

    def normaliser(self, target: Encoded, weight: Float[Tensor, "N h w"]) -> Float[Tensor, ""]:
        return weight.sum().clamp(min=SMALLEST)

    def _maps(self, pred: Encoded, target: Encoded, key: str) -> tuple[Tensor, Tensor]:
        found, wanted = pred[key].shape[1], target[key].shape[1]
        if key == "pafs" and found != wanted:
            raise BiposeError(
                f"pafs: decoder predicts {found} maps, the codec has {wanted // 2} limbs of 2 maps each; set "
                f"decoder.init_args.limbs to {wanted // 2}"
            )
        return self._pair(pred, target, key)


__all__ = ["SceneMSE"]
