"""`bipose import-weights`: a published checkpoint as a safetensors file of our parts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.published.checkpoint import Checkpoint, read_checkpoint
from bipose_lit.published.fit import Fitted, check_pictures, fit
from bipose_lit.published.networks import Target, configured, identify
from bipose_lit.published.sources import SOURCES, Renamed, fewest_unknown
from bipose_lit.store import atomic
from bipose_lit.types import BiposeError

_SUFFIXES = (".safetensors", ".tar", ".pth", ".pt", ".bin", ".ckpt")
_DATA = {17: "experiments/data/coco.yaml", 16: "experiments/data/mpii.yaml", 15: "experiments/data/jhmdb.yaml"}
"""The usual data by number of joints."""


def import_weights(
    path: Path, source: str, out: Path | None = None, config: Mapping[str, Any] | None = None
) -> list[str]:
    """Writes a checkpoint's weights as `model.weights` takes them.

    Beside OUT.safetensors lie OUT.json, which tells what it was made of, and OUT.yaml, an overlay that makes the network and
    starts it from the weights.

    Args:
        path: the checkpoint.
        source: a key of `SOURCES`.
        out: the safetensors file; None: the checkpoint's name beside it.
        config: a composed configuration whose backbone and decoder the weights are for; None: those that the tensors tell.

    Returns:
        What was done, in lines.

    Raises:
        BiposeError: no checkpoint, or one that does not fill the network exactly; nothing is written then.
    """
    law = SOURCES[source]
    out = out or _beside(path)
    if out.resolve() == path.resolve():
        raise BiposeError(f"{out} is the checkpoint itself; give another --out")
    checkpoint = read_checkpoint(path, law.averaged)
    found = law.rename(checkpoint.tensors)
    where = f"{path} (--from {source})"
    if found.unknown and len(found.unknown) * 2 > len(checkpoint.tensors):
        raise BiposeError(f"{where}: {_strange(checkpoint, found, source)}")
    try:
        target = identify(found, law) if config is None else configured(config, law)
        backbone, wanted = target.build()
        check_pictures(found.pictures, backbone)
    except BiposeError as error:
        raise BiposeError(f"{where}: {error}") from error
    try:
        fitted = fit(found, backbone, wanted)
    except BiposeError as error:
        raise BiposeError(f"{where} does not fit {target.about}: {error}") from error
    _write(out, checkpoint, source, target, fitted)
    return _told(out, checkpoint, target, fitted)


def _beside(path: Path) -> Path:
    name = path.name
    while Path(name).suffix in _SUFFIXES:
        name = Path(name).stem
    plain = path.with_name(f"{name}.safetensors")
    return path.with_name(f"{name}-bipose.safetensors") if plain == path else plain


def _strange(checkpoint: Checkpoint, found: Renamed, source: str) -> str:
    """Of a file in which most names are unknown."""
    other = fewest_unknown(checkpoint.tensors, source)
    hint = f"; did you mean --from {other}?" if other else f"; known are {', '.join(SOURCES)}"
    return f"{len(found.unknown)} of {len(checkpoint.tensors)} names are not its own, such as {found.unknown[0]}{hint}"


def _overlay(out: Path, target: Target) -> dict[str, Any]:
    model: dict[str, Any] = {"backbone": dict(target.backbone)}
    if target.decoder is not None:
        model |= {"decoder": dict(target.decoder), "joints": target.joints}
    if target.codec:
        path = f"{HeatmapCodec.__module__}.{HeatmapCodec.__qualname__}"
        model["codec"] = {"class_path": path, "init_args": dict(target.codec)}
    return {"model": {**model, "weights": str(out.resolve()), "weights_for": list(target.parts)}}


def _write(out: Path, checkpoint: Checkpoint, source: str, target: Target, fitted: Fitted) -> None:
    about = {
        "made_from": {
            "file": checkpoint.path.name,
            "sha256": checkpoint.sha256,
            "source": source,
            "notes": list(checkpoint.notes),
        },
        "network": target.about,
        "parts": list(target.parts),
        "tensors": len(fitted.tensors),
        "numbers": sum(t.numel() for t in fitted.tensors.values()),
        "dropped": fitted.dropped,
        "filled_counters": fitted.filled,
        "resampled": fitted.resampled,
        "model": _overlay(out, target)["model"],
        "versions": {"torch": str(torch.__version__)},
    }
    del about["model"]["weights"]
    out.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = dict(sorted(fitted.tensors.items()))
    with atomic(out, "wb") as handle:
        handle.write(save(tensors, metadata={"made_from": checkpoint.sha256, "source": source}))
    with atomic(out.with_suffix(".json")) as handle:
        json.dump(about, handle, indent=1)
        handle.write("\n")
    with atomic(out.with_suffix(".yaml")) as handle:
        handle.write(f"# {target.about}, from {checkpoint.path.name} by 'bipose import-weights --from {source}'.\n")
        yaml.safe_dump(_overlay(out, target), handle, sort_keys=False)


def _told(out: Path, checkpoint: Checkpoint, target: Target, fitted: Fitted) -> list[str]:
    lines = [f"{checkpoint.path}: {target.about}"]
    lines += [f"  {note}" for note in checkpoint.notes]
    lines += [f"  resampled: {text}" for text in fitted.resampled]
    if fitted.filled:
        lines.append(f"  {fitted.filled} counters of batches start at 0: the file is of a time before there were any")
    if fitted.dropped:
        lines.append(f"  dropped: {_dropped(fitted.dropped)}")
    size = out.stat().st_size / 1e6
    lines.append(f"{out}: {', '.join(target.parts)}; {len(fitted.tensors)} tensors, {size:.1f} MB")
    data = _DATA.get(target.joints)
    files = ["experiments/base.yaml", *([data] if data else []), str(out.with_suffix(".yaml"))]
    lines.append(f"goes with: {' '.join(f'-c {file}' for file in files)}")
    return lines


def _dropped(dropped: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, why in dropped.items():
        by_reason.setdefault(why, []).append(name)
    return "; ".join(f"{_few(names)} ({why})" for why, names in by_reason.items())


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
