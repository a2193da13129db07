"""How the published codes name their tensors, as rules to one naming: timm's for backbones, our own for decoders.

Facts read in: microsoft/human-pose-estimation.pytorch and leoxiaobin/deep-high-resolution-net.pytorch (lib/models), open-mmlab's
mmpose 0.x and 1.x (models/backbones, models/heads), mmpretrain (VisionTransformer), ViTAE-Transformer/ViTPose, torchvision, timm,
princeton-vl/pytorch_stacked_hourglass (models), bearpaw/pytorch-pose (pose/models/hourglass.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern of whole names, and what they are in our naming, as a template or a function of the match; what begins with DROP is
left out, and what follows says why."""
DROP: Final = "!"

_RESNET: Final = r"(conv1|bn1|layer[1-4])\..+"
_HRNET: Final = r"(conv[12]|bn[12]|layer1|transition[1-3]|stage[2-4])\..+"


@dataclass(frozen=True)
class Pictures:
    """How pictures came to a network in training.

    Attributes:
        mean, std: by channel in the order in which they came, for values in [0, 1].
        bgr: blue came first.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    bgr: bool = False


@dataclass
class Renamed:
    """A checkpoint in our naming.

    Attributes:
        tensors: by name: "backbone." and timm's name, or "decoder." and ours.
        origin: by name, what the file calls it.
        dropped: the file's name -> why it is left out.
        unknown: the file's names that no rule has.
        pictures: what its network sees; None: whatever the configured one says.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    pictures: Pictures | None = None


@dataclass(frozen=True)
class Source:
    """Where checkpoints come from.

    Attributes:
        rules: the first that matches a name counts.
        pictures: what its networks see; None: not the same for all of them.
        averaged: of two states, the average over training is the one that is used.
        mend: changes what renaming alone does not.
        parts: of a network that a file has.
        said: what whoever uses maps of a ResNet or HRNet of it should know.
    """

    rules: tuple[Rule, ...]
    pictures: Pictures | None = Pictures()
    averaged: bool = False
    mend: Callable[[Renamed], None] | None = None
    parts: tuple[str, ...] = ("backbone", "decoder")
    said: tuple[str, ...] = ()

    def rename(self, tensors: Mapping[str, Tensor]) -> Renamed:
        """The tensors in our naming."""
        found = Renamed(pictures=self.pictures)
        for name, tensor in tensors.items():
            target = next((_named(m, to) for rule, to in self.rules if (m := re.fullmatch(rule, name))), None)
            if target is None or target in found.tensors:
                found.unknown.append(name)
            elif target.startswith(DROP):
                found.dropped[name] = target.removeprefix(DROP)
            else:
                found.tensors[target], found.origin[target] = tensor, name
        if self.mend is not None:
            self.mend(found)
        return found


def _named(match: re.Match[str], to: str | Callable[[re.Match[str]], str]) -> str:
    return match.expand(to) if isinstance(to, str) else to(match)


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


DEPTH: Final = 4
"""Halvings in an hourglass of either code, which is written into both."""


def _princeton(match: re.Match[str]) -> str:
    """A residual of PoseNet's nested hourglasses: each but the innermost lies in the place `low2` of the one around it."""
    stack, nested, place, rest = match.groups()
    level = DEPTH - 1 - nested.count("low2.")
    if place == "low2":
        return f"decoder.hourglasses.{stack}.bottom.0.{_residual(rest)}" if level == 0 else "unknown"
    return f"decoder.hourglasses.{stack}.{_PLACES[place]}.{level}.0.{_residual(rest)}"


def _bearpaw(match: re.Match[str]) -> str:
    """A residual of HourglassNet's: by scale, coarsest first, then by place."""
    stack, level, place, block, rest = match.groups()
    if place == "3":
        return f"decoder.hourglasses.{stack}.bottom.{block}.{_residual(rest)}"
    return f"decoder.hourglasses.{stack}.{_PLACES[place]}.{level}.{block}.{_residual(rest)}"


def _of_residual(prefix: str) -> Callable[[re.Match[str]], str]:
    """A residual elsewhere: the pattern's last group is the name in it, the others fill the prefix."""
    return lambda match: f"{match.expand(prefix)}.{_residual(match.groups()[-1])}"


def _residual(rest: str) -> str:
    """Either code's names inside of a pre-activation bottleneck in ours."""
    rest = re.sub(r"^bn(\d)\.", r"norm\1.", rest)
    rest = re.sub(r"^(conv\d)\.conv\.", r"\1.", rest)
    return re.sub(r"^(?:skip_layer\.conv|downsample\.0)\.", "skip.", rest)


def _mend_hourglass(found: Renamed) -> None:
    """PoseNet makes a shortcut for every residual and reads those alone that change the width; the pictures of either code."""
    for name in [n for n in found.tensors if ".skip." in n]:
        norm = found.tensors.get(name.partition(".skip.")[0] + ".norm1.weight")
        last = found.tensors.get(name.partition(".skip.")[0] + ".conv3.weight")
        if norm is not None and last is not None and norm.shape[0] == last.shape[0]:
            del found.tensors[name]
            found.dropped[found.origin.pop(name)] = "a shortcut that is read by nothing"
    bearpaw = any(name.startswith("layer1.") for name in found.origin.values())
    joints = next((t.shape[0] for n, t in found.tensors.items() if n == "decoder.heads.0.weight"), 0)
    mean = _BEARPAW.get(joints) if bearpaw else (0.0, 0.0, 0.0)
    found.pictures = None if mean is None else Pictures(mean, (1.0, 1.0, 1.0))


_PLACES: Final = {"up1": "skips", "low1": "downs", "low3": "ups", "0": "skips", "1": "downs", "2": "ups"}
_BEARPAW: Final = {
    16: (0.44044283, 0.44402671, 0.43268284),
    17: (0.456607670, 0.43688232, 0.40614182),
}
"""Means of MPII's and COCO's pictures by number of joints, as that repository keeps them (data/*/mean.pth.tar)."""
_HEAD: Final = r"(?:head|keypoint_head)\."
_LAYER: Final = r"encoder\.layers\.encoder_layer_(\d+)\."

SOURCES: Final[dict[str, Source]] = {
    "simplebaseline": Source(
        (
            (_RESNET, r"backbone.\g<0>"),
            (r"deconv_layers\.(.+)", r"decoder.layers.\1"),
            (r"final_layer\.(weight|bias)", r"decoder.head.\1"),
        ),
        pictures=Pictures(bgr=True),
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
        said=(
            "codec: MSRA's is assumed; for weights trained with UDP or DARK add -c experiments/codec/udp.yaml (dark.yaml) "
            "after it",
        ),
    ),
    "hourglass": Source(
        (
            (r"pre\.0\.conv\.(.+)", r"backbone.conv.\1"),
            (r"pre\.0\.bn\.(.+)", r"backbone.norm.\1"),
            (r"pre\.1\.(.+)", _of_residual("backbone.first")),
            (r"pre\.3\.(.+)", _of_residual("backbone.last.0")),
            (r"pre\.4\.(.+)", _of_residual("backbone.last.1")),
            (r"hgs\.(\d+)\.0\.((?:low2\.)*)(up1|low1|low2|low3)\.(.+)", _princeton),
            (r"features\.(\d+)\.0\.(.+)", _of_residual(r"decoder.residuals.\1.0")),
            (r"features\.(\d+)\.1\.conv\.(.+)", r"decoder.features.\1.0.\2"),
            (r"features\.(\d+)\.1\.bn\.(.+)", r"decoder.features.\1.1.\2"),
            (r"outs\.(\d+)\.conv\.(.+)", r"decoder.heads.\1.\2"),
            (r"merge_features\.(\d+)\.conv\.conv\.(.+)", r"decoder.merge_features.\1.\2"),
            (r"merge_preds\.(\d+)\.conv\.conv\.(.+)", r"decoder.merge_maps.\1.\2"),
            (r"conv1\.(.+)", r"backbone.conv.\1"),
            (r"bn1\.(.+)", r"backbone.norm.\1"),
            (r"layer1\.0\.(.+)", _of_residual("backbone.first")),
            (r"layer2\.0\.(.+)", _of_residual("backbone.last.0")),
            (r"layer3\.0\.(.+)", _of_residual("backbone.last.1")),
            (r"hg\.(\d+)\.hg\.(\d+)\.([0-3])\.(\d+)\.(.+)", _bearpaw),
            (r"res\.(\d+)\.(\d+)\.(.+)", _of_residual(r"decoder.residuals.\1.\2")),
            (r"fc\.(\d+)\.([01])\.(.+)", r"decoder.features.\1.\2.\3"),
            (r"score\.(\d+)\.(.+)", r"decoder.heads.\1.\2"),
            (r"fc_\.(\d+)\.(.+)", r"decoder.merge_features.\1.\2"),
            (r"score_\.(\d+)\.(.+)", r"decoder.merge_maps.\1.\2"),
        ),
        mend=_mend_hourglass,
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
        (
            (r"mask_token|decoder_.+", DROP + "the decoder of a masked autoencoder"),
            (r".+", r"backbone.\g<0>"),
        ),
        pictures=None,
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
