"""`bipose doctor`: what is installed, reachable and missing, and what to do about it."""

from __future__ import annotations

import io
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("torch", "torchvision", "lightning", "timm", "numpy", "opencv-python-headless", "av", "optuna", "wandb")


class Finding(NamedTuple):
    """One line of the report: `ok` is None for what is for information only."""

    name: str
    ok: bool | None
    text: str


def examine() -> Iterator[Finding]:
    """Looks at one thing after the other; none of them reaches out to a network."""
    yield Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}")
    for name in PACKAGES:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            yield Finding(name, False, "missing: install the package's dependencies again")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", None, f"{cores} usable: bipose ablate starts as many runs side by side")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Finding("disk", free > 5, f"{free:.1f} GB free here" + ("" if free > 5 else ": feature caches want more"))
    for name, check in (("device", _device), ("video", _video), ("W&B", _wandb), ("real data", _real_data)):
        yield _safely(name, check)


def _safely(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken library is a finding, not the end of the examination
        lines = str(error).splitlines()
        return Finding(name, False, f"{type(error).__name__}: {lines[0] if lines else ''}")


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("device", None, f"CPU alone, {torch.get_num_threads()} threads by default; torch sees no GPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("device", True, ", ".join(names))


def _video() -> Finding:
    """Writes and reads two H.264 frames in memory with what the wheels bring; no ffmpeg has to be installed."""
    import av
    import numpy as np

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (0, 200):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        levels = [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    good = len(levels) == 2 and levels[0] < 20 < 180 < levels[1]
    return Finding(
        "video", good, "H.264 is written and read back" if good else "H.264 does not come back: reinstall av"
    )


def _wandb() -> Finding:
    from bipose_lit.tracking import resolve_mode

    mode = resolve_mode("auto")
    words = {
        "online": "logged in: results are mirrored to your account",
        "offline": "not logged in: results stay in the runs' folders ('wandb login' to mirror, --no-wandb for none)",
        "disabled": "disabled by WANDB_MODE: nothing is mirrored",
    }
    return Finding("W&B", None, words.get(mode, mode))


def _real_data() -> Finding:
    folder = os.environ.get("BIPOSE_REAL_DATA", "")
    if not folder:
        return Finding(
            "real data", None, "BIPOSE_REAL_DATA is unset: set it to a folder of real data sets to test readers on"
        )
    if not Path(folder).is_dir():
        return Finding("real data", False, f"BIPOSE_REAL_DATA={folder} is no folder: correct or unset it")
    names = sorted(p.name for p in Path(folder).iterdir() if p.is_dir())
    return Finding("real data", True, f"{folder}: {', '.join(names) or 'empty'}")


def main() -> int:
    """Prints the findings as they come; 1 if something is wrong."""
    bad = 0
    for finding in examine():
        sign = {True: "ok", False: "WRONG", None: "-"}[finding.ok]
        print(f"{finding.name:24} {sign:6} {finding.text}", flush=True)
        bad += finding.ok is False
    print(f"{bad} to mend" if bad else "all is well")
    return 1 if bad else 0
