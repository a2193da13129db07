"""Feature maps to distributions over columns and rows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.base import PoseDecoder
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class SimCCDecoder(PoseDecoder):
    """A 1x1 convolution to one map per joint, and of each flattened map two linear layers: columns and rows (Li et al. 2022).

    Args:
        ratio: bins per crop pixel; that of `SimCCCodec`.

    Raises:
        BiposeError: a ratio that is none.
    """

    def __init__(self, ratio: float = 2.0) -> None:
        super().__init__()
        if ratio <= 0:
            raise BiposeError(f"SimCCDecoder: ratio {ratio} must be above 0")
        self.ratio = ratio

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        width, height = size
        places = (width // spec.stride) * (height // spec.stride)
        self.maps = nn.Conv2d(spec.channels, joints, 1)
        self.x = nn.Linear(places, round(width * self.ratio))
        self.y = nn.Linear(places, round(height * self.ratio))

    def forward(self, features: Float[Tensor, "N C h w"]) -> Encoded:
        maps = self.maps(features).flatten(2)
        return {"x": self.x(maps), "y": self.y(maps)}


__all__ = ["SimCCDecoder"]
