"""Any timm model that gives feature maps, as a backbone. The only place that imports timm."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bipose_lit.models.base import Backbone
from bipose_lit.types import BiposeError, FeatureSpec

FEATURES_ONLY = ("feature_location",)
"""Arguments that timm's feature nets take, but not its whole models."""


class TimmBackbone(Backbone):
    """One feature map of a timm model; layers past it are dropped, so every parameter has a gradient.

    The constructor draws random weights and never downloads; `initialise` fetches or reads the wanted ones, and a
    checkpoint needs neither.

    Args:
        name: timm's model name; `timm.list_models()` has them.
        pretrained: start from timm's weights (from the hub, or its cache on this machine).
        weights: safetensors file of the model to start from; names as in timm's own model, tensors of dropped layers
            are ignored.
        out_index: which of the model's feature maps; -1 for the deepest.
        kwargs: further arguments of timm's model, e.g. {"channels": [32, 64, 128, 256]} for a narrow ResNet,
            {"img_size": [192, 256]} (height, width) for a ViT, {"feature_location": ""} with out_index 1 for HRNet's
            own 32 channels at stride 4.
        frozen: no gradients, and BatchNorm keeps its running statistics.
        bgr: the weights were trained on blue, green, red, with the usual means in the usual order, so that blue has red's and red
            blue's: OpenCV's pictures as they come, as in the code of Simple Baselines (Xiao et al. 2018). Pictures stay RGB
            everywhere else.

    Attributes:
        spec: channels and stride of the map.
        fixed_size: width and height of a model whose patches are of one grid, unless its kwargs have dynamic_img_size: true.
        multiple: 32 of HRNet, whose coarsest branch has that stride, whatever map is chosen; else 1.
        mean, std: of the images that the weights expect, by channel of an RGB image, for values in [0, 1].

    Raises:
        BiposeError: an unknown name (with the closest), arguments that the model refuses, a map it does not have.
    """

    def __init__(
        self,
        name: str = "resnet18",
        pretrained: bool = False,
        weights: str | None = None,
        out_index: int = -1,
        kwargs: dict[str, Any] | None = None,
        frozen: bool = False,
        bgr: bool = False,
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
            raise BiposeError(
                f"backbone: timm has no model {name!r}; "
                + (f"did you mean {', '.join(close)}?" if close else "see timm.list_models()")
            )
        if pretrained and weights is not None:
            raise BiposeError(f"backbone {name}: give pretrained: true or weights: {weights}, not both")
        self.name, self.pretrained, self.weights, self.frozen, self.bgr = name, pretrained, weights, frozen, bgr
        self.arguments = dict(kwargs or {})
        self.net: Any = self._create(out_index, pretrained=False)
        info = self.net.feature_info
        self.spec = FeatureSpec(int(info.channels()[-1]), int(info.reduction()[-1]))
        self.fixed_size = _only_size(self.net)
        if hasattr(self.net, "stage4") and hasattr(self.net, "_out_idx"):  # HRNet
            self.multiple = 32
        # NHWC (Swin and others) is declared; models that declare nothing are NCHW.
        self.channels_last = str(getattr(getattr(self.net, "output_fmt", None), "value", "NCHW")) == "NHWC"
        cfg = timm.get_pretrained_cfg(name)
        self.mean = tuple(cfg.mean) if cfg else (0.485, 0.456, 0.406)
        self.std = tuple(cfg.std) if cfg else (0.229, 0.224, 0.225)
        if bgr:
            self.mean, self.std = self.mean[::-1], self.std[::-1]
        self._drop_unused(cfg.input_size[1:] if cfg and cfg.fixed_input_size else (64, 64))
        if frozen:
            self.requires_grad_(False)
            self.train()

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        features: Tensor = self.net(images.flip(1) if self.bgr else images)[-1]
        return features.permute(0, 3, 1, 2).contiguous() if self.channels_last else features

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode and not self.frozen)
        return self

    def initialise(self) -> None:
        """Loads the starting weights that the configuration asks for; does nothing if it asks for none.

        Raises:
            BiposeError: weights that cannot be had, or do not fit.
        """
        if self.weights is not None:
            self._load(_read(Path(self.weights)), f"weights {self.weights}")
        elif self.pretrained:
            try:
                with _offline_without_hub():
                    source = timm.create_model(self.name, pretrained=True, **self._model_arguments())
            except Exception as error:  # whatever the hub, the network or the file system raises
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise BiposeError(
                    f"backbone {self.name}: pretrained weights cannot be had ({reason[:200]}); "
                    "set pretrained: false, or weights: FILE (safetensors) of the same model"
                ) from error
            self._load(source.state_dict(), "pretrained weights")

    def parameters_by_layer(self) -> list[list[nn.Parameter]]:
        """As timm's model says for fine-tuning: a plain ViT's embeddings, then each block; [] where timm rewrote the model."""
        model: Any = getattr(self.net, "model", None)
        if not hasattr(model, "group_matcher"):
            return []
        layers = timm.models.group_parameters(model, model.group_matcher(coarse=False))
        named = dict(model.named_parameters())
        return [[named[name] for name in layers[number]] for number in sorted(layers)]

    def whole_names(self) -> frozenset[str]:
        """Names of the tensors of timm's whole model, its classifier included: a published file has more than this backbone."""
        arguments = {k: v for k, v in self._model_arguments().items() if k not in FEATURES_ONLY}
        with torch.device("meta"):
            # Some have no classifier by themselves (MAE's), but a file of the same network may.
            return frozenset(timm.create_model(self.name, **{"num_classes": 1000, **arguments}).state_dict())

    def _model_arguments(self) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in self.arguments.items()}

    def _create(self, out_index: int, pretrained: bool) -> Any:
        arguments = self._model_arguments()
        reserved = sorted(set(arguments) & {"features_only", "out_indices", "pretrained"})
        if reserved:
            raise BiposeError(
                f"backbone {self.name}: kwargs must not hold {', '.join(reserved)}; use out_index, pretrained, weights"
            )
        try:
            net: Any = timm.create_model(
                self.name, pretrained=pretrained, features_only=True, out_indices=(out_index,), **arguments
            )
            net.feature_info.channels()
        except (AssertionError, IndexError, KeyError) as error:
            raise BiposeError(
                f"backbone {self.name}: it has no feature map {out_index} with {arguments} ({error})"
            ) from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise BiposeError(
                f"backbone {self.name}: timm refuses {arguments} as a feature extractor ({error})"
            ) from error
        return net

    def _drop_unused(self, probe: tuple[int, int]) -> None:
        """Removes what lies past the chosen map in models that timm does not cut itself, and checks that it did."""
        if isinstance(self.net, timm.models.FeatureListNet):
            return  # built from the layers up to the map alone
        stages = getattr(self.net, "_stage_out_idx", None)
        if isinstance(stages, dict) and getattr(self.net, "feature_hooks", None) is None:  # EfficientNet, MobileNet
            self.net.blocks = self.net.blocks[: max(stages)]
        if hasattr(self.net, "stage4") and hasattr(self.net, "_out_idx"):  # HRNet
            self._cut_hrnet()
        size = self.arguments.get("img_size", probe)
        h, w = (size, size) if isinstance(size, int) else size
        training = self.net.training
        self.net.eval()
        with torch.enable_grad():
            self.net(torch.zeros(1, 3, h, w))[-1].sum().backward()
        self.net.train(training)
        for parameter in self.net.parameters():
            # What still has no gradient cannot learn: DDP must not wait for it.
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None

    def _cut_hrnet(self) -> None:
        net, index = self.net, max(self.net._out_idx)
        if index == 0:
            raise BiposeError(f"backbone {self.name}: feature map 0 is the stem alone; choose out_index 1 or more")
        # The last fusion makes all branches; those past the chosen one are not wanted. The branches themselves feed it.
        last = net.stage4[-1]
        last.fuse_layers = last.fuse_layers[:index]
        if net.incre_modules is not None:
            net.incre_modules = nn.ModuleList(
                m if i == index - 1 else nn.Identity() for i, m in enumerate(net.incre_modules[:index])
            )
        if index > 1:
            last.fuse_layers = nn.ModuleList(
                fuse if i == index - 1 else nn.ModuleList([nn.Identity()]) for i, fuse in enumerate(last.fuse_layers)
            )

    def _load(self, tensors: dict[str, Tensor], what: str) -> None:
        own = self.net.state_dict()
        # timm's rewritten feature nets call `stages.0` `stages_0`, and some wrap the model in `body` or `model`.
        found = {_canonical(k): v for k, v in tensors.items()}
        chosen, wrong = {}, []
        for key, value in own.items():
            match = found.get(_canonical(key))
            if match is None or match.shape != value.shape:
                wrong.append(key)
            else:
                chosen[key] = match.to(value.dtype)
        if wrong:
            shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            raise BiposeError(
                f"backbone {self.name}: {what} lack or misshape {shown}; use the weights of the same model and kwargs, "
                "or pretrained: false without weights"
            )
        self.net.load_state_dict(chosen)


class NarrowResNet(TimmBackbone):
    """A ResNet of chosen widths, for processors; its map has stride 32.

    A class of its own, so that another backbone in its place never inherits its widths.

    Args:
        depth: layers: 10, 14, 18, 26, 34, ... as timm names them.
        channels: widths of the four stages, multiples of 8 for speed; 64, 128, 256, 512 are those of the usual one.
        frozen: no gradients, and BatchNorm keeps its running statistics.

    Raises:
        BiposeError: a depth that timm does not have, or widths that it refuses.
    """

    def __init__(self, depth: int = 18, channels: list[int] | None = None, frozen: bool = False) -> None:
        widths = list(channels or [24, 48, 96, 192])
        if len(widths) != 4 or min(widths) < 1:
            raise BiposeError(f"NarrowResNet: channels are four numbers above 0, not {widths}")
        super().__init__(f"resnet{depth}", kwargs={"channels": widths}, frozen=frozen)


@contextmanager
def _offline_without_hub() -> Iterator[None]:
    """Asks the hub's cache alone where the hub's name does not resolve: its client would retry for most of a minute."""
    host = urlsplit(constants.ENDPOINT).hostname or ""
    offline = constants.HF_HUB_OFFLINE
    try:
        if not getproxies():
            socket.getaddrinfo(host, 443)
    except OSError:
        offline = True
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _only_size(net: nn.Module) -> tuple[int, int] | None:
    """Width and height of the only pictures that a patch embedding of the model takes; None where none insists."""
    for module in net.modules():
        size = getattr(module, "img_size", None) if getattr(module, "strict_img_size", False) is True else None
        if isinstance(size, list | tuple):
            return int(size[1]), int(size[0])
    return None


def _canonical(key: str) -> str:
    for prefix in ("backbone.net.", "net.", "body.", "model."):
        key = key.removeprefix(prefix)
    return key.replace(".", "_")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BiposeError(
            f"backbone weights {path} not found; give the path of a safetensors file in backbone.init_args.weights"
        )
    try:
        tensors: dict[str, Tensor] = load_file(str(path))
        return tensors
    except (SafetensorError, OSError) as error:
        raise BiposeError(f"backbone weights {path} cannot be read ({error}); fetch or make the file again") from error


__all__ = ["NarrowResNet", "TimmBackbone"]
