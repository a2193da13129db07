"""Reading a file that asks a question: every mistake in one line, file names relative to the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bipose_lit.ablation.text import close, read_yaml
from bipose_lit.types import BiposeError

Overlay = Path | Mapping[str, Any]
"""What an arm changes: a configuration file, or the same written into the manifest."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
RESERVED = ("stage1", "tune", "report", "trials")


def read_mapping(path: Path, noun: str, main: str, needs: str) -> Mapping[Any, Any]:
    """A file that holds one mapping.

    Args:
        path: the file.
        noun: what it is.
        main: another of its kind, to be named where this one is not there.
        needs: what it must have at least, in words.

    Raises:
        BiposeError: absent, a folder, broken YAML, no mapping.
    """
    if not path.is_file():
        if path.is_dir():
            raise BiposeError(f"{noun} {path} is a folder; give a YAML file, such as {main}")
        near = close(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise BiposeError(f"{noun} {path} not found{near or f'; check the path (the main one is {main})'}")
    try:
        data = read_yaml(path.read_text())
        if not isinstance(data, Mapping):
            raise BiposeError(f"a {noun} is a mapping with at least {needs}")
    except BiposeError as error:
        raise BiposeError(f"{path}: {error}") from error
    return data


class Fields:
    """Takes a file's mapping apart; every mistake is one line. File names are relative to the file."""

    def __init__(self, path: Path, data: Mapping[Any, Any]) -> None:
        self.path, self.data = path, data

    def only(self, known: Iterable[str]) -> None:
        """Refuses keys that nobody reads."""
        names = list(known)
        for key in self.data:
            if key not in names:
                raise BiposeError(f"unknown key '{key}'{close(str(key), names)}; known: {', '.join(sorted(names))}")

    def name(self) -> str:
        name: str = self.take("name", str, self.path.stem)
        if not NAME.fullmatch(name):
            raise BiposeError(f"name '{name}' must consist of letters, digits and _ . + - (it becomes a folder)")
        return name

    def threads(self) -> int:
        threads: int = self.take("threads", int, 1)
        if threads < 1:
            raise BiposeError(f"threads must be at least 1, not {threads}")
        return threads

    def margin(self) -> float:
        margin = self.take("margin", (int, float), 0.005)
        if margin <= 0:
            raise BiposeError(f"margin must be above 0, not {margin}")
        return float(margin)

    def make(self) -> Mapping[str, Any] | None:
        make = self.data.get("make")
        if make is not None and not isinstance(make, Mapping):
            raise BiposeError(f"make must be a mapping of the data's recipe, not {make!r}")
        if make is not None and isinstance(make.get("motion_files"), list):
            make = {**make, "motion_files": [self.file(f, "make.motion_files") for f in make["motion_files"]]}
        return make

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = self.data.get(key)
        if value is None:
            if default is None:
                raise BiposeError(f"'{key}' is missing")
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = {"str": "text", "int": "a whole number", "bool": "true or false", "float": "a number"}
            raise BiposeError(f"{key} must be {wanted.get(kinds[-1].__name__, kinds[-1].__name__)}, not {value!r}")
        return value

    def one_of(self, key: str, allowed: Sequence[str]) -> str:
        value: str = self.take(key, str, allowed[0])
        if value not in allowed:
            raise BiposeError(f"{key} must be one of {', '.join(allowed)}, not {value!r}{close(value, allowed)}")
        return value

    def strings(self, key: str, required: bool = False) -> tuple[str, ...]:
        value = self.data.get(key)
        if value is None and not required:
            return ()
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not items or not all(isinstance(v, str) for v in items):
            raise BiposeError(f"{key} must be a list of texts, not {value!r}")
        return tuple(items)

    def file(self, name: Any, where: str) -> Path:
        if not isinstance(name, str) or not name:
            raise BiposeError(f"{where}: a file name is expected, not {name!r}")
        path = (self.path.parent / Path(name).expanduser()).resolve()
        if not path.is_file():
            near = close(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
            raise BiposeError(f"{where}: file {name} not found (looked for {path}){near}")
        return path

    def overlays(self, value: Any, where: str) -> tuple[Overlay, ...]:
        if value is None or value == {}:
            return ()
        items = value if isinstance(value, list) else [value]
        for item in items:
            if not isinstance(item, str | Mapping):
                raise BiposeError(f"{where}: a configuration file or a mapping of options is expected, not {item!r}")
        return tuple(item if isinstance(item, Mapping) else self.file(item, where) for item in items)

    def group(self, value: Any, where: str) -> dict[str, tuple[Overlay, ...]]:
        if not isinstance(value, Mapping) or not value:
            raise BiposeError(f"{where} must map names to configuration files or options")
        for name in value:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                hint = " (write it in quotes)" if not isinstance(name, str) else ""
                raise BiposeError(f"{where}: the name {name!r} must consist of letters, digits and _ . + -{hint}")
            if name in RESERVED:
                raise BiposeError(f"{where}: the name '{name}' is reserved; choose another")
        return {name: self.overlays(overlay, f"{where}.{name}") for name, overlay in value.items()}
