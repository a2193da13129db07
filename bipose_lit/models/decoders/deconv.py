"""Feature maps to heatmaps."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.base import PoseDecoder
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class DeconvDecoder(PoseDecoder):
    """Transposed convolutions with BatchNorm and ReLU, each doubling the map, then 1x1 to K heatmaps.

    SimpleBaselines (Xiao et al. 2018) is channels 256, layers 3, kernel 4.

    Args:
        channels: of every layer, or one number per layer.
        layers: number of doublings; ignored where `channels` is a list.

    Attributes:
        stride: of the heatmaps against the crop, known after `build`.
    """

    def __init__(self, channels: int | list[int] = 256, layers: int = 3) -> None:
        super().__init__()
        self.channels = [channels] * layers if isinstance(channels, int) else list(channels)
        if min(self.channels, default=1) < 1:
            raise BiposeError(f"DeconvDecoder: channels {self.channels} must be at least 1")
        self.stride = 0

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        scale = 2 ** len(self.channels)
        if spec.stride % scale:
            raise BiposeError(
                f"DeconvDecoder: {len(self.channels)} doublings of a stride {spec.stride} map pass the crop's own "
                "resolution; use fewer layers"
            )
        self.stride = spec.stride // scale
        layers: list[nn.Module] = []
        before = spec.channels
        for channels in self.channels:
            layers += [self._double(before, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            before = channels
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(before, joints, 1)
        # Maps start near zero, as SimpleBaselines' do: the first steps are not spent on unlearning noise.
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    @staticmethod
    def _double(before: int, after: int) -> nn.Module:
        deconv = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
        # Each output pixel sees 2x2 taps of the input: that is the fan-in, not 4x4 of the output.
        nn.init.normal_(deconv.weight, std=(2 / (4 * before)) ** 0.5)
        return deconv

    def forward(self, features: Float[Tensor, "N C h w"]) -> Encoded:
        return {"heatmaps": self.head(self.layers(features))}


__all__ = ["DeconvDecoder"]
