"""What jsonargparse complains about, in one line: which option, what is wrong with it, what would be right."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
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


def explain(
    message: str,
    known: Sequence[str] = (),
    choices: Mapping[str, Sequence[str]] | None = None,
    configs: Mapping[Path, Mapping[str, Any]] | None = None,
) -> str:
    """One line for a message of jsonargparse.

    Args:
        message: as it was raised.
        known: dotted names of all options, to suggest one for a misspelt name.
        choices: by option, names of the classes that it takes.
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
    if needed := re.search(r"following arguments are required: (.*)", message):
        missing = re.sub(r"\b(fit|validate|test|predict)\.", "", needed[1])
        return f"not configured: {missing}; start from a complete configuration (-c experiments/base.yaml)"
    if bare := re.search(r"argument -*([\w.]+): expected one argument", message):
        return f"--{bare[1]} needs a value"
    names = (choices or {}).get(option, ())
    where = partial(_holder, configs or {})
    refused = re.search(r"Option '([^']+)' is not accepted", message)
    if refused and classes:
        return _refused(option, refused[1], classes[-1], names) + where(f"{option}.{refused[1]}")
    unknown = re.search(r"(?:does not accept option|[Uu]nrecognized arguments?:|Key|Option) ['\"]?-*([\w.]+)", message)
    if unknown:
        group = re.search(r"Group '([\w.]+)' does not accept", message)
        name = f"{group[1]}.{unknown[1]}" if group else unknown[1]
        near = closest(name, known)
        hint = f"; did you mean {near}?" if near else "; 'bipose fit --help' lists all"
        return f"there is no option {name}{hint}" + where(name)
    if _no_class(message):
        name = _named_class(message, classes)
        return _class_not_found(message, option, name, names) + where(option, name)
    if wrong := _wrong_type(message):
        return f"{option} takes {wrong[0]}, not '{wrong[1]}'" + where(option, wrong[1])
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
    if not found:
        return ""
    group, _, leaf = key.rpartition(".")
    likeness = [difflib.SequenceMatcher(None, found[0], word).ratio() for word in (group, key)]
    return f"{found[0]}.{leaf}" if group and likeness[0] > likeness[1] else found[0]


def _refused(option: str, name: str, class_path: str, names: Sequence[str]) -> str:
    cls = _load(class_path)
    if cls is None:
        return f"there is no option {option}.{name}"
    derived: list[type] = cls.__subclasses__()
    if names and cls.__name__ not in names and any(sub.__name__ in names for sub in derived):
        return (
            f"{option}: '{name}' means nothing before a class is chosen; name the class first "
            f"(--{option} {names[0]} --{option}.{name} ..., or class_path and init_args in a file)"
        )
    takes = _parameters(cls)
    near = difflib.get_close_matches(name, takes, 1, 0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no option {option}.{name}; {hint}{cls.__name__} takes {', '.join(takes) or 'none'}"


def _no_class(message: str) -> bool:
    signs = (
        "Expected a dot import path",
        "has no attribute",
        "No module named",
        "correspond to a subclass",
        "protocol",
    )
    return any(sign in message for sign in signs)


def _named_class(message: str, classes: Sequence[str]) -> str:
    if classes:
        return classes[-1]
    given = re.search(r"Import path (?!does)(\S+)", message) or re.search(
        r"Expected a dot import path string: (.*)", message
    )
    given = given or re.search(r"Given value: (.*)", message)
    return given[1].strip() if given else "?"


def _class_not_found(message: str, option: str, name: str, names: Sequence[str]) -> str:
    text = f"{option}: there is no class {name}"
    if "correspond to a subclass" in message or "protocol" in message:
        text = f"{option}: {name} is no class that fits here"
        if protocol := re.search(r"implement protocol (\w+)", message):
            text += f" (it lacks a method of {protocol[1]}, or has it with another signature or annotation)"
    elif missing := re.search(r"No module named '([^']+)'", message):
        text += f" (no module {missing[1]} can be imported)"
    near = difflib.get_close_matches(name.split(".")[-1], names, 1, 0.6)
    text += f"; did you mean {near[0]}?" if near else ""
    text += f"; built in: {', '.join(names)}" if names else ""
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
    return " or ".join(dict.fromkeys(words)), value


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


def _holder(configs: Mapping[Path, Mapping[str, Any]], option: str, value: str | None = None) -> str:
    """The last file that says an option (with this value), as " (in FILE)"; nothing if the command line does."""
    wanted = ".".join(part for part in option.split(".") if part != "init_args")
    holders = []
    for file, content in configs.items():
        for name, found in _flat(content):
            said = found.get("class_path") if isinstance(found, Mapping) else found
            if name == wanted and value in (None, str(said), str(found)):
                holders.append(file)
    return f" (in {holders[-1]})" if holders else ""


def _flat(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = path if key == "init_args" else f"{path}.{key}".strip(".")
        if key != "init_args":
            yield name, value
        if isinstance(value, Mapping):
            yield from _flat(value, name)


__all__ = ["closest", "explain", "read_configs"]
