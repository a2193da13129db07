"""Parts from plain data: what a checkpoint, a configuration file or a notebook holds becomes modules again."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from torch import nn

from bipose_lit.types import BiposeError


def instantiate(config: Any, kind: type = nn.Module) -> Any:
    """Builds a part from {"class_path": "package.module.Class", "init_args": {...}}, nested parts included.

    Values that are no such dict come back as they are, so a whole tree of configuration may be passed. The inverse of
    `Part.config`.

    Args:
        config: the configuration.
        kind: what the outermost class must derive from; nested ones are torch modules.

    Raises:
        BiposeError: a class that cannot be found, is of another kind, or refuses its arguments.
    """
    if isinstance(config, list):
        return [instantiate(value, kind) for value in config]
    if not isinstance(config, dict):
        return config
    if "class_path" not in config:
        return {key: instantiate(value, kind) for key, value in config.items()}
    unknown = sorted(set(config) - {"class_path", "init_args"})
    if unknown:
        raise BiposeError(
            f"{config['class_path']}: unknown keys {', '.join(unknown)} beside class_path; "
            "arguments belong under init_args"
        )
    cls = locate(str(config["class_path"]), kind)
    arguments = {key: instantiate(value) for key, value in (config.get("init_args") or {}).items()}
    signature = inspect.signature(cls)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise BiposeError(f"{config['class_path']}: {error}; it takes {signature}") from error
    return cls(**arguments)


def locate(class_path: str, kind: type = nn.Module) -> type[Any]:
    """The class at an import path.

    Raises:
        BiposeError: no such module or class (with the closest names), or one that does not derive from `kind`.
    """
    module_name, _, name = class_path.rpartition(".")
    if not module_name:
        raise BiposeError(f"class_path {class_path!r} names no module: write package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise BiposeError(
                f"class_path {class_path}: importing it needs {error.name}: install that first"
            ) from error
        raise BiposeError(
            f"class_path {class_path}: no module {error.name}; check the spelling, or install the package that holds it"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, kind)]
        close = difflib.get_close_matches(name, classes, 3, 0.5) or sorted(classes)[:5]
        raise BiposeError(f"class_path {class_path}: {module_name} has no class {name}; it has {', '.join(close)}")
    if not (inspect.isclass(found) and issubclass(found, kind)):
        wanted = f"{kind.__module__}.{kind.__qualname__}"
        raise BiposeError(f"class_path {class_path} is no {wanted}; name a class that derives from it")
    return found


__all__ = ["instantiate", "locate"]
