"""Networks of ours under the names that published codes give their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from bipose_lit.models.backbones.classic import HourglassStem
from bipose_lit.models.backbones.plain_vit import PlainViT
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.base import Backbone, PoseDecoder
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.hourglass import StackedHourglass
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


def newell(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PoseNet's names, with the shortcuts that it makes and does not read."""
    places = {"skips": "up1", "downs": "low1", "ups": "low3"}
    stems = {"conv": "pre.0.conv", "norm": "pre.0.bn", "first": "pre.1", "last.0": "pre.3", "last.1": "pre.4"}

    def residual(rest: str) -> str:
        rest = re.sub(r"^norm(\d)", r"bn\1", rest)
        return re.sub(r"^(conv\d)", r"\1.conv", rest).replace("skip.", "skip_layer.conv.")

    found = {}
    for name, value in state.items():
        if m := re.fullmatch(r"decoder\.hourglasses\.(\d+)\.(\w+)\.(\d+)\.0\.(.+)", name):
            new = f"hgs.{m[1]}.0.{'low2.' * (3 - int(m[3]))}{places[m[2]]}.{residual(m[4])}"
        elif m := re.fullmatch(r"decoder\.hourglasses\.(\d+)\.bottom\.0\.(.+)", name):
            new = f"hgs.{m[1]}.0.low2.low2.low2.low2.{residual(m[2])}"
        elif m := re.fullmatch(r"decoder\.residuals\.(\d+)\.0\.(.+)", name):
            new = f"features.{m[1]}.0.{residual(m[2])}"
        elif m := re.fullmatch(r"decoder\.features\.(\d+)\.([01])\.(.+)", name):
            new = f"features.{m[1]}.1.{('conv', 'bn')[int(m[2])]}.{m[3]}"
        elif m := re.fullmatch(r"decoder\.heads\.(\d+)\.(.+)", name):
            new = f"outs.{m[1]}.conv.{m[2]}"
        elif m := re.fullmatch(r"decoder\.merge_(features|maps)\.(\d+)\.(.+)", name):
            new = f"merge_{m[1].replace('maps', 'preds')}.{m[2]}.conv.conv.{m[3]}"
        else:
            m = re.fullmatch(r"backbone\.(conv|norm|first|last\.[01])\.(.+)", name)
            assert m is not None
            new = f"{stems[m[1]]}.{m[2] if m[1] in ('conv', 'norm') else residual(m[2])}"
        found[new] = value
        if new.endswith(".bn1.weight") and f"{name.removesuffix('norm1.weight')}skip.weight" not in state:
            place = new.removesuffix("bn1.weight")
            found[f"{place}skip_layer.conv.weight"] = torch.ones(len(value), len(value), 1, 1)
            found[f"{place}skip_layer.conv.bias"] = torch.ones(len(value))
    return found


def bearpaw(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """HourglassNet's names."""
    rules = (
        (r"backbone\.conv\.(.+)", r"conv1.\1"),
        (r"backbone\.norm\.(.+)", r"bn1.\1"),
        (r"backbone\.first\.(.+)", r"layer1.0.\1"),
        (r"backbone\.last\.0\.(.+)", r"layer2.0.\1"),
        (r"backbone\.last\.1\.(.+)", r"layer3.0.\1"),
        (r"decoder\.hourglasses\.(\d+)\.skips\.(\d+)\.(.+)", r"hg.\1.hg.\2.0.\3"),
        (r"decoder\.hourglasses\.(\d+)\.downs\.(\d+)\.(.+)", r"hg.\1.hg.\2.1.\3"),
        (r"decoder\.hourglasses\.(\d+)\.ups\.(\d+)\.(.+)", r"hg.\1.hg.\2.2.\3"),
        (r"decoder\.hourglasses\.(\d+)\.bottom\.(.+)", r"hg.\1.hg.0.3.\2"),
        (r"decoder\.residuals\.(.+)", r"res.\1"),
        (r"decoder\.features\.(.+)", r"fc.\1"),
        (r"decoder\.heads\.(.+)", r"score.\1"),
        (r"decoder\.merge_features\.(.+)", r"fc_.\1"),
        (r"decoder\.merge_maps\.(.+)", r"score_.\1"),
    )
    found = {}
    for name, value in state.items():
        rule, to = next((rule, to) for rule, to in rules if re.fullmatch(rule, name))
        new = re.sub(rule, to, name)
        found[re.sub(r"\.norm(\d)\.", r".bn\1.", new).replace(".skip.", ".downsample.0.")] = value
    return found


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


def hourglass(joints: int = 16, **stem: Any) -> PoseNetwork:
    return network(HourglassStem(16, **stem), StackedHourglass(2, blocks=2 if "middle" in stem else 1), joints=joints)


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
