"""How the published codes name their tensors, as rules to one naming: timm's for backbones, our own for decoders.

Facts read in: microsoft/human-pose-estimation.pytorch and leoxiaobin/deep-high-resolution-net.pytorch (lib/models), open-mmlab's
mmpose 0.x and 1.x (models/backbones, models/heads), mmpretrain (VisionTransformer), ViTAE-Transformer/ViTPose, torchvision, timm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

Rule = tuple[str, str]
"""A pattern of whole names, and what they are in our naming; one that begins with DROP is left out, and what follows says why."""
DROP: Final = "!"

_RESNET: Final = r"(conv1|bn1|layer[1-4])\..+"
_HRNET: Final = r"(conv[12]|bn[12]|layer1|transition[1-3]|stage[2-4])\..+"


@dataclass
class Renamed:
    """A checkpoint in our naming.

    Attributes:
        tensors: by name: "backbone." and timm's name, or "decoder." and ours.
        origin: by name, what the file calls it.
        dropped: the file's name -> why it is left out.
        unknown: the file's names that no rule has.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where checkpoints come from.

    Attributes:
        rules: the first that matches a name counts.
        bgr: the weights want blue, green, red (`TimmBackbone`); None: whatever the network says.
        averaged: of two states, the average over training is the one that is used.
        mend: changes what renaming alone does not.
        parts: of a network that a file has.
    """

    rules: tuple[Rule, ...]
    bgr: bool | None = False
    averaged: bool = False
    mend: Callable[[Renamed], None] | None = None
    parts: tuple[str, ...] = ("backbone", "decoder")

    def rename(self, tensors: Mapping[str, Tensor]) -> Renamed:
        """The tensors in our naming."""
        found = Renamed()
        for name, tensor in tensors.items():
            target = next((m.expand(to) for rule, to in self.rules if (m := re.fullmatch(rule, name))), None)
            if target is None or target in found.tensors:
                found.unknown.append(name)
            elif target.startswith(DROP):
                found.dropped[name] = target.removeprefix(DROP)
            else:
                found.tensors[target], found.origin[target] = tensor, name
        if self.mend is not None:
            self.mend(found)
        return found


def grid_of(places: int) -> tuple[int, int] | None:
    """Rows and columns of so many patches: of a picture of 3:4, as poses have it, or else of a square."""
    for rows, columns in ((4, 3), (1, 1)):
        side = math.isqrt(places // (rows * columns))
        if side and rows * columns * side**2 == places:
            return rows * side, columns * side
    return None


def _mend_mmpose(found: Renamed) -> None:
    """SimCC's 1x1 convolution, and position embeddings that have kept a class token's row."""
    if "decoder.x.weight" in found.tensors:
        for kind in ("weight", "bias"):
            _move(found, f"decoder.head.{kind}", f"decoder.maps.{kind}")
    rows = found.tensors.get("backbone.pos_embed")
    if rows is not None and rows.ndim == 3 and not grid_of(rows.shape[1]) and grid_of(rows.shape[1] - 1):
        # ViTPose's own code adds that row to all others; mmpretrain, in whose naming blocks are layers, cuts it off.
        fold = any(name.startswith("backbone.blocks.") for name in found.origin.values())
        found.tensors["backbone.pos_embed"] = rows[:, 1:] + rows[:, :1] if fold else rows[:, 1:].clone()


def _move(found: Renamed, before: str, after: str) -> None:
    if before in found.tensors:
        found.tensors[after], found.origin[after] = found.tensors.pop(before), found.origin.pop(before)


_HEAD: Final = r"(?:head|keypoint_head)\."
_LAYER: Final = r"encoder\.layers\.encoder_layer_(\d+)\."

SOURCES: Final[dict[str, Source]] = {
    "simplebaseline": Source(
        (
            (_RESNET, r"backbone.\g<0>"),
            (r"deconv_layers\.(.+)", r"decoder.layers.\1"),
            (r"final_layer\.(weight|bias)", r"decoder.head.\1"),
        ),
        bgr=True,
    ),
    "hrnet": Source(
        ((_HRNET, r"backbone.\g<0>"), (r"final_layer\.(weight|bias)", r"decoder.head.\1")),
    ),
    "mmpose": Source(
        (
            (r"data_preprocessor\..+", DROP + "the pictures' mean and deviation"),
            (r"ema_.+", DROP + "the other half of averaged weights"),
            (rf"backbone\.({_RESNET})", r"backbone.\1"),
            (rf"backbone\.({_HRNET})", r"backbone.\1"),
            (r"backbone\.patch_embed\.projection\.(.+)", r"backbone.patch_embed.proj.\1"),
            (r"backbone\.layers\.(\d+)\.ln([12])\.(.+)", r"backbone.blocks.\1.norm\2.\3"),
            (r"backbone\.layers\.(\d+)\.attn\.(qkv|proj)\.(.+)", r"backbone.blocks.\1.attn.\2.\3"),
            (r"backbone\.layers\.(\d+)\.ffn\.layers\.0\.0\.(.+)", r"backbone.blocks.\1.mlp.fc1.\2"),
            (r"backbone\.layers\.(\d+)\.ffn\.layers\.1\.(.+)", r"backbone.blocks.\1.mlp.fc2.\2"),
            (r"backbone\.ln1\.(.+)", r"backbone.norm.\1"),
            (r"backbone\.last_norm\.(.+)", r"backbone.norm.\1"),
            (r"backbone\.pos_embed", "backbone.pos_embed"),
            (r"backbone\.(patch_embed\.proj\..+)", r"backbone.\1"),
            (r"backbone\.(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\..+)", r"backbone.\1"),
            (rf"{_HEAD}deconv_layers\.(.+)", r"decoder.layers.\1"),
            (rf"{_HEAD}final_layer\.(weight|bias)", r"decoder.head.\1"),
            (rf"{_HEAD}deconv_head\.deconv_layers\.(.+)", r"decoder.layers.\1"),
            (rf"{_HEAD}deconv_head\.final_layer\.(weight|bias)", r"decoder.maps.\1"),
            (rf"{_HEAD}mlp_head_([xy])\.(weight|bias)", r"decoder.\1.\2"),
        ),
        mend=_mend_mmpose,
    ),
    "torchvision": Source(
        (
            (rf"{_RESNET}|fc\.(weight|bias)", r"backbone.\g<0>"),
            (r"class_token", "backbone.cls_token"),
            (r"conv_proj\.(.+)", r"backbone.patch_embed.proj.\1"),
            (r"encoder\.pos_embedding", "backbone.pos_embed"),
            (rf"{_LAYER}ln_([12])\.(.+)", r"backbone.blocks.\1.norm\2.\3"),
            (rf"{_LAYER}self_attention\.in_proj_(.+)", r"backbone.blocks.\1.attn.qkv.\2"),
            (rf"{_LAYER}self_attention\.out_proj\.(.+)", r"backbone.blocks.\1.attn.proj.\2"),
            (rf"{_LAYER}mlp\.(?:0|linear_1)\.(.+)", r"backbone.blocks.\1.mlp.fc1.\2"),
            (rf"{_LAYER}mlp\.(?:3|linear_2)\.(.+)", r"backbone.blocks.\1.mlp.fc2.\2"),
            (r"encoder\.ln\.(.+)", r"backbone.norm.\1"),
            (r"heads\.head\.(.+)", r"backbone.head.\1"),
        ),
        parts=("backbone",),
    ),
    "timm": Source(
        ((r".+", r"backbone.\g<0>"),),
        bgr=None,
        averaged=True,
        parts=("backbone",),
    ),
}
"""By the word that --from takes."""


def fewest_unknown(tensors: Mapping[str, Tensor], but: str) -> str:
    """The other source that knows all of a file's names, or ""; timm, which takes any name, is never meant."""
    others = (name for name in SOURCES if name not in (but, "timm"))
    return next((name for name in others if not SOURCES[name].rename(tensors).unknown), "")


def resampled(rows: Tensor, prefix: int, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Position embeddings (1, prefix + h w, C) of one grid for another, bicubic as timm does it; the first rows stay."""
    kept, grid = rows[:, :prefix], rows[:, prefix:]
    maps = grid.float().reshape(1, *before, -1).permute(0, 3, 1, 2)
    maps = torch.nn.functional.interpolate(maps, after, mode="bicubic", antialias=True)
    return torch.cat([kept, maps.permute(0, 2, 3, 1).flatten(1, 2).to(rows.dtype)], dim=1)
