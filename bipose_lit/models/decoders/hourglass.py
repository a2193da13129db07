"""Stacked hourglasses: maps at every scale, again and again."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bipose_lit.models.base import PoseDecoder
from bipose_lit.models.layers import Residual, check_sizes, heatmap_head
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class Hourglass(nn.Module):
    """Down by max pooling and up by nearest neighbours, with a skip at every scale.

    A map of odd size is pooled with what there is of its last row or column, and what comes up is cut to the skip's size: every
    pixel meets the pixel that it was pooled into.

    Args:
        channels: at every scale.
        depth: number of halvings.
        blocks: residuals in a row at each place.
    """

    def __init__(self, channels: int, depth: int, blocks: int) -> None:
        super().__init__()
        # By scale, coarsest first: what stays there, what goes down to the next one, what comes up from there.
        self.skips, self.downs, self.ups = (
            nn.ModuleList(_residuals(channels, blocks) for _ in range(depth)) for _ in range(3)
        )
        self.bottom = _residuals(channels, blocks)

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        kept = []
        for skip, down in zip(reversed(self.skips), reversed(self.downs), strict=True):
            kept.append(skip(x))
            x = down(functional.max_pool2d(x, 2, ceil_mode=True))
        x = self.bottom(x)
        for up in self.ups:
            same = kept.pop()
            x = same + functional.interpolate(up(x), scale_factor=2.0)[..., : same.shape[-2], : same.shape[-1]]
        return x


class StackedHourglass(PoseDecoder):
    """Hourglasses one after another (Newell et al. 2016), each a supervised stage.

    After each come residuals, a 1x1 with BatchNorm and ReLU, and a 1x1 to the maps. Features and maps go back, each through a
    1x1, into what the next stack reads. On a `HourglassStem` of 256 channels this is PoseNet of the authors'
    princeton-vl/pytorch_stacked_hourglass, layer by layer, so that its weights fit by renaming (those of its shortcuts that
    change no width are read by nothing); with `middle: 256` in the stem it is HourglassNet of bearpaw/pytorch-pose, of as many
    `stacks` and `blocks`.

    Args:
        stacks: number of hourglasses, 1 to 8.
        channels: inside, even; null for as many as the features have. Another number is made by one residual in front.
        depth: halvings in each hourglass.
        blocks: residuals in a row at each place.

    Raises:
        BiposeError: a number out of range, or crops too small to be halved so often.
    """

    def __init__(self, stacks: int = 8, channels: int | None = None, depth: int = 4, blocks: int = 1) -> None:
        super().__init__()
        if not 1 <= stacks <= 8:
            raise BiposeError(f"StackedHourglass: stacks {stacks} must be 1 to 8")
        check_sizes(self, {}, depth=depth, blocks=blocks)
        if channels is not None and (channels < 2 or channels % 2):
            raise BiposeError(f"StackedHourglass: channels {channels} must be an even number, or null")
        self.number, self.channels, self.depth, self.blocks = stacks, channels, depth, blocks

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        if min(size) // spec.stride < 2**self.depth:
            raise BiposeError(
                f"StackedHourglass: crops of {size[0]}x{size[1]} at stride {spec.stride} cannot be halved {self.depth} times; "
                f"use crops of at least {spec.stride * 2**self.depth} pixels (data.size) or a lower decoder.init_args.depth"
            )
        if spec.channels % 2 and self.channels is None:
            raise BiposeError(
                f"StackedHourglass: {spec.channels} features cannot be halved in a bottleneck; set decoder.init_args.channels"
            )
        C, more = self.channels or spec.channels, range(self.number - 1)
        self.first = nn.Identity() if spec.channels == C else Residual(spec.channels, C)
        self.hourglasses, self.residuals, self.features, self.heads = (
            nn.ModuleList(make() for _ in range(self.number))
            for make in (
                lambda: Hourglass(C, self.depth, self.blocks),
                lambda: _residuals(C, self.blocks),
                lambda: nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.ReLU(inplace=True)),
                lambda: heatmap_head(C, joints),
            )
        )
        self.merge_features = nn.ModuleList(nn.Conv2d(C, C, 1) for _ in more)
        self.merge_maps = nn.ModuleList(nn.Conv2d(joints, C, 1) for _ in more)

    def forward(self, features: Float[Tensor, "N C h w"]) -> list[Encoded]:
        x: Tensor = self.first(features)
        stages: list[Encoded] = []
        for i in range(self.number):
            found = self.features[i](self.residuals[i](self.hourglasses[i](x)))
            maps = self.heads[i](found)
            stages.append({"heatmaps": maps})
            if i + 1 < self.number:
                x = x + self.merge_features[i](found) + self.merge_maps[i](maps)
        return stages


def _residuals(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels, channels) for _ in range(blocks)))


__all__ = ["Hourglass", "StackedHourglass"]
