"""Feature maps to distributions over columns and rows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.base import PoseDecoder
from bipose_lit.models.decoders.deconv import check_channels, doublings, stride_after
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class SimCCDecoder(PoseDecoder):
    """A 1x1 convolution to one map per joint, and of each flattened map two linear layers: columns and rows (Li et al. 2022).

    Args:
        ratio: bins per crop pixel; that of `SimCCCodec`.
        deconv: channels of transposed convolutions before, each doubling the map, as in `DeconvDecoder`; null for none, the
            paper's own choice. [256, 256, 256] is SimCC on Simple Baselines.

    Raises:
        BiposeError: a ratio that is none, channels below 1, or doublings past the crop's own resolution.
    """

    def __init__(self, ratio: float = 2.0, deconv: list[int] | None = None) -> None:
        super().__init__()
        if ratio <= 0:
            raise BiposeError(f"SimCCDecoder: ratio {ratio} must be above 0")
        self.ratio, self.deconv = ratio, list(deconv or [])
        check_channels(self, self.deconv)

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        width, height = size
        stride = stride_after(self, spec.stride, self.deconv)
        places = (width // stride) * (height // stride)
        self.layers, channels = doublings(spec.channels, self.deconv)
        self.maps = nn.Conv2d(channels, joints, 1)
        self.x = nn.Linear(places, round(width * self.ratio))
        self.y = nn.Linear(places, round(height * self.ratio))

    def forward(self, features: Float[Tensor, "N C h w"]) -> Encoded:
        maps = self.maps(self.layers(features)).flatten(2)
        return {"x": self.x(maps), "y": self.y(maps)}


__all__ = ["SimCCDecoder"]
