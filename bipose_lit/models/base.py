"""What a part must be so that it can be swapped: the contracts of backbones, temporal heads and decoders.

Parts are configured by plain constructor arguments and sized by `build`, which the network calls with what the part before hands
on. So no configuration ever repeats a channel count, and a part from another package needs nothing but its class path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bipose_lit.types import ClipBatch, Encoded, FeatureSpec

State = tuple[Tensor, ...]


class Part(nn.Module):
    """A module that remembers its own constructor arguments, so that a checkpoint can rebuild it from plain data."""

    _config: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Part:
        part: Part = super().__new__(cls)
        try:
            signature = inspect.signature(cls.__init__)
            bound = signature.bind(part, *args, **kwargs)
        except TypeError:  # copy and pickle call __new__ bare and restore the attributes afterwards
            return part
        bound.apply_defaults()
        open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        named = [n for n, p in signature.parameters.items() if p.kind not in open_ended][1:]
        arguments = {name: bound.arguments[name] for name in named}
        object.__setattr__(part, "_config", {key: plain(value) for key, value in arguments.items()})
        return part

    def config(self) -> dict[str, Any]:
        """The part as plain data: {"class_path": ..., "init_args": {...}}."""
        cls = type(self)
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(self._config)}


def plain(value: Any) -> Any:
    """Configuration values as data that a checkpoint may hold under weights_only=True."""
    if isinstance(value, Part):
        return value.config()
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{value!r} cannot be part of a configuration: use str, int, float, bool, list, dict or None")


class Backbone(Part):
    """Images to feature maps, frame by frame: (N, 3, H, W) normalised floats to (N, C, H/stride, W/stride).

    Attributes:
        spec: channels and stride of the maps.
        fixed_size: width and height of the only crops that it takes, as of a ViT with a grid of patches; None: any multiple of
            the stride.
        multiple: what width and height of crops must be multiples of besides, where maps inside are coarser than those handed
            on.
    """

    spec: FeatureSpec
    fixed_size: tuple[int, int] | None = None
    multiple: int = 1

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        raise NotImplementedError

    def initialise(self) -> None:
        """Loads pretrained weights, if the configuration asks for them. Not called where a checkpoint replaces them anyway."""

    def parameters_by_layer(self) -> list[list[nn.Parameter]]:
        """The parameters of each layer from the picture on, for rates that fall from layer to layer (`Recipe.layer_decay`).

        Parameters in no layer come after the last. Empty: the backbone does not say.
        """
        return []


class TemporalHead(Part):
    """Features over time to features of the same shape, as a residual whose last layer starts at zero.

    Frames with `valid` False must influence nothing; the output there is zero. `causal` heads never read a later frame.

    Attributes:
        causal: True if the output at t depends on frames up to t only.
        context: frames that can matter before and after t; None for the whole clip.
    """

    causal: bool = False
    context: tuple[int | None, int | None] = (None, None)

    def build(self, spec: FeatureSpec) -> None:
        """Makes the layers for features of this size. Called once, by the network."""
        raise NotImplementedError

    def forward(self, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C h w"]:
        raise NotImplementedError

    def init_state(self, features: Float[Tensor, "B C h w"]) -> State:
        """The state before the first frame, for features of this shape, type and device (causal heads)."""
        raise NotImplementedError(f"{type(self).__name__} is not causal: it cannot run frame by frame")

    def step(self, features: Float[Tensor, "B C h w"], state: State) -> tuple[Float[Tensor, "B C h w"], State]:
        """One frame: equals `forward` over the sequence, frame by frame (causal heads)."""
        raise NotImplementedError(f"{type(self).__name__} is not causal: it cannot run frame by frame")


class Refiner(Part):
    """Predictions and the features they were made of, over time, to better predictions: a residual that starts at zero.

    As for a `TemporalHead`, frames with `valid` False must influence nothing, and the output there is zero. A `TemporalHead` may
    stand in a refiner's place: it then reads the predictions alone.

    Attributes:
        causal: True if the output at t depends on frames up to t only.
        context: frames that can matter before and after t; None for the whole clip.
        identity: False where an untrained refiner does not hand the predictions on unchanged, since its paper has it otherwise
            (`LSTMPoseMachine`); an arm with it does not start as the others do.
    """

    causal: bool = False
    context: tuple[int | None, int | None] = (None, None)
    identity: bool = True

    def build(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> None:
        """Makes the layers. Called once, by the network.

        Args:
            spec: of the features.
            predicted: channels and stride of the predictions: K heatmaps, or 2 K numbers.
            joints: K.
        """
        raise NotImplementedError

    def forward(self, encoded: Encoded, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Encoded:
        """Entries of `encoded` are (B, T, ...), as those of the result are."""
        raise NotImplementedError

    def init_state(self, encoded: Encoded, features: Float[Tensor, "B C h w"]) -> State:
        """The state before the first frame, for predictions and features of this shape (causal refiners)."""
        raise NotImplementedError(f"{type(self).__name__} is not causal: it cannot run frame by frame")

    def step(self, encoded: Encoded, features: Float[Tensor, "B C h w"], state: State) -> tuple[Encoded, State]:
        """One frame: equals `forward` over the sequence, frame by frame (causal refiners)."""
        raise NotImplementedError(f"{type(self).__name__} is not causal: it cannot run frame by frame")


class PoseDecoder(Part):
    """Features of single frames to what the codec decodes, in one stage or in several, each better than the one before.

    Attributes:
        pooled: True if it reads (N, C, 1, 1): the network then averages over the map before the `pool` slot.
    """

    pooled: bool = False

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        """Makes the layers for features of this size, K joints and crops of (width, height). Called once."""
        raise NotImplementedError

    def forward(self, features: Float[Tensor, "N C h w"]) -> Encoded | list[Encoded]:
        """The predictions; those of several stages, all of which are supervised, as a list whose last one counts.

        A stage before it may hold some of the entries only, where the loss takes it so.
        """
        raise NotImplementedError


@runtime_checkable
class PoseModel(Protocol):
    """Anything that turns a clip batch into predictions; `PoseNetwork` is the usual one.

    `forward` returns one Encoded per supervised stage (the last one counts), each with N = select.sum() rows in row-major
    order of the (B, T) mask.
    """

    def __call__(self, batch: ClipBatch, select: Bool[Tensor, "B T"]) -> list[Encoded]: ...


def as_stages(predicted: Encoded | list[Encoded]) -> list[Encoded]:
    """What a decoder predicts as a list of stages; the last one counts."""
    return predicted if isinstance(predicted, list) else [predicted]


def flat(features: Float[Tensor, "B T C h w"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "N C h w"]:
    """The frames under the mask, row-major."""
    return features[mask]


def unflat(rows: Float[Tensor, "N C h w"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C h w"]:
    """The inverse of `flat`, zeros elsewhere."""
    out = rows.new_zeros((*mask.shape, *rows.shape[1:]))
    out[mask] = rows
    return out


@contextlib.contextmanager
def uncompiled(model: object) -> Iterator[None]:
    """A compiled model's parts run as they are written while the block runs.

    Without gradients they would be compiled once more, and their numbers differ from the plain ones in the last digits.
    """
    if not getattr(model, "compiled", False):  # else seconds are spent on importing the compiler
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


__all__ = [
    "Backbone", "Part", "PoseDecoder", "PoseModel", "Refiner", "State", "TemporalHead", "as_stages", "flat", "plain",
    "uncompiled", "unflat",
]  # fmt: skip
