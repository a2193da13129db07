"""What jsonargparse complains about, in one line: which option, what is wrong with it, what would be right."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bipose_lit.types import BiposeError

WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "list": "a list in brackets",
    "tuple": "a list in brackets",
    "dict": "a mapping",
}
SHOWN = 12
_TYPE = r"<class '([\w.]+)'>|typing\.Literal\[(.*?)\]|(list|tuple|dict)\[.*?\]"


def read_configs(files: Iterable[Path]) -> dict[Path, Mapping[str, Any]]:
    """The content of configuration files, each of which must be there and be a mapping.

    Raises:
        BiposeError: a missing file, broken YAML (with its line), or something else than options.
    """
    found: dict[Path, Mapping[str, Any]] = {}
    for file in files:
        if not file.is_file():
            near = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.y*ml")], 1)
            hint = f"; did you mean {file.parent / near[0]}?" if near else "; check the path"
            raise BiposeError(f"configuration {file} not found{hint}")
        try:
            content = yaml.safe_load(file.read_text())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise BiposeError(f"{file}{where}: broken YAML: {problem}") from error
        if not isinstance(content, Mapping):
            raise BiposeError(f"{file}: this is no configuration: it holds no options such as 'model:' or 'data:'")
        found[file] = content
    return found


def explain(message: str, known: Sequence[str] = (), configs: Mapping[Path, Mapping[str, Any]] | None = None) -> str:
    """One line for a message of jsonargparse.

    Args:
        message: as it was raised.
        known: dotted names of all options, to suggest one for a misspelt name.
        configs: content of the configuration files, to say which one holds the mistake.
    """
    keys = re.findall(r'Parser key "([^"]+)"', message)
    option = ".".join(keys)
    classes = re.findall(r"class_path '([^']+)'", message)
    if inner := re.search(r"BiposeError: (.*)", message):
        return inner[1]
    if file := re.search(r"File does not exist: '?([^'\n]+)", message):
        return f"configuration {file[1]} not found; check the path"
    if link := re.search(r'Linked "([\w.]+)" must be given via "([\w.]+)"', message):
        return f"{link[1]} follows {link[2]}: set that instead"
    if bare := re.search(r"argument -*([\w.]+): expected one argument", message):
        return f"--{bare[1]} needs a value"
    where = _where(configs or {})
    if refused := re.search(r"Option '([^']+)' is not accepted", message):
        return _refused(option, refused[1], classes[-1] if classes else "") + where(option, refused[1])
    if unknown := re.search(
        r"(?:does not accept option|[Uu]nrecognized arguments?:|Key|Option) ['\"]?-*([\w.]+)", message
    ):
        near = closest(unknown[1], known)
        hint = f"; did you mean {near}?" if near else "; 'bipose fit --help' lists all"
        return f"there is no option {unknown[1]}{hint}" + where("", unknown[1])
    if _no_class(message):
        return _class_not_found(message, option, classes) + where(option)
    if wrong := _wrong_type(message):
        return f"{option} takes {wrong[0]}, not {wrong[1]}" + where(option)
    errors = re.findall(r"^\s*- (?!Expected a )(.+)$", message, re.MULTILINE)
    text = "; ".join(errors) if errors else " ".join(message.split())
    if option and option not in text:
        text = f"{option}: {text}"
    return text if len(text) <= 400 else text[:400] + " ..."


def closest(key: str, known: Sequence[str]) -> str:
    """The option most like a misspelt one, "" if none is."""
    leaves = {name.split(".")[-1]: name for name in known}
    found = difflib.get_close_matches(key, known, 1, 0.7) or [
        leaves[m] for m in difflib.get_close_matches(key.split(".")[-1], list(leaves), 1, 0.7)
    ]
    return found[0] if found else ""


def parts(kind: type) -> list[str]:
    """Names of the imported classes that can stand where `kind` is wanted, without what other packages define privately."""
    found: dict[str, None] = {}
    todo = [kind]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        ours = cls.__module__.split(".")[0] == kind.__module__.split(".")[0]
        if cls is not kind and ours and not cls.__name__.startswith("_"):
            found[cls.__name__] = None
    return sorted(found)


def _refused(option: str, name: str, class_path: str) -> str:
    cls = _load(class_path)
    if cls is None:
        return f"there is no option {option}.{name}"
    choices = parts(cls)
    if choices and (inspect.isabstract(cls) or not _parameters(cls)):
        return (
            f"{option}: '{name}' means nothing before a class is chosen; name the class first "
            f"(--{option} {choices[0]} --{option}.{name} ..., or class_path and init_args in a file)"
        )
    takes = _parameters(cls)
    near = difflib.get_close_matches(name, takes, 1, 0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no option {option}.{name}{hint} {cls.__name__} takes {', '.join(takes) or 'none'}".replace(
        f"{name} {cls.__name__}", f"{name}; {cls.__name__}"
    )


def _no_class(message: str) -> bool:
    signs = ("Expected a dot import path", "has no attribute", "No module named", "correspond to a subclass", "protocol")
    return any(sign in message for sign in signs)


def _class_not_found(message: str, option: str, classes: Sequence[str]) -> str:
    given = re.search(r"Expected a dot import path string: (.*)", message) or re.search(r"Given value: (.*)", message)
    name = classes[-1] if classes else given[1].strip() if given else "?"
    missing = re.search(r"No module named '([^']+)'", message)
    bases = [b for b in re.findall(r"<class '([\w.]+)'>", message) if not b.endswith("NoneType")]
    kind = _load(bases[-1]) if bases else None
    choices = parts(kind) if kind is not None else []
    if "correspond to a subclass" in message:
        text = f"{option}: {name} is no {kind.__name__ if kind else 'class of the right kind'}"
    elif missing:
        text = f"{option}: no class {name}: no module named {missing[1]} can be imported"
    else:
        text = f"{option}: no class {name}"
    near = difflib.get_close_matches(name.split(".")[-1], choices, 1, 0.6)
    text += f"; did you mean {near[0]}?" if near else ""
    if 0 < len(choices) <= SHOWN:
        text += f"; there {'are' if len(choices) > 1 else 'is'} {', '.join(choices)}"
    return text + "; a class of your own works by its dotted path (package.module.Class)"


def _wrong_type(message: str) -> tuple[str, str] | None:
    """What was expected, in words, and what was given."""
    plain = re.findall(r"Expected a (.*)\. Got value: (.*)", message)
    if plain:
        kind, value = plain[-1]
    else:
        unions = re.findall(r"Subtypes: \[(.*)\]", message)
        values = re.findall(r"Given value: (.*)", message)
        if not unions or not values or re.search(r"^\s*- (?!Expected a |Problem )", message, re.MULTILINE):
            return None
        kind, value = unions[-1], values[0]
    if nested := re.match(r"NestedArg\(key='[^']*', val='?(.*?)'?\)$", value):
        value = nested[1]
    words = [_words(match) for match in re.finditer(_TYPE, kind)] or [kind]
    return " or ".join(dict.fromkeys(words)), f"'{value}'"


def _words(match: re.Match[str]) -> str:
    name, choices, container = match.groups()
    if choices is not None:
        values = [c.strip(" '\"") for c in choices.split(",")]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    if container is not None:
        return WORDS[container]
    last = name.split(".")[-1]
    return WORDS.get(last, f"a {last}")


def _parameters(cls: type) -> list[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [n for n, p in inspect.signature(cls).parameters.items() if p.kind not in kinds]


def _load(class_path: str) -> type | None:
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        return None
    return found if inspect.isclass(found) else None


class _where:  # noqa: N801 - reads as the phrase it makes
    """Finds the file that holds an option: " (in FILE)", or nothing."""

    def __init__(self, configs: Mapping[Path, Mapping[str, Any]]) -> None:
        self.names = {file: set(_flat(content)) for file, content in configs.items()}

    def __call__(self, option: str, last: str = "") -> str:
        wanted = ".".join(p for p in (*option.split("."), *last.split(".")) if p and p != "init_args")
        holders = [file for file, names in self.names.items() if wanted in names]
        return f" (in {holders[-1]})" if holders else ""


def _flat(content: Mapping[str, Any], path: str = "") -> Iterable[str]:
    for key, value in content.items():
        name = path if key == "init_args" else f"{path}.{key}".strip(".")
        yield name
        if isinstance(value, Mapping):
            yield from _flat(value, name)


__all__ = ["closest", "explain", "parts", "read_configs"]
