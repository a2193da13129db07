"""The first layers of the classic networks (hourglass, pose machine, recurrent network), whose stages are decoders."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bipose_lit.models.base import Backbone
from bipose_lit.models.layers import Residual, check_sizes, convolution
from bipose_lit.types import BiposeError, FeatureSpec


class HourglassStem(Backbone):
    """What comes before the first hourglass (Newell et al. 2016); stride 4.

    7x7 at stride 2, BatchNorm, ReLU, a residual, max pooling, two residuals. With 256 channels it equals the stem of the authors'
    PoseNet (princeton-vl/pytorch_stacked_hourglass), and with `middle: 256` that of HourglassNet in bearpaw/pytorch-pose; see
    `StackedHourglass`.

    Args:
        channels: of the map; there are a quarter of them after the 7x7 and a half after the first residual.
        middle: channels between the last two residuals, even; null for a half.
        mean, std: of the images, by channel, for values in [0, 1]; null for ImageNet's. The authors' code has 0 and 1, bearpaw's
            the mean of its data and 1.

    Raises:
        BiposeError: channels that are no multiple of 4, an odd middle, or means and deviations that are not three each.
    """

    def __init__(
        self,
        channels: int = 256,
        middle: int | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__()
        if channels < 4 or channels % 4:
            raise BiposeError(f"HourglassStem: channels {channels} must be a multiple of 4")
        if middle is not None and (middle < 2 or middle % 2):
            raise BiposeError(f"HourglassStem: middle {middle} must be an even number, or null")
        for name, values in (("mean", mean), ("std", std)):
            if values is None:
                continue
            if len(values) != 3 or (name == "std" and min(values) <= 0):
                raise BiposeError(f"HourglassStem: {name} {values} must be three numbers, deviations above 0")
            setattr(self, name, tuple(values))
        half, between = channels // 2, middle or channels // 2
        self.spec = FeatureSpec(channels, 4)
        self.conv = nn.Conv2d(3, channels // 4, 7, stride=2, padding=3)
        self.norm = nn.BatchNorm2d(channels // 4)
        self.first = Residual(channels // 4, half)
        self.last = nn.Sequential(Residual(half, between), Residual(between, channels))

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        x = self.first(functional.relu(self.norm(self.conv(images))))
        features: Tensor = self.last(functional.max_pool2d(x, 2))
        return features


class CPMTrunk(Backbone):
    """The convolutions of a convolutional pose machine that all its stages share (Wei et al. 2016); stride 8.

    Three times a large convolution, ReLU and 2x2 max pooling. The paper's first stage has such layers of its own and later stages
    share theirs; here all share one trunk, and that alone is as in the authors' released MPII network, whose layers are VGG's.
    Crops there: 368x368.

    Args:
        channels: of every layer.
        kernel: odd size of the convolutions.

    Raises:
        BiposeError: channels below 1, or an even kernel.
    """

    def __init__(self, channels: int = 128, kernel: int = 9) -> None:
        super().__init__()
        check_sizes(self, {"kernel": kernel}, channels=channels)
        self.spec = FeatureSpec(channels, 8)
        layers = [m for before in (3, channels, channels) for m in (*convolution(before, channels, kernel), _pool())]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        features: Tensor = self.layers(images)
        return features


class RecurrentTrunk(Backbone):
    """The first six convolutions of recurrent pose estimation (Belagiannis and Zisserman 2017); stride 4.

    3x3 convolutions with BatchNorm and ReLU, 2x2 max pooling after the second and the fourth. Both modules of `RecurrentDecoder`
    read the last one's map. Crops there: 248x248.

    Args:
        channels: of the first three layers; the last three have twice as many.

    Raises:
        BiposeError: channels below 1.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        check_sizes(self, {}, channels=channels)
        C, D = channels, 2 * channels
        self.spec = FeatureSpec(D, 4)
        pairs = [(3, C), (C, C)], [(C, C), (C, D)], [(D, D), (D, D)]
        layers: list[nn.Module] = []
        for number, pair in enumerate(pairs):
            layers += [_pool()] if number else []
            layers += [m for before, after in pair for m in convolution(before, after, 3, norm=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        features: Tensor = self.layers(images)
        return features


def _pool() -> nn.Module:
    return nn.MaxPool2d(2)


__all__ = ["CPMTrunk", "HourglassStem", "RecurrentTrunk"]
