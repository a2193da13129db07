"""Which network a checkpoint belongs to, from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.simcc import SimCCCodec
from bipose_lit.losses import SimCCLoss
from bipose_lit.models.backbones import classic, plain_vit, timm_backbone
from bipose_lit.models.base import Backbone, PoseDecoder
from bipose_lit.models.decoders import deconv, hourglass, simcc
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.rebuild import instantiate
from bipose_lit.published.sources import DEPTH, Renamed, Source, grid_of
from bipose_lit.types import BiposeError

_RESNETS: Final[dict[tuple[tuple[int, ...], bool], int]] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
"""Blocks of the four stages, and whether they are bottlenecks, -> layers."""
_POSE_HEADS: Final = {384: 12, 768: 12, 1024: 16, 1280: 16}
"""Attention heads of ViTPose by width; no tensor tells them."""
_IMAGENET_VITS: Final = {
    (384, 16): "deit_small_patch16_224",
    (768, 16): "vit_base_patch16_224.mae",
    (1024, 16): "vit_large_patch16_224.mae",
}
"""timm's names of plain ViTs by width and patch: those whose pictures are normalised by ImageNet's mean, as torchvision's are."""
_SIZE: Final = (192, 256)
_STRIDE: Final = 4
"""Of maps, as experiments/base.yaml has it."""
MSRA: Final = {
    "refine": "quarter",
    "grid": "msra",
    "quantised": True,
    "patch": 3.0,
    "reach": None,
    "shift_flipped": True,
}
UDP: Final = {"refine": "dark", "grid": "udp", "quantised": False, "patch": 3.0, "reach": None, "shift_flipped": False}
NEWELL: Final = {
    "sigma": 1.0,
    "refine": "quarter",
    "grid": "pixel",
    "quantised": True,
    "patch": 3.0,
    "reach": None,
    "shift_flipped": False,
}
_SIMCC: Final = {"ratio": 2.0, "sigma": 6.0}
"""The laws by which places became maps in training: experiments/codec/msra.yaml, udp.yaml; Newell et al. draw about the
pixel that a joint lies in; mmpose's SimCC has these two numbers in every configuration."""


@dataclass(frozen=True)
class Target:
    """A network as configuration.

    Attributes:
        backbone: {"class_path": ..., "init_args": ...}.
        decoder: the same; None for a backbone alone.
        joints: number of joints; 0 for a backbone alone.
        size: width and height of the crops; the usual ones where no tensor tells.
        about: in words.
        codec: the codec by which its code reads the predictions, as far as that differs from code to code; None where that is
            left to a configuration. Tensors do not tell by which law maps were drawn: of mmpose's ResNet and HRNet MSRA's is
            assumed.
        loss: that goes with the codec; None: the usual one, of maps.
        sized: the weights are for that size, whatever the data's is.
        configured: a configuration names it, and no tensor.
        said: what else whoever uses it should know.
    """

    backbone: Mapping[str, Any]
    decoder: Mapping[str, Any] | None
    joints: int
    size: tuple[int, int]
    about: str
    codec: Mapping[str, Any] | None = None
    loss: Mapping[str, Any] | None = None
    sized: bool = False
    configured: bool = False
    said: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its parts."""
        return ("backbone",) if self.decoder is None else ("backbone", "decoder")

    def build(self) -> tuple[Backbone, dict[str, Tensor]]:
        """The backbone, and all tensors of the parts, by our names; weights are random.

        Raises:
            BiposeError: parts that cannot be, or do not fit together.
        """
        backbone = instantiate({**self.backbone}, Backbone)
        if self.decoder is None:
            return backbone, {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
        decoder = instantiate({**self.decoder}, PoseDecoder)
        network = PoseNetwork(backbone, decoder, joints=self.joints, size=self.size)
        return backbone, {k: v for k, v in network.state_dict().items() if k.startswith(("backbone.", "decoder."))}


def configured(config: Mapping[str, Any], source: Source) -> Target:
    """The network of a composed configuration, as far as a source has parts of it."""
    model, whole = config["model"], "decoder" in source.parts
    return Target(
        _plain(model["backbone"]),
        _plain(model["decoder"]) if whole else None,
        int(model["joints"]) if whole else 0,
        (int(config["data"]["size"][0]), int(config["data"]["size"][1])),
        "the configured network",
        configured=True,
    )


def identify(found: Renamed, source: Source) -> Target:
    """The network of a published file.

    Raises:
        BiposeError: none that is known; a configuration must name it.
    """
    tensors = found.tensors
    size, stride = _SIZE, 32
    if "backbone.first.norm1.weight" in tensors:
        return _hourglass(found)
    if "backbone.patch_embed.proj.weight" in tensors:
        if source.pictures is None:
            raise BiposeError(
                "it is a ViT, and no tensor tells how its pictures were normalised; name the model with -c"
            )
        backbone, about, size = _vit(tensors, whole="decoder" in source.parts)
        stride = int(tensors["backbone.patch_embed.proj.weight"].shape[-1])
    elif "backbone.stage4.0.branches.0.0.conv1.weight" in tensors:
        backbone, about = _hrnet(tensors)
        stride = 4
    else:
        backbone, about = _resnet(tensors)
    if source.pictures is not None and source.pictures.bgr and backbone["class_path"].endswith(".TimmBackbone"):
        backbone["init_args"]["bgr"] = True
    if "decoder" not in source.parts:
        return Target(backbone, None, 0, size, about)
    decoder, joints, words = _decoder(tensors)
    about = f"{about}, {words}, {joints} joints"
    if "decoder.head.weight" not in tensors:
        if "decoder.x.weight" in tensors and "decoder.y.weight" in tensors:
            size = tensors["decoder.x.weight"].shape[0] // 2, tensors["decoder.y.weight"].shape[0] // 2
        return Target(backbone, decoder, joints, size, about, _part(SimCCCodec, _SIMCC), _part(SimCCLoss), sized=True)
    law, said = (UDP, ()) if backbone["class_path"].endswith("ViT") else (MSRA, source.said)
    stride >>= len(decoder["init_args"]["channels"])
    codec = law if stride == _STRIDE else {**law, "stride": stride}
    return Target(backbone, decoder, joints, size, about, _part(HeatmapCodec, codec), said=said)


def _resnet(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], str]:
    blocks = tuple(_count(tensors, rf"backbone\.layer{stage}\.(\d+)\..+") for stage in range(1, 5))
    layers = _RESNETS.get((blocks, "backbone.layer1.0.conv3.weight" in tensors))
    if layers is None:
        raise BiposeError(
            "its tensors are of no ResNet, HRNet or ViT that is known here; name the network with -c (configuration files as for "
            "'bipose fit')"
        )
    return _timm(f"resnet{layers}", -1, {}), f"ResNet-{layers}"


def _hrnet(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], str]:
    width = tensors["backbone.stage4.0.branches.0.0.conv1.weight"].shape[0]
    return _timm(f"hrnet_w{width}", 1, {"feature_location": ""}), f"HRNet-W{width}"


def _hourglass(found: Renamed) -> Target:
    """Stem and stacks; the pictures' mean and deviation are options of the stem."""
    tensors, pictures = found.tensors, found.pictures
    first, head = tensors.get("backbone.last.0.conv3.weight"), tensors.get("decoder.heads.0.weight")
    if first is None or head is None:
        raise BiposeError("it is no whole Stacked Hourglass: the stem or the maps are missing")
    if pictures is None:
        raise BiposeError(
            f"nobody knows the mean of the pictures that a network of {head.shape[0]} joints saw; name it with -c"
        )
    stacks = _count(tensors, r"decoder\.heads\.(\d+)\.weight")
    blocks = _count(tensors, r"decoder\.residuals\.0\.(\d+)\..+")
    width, middle, joints = int(head.shape[1]), int(first.shape[0]), int(head.shape[0])
    stem = {
        "channels": width,
        "middle": None if middle == width // 2 else middle,
        "mean": list(pictures.mean),
        "std": list(pictures.std),
    }
    stages = {"stacks": stacks, "channels": None, "depth": DEPTH, "blocks": blocks}
    return Target(
        _part(classic.HourglassStem, stem),
        _part(hourglass.StackedHourglass, stages),
        joints,
        (256, 256),
        f"{stacks} stacked hourglasses of {blocks} residual{'s' if blocks > 1 else ''}, {joints} joints",
        _part(HeatmapCodec, NEWELL),
        sized=True,
    )


def _vit(tensors: Mapping[str, Tensor], whole: bool) -> tuple[dict[str, Any], str, tuple[int, int]]:
    width, _, patch, _ = tensors["backbone.patch_embed.proj.weight"].shape
    depth = _count(tensors, r"backbone\.blocks\.(\d+)\..+")
    rows = tensors.get("backbone.pos_embed")
    extra = int("backbone.cls_token" in tensors)
    grid = grid_of(rows.shape[1] - extra) if rows is not None and rows.ndim == 3 else None
    if grid is None:
        raise BiposeError("its position embeddings are of no grid that is known here; name the network with -c")
    size = grid[1] * patch, grid[0] * patch
    if whole:
        heads = _POSE_HEADS.get(width)
        if heads is None:
            raise BiposeError(
                f"no ViTPose of width {width} is known here, whose heads no tensor tells; name it with -c"
            )
        arguments = {
            "width": width,
            "depth": depth,
            "heads": heads,
            "size": list(size),
            "drop_path": 0.0,
            "frozen": False,
        }
        return _part(plain_vit.PlainViT, arguments), f"ViT of width {width} and depth {depth}", size
    name = _IMAGENET_VITS.get((width, patch))
    if name is None:
        raise BiposeError(f"no ViT of width {width} and patches of {patch} is known here; name it with -c")
    return _timm(name, -1, {"img_size": [size[1], size[0]]}), f"ViT of width {width}", size


def _decoder(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], int, str]:
    weights = {int(m[1]): t for n, t in tensors.items() if (m := re.fullmatch(r"decoder\.layers\.(\d+)\.weight", n))}
    channels = [int(t.shape[1]) for _, t in sorted(weights.items()) if t.ndim == 4]
    said = f"{len(channels)} transposed convolutions" if channels else "no transposed convolution"
    heads: tuple[tuple[str, type, dict[str, Any], str], ...] = (
        ("decoder.head.weight", deconv.DeconvDecoder, {"channels": channels, "layers": len(channels)}, said),
        ("decoder.maps.weight", simcc.SimCCDecoder, {"ratio": 2.0, "deconv": channels or None}, f"{said}, SimCC"),
    )
    for name, cls, arguments, words in heads:
        if name in tensors:
            return _part(cls, arguments), int(tensors[name].shape[0]), words
    raise BiposeError("it has no head that is known here (heatmaps or SimCC); name the network with -c")


def _timm(name: str, index: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    arguments = {
        "name": name,
        "pretrained": False,
        "weights": None,
        "out_index": index,
        "kwargs": kwargs,
        "frozen": False,
    }
    return _part(timm_backbone.TimmBackbone, {**arguments, "bgr": False})


def _part(cls: type, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(arguments or {})}


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({m[1] for name in tensors if (m := re.fullmatch(pattern, name))})


def _plain(part: Mapping[str, Any]) -> dict[str, Any]:
    """A configured part that fetches nothing by itself."""
    arguments = dict(part.get("init_args") or {})
    for name, off in (("pretrained", False), ("weights", None)):
        if name in arguments:
            arguments[name] = off
    return {"class_path": part["class_path"], "init_args": arguments}
