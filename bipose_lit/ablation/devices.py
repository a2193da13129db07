"""Which devices there are, how many one run takes, and which of them a worker may use. CUDA is never touched here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bipose_lit.types import BiposeError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, found without touching CUDA."""
    visible = os.environ.get(VISIBLE)
    if visible is not None:
        return tuple(d.strip() for d in visible.split(",") if d.strip() and d.strip() != "-1")
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(found.stdout.split()) if found.returncode == 0 else ()


def choose(asked: str | None) -> tuple[str, ...]:
    """The GPUs that `--devices` names: "auto" or None: all; "cpu": none; a number: so many; a list such as "0,2" or "0,": these.

    Raises:
        BiposeError: more than there are, or ones that are not there.
    """
    if asked == "cpu":
        return ()
    here = gpus()
    if asked is None or asked == "auto":
        return here
    names = [part.strip() for part in asked.split(",") if part.strip()]
    if not names or not all(n.isdigit() or n in here for n in names):
        raise BiposeError(f"--devices {asked}: write auto, cpu, a number of GPUs (4), or a list of them (0,1 or 0,)")
    if "," not in asked and asked.isdigit():
        number = int(asked)
        if number < 1:
            raise BiposeError(f"--devices {asked}: at least one GPU is needed; write cpu to use none")
        if number > len(here):
            raise BiposeError(f"--devices {asked}: only {len(here)} GPUs are visible ({', '.join(here) or 'none'})")
        return here[:number]
    absent = [n for n in names if n not in here]
    if absent:
        raise BiposeError(f"--devices {asked}: there is no GPU {absent[0]}; visible: {', '.join(here) or 'none'}")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise BiposeError(f"--devices {asked}: GPU {twice[0]} is named twice")
    return tuple(names)


def needs_command(config: Mapping[str, Any], gpus: bool) -> bool:
    """Whether a run starts as a fresh command: GPU runs, and runs of several processes."""
    trainer = config.get("trainer") or {}
    accelerator = str(trainer.get("accelerator") or "auto")
    return device_count(config) > 1 or (gpus if accelerator == "auto" else accelerator != "cpu")


def device_count(config: Mapping[str, Any]) -> int:
    """Devices (processes) of one run; 1 where its Trainer decides."""
    trainer = config.get("trainer") or {}
    devices = trainer.get("devices")
    nodes = int(trainer.get("num_nodes") or 1)
    if isinstance(devices, list):
        return len(devices) * nodes
    if isinstance(devices, str) and "," in devices:
        return len([d for d in devices.split(",") if d.strip()]) * nodes
    try:
        return max(1, int(devices)) * nodes  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return nodes


def check_names(configs: Iterable[Mapping[str, Any]], asked: str | None = None) -> None:
    """Refuses GPUs by number in a configuration: each worker sees its share of them alone, counted from 0.

    Args:
        configs: of the runs.
        asked: as `--devices` gives it; with "cpu" there are none to share out.

    Raises:
        BiposeError: one names others than the first.
    """
    for config in configs:
        trainer = config.get("trainer") or {}
        devices = trainer.get("devices")
        if asked == "cpu" or trainer.get("accelerator") == "cpu":
            continue
        if isinstance(devices, str) and "," in devices:
            devices = [part for part in devices.split(",") if part.strip()]
        if not isinstance(devices, list):
            continue
        numbers = [int(d) for d in devices if str(d).strip().lstrip("-").isdigit()]
        if numbers not in (list(range(len(devices))), [-1]):
            raise BiposeError(
                f"trainer.devices names GPUs ({', '.join(map(str, devices))}), but workers share them out: write how many a run "
                f"takes ({len(devices)}), and --devices {','.join(map(str, devices))}{',' if len(devices) == 1 else ''}"
            )


def share(devices: Sequence[str], each: int, slot: int) -> tuple[str, ...]:
    """The GPUs of the worker in `slot` where a run takes `each`; workers beyond the last share start anew with the first."""
    shares = max(1, len(devices) // each)
    first = (slot % shares) * each
    return tuple(devices[first : first + each])


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
