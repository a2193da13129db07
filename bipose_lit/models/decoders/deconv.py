"""Feature maps to heatmaps."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.base import PoseDecoder
from bipose_lit.models.layers import heatmap_head
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
        check_channels(self, self.channels)
        self.stride = 0

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        self.stride = stride_after(self, spec.stride, self.channels)
        self.layers, before = doublings(spec.channels, self.channels)
        self.head = heatmap_head(before, joints)

    def forward(self, features: Float[Tensor, "N C h w"]) -> Encoded:
        return {"heatmaps": self.head(self.layers(features))}


def check_channels(part: PoseDecoder, channels: Sequence[int]) -> None:
    """Refuses numbers of channels below 1.

    Raises:
        BiposeError: there is one.
    """
    if min(channels, default=1) < 1:
        raise BiposeError(f"{type(part).__name__}: channels {list(channels)} must be at least 1")


def stride_after(part: PoseDecoder, stride: int, channels: Sequence[int]) -> int:
    """Stride of a map of this stride that was doubled so many times.

    Raises:
        BiposeError: it would be less than one crop pixel.
    """
    scale = 1 << len(channels)
    if stride % scale:
        raise BiposeError(
            f"{type(part).__name__}: {len(channels)} doublings of a stride {stride} map pass the crop's own "
            "resolution; use fewer layers"
        )
    return stride // scale


def doublings(before: int, channels: Sequence[int]) -> tuple[nn.Sequential, int]:
    """Transposed convolutions with BatchNorm and ReLU, each doubling the map, and the number of channels that come out."""
    layers: list[nn.Module] = []
    for after in channels:
        deconv = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
        # Each output pixel sees 2x2 taps of the input: that is the fan-in, not 4x4 of the output.
        nn.init.normal_(deconv.weight, std=(2 / (4 * before)) ** 0.5)
        layers += [deconv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        before = after
    return nn.Sequential(*layers), before


__all__ = ["DeconvDecoder", "check_channels", "doublings", "stride_after"]
