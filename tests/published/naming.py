"""Networks of ours under the names that published codes give their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from bipose_lit.models.backbones.plain_vit import PlainViT
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.base import Backbone, PoseDecoder
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.simcc import SimCCDecoder
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.rebuild import instantiate
from bipose_lit.weights import load_parts

Names = tuple[tuple[str, str], ...]
SIZE = (64, 64)

SIMPLEBASELINE: Names = (
    (r"backbone\.net\.(.+)", r"\1"),
    (r"decoder\.layers\.(.+)", r"deconv_layers.\1"),
    (r"decoder\.head\.(.+)", r"final_layer.\1"),
)
MMPOSE: Names = (
    (r"backbone\.net\.(.+)", r"backbone.\1"),
    (r"decoder\.layers\.(.+)", r"head.deconv_layers.\1"),
    (r"decoder\.head\.(.+)", r"head.final_layer.\1"),
)
SIMCC: Names = (
    (r"backbone\.net\.(.+)", r"backbone.\1"),
    (r"decoder\.layers\.(.+)", r"head.deconv_head.deconv_layers.\1"),
    (r"decoder\.maps\.(.+)", r"head.deconv_head.final_layer.\1"),
    (r"decoder\.([xy])\.(.+)", r"head.mlp_head_\1.\2"),
)
VITPOSE: Names = (
    (r"backbone\.net\.model\.(.+)", r"backbone.\1"),
    (r"backbone\.norm\.(.+)", r"backbone.last_norm.\1"),
    (r"decoder\.layers\.(.+)", r"keypoint_head.deconv_layers.\1"),
    (r"decoder\.head\.(.+)", r"keypoint_head.final_layer.\1"),
)
MMPRETRAIN: Names = (
    (r"backbone\.net\.model\.blocks\.(\d+)\.norm(\d)\.(.+)", r"backbone.layers.\1.ln\2.\3"),
    (r"backbone\.net\.model\.blocks\.(\d+)\.mlp\.fc1\.(.+)", r"backbone.layers.\1.ffn.layers.0.0.\2"),
    (r"backbone\.net\.model\.blocks\.(\d+)\.mlp\.fc2\.(.+)", r"backbone.layers.\1.ffn.layers.1.\2"),
    (r"backbone\.net\.model\.blocks\.(.+)", r"backbone.layers.\1"),
    (r"backbone\.net\.model\.patch_embed\.proj\.(.+)", r"backbone.patch_embed.projection.\1"),
    (r"backbone\.net\.model\.(.+)", r"backbone.\1"),
    (r"backbone\.norm\.(.+)", r"backbone.ln1.\1"),
    *MMPOSE[1:],
)


def network(backbone: Backbone, decoder: PoseDecoder, seed: int = 0, joints: int = 5) -> PoseNetwork:
    """A network with random weights and random statistics."""
    net = PoseNetwork(backbone, decoder, joints=joints, size=SIZE)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.fill_(7)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=draw)
            elif value.is_floating_point():
                value.normal_(0, 0.05, generator=draw)
    return net.eval()


def simplebaseline(bgr: bool = True) -> PoseNetwork:
    return network(TimmBackbone("resnet18", bgr=bgr), DeconvDecoder([16, 8], 2))


def simcc() -> PoseNetwork:
    return network(TimmBackbone("resnet18"), SimCCDecoder(deconv=[16]))


def hrnet() -> PoseNetwork:
    backbone = TimmBackbone("hrnet_w18_small", out_index=1, kwargs={"feature_location": ""})
    return network(backbone, DeconvDecoder([], 0))


def vit() -> PoseNetwork:
    return network(PlainViT(width=24, depth=2, heads=2, size=SIZE), DeconvDecoder([8], 1))


def named(net: nn.Module, names: Names) -> dict[str, Tensor]:
    """The state under other names."""
    found = {}
    for name, value in net.state_dict().items():
        rule, to = next((rule, to) for rule, to in names if re.fullmatch(rule, name))
        found[re.sub(rule, to, name)] = value
    assert len(found) == len(net.state_dict())
    return found


def configuration(net: PoseNetwork) -> dict[str, Any]:
    """What `resolve` makes of files that configure it, as far as the import reads it."""
    model = {"backbone": net.backbone.config(), "decoder": net.decoder.config(), "joints": net.joints}
    return {"model": model, "data": {"size": list(net.size)}}


def made(out: Path) -> PoseNetwork:
    """The network of an overlay that the import wrote, started from its weights."""
    model: Mapping[str, Any] = yaml.safe_load(out.with_suffix(".yaml").read_text())["model"]
    net = PoseNetwork(instantiate(model["backbone"]), instantiate(model["decoder"]), joints=model["joints"], size=SIZE)
    load_parts(net, Path(model["weights"]), model["weights_for"])
    return net.eval()


def same(a: nn.Module, b: nn.Module) -> bool:
    """Equal tensors under equal names."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
