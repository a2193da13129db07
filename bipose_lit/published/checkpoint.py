"""The tensors of a checkpoint file; nothing that it pickles is run."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from bipose_lit.types import BiposeError
from bipose_lit.weights import read

_WRAPPED: Final = ("state_dict", "model_state_dict", "model")
"""Under which name training codes keep the weights."""
_AVERAGED: Final = ("state_dict_ema", "model_ema")
"""The same, averaged over time; timm's own loader prefers it."""
_WRAPPERS: Final = ("module.", "model.")
"""What training codes and wrappers for several devices put before every name."""
_SAID: Final = "WeightsUnpickler error:"
_GLOBAL: Final = re.compile(r"GLOBAL\s+([\w.]+)")


class _Inert:
    """Stands where a pickle names something that weights do not need: takes everything and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_HARMLESS: Final = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy.ndarray",
    "numpy.dtype",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # how the former's state names its methods
)
"""What checkpoints of mmpose and mmengine hold beside weights. It is read over: `_Inert` takes the place of every one."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: the file.
        sha256: of the file.
        tensors: by name, without what stands before every one (`_WRAPPERS`).
        notes: what else a reader should know.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, averaged: bool = False) -> Checkpoint:
    """Reads a safetensors file, or what `torch.save` wrote, in its zip format and in the one before PyTorch 1.6.

    Pickles are read by PyTorch's restricted reader, which makes tensors and plain containers alone and refuses whatever else
    a file asks for; a few names that published files have beside their weights (`_HARMLESS`) stand for nothing.

    Args:
        path: the file.
        averaged: of weights and their average over time, take the average.

    Raises:
        BiposeError: no such file, no checkpoint, one that asks for more than weights need, or one without weights.
    """
    if not path.is_file():
        raise BiposeError(f"{path} {'is a folder' if path.is_dir() else 'not found'}; give the file of a checkpoint")
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    content = read(path) if path.suffix == ".safetensors" else _load(path)
    notes: list[str] = []
    tensors = _unwrapped(content, path, averaged, notes)
    while wrapper := next((w for w in _WRAPPERS if tensors and all(name.startswith(w) for name in tensors)), ""):
        tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return Checkpoint(path, digest, tensors, tuple(notes))


def _load(path: Path) -> Any:
    inert: list[Any] = [(_Inert, name) for name in _HARMLESS]
    try:
        with torch.serialization.safe_globals(inert), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes PyTorch raise
        asked = _GLOBAL.search(str(error))
        if asked:
            raise BiposeError(
                f"{path} asks for {asked[1]}, which weights do not need; refused, and nothing of it was run. If it is the right "
                "file, load it with the program that wrote it and save its state_dict alone"
            ) from error
        raise BiposeError(f"{path} is no checkpoint that can be read ({_reason(error)}); download it again") from error


def _reason(error: Exception) -> str:
    """What PyTorch says in the line that matters."""
    said = str(error).rpartition(_SAID)[2]
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:160]


def _unwrapped(content: Any, path: Path, averaged: bool, notes: list[str]) -> dict[str, Tensor]:
    """The mapping of names to tensors in what a file holds."""
    if not isinstance(content, Mapping):
        raise BiposeError(f"{path} holds a {type(content).__name__}, not named tensors; it is no checkpoint of weights")
    inner = (*_AVERAGED, *_WRAPPED) if averaged else _WRAPPED
    for name in inner:
        if isinstance(content.get(name), Mapping):
            if name in _AVERAGED:
                notes.append(f"{name}: the weights averaged over training")
            elif "ema_state_dict" in content:  # mmengine's EMAHook exchanges the two when it saves
                notes.append("state_dict: the weights averaged over training, as mmengine keeps them there")
            content = content[name]
            break
    other = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if other or not content:
        told = f"{other[0]!r} in it is no tensor" if content else "it is empty"
        raise BiposeError(f"{path} holds no plain weights ({told}); give a checkpoint that has a state_dict")
    bad = [str(k) for k, v in content.items() if v.layout != torch.strided or v.is_quantized]
    if bad:
        raise BiposeError(f"{path}: {bad[0]} is sparse or quantised; give a checkpoint of plain weights")
    return {str(k): v.detach() for k, v in content.items()}
