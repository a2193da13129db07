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
    """

    pooled = True

    def __init__(self, hidden: list[int] | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.dropout = list(hidden or []), dropout

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        layers: list[nn.Module] = []
        before = spec.channels
        for width in self.hidden:
            layers += [nn.Linear(before, width), nn.ReLU(inplace=True)]
            before = width
        last = nn.Linear(before, 2 * joints)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, nn.Dropout(self.dropout), last)

    def forward(self, features: Float[Tensor, "N C 1 1"]) -> Encoded:
        return {"xy": self.layers(features.flatten(1)).unflatten(1, (-1, 2))}


__all__ = ["RegressionDecoder"]
