"""Pooled features to coordinates: the paper's text taken literally."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.base import PoseDecoder
from bipose_lit.types import Encoded, FeatureSpec


class RegressionDecoder(PoseDecoder):
    """Fully connected layers from the mean over the map to (x, y) of each joint, in fractions of the crop.

    Args:
        hidden: widths of layers with ReLU in between; empty for one linear layer.
        dropout: before the last layer.
        sigma: also predict how far off each coordinate will be, in the same units: a second last layer and a sigmoid, as RLE
            has it (Li et al. 2021, whose code also divides what leads to the coordinates by its length; not done here).
    """

    pooled = True

    def __init__(self, hidden: list[int] | None = None, dropout: float = 0.0, sigma: bool = False) -> None:
        super().__init__()
        self.hidden, self.dropout, self.sigma = list(hidden or []), dropout, sigma

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        layers: list[nn.Module] = []
        before = spec.channels
        for width in self.hidden:
            layers += [nn.Linear(before, width), nn.ReLU(inplace=True)]
            before = width
        self.layers = nn.Sequential(*layers, nn.Dropout(self.dropout), _last(before, joints))
        if self.sigma:
            self.spread = _last(before, joints)

    def forward(self, features: Float[Tensor, "N C 1 1"]) -> Encoded:
        vectors = features.flatten(1)
        if not self.sigma:
            return {"xy": self.layers(vectors).unflatten(1, (-1, 2))}
        for layer in self.layers[:-1]:
            vectors = layer(vectors)
        xy, spread = self.layers[-1](vectors), self.spread(vectors)
        return {"xy": xy.unflatten(1, (-1, 2)), "sigma": spread.float().sigmoid().unflatten(1, (-1, 2))}


def _last(channels: int, joints: int) -> nn.Linear:
    layer = nn.Linear(channels, 2 * joints)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


__all__ = ["RegressionDecoder"]
