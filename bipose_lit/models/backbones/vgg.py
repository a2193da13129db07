"""The front of VGG-19, as OpenPose reads it."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.types import FeatureSpec

_LAST = 23  # modules of timm's `features` up to the activation after conv4_2
_THIN = {
    "num_classes": 0,
    "mlp_ratio": 1 / 4096,
}  # else 120 million weights of the classifier were drawn and thrown away


class VGG19Front(TimmBackbone):
    """The first ten convolutions of VGG-19 (Simonyan and Zisserman 2015), to conv4_2: 512 channels at stride 8.

    Args:
        pretrained: start from timm's weights (from the hub, or its cache on this machine).
        weights: safetensors file of timm's vgg19 to start from; tensors of dropped layers are ignored.
        frozen: no gradients.
    """

    def __init__(self, pretrained: bool = False, weights: str | None = None, frozen: bool = False) -> None:
        super().__init__("vgg19", pretrained, weights, out_index=3, frozen=frozen)
        # timm's map of stride 8 ends two convolutions later.
        self.net = nn.Sequential(OrderedDict(islice(self.net.named_children(), _LAST)))
        self.spec = FeatureSpec(512, 8)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        features: Tensor = self.net(images)
        return features

    def _create(self, out_index: int, pretrained: bool) -> Any:
        return timm.create_model(
            self.name, pretrained=pretrained, features_only=True, out_indices=(out_index,), **_THIN
        )


__all__ = ["VGG19Front"]
