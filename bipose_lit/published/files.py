"""The three files of `bipose import-weights`, and whose files they would replace."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from bipose_lit.types import BiposeError

_SUFFIXES: Final = (".safetensors", ".tar", ".pth", ".pt", ".bin", ".ckpt")
MARK: Final = "by 'bipose import-weights"
"""What the first line of every overlay holds."""


def beside(path: Path) -> Path:
    """The file of weights where none is named: the checkpoint's name beside it."""
    name = path.name
    while Path(name).suffix in _SUFFIXES:
        name = Path(name).stem
    plain = path.with_name(f"{name}.safetensors")
    return path.with_name(f"{name}-bipose.safetensors") if plain == path else plain


def check_files(out: Path, checkpoint: Path, configs: Sequence[Path] = ()) -> None:
    """Refuses names under which somebody else's file would be lost; files that the command itself made may be replaced.

    Args:
        out: the file of weights; .json and .yaml lie beside it.
        checkpoint: what is read.
        configs: configuration files that are read.

    Raises:
        BiposeError: another suffix than .safetensors, or a file that would be lost.
    """
    if out.suffix != ".safetensors":
        raise BiposeError(f"--out {out} must end in .safetensors (.json and .yaml of that name are written beside it)")
    if out.resolve() == checkpoint.resolve():
        raise BiposeError(f"{out} is the checkpoint itself; give another --out")
    given = {path.resolve() for path in configs}
    lost = []
    for suffix, ours in _OURS.items():
        path = out.with_suffix(suffix)
        if path.resolve() in given:
            lost.append(f"{path} (given by -c)")
        elif path.exists() and not (path.is_file() and ours(path)):
            lost.append(f"{path} (not written by this command)")
    if lost:
        raise BiposeError(f"{' and '.join(lost)} would be replaced; give another --out")


def _weights_are_ours(path: Path) -> bool:
    try:
        with safe_open(str(path), "pt") as handle:
            return {"made_from", "source"} <= set(handle.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _account_is_ours(path: Path) -> bool:
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    made = about.get("made_from") if isinstance(about, dict) else None
    return isinstance(made, dict) and {"sha256", "source"} <= set(made)


def _overlay_is_ours(path: Path) -> bool:
    try:
        return MARK in path.read_text().partition("\n")[0]
    except (OSError, ValueError):
        return False


_OURS: Final[dict[str, Callable[[Path], bool]]] = {
    ".safetensors": _weights_are_ours,
    ".json": _account_is_ours,
    ".yaml": _overlay_is_ours,
}
