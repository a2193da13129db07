"""`bipose import-weights`: a published checkpoint as a safetensors file of our parts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from bipose_lit.published.checkpoint import Checkpoint, read_checkpoint
from bipose_lit.published.files import MARK, beside, check_files
from bipose_lit.published.fit import Fitted, check_pictures, fit
from bipose_lit.published.networks import Target, configured, identify
from bipose_lit.published.sources import SOURCES, Renamed, fewest_unknown
from bipose_lit.store import atomic
from bipose_lit.types import BiposeError

_BASE = "experiments/base.yaml"
_DATA = {17: "experiments/data/coco.yaml", 16: "experiments/data/mpii.yaml", 15: "experiments/data/jhmdb.yaml"}
"""The usual data by number of joints."""
_DECODERS = {16: "experiments/decoder/vitpose.yaml", 4: "experiments/decoder/linear.yaml"}
"""To maps of stride 4, from a backbone's own; the base's own decoder does it from 32."""


def import_weights(
    path: Path,
    source: str,
    out: Path | None = None,
    config: Mapping[str, Any] | None = None,
    files: Sequence[Path] = (),
) -> list[str]:
    """Writes a checkpoint's weights as `model.weights` takes them.

    Beside OUT.safetensors lie OUT.json, which tells what it was made of, and OUT.yaml, an overlay that makes the network and
    starts it from the weights. Such files of an earlier run are replaced, others never.

    Args:
        path: the checkpoint.
        source: a key of `SOURCES`.
        out: the safetensors file; None: the checkpoint's name beside it.
        config: a composed configuration whose backbone and decoder the weights are for; None: those that the tensors tell.
        files: of which it was composed.

    Returns:
        What was done, in lines.

    Raises:
        BiposeError: no checkpoint, one that does not fill the network exactly, or files that would be lost; nothing is written
            then.
    """
    law = SOURCES[source]
    out = out or beside(path)
    check_files(out, path, files)
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
    if backbone.fixed_size is not None:
        target = replace(target, size=backbone.fixed_size, sized=True)
    _write(out, checkpoint, source, target, fitted)
    return _told(out, checkpoint, target, fitted) + _goes_with(out, target, backbone.spec.stride, files)


def _strange(checkpoint: Checkpoint, found: Renamed, source: str) -> str:
    """Of a file in which most names are unknown."""
    other = fewest_unknown(checkpoint.tensors, source)
    hint = f"; did you mean --from {other}?" if other else f"; known are {', '.join(SOURCES)}"
    return f"{len(found.unknown)} of {len(checkpoint.tensors)} names are not its own, such as {found.unknown[0]}{hint}"


def _overlay(out: Path, target: Target) -> dict[str, Any]:
    model: dict[str, Any] = {"backbone": dict(target.backbone)}
    if target.decoder is not None:
        model |= {"decoder": dict(target.decoder), "joints": target.joints}
    model |= {name: dict(part) for name in ("codec", "loss") if (part := getattr(target, name)) is not None}
    model |= {"weights": str(out.resolve()), "weights_for": list(target.parts)}
    return {"model": model, "data": {"size": list(target.size)}} if target.sized else {"model": model}


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
        "notes": fitted.notes,
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
        handle.write(f"# {target.about}, from {checkpoint.path.name} {MARK} --from {source}'.\n")
        yaml.safe_dump(_overlay(out, target), handle, sort_keys=False)


def _told(out: Path, checkpoint: Checkpoint, target: Target, fitted: Fitted) -> list[str]:
    lines = [f"{checkpoint.path}: {target.about}"]
    lines += [f"  {note}" for note in checkpoint.notes]
    lines += [f"  {note}" for note in fitted.notes]
    lines += [f"  resampled: {text}" for text in fitted.resampled]
    if fitted.filled:
        lines.append(f"  {fitted.filled} counters of batches start at 0: the file is of a time before there were any")
    if fitted.dropped:
        lines.append(f"  dropped: {_dropped(fitted.dropped)}")
    size = out.stat().st_size / 1e6
    lines.append(f"{out}: {', '.join(target.parts)}; {len(fitted.tensors)} tensors, {size:.1f} MB")
    return lines


def _goes_with(out: Path, target: Target, stride: int, files: Sequence[Path]) -> list[str]:
    """The configuration files that make the network, the overlay last."""
    overlay = str(out.with_suffix(".yaml"))
    if target.configured:
        told = " ".join(f"-c {file}" for file in files) or "the configuration it was made for, then"
        return [f"goes with: {told} -c {overlay}"]
    if target.decoder is None:
        more, what = _DECODERS.get(stride), ""
    elif target.joints in _DATA:
        more, what = _DATA[target.joints], ""
    else:
        more = "DATA"
        what = f", where DATA names data of {target.joints} joints (data.reader and model.codec.init_args.skeleton)"
    told = " ".join(f"-c {file}" for file in (_BASE, more, overlay) if file)
    return [*(f"  {line}" for line in target.said), f"goes with: {told}{what}"]


def _dropped(dropped: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, why in dropped.items():
        by_reason.setdefault(why, []).append(name)
    return "; ".join(f"{_few(names)} ({why})" for why, names in by_reason.items())


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
