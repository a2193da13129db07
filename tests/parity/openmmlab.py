"""mmpose's and ViTPose's own networks from a clone, with stand-ins for packages that they ask for and do not need."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

OWN = ("registry", "evaluation", "core", "codecs", "utils", "structures", "models.builder", "models.utils.ops")
STUBS = ("mmcv", "mmcv_custom", "mmengine", *(f"mmpose.{name}" for name in OWN))
PACKAGES = ("", ".models", ".models.backbones", ".models.heads", ".models.heads.heatmap_heads", ".models.heads.coord_cls_heads",
            ".models.utils")  # fmt: skip


class Anything:
    """Whatever a stand-in is asked for: a registry whose decorators do nothing, a type, a function."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and isinstance(args[0], type) and not kwargs else Anything()


class Stub(ModuleType):
    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class Finder:
    """Makes stand-ins of `STUBS` and what is below them."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        wanted = any(name == stub or name.startswith(f"{stub}.") for stub in STUBS)
        return ModuleSpec(name, Finder, is_package=True) if wanted else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return Stub(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        for name, value in GIVEN.get(module.__name__, {}).items():
            setattr(module, name, value)


class BaseModule(nn.Module):
    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()


def conv(cfg: Any, *args: Any, **kwargs: Any) -> nn.Module:
    if cfg and "in_channels" in cfg:
        kwargs = {k: v for k, v in cfg.items() if k != "type"}
    return nn.Conv2d(*args, **kwargs)


def norm(cfg: Any, channels: int, postfix: Any = "") -> tuple[str, nn.Module]:
    return f"bn{postfix}", nn.BatchNorm2d(channels)


def upsample(cfg: dict[str, Any]) -> nn.Module:
    return nn.ConvTranspose2d(**{k: v for k, v in cfg.items() if k != "type"})


GIVEN: dict[str, dict[str, Any]] = {
    "mmcv.cnn": {"build_conv_layer": conv, "build_norm_layer": norm, "build_upsample_layer": upsample},
    "mmengine.model": {"BaseModule": BaseModule},
    "mmengine.utils.dl_utils.parrots_wrapper": {"_BatchNorm": nn.BatchNorm2d},
}


def install(clone: Path) -> None:
    """Lets `mmpose` be imported from a clone, file by file, without what its packages import on the way."""
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
    for name in PACKAGES:
        module = ModuleType(f"mmpose{name}")
        module.__path__ = [str(clone / f"mmpose{name}".replace(".", "/"))]
        sys.modules[module.__name__] = module


class Estimator(nn.Module):
    """Names as a whole model of mmpose has them."""

    def __init__(self, backbone: nn.Module, head: nn.Module, name: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.name = name
        self.add_module(name, head)

    def forward(self, x: Tensor) -> Any:
        features = self.backbone(x)
        return getattr(self, self.name)(features)


def resnet(clone: Path, head: str = "heatmap") -> Estimator:
    """Mmpose 1.x: ResNet-50 with heatmaps (td-hm_res50) or with SimCC (simcc_res50), 256x192."""
    install(clone)
    backbone = importlib.import_module("mmpose.models.backbones.resnet").ResNet(50)
    if head == "simcc":
        kind = importlib.import_module("mmpose.models.heads.coord_cls_heads.simcc_head").SimCCHead
        made = kind(2048, 17, input_size=(192, 256), in_featuremap_size=(6, 8), simcc_split_ratio=2.0)
        kind = importlib.import_module("mmpose.models.heads.heatmap_heads.heatmap_head").HeatmapHead
        made.deconv_head = kind(2048, 17)  # the registry that would make it is a stand-in
        return Estimator(backbone, made, "head")
    kind = importlib.import_module("mmpose.models.heads.heatmap_heads.heatmap_head").HeatmapHead
    return Estimator(backbone, kind(2048, 17), "head")


def hrnet(clone: Path) -> Estimator:
    """Mmpose 1.x: td-hm_hrnet-w32, 256x192."""
    install(clone)
    widths = (32, 64, 128, 256)
    extra: dict[str, Any] = {
        "stage1": {
            "num_modules": 1,
            "num_branches": 1,
            "block": "BOTTLENECK",
            "num_blocks": (4,),
            "num_channels": (64,),
        }
    }
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        extra[f"stage{stage}"] = {
            "num_modules": modules, "num_branches": stage, "block": "BASIC", "num_blocks": (4,) * stage,
            "num_channels": widths[:stage],
        }  # fmt: skip
    backbone = importlib.import_module("mmpose.models.backbones.hrnet").HRNet(extra)
    kind = importlib.import_module("mmpose.models.heads.heatmap_heads.heatmap_head").HeatmapHead
    return Estimator(backbone, kind(32, 17, deconv_out_channels=None), "head")


class Unlisted(nn.Module):
    """A head of mmpose 0.x, which takes the one map itself: the same layers under the same names."""

    def __init__(self, layers: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.deconv_layers, self.final_layer = layers, last

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.final_layer(self.deconv_layers(x))
        return out


def vitpose(clone: Path) -> Estimator:
    """ViTPose's own code: ViTPose-S, 256x192."""
    GIVEN["mmcv_custom.checkpoint"] = {}
    install(clone)
    kind = importlib.import_module("mmpose.models.backbones.vit").ViT
    backbone = kind(img_size=(256, 192), patch_size=16, embed_dim=384, depth=12, num_heads=12, qkv_bias=True)
    layers: list[nn.Module] = []
    for before in (384, 256):
        layers += [nn.ConvTranspose2d(before, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(inplace=True)]
    return Estimator(backbone, Unlisted(nn.Sequential(*layers), nn.Conv2d(256, 17, 1)), "keypoint_head")
