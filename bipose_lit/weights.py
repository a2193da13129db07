"""Weights of a network's parts as safetensors files: no pickles, and every name must match."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bipose_lit.store import CONFIG, WEIGHTS, RunResult, atomic
from bipose_lit.types import BiposeError


def save_parts(
    network: nn.Module,
    path: Path,
    parts: Iterable[str] = ("backbone", "decoder"),
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes the named sub-modules of a network; floating-point tensors in `dtype` if given (half the file at float16)."""
    chosen = {k: v.detach().cpu() for k, v in network.state_dict().items() if k.split(".")[0] in set(parts)}
    if dtype is not None:
        chosen = {k: v.to(dtype) if v.is_floating_point() else v for k, v in chosen.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in chosen.items()}, str(path), metadata=dict(metadata or {}))
    path.chmod(0o644)  # safetensors writes for the owner alone


def load_parts(network: nn.Module, path: Path, parts: Iterable[str] = ("backbone", "decoder")) -> None:
    """Loads what `save_parts` wrote into the same sub-modules.

    Args:
        network: what is loaded into.
        path: the file.
        parts: names of parts, or of layers of a part ("decoder.layers": all but the last convolution, for another set of joints).

    Raises:
        BiposeError: a missing or damaged file, any tensor that is missing, left over or of another shape, or no such layers.
    """
    wanted = set(parts)
    for layers in sorted(p for p in wanted if "." in p):
        _check_layers(network, layers)
    tensors = {k: v for k, v in read(path).items() if _within(k, wanted)}
    own = {k: v for k, v in network.state_dict().items() if _within(k, wanted)}
    wrong = sorted(set(own) ^ set(tensors)) + sorted(
        k for k in set(own) & set(tensors) if own[k].shape != tensors[k].shape
    )
    if wrong or not own:
        shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise BiposeError(
            f"weights {path} do not fit the model's {sorted(wanted)}: {shown or 'no such part'}; "
            "use the backbone and decoder they were trained with, or name the fitting parts in model.weights_for"
        )
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()}, strict=False)


def _within(name: str, parts: Iterable[str]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)


def _check_layers(network: nn.Module, layers: str) -> None:
    parent, _, last = layers.rpartition(".")
    try:
        network.get_submodule(layers)
    except AttributeError:
        try:
            known = ", ".join(n for n, _ in network.get_submodule(parent).named_children())
        except AttributeError:
            known = ""
        raise BiposeError(
            f"model.weights_for: {layers}: {parent} has no layers {last!r}{f'; it has {known}' if known else ''}"
        ) from None


def export(run: Path, out: Path, parts: Sequence[str] = ("backbone", "decoder"), dtype: str = "float16") -> str:
    """Writes the weights of a finished run's parts as one file, with the run's configuration and figures beside it.

    Args:
        run: the run's folder.
        out: the safetensors file; OUT.json tells what made it.
        parts: which parts.
        dtype: "float16" or "float32".

    Returns:
        What was written, in a line.

    Raises:
        BiposeError: the run is not finished, or lacks a part.
    """
    result = RunResult.load(run)
    if result is None or result.status != "finished":
        raise BiposeError(f"{run} is no finished run; give the folder that holds result.json and {WEIGHTS}")
    tensors = {k: v for k, v in read(run / WEIGHTS).items() if k.split(".")[0] in parts}
    missing = sorted(set(parts) - {k.split(".")[0] for k in tensors})
    if missing:
        raise BiposeError(f"{run / WEIGHTS} has no {', '.join(missing)}; it has {_parts(run)}")
    kind = getattr(torch, dtype)
    kept = {k: (v.to(kind) if v.is_floating_point() else v).contiguous() for k, v in tensors.items()}
    digest = hashlib.sha256(b"".join(k.encode() + _bytes(v) for k, v in sorted(kept.items()))).hexdigest()
    about = {
        "made_by": {"name": result.name, "arm": result.arm, "seed": result.seed, "commit": result.commit},
        "parts": list(parts),
        "dtype": dtype,
        "sha256": digest,
        "facts": result.facts,
        "metrics": {
            k: v for k, v in result.metrics.items() if k.startswith(("test/pck", "test/auc")) and k.count("/") <= 2
        },
        "versions": result.versions,
        "config": yaml.safe_load((run / CONFIG).read_text()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, str(out), metadata={"sha256": digest})
    out.chmod(0o644)
    with atomic(out.with_suffix(".json")) as handle:
        json.dump(about, handle, indent=1)
        handle.write("\n")
    return f"{out}: {', '.join(parts)}, {out.stat().st_size / 1e6:.1f} MB"


def _parts(run: Path) -> str:
    return ", ".join(sorted({k.split(".")[0] for k in read(run / WEIGHTS)}))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; BiposeError if it is missing or damaged."""
    if not path.is_file():
        raise BiposeError(f"weights {path} not found; give the path of a safetensors file in model.weights")
    try:
        tensors: dict[str, Tensor] = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise BiposeError(f"weights {path} cannot be read ({error}); fetch or make the file again") from error
    return tensors


def fingerprint(module: nn.Module) -> str:
    """sha256 over names, types, shapes and bytes of a module's parameters and buffers, in name order."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
