"""Pictorial structures: parts that look for themselves, held together by springs along the limbs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from bipose_lit.models.structured.distance import transform
from bipose_lit.models.structured.frames import MapRefiner
from bipose_lit.types import ABSENT, BiposeError, FeatureSpec

_WIDEST = 3.0  # largest change of a spread's logarithm: between a twentieth of what it starts with and twenty times it


class PictorialStructures(MapRefiner):
    """Exact max-product inference on the tree of limbs (Felzenszwalb and Huttenlocher 2005), over maps that a network predicted.

    A pose l has the score

        sum_k log max(map_k(l_k), floor) - sum_limbs min_s [ |(l_child - l_parent - offset_s) / spread_s|^2 / 2 + cost_s ]

    with places in units of the crop. The best score of all poses whose joint k lies at x, its max-marginal, is found for every k
    and x at once: up the tree and down again, a generalised distance transform for each limb and axis. What the other joints say
    of x, relative to the place they like best, is the factor on the joint's own evidence:

        estimate_k(x) = max(map_k(x), floor) * exp(others_k(x) - max others_k)

    It has its peak where the best pose has the joint, shaped as heatmaps are, and as high as the joint's own evidence there, less
    what others disagree. Several springs of a limb are the types of a mixture (Yang and Ramanan 2011), of which the best counts.

    `fit` sets springs to the statistics of labelled poses, in closed form. Trained, they start loose, without a direction, and
    get the gradient of the winning pose; `weights.save_parts(network, path, ["refiner"])` keeps either for `model.weights`.

    Args:
        skeleton: as `SkeletonRefiner`'s.
        springs: of each limb.
        floor: evidence that any place has, however little the map shows: what a hidden joint costs.
        spread: standard deviation of a limb's offset at the start, in units of the crop.
        gain: factor on what is learned, as `ConvLSTM`'s.

    Raises:
        BiposeError: settings out of range, another number of joints, or predictions that are no heatmaps.
    """

    def __init__(
        self,
        skeleton: str | dict[str, Any] = "jhmdb",
        springs: int = 1,
        floor: float = 0.01,
        spread: float = 0.25,
        gain: float = 10.0,
    ) -> None:
        super().__init__(skeleton, gain)
        if springs < 1 or not 0 < floor < 1 or not 0 < spread < math.inf:
            raise BiposeError(
                f"PictorialStructures: springs {springs} must be at least 1, floor {floor} between 0 and 1, spread {spread} "
                "above 0"
            )
        self.springs, self.floor, self.spread = springs, floor, spread

    def build(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> None:
        super().build(spec, predicted, joints)
        shape = (joints - 1, self.springs)
        self.offset = nn.Parameter(torch.zeros(*shape, 2))
        self.width = nn.Parameter(torch.zeros(*shape, 2))
        if self.springs > 1:  # one alone has nothing to be dearer than
            nn.init.normal_(self.offset, std=0.05 / self.gain)
            self.cost = nn.Parameter(torch.zeros(shape))
        self._edge = {child: number for number, (child, _) in enumerate(self.tree.edges)}

    def deformation(self) -> tuple[Float[Tensor, "E S 2"], Float[Tensor, "E S 2"], Float[Tensor, "E S"]]:
        """Offsets and spreads (x, y; units of the crop) and costs of the springs of every edge of `tree`."""
        offset = torch.tanh(self.gain * self.offset)
        spread = self.spread * torch.exp(_WIDEST * torch.tanh(self.gain / _WIDEST * self.width))
        cost = self.gain * self.cost if self.springs > 1 else offset.new_zeros(offset.shape[:2])
        return offset, spread, cost

    def estimate(self, maps: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
        unary = self.unary(maps)
        others = self.max_marginals(unary) - unary
        return torch.exp(unary + others - others.amax((-2, -1), keepdim=True))

    def unary(self, maps: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
        """Scores of the places of each joint by itself."""
        return maps.clamp(min=self.floor).log()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # loops over places would be written out one by one
    def max_marginals(self, unary: Float[Tensor, "N K h w"]) -> Float[Tensor, "N K h w"]:
        """Of each joint and place, the score of the best pose that has the joint there."""
        score = list(unary.unbind(1))
        springs = tuple(v.to(unary.dtype) for v in self.deformation())
        sent: dict[int, Tensor] = {}
        for level in reversed(self.tree.levels[1:]):
            messages = self._messages(torch.stack([score[c] for c in level], dim=1), level, springs)
            for child, message in zip(level, messages.unbind(1), strict=True):
                parent = self.tree.parents[child]
                sent[child], score[parent] = message, score[parent] + message
        for level in self.tree.levels[1:]:
            heard = [score[self.tree.parents[child]] - sent[child] for child in level]
            messages = self._messages(torch.stack(heard, dim=1), level, springs, -1)
            for child, message in zip(level, messages.unbind(1), strict=True):
                score[child] = score[child] + message
        return torch.stack(score, dim=1)

    def _messages(
        self, scores: Float[Tensor, "N E h w"], level: Sequence[int], springs: tuple[Tensor, ...], side: int = 1
    ) -> Float[Tensor, "N E h w"]:
        """From the children of a level to their parents (side 1), or the other way (side -1)."""
        edges = [self._edge[child] for child in level]
        offset, spread, cost = (v[edges] for v in springs)
        height, width = scores.shape[-2:]
        extent = scores.new_tensor([width, height])
        stiffness = (0.5 / (spread * extent).square()).flatten(0, 1)
        shift = (side * extent * offset).flatten(0, 1)
        lines = scores.unsqueeze(2).expand(-1, -1, self.springs, -1, -1).flatten(1, 2)
        lines = transform(lines, stiffness[:, 0], shift[:, 0]).transpose(-1, -2)
        lines = transform(lines, stiffness[:, 1], shift[:, 1]).transpose(-1, -2)
        return (lines.reshape(len(scores), *cost.shape, height, width) - cost[:, :, None, None]).amax(2)

    @torch.no_grad()
    def fit(
        self,
        joints: Float[Tensor, "N K 2"],
        visible: Shaped[Tensor, "N K"],
        size: tuple[int, int],
        slack: float = 4.0,
    ) -> None:
        """Sets springs to means and deviations of the limbs in labelled poses, and lets the estimate stand alone.

        Args:
            joints: crop pixels.
            visible: ABSENT for those that are not labelled.
            size: width and height of the crops.
            slack: how many standard deviations wide a spring is. With 1 all logarithms would weigh the same, as if maps were the
                likelihoods of independent detectors; but a network knows bodies, and what it has seen for sure is seldom mended.

        Raises:
            BiposeError: a limb that fewer than two poses have.
        """
        places = joints.double() / torch.tensor(size, dtype=torch.float64, device=joints.device)
        for child, parent in self.tree.edges:
            both = (visible[:, child] != ABSENT) & (visible[:, parent] != ABSENT)
            away = (places[:, child] - places[:, parent])[both]
            if len(away) < 2:
                names = self.skeleton.joints
                raise BiposeError(
                    f"pictorial structures: {len(away)} poses have both {names[child]} and {names[parent]}; fit to more labels"
                )
            centre, spread, share = _types(away, self.springs)
            edge = self._edge[child]
            ratio = ((slack * spread / self.spread).log() / _WIDEST).clamp(-0.99, 0.99)
            self.offset[edge] = torch.atanh(centre.clamp(-0.99, 0.99)) / self.gain
            self.width[edge] = torch.atanh(ratio) * _WIDEST / self.gain
            if self.springs > 1:  # the logarithms of a mixture of Gaussians, as wide as they can be here
                cost = _WIDEST * ratio.sum(-1) - share.log()
                self.cost[edge] = (cost - cost.min()) / (self.gain * slack**2)
        self.settle()


def _types(
    away: Float[Tensor, "N 2"], count: int
) -> tuple[Float[Tensor, "S 2"], Float[Tensor, "S 2"], Float[Tensor, " S"]]:
    """Means, standard deviations and shares of the clusters of a limb's offsets (Lloyd's algorithm from equal sectors)."""
    centred = away - away.mean(0)
    order = torch.atan2(centred[:, 1], centred[:, 0]).argsort(stable=True).argsort(stable=True)
    member = order * count // len(away)
    for _ in range(30):
        centre = torch.stack([away[member == s].mean(0) if (member == s).any() else away.mean(0) for s in range(count)])
        member = torch.cdist(away, centre).argmin(1)
    around = [away[member == s] if int((member == s).sum()) > 1 else away for s in range(count)]
    share = torch.stack([(member == s).double().mean() for s in range(count)]).clamp(min=1 / len(away))
    return (
        torch.stack([some.mean(0) for some in around]),
        torch.stack([some.std(0, correction=0) for some in around]).clamp(min=1e-4),
        share,
    )


__all__ = ["PictorialStructures"]
