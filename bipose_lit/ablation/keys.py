"""What tells runs apart that share data or features: hashes of the parts of their configurations that decide it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bipose_lit.store import config_hash, innermost

SHARED = ("backbone", "size", "joints", "weights", "weights_for")
"""Options of the model that decide what a frozen backbone's features are."""


def data_key(config: Mapping[str, Any]) -> str:
    """Equal for configurations that read the same data from the same folders."""
    return config_hash({"data": _unseeded(config), "roots": _roots(config)})


def shared_key(config: Mapping[str, Any]) -> str:
    """Equal for runs that can share cached features."""
    model = config.get("model") or {}
    shared = {k: model.get(k) for k in SHARED}
    return config_hash({"data": _unseeded(config), "model": shared, "roots": _roots(config)})


def _unseeded(config: Mapping[str, Any]) -> Any:
    """The data's configuration without the run's seed, which changes neither files nor cached views."""
    data = config.get("data")
    return {k: v for k, v in data.items() if k != "seed"} if isinstance(data, Mapping) else data


def _roots(config: Mapping[str, Any]) -> dict[str, str]:
    """The folders of the readers; hashes leave places out, but what lies in two folders need not be equal."""
    data = config.get("data")
    found: dict[str, str] = {}
    for name in ("reader", "train_reader"):
        arguments = innermost(data.get(name) if isinstance(data, Mapping) else None).get("init_args")
        root = arguments.get("root") if isinstance(arguments, Mapping) else None
        found[name] = os.path.abspath(str(root)) if root else ""
    return found
