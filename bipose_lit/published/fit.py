"""A renamed checkpoint against the network it is for: every tensor of either has its place, or all of it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.base import Backbone
from bipose_lit.published.sources import Pictures, Renamed, grid_of, resampled
from bipose_lit.types import BiposeError

_WRAPPERS = ("backbone.net.model.", "backbone.net.body.", "backbone.net.", "backbone.")
_COUNTER = "num_batches_tracked"
_SHOWN = 6


@dataclass
class Fitted:
    """Weights that fill a network.

    Attributes:
        tensors: by the network's own names.
        dropped: the file's name -> why it is left out.
        filled: of the network's tensors, how many counters of batches the file lacks (before PyTorch 0.4.1 there were none): 0.
        resampled: what was made for another grid of patches, in words.
        notes: what else was changed, in words.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    filled: int = 0
    resampled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def fit(found: Renamed, backbone: Backbone, wanted: Mapping[str, Tensor]) -> Fitted:
    """The file's tensors in the places of the network's.

    Args:
        found: the file in our naming.
        backbone: of the network.
        wanted: all tensors of the network's parts.

    Raises:
        BiposeError: any that is missing, left over or of another shape; lists them.
    """
    result = Fitted(dropped=dict(found.dropped))
    places = {_bare(name): name for name in wanted}
    assert len(places) == len(wanted), "two tensors of one bare name"
    known = _whole(backbone)
    left = list(found.unknown)
    wrong: list[str] = []
    given = _without_class_token(found, places, result)
    for name, tensor in given.items():
        place, bare = places.get(_bare(name)), _bare(name)
        if place is None:
            if bare not in known:
                left.append(found.origin[name])
            else:
                result.dropped[found.origin[name]] = "a layer past the map, or the classifier"
            continue
        own = wanted[place]
        if tensor.shape != own.shape and bare.endswith("pos_embed"):
            tensor = _other_grid(tensor, backbone, own, found.origin[name], result)
        if tensor.shape != own.shape:
            wrong.append(f"{found.origin[name]} is {list(tensor.shape)}, not {list(own.shape)}")
        elif tensor.is_floating_point() != own.is_floating_point():
            wrong.append(f"{found.origin[name]} is of type {tensor.dtype}, not {own.dtype}")
        else:
            result.tensors[place] = tensor.to(own.dtype).clone(memory_format=torch.contiguous_format)
    have = {_bare(name) for name in given}
    missing = [name for bare, name in places.items() if bare not in have]
    if not any(name.endswith(_COUNTER) for name in given):
        counters = [name for name in missing if name.endswith(_COUNTER)]
        result.tensors |= {name: torch.zeros_like(wanted[name]) for name in counters}
        result.filled, missing = len(counters), [name for name in missing if name not in result.tensors]
    faults = (("missing", missing), ("left over", left), ("wrong shape", wrong))
    told = "; ".join(f"{what}: {_listed(names)}" for what, names in faults if names)
    if told:
        raise BiposeError(told)
    return result


def check_pictures(pictures: Pictures | None, backbone: Backbone) -> None:
    """Refuses a backbone that would see other colours than the weights were trained on.

    Raises:
        BiposeError: says which.
    """
    if pictures is None:
        return
    usual = Pictures()
    bgr = bool(getattr(backbone, "bgr", False))
    if bgr != pictures.bgr:
        raise BiposeError(
            f"these weights were trained on {'BGR' if pictures.bgr else 'RGB'} pictures; set model.backbone.init_args.bgr to "
            f"{'true' if pictures.bgr else 'false'}"
        )
    step = -1 if bgr else 1  # a backbone's own are of RGB pictures
    own = tuple(tuple(getattr(backbone, n, getattr(usual, n)[::step]))[::step] for n in ("mean", "std"))
    if not np.allclose(own, (pictures.mean, pictures.std), atol=1e-4):
        raise BiposeError(
            f"these weights were trained on pictures of mean {pictures.mean} and deviation {pictures.std}, but the backbone has "
            f"{own[0]} and {own[1]}; set them where it has such options, or choose a model with the same (of timm's ViTs "
            "NAME.mae or deit_... have ImageNet's)"
        )


def _without_class_token(found: Renamed, places: Mapping[str, str], result: Fitted) -> dict[str, Tensor]:
    """The file's tensors without a class token, and without its row of the position embeddings, where the network has none.

    The row belongs to that token alone: mmpretrain, and so mmpose's ViTPose, cuts it off. (ViTPose's own code adds it to all
    others; a masked autoencoder's is zero.)
    """
    given, token, rows = dict(found.tensors), "backbone.cls_token", "backbone.pos_embed"
    if token not in given or _bare(token) in places or _bare(rows) not in places:
        return given
    del given[token]
    result.dropped[found.origin[token]] = "the network has no class token"
    if rows in given and given[rows].ndim == 3 and grid_of(given[rows].shape[1] - 1):
        given[rows] = given[rows][:, 1:]
        result.notes.append(
            f"{found.origin[rows]}: the class token's row is cut off, as mmpretrain does, not added to all others"
        )
    return given


def _other_grid(rows: Tensor, backbone: Backbone, own: Tensor, origin: str, result: Fitted) -> Tensor:
    """Position embeddings for the network's crops, as timm makes them of its own; as they are where that cannot be."""
    extra = int(any(name.endswith("cls_token") for name, _ in backbone.named_parameters()))
    before = grid_of(rows.shape[1] - extra) if rows.ndim == 3 and rows.shape[2:] == own.shape[2:] else None
    size = getattr(backbone, "arguments", {}).get("img_size")
    if isinstance(size, int) or backbone.fixed_size is not None:
        size = (size, size) if backbone.fixed_size is None else backbone.fixed_size[::-1]
    if before is None or not isinstance(size, list | tuple):
        return rows
    after = size[0] // backbone.spec.stride, size[1] // backbone.spec.stride
    if extra + after[0] * after[1] != own.shape[1]:
        return rows
    result.resampled.append(f"{origin}: {before[0]}x{before[1]} -> {after[0]}x{after[1]} patches")
    return resampled(rows, extra, before, after)


def _whole(backbone: Backbone) -> set[str]:
    """What a file of the backbone's whole model has, by bare names."""
    return (
        {_bare(f"backbone.{name}") for name in backbone.whole_names()} if isinstance(backbone, TimmBackbone) else set()
    )


def _bare(name: str) -> str:
    """A name without what timm's feature nets wrap models in; they also call `stages.0` `stages_0`."""
    prefix = next((p for p in _WRAPPERS if name.startswith(p)), None)
    if prefix is None:
        return name
    return name.removeprefix(prefix).replace(".", "_")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
