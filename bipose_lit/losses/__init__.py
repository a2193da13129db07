"""Losses between what a decoder predicts and what a codec encodes."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from bipose_lit.models.base import Part
from bipose_lit.types import BiposeError, Encoded

SMALLEST = 1e-6
"""Least normaliser: a batch without labels costs 0."""
FAINT = 0.5
"""Least energy that a weighted joint counts with, where hardly anything of its Gaussian is on the map (codecs with a patch or a
reach weigh such joints): one whose own pixel is on the map has more from sigma 0.85 on."""


class PoseLoss(Part):
    """Compares predictions with targets. One that has parameters of its own is trained and kept with the network, not sharded.

    Attributes:
        keys: entries of `Encoded` that it reads.
    """

    keys: tuple[str, ...] = ()

    def check(self, codec: object) -> None:
        """Raises BiposeError if the codec makes no targets for this loss. Called at construction of a module."""
        made = tuple(getattr(codec, "keys", ()))
        missing = [key for key in self.keys if key not in made]
        if missing:
            raise BiposeError(
                f"loss {type(self).__name__} needs {', '.join(missing)}, codec {type(codec).__name__} "
                f"makes {', '.join(made) or 'none'}; pair HeatmapCodec with HeatmapMSE or HeatmapOHKM, RegressionCodec with "
                "SmoothL1 or RLE, SimCCCodec with SimCCLoss, and, for whole images, SceneCodec with SceneMSE"
            )

    def forward(self, pred: Encoded, target: Encoded, weight: Float[Tensor, "N K"]) -> dict[str, Tensor]:
        """The training loss under "loss", and its parts if it has several; scalars, 0 where all weights are 0."""
        raise NotImplementedError

    def normaliser(self, target: Encoded, weight: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
        """What `forward` divides a sum over weighted joints by, at least 1e-6.

        Several processes or accumulated batches then have, together, the loss of one batch: sums over sums, not the mean of
        ratios. The total weight, as here, is right of every mean over weighted joints; a loss with another denominator says it.
        """
        return weight.sum().clamp(min=SMALLEST)

    def _pair(self, pred: Encoded, target: Encoded, key: str) -> tuple[Tensor, Tensor]:
        """Prediction and target in float32."""
        if key not in pred:
            raise BiposeError(
                f"loss {type(self).__name__} needs {key}, but the decoder predicts {', '.join(pred)}; "
                "change the decoder or the loss"
            )
        if pred[key].shape[1:] != target[key].shape[1:]:
            raise BiposeError(
                f"{key}: decoder predicts {list(pred[key].shape[1:])}, codec makes {list(target[key].shape[1:])}; "
                "the decoder's layers (each halves the stride) and the codec's stride must agree"
            )
        return pred[key].float(), target[key].float()


class HeatmapMSE(PoseLoss):
    """Squared error of the maps in units of the targets' own energy.

        loss = sum_nk weight_nk * sum_pixels (pred - target)^2  /  sum_nk weight_nk * sum_pixels target^2

    So all-zero maps cost 1 and perfect ones 0, whatever the number of joints, persons, visible joints, the maps' size
    or sigma (from 0.85 on); less than 1 where targets are nearly empty (`FAINT`), as of joints that lie far outside. The gradient
    is that of the usual mean squared error over weighted joints, times one constant per batch.
    """

    keys = ("heatmaps",)

    def forward(self, pred: Encoded, target: Encoded, weight: Float[Tensor, "N K"]) -> dict[str, Tensor]:
        maps, wanted = self._pair(pred, target, "heatmaps")
        error = (maps - wanted).square().sum((-2, -1))
        return {"loss": self._counted(error * weight).sum() / self.normaliser(target, weight)}

    def normaliser(self, target: Encoded, weight: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
        energy = target[self.keys[0]].float().square().sum((-2, -1)).clamp(min=FAINT)
        return self._counted(energy * weight).sum().clamp(min=SMALLEST)

    def _counted(self, costs: Float[Tensor, "N K"]) -> Tensor:
        """Those of a person's joints that make the sum."""
        return costs


class HeatmapOHKM(HeatmapMSE):
    """`HeatmapMSE` of the joints that each person's map is worst at: online hard keypoint mining (Chen et al. 2018).

        loss = sum_n (largest `hardest` of weight_nk * error_nk over k)  /  sum_n (largest `hardest` of weight_nk * energy_nk)

    So all-zero maps cost 1 here too, and with as many as there are joints it is `HeatmapMSE`. Both sums are over persons, and the
    lower one knows nothing of predictions: batches and processes add up. The gradient is the paper's, times a constant per batch.
    Chen et al. mine in their last stage alone; here it is done in every stage (`model.intermediate` weighs the earlier ones).

    Args:
        hardest: joints per person; 8 in the paper.

    Raises:
        BiposeError: none of them.
    """

    def __init__(self, hardest: int = 8) -> None:
        super().__init__()
        if hardest < 1:
            raise BiposeError(f"HeatmapOHKM: hardest {hardest} is a number of joints, at least 1")
        self.hardest = hardest

    def _counted(self, costs: Float[Tensor, "N K"]) -> Tensor:
        return costs.topk(min(self.hardest, costs.shape[1]), dim=1, sorted=False).values


class SmoothL1(PoseLoss):
    """Smooth L1 (Girshick 2015) on normalised coordinates: the mean over weighted joints and both axes.

    Far from the target it is the absolute error, as a fraction of the crop, less beta / 2.

    Args:
        beta: error, as a fraction of the crop, below which the loss is quadratic.
    """

    keys = ("xy",)

    def __init__(self, beta: float = 0.02) -> None:
        super().__init__()
        if beta <= 0:
            raise BiposeError(f"SmoothL1: beta {beta} must be above 0")
        self.beta = beta

    def forward(self, pred: Encoded, target: Encoded, weight: Float[Tensor, "N K"]) -> dict[str, Tensor]:
        xy, wanted = self._pair(pred, target, "xy")
        error = functional.smooth_l1_loss(xy, wanted, beta=self.beta, reduction="none").mean(-1)
        return {"loss": (error * weight).sum() / self.normaliser(target, weight)}


class SimCCLoss(PoseLoss):
    """Kullback-Leibler divergence of the predicted distribution from the target's, in nats: columns plus rows.

    The mean over weighted joints; zero for a prediction that equals the target up to a constant.
    """

    keys = ("x", "y")

    def forward(self, pred: Encoded, target: Encoded, weight: Float[Tensor, "N K"]) -> dict[str, Tensor]:
        total = weight.new_zeros(())
        for key in self.keys:
            logits, wanted = self._pair(pred, target, key)
            wanted = wanted.log_softmax(-1)
            divergence = (wanted.exp() * (wanted - logits.log_softmax(-1))).sum(-1)
            total = total + (divergence * weight).sum()
        return {"loss": total / self.normaliser(target, weight)}


__all__ = ["HeatmapMSE", "HeatmapOHKM", "PoseLoss", "SimCCLoss", "SmoothL1"]
