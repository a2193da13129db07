"""Feature maps to part affinity fields and heat maps, in stages: OpenPose (Cao et al. 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.base import PoseDecoder
from bipose_lit.models.layers import heatmap_head
from bipose_lit.types import BiposeError, Encoded, FeatureSpec


class OpenPoseDecoder(PoseDecoder):
    """Stages that refine the fields, then stages that refine the heat maps, at the backbone's stride (Cao et al. 2019).

    The features are reduced first. A stage is a chain of blocks, then a 1x1 convolution and one to its maps; a block is three 3x3
    convolutions one after the other whose outputs are concatenated, so that it sees 7x7 at the cost of three, and keeps all
    three scales. The first stage of either kind reads the features (for the heat maps: and the last fields), a later one also
    what the stage before it made. Every stage is supervised. The defaults are the authors' BODY_25 network; widths and the order
    of stages are those of its pose_deploy.prototxt.

    Args:
        limbs: number of limbs L of the codec.
        fields: stages of fields.
        heatmaps: stages of heat maps.
        reduced: channels of the 3x3 convolutions before the stages; the last are what all stages read.
        blocks: of a stage.
        width: channels of a block's convolutions: of the first stage of either kind, and of later ones.
        hidden: channels of the 1x1 convolution, likewise.

    Raises:
        BiposeError: a number below 1, or widths that are not two.

    Attributes:
        stride: of the maps against the image, known after `build`.
    """

    def __init__(
        self,
        limbs: int = 21,
        fields: int = 4,
        heatmaps: int = 2,
        reduced: list[int] | None = None,
        blocks: int = 5,
        width: list[int] | None = None,
        hidden: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reduced = [256, 128] if reduced is None else list(reduced)
        self.width, self.hidden = list(width or [96, 128]), list(hidden or [256, 512])
        if len(self.width) != 2 or len(self.hidden) != 2:
            raise BiposeError(
                f"OpenPoseDecoder: width {self.width} and hidden {self.hidden} are two numbers each: first stages, later ones"
            )
        if min(limbs, fields, heatmaps, blocks, *self.reduced, *self.width, *self.hidden) < 1:
            raise BiposeError("OpenPoseDecoder: limbs, stages, blocks and channels are at least 1")
        self.limbs, self.stages, self.blocks = limbs, (fields, heatmaps), blocks
        self.stride = 0

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        self.stride = spec.stride
        layers: list[nn.Module] = []
        before = spec.channels
        for channels in self.reduced:
            layers += _conv(before, channels)
            before = channels
        self.reduction = nn.Sequential(*layers)
        fields, heatmaps = self.stages
        self.fields = nn.ModuleList(
            self._stage(before + (2 * self.limbs if n else 0), 2 * self.limbs, n) for n in range(fields)
        )
        self.heatmaps = nn.ModuleList(
            self._stage(before + 2 * self.limbs + (joints if n else 0), joints, n) for n in range(heatmaps)
        )

    def _stage(self, before: int, maps: int, number: int) -> nn.Module:
        width, hidden = self.width[number > 0], self.hidden[number > 0]
        blocks = [_Block(before if n == 0 else 3 * width, width) for n in range(self.blocks)]
        last = heatmap_head(hidden, maps)  # drawn before the layer in front of it
        return nn.Sequential(*blocks, *_conv(3 * width, hidden, 1), last)

    def forward(self, features: Float[Tensor, "N C h w"]) -> list[Encoded]:
        features = self.reduction(features)
        stages: list[Encoded] = []
        read = [features]
        for stage in self.fields:
            pafs = stage(torch.cat(read, dim=1))
            read = [features, pafs]
            stages.append({"pafs": pafs})
        fields = stages.pop()
        for stage in self.heatmaps:
            heatmaps = stage(torch.cat(read, dim=1))
            read = [features, fields["pafs"], heatmaps]
            stages.append({"heatmaps": heatmaps})
        # The last stage counts, and holds both.
        stages[-1] |= fields
        return stages


class _Block(nn.Module):
    """Three 3x3 convolutions in a row; the channels of all three."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Sequential(*_conv(before if n == 0 else width, width)) for n in range(3))

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N D h w"]:
        outputs = []
        for conv in self.convs:
            x = conv(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


def _conv(before: int, after: int, kernel: int = 3) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, a=0.25, nonlinearity="leaky_relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return [conv, nn.PReLU(after)]


__all__ = ["OpenPoseDecoder"]
