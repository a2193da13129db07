"""What everything that reads a user's words shares: YAML with its mistakes in one line, and the word that may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import yaml

from bipose_lit.types import BiposeError


class _Loader(yaml.SafeLoader):
    """Rejects a key given twice, and reads 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = sorted({k for k in keys if keys.count(k) > 1}, key=str)
        if twice:
            raise BiposeError(f"line {node.start_mark.line + 1}: '{twice[0]}' is given twice; rename or remove one")
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str) -> Any:
    """YAML as manifests are read: no key twice, 1e-3 is a number.

    Raises:
        BiposeError: broken YAML, with its line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BiposeError(f"{where}broken YAML: {problem}") from error


def close(word: str, known: Iterable[str]) -> str:
    """The words "did you mean X?" to append to a message, or nothing."""
    found = difflib.get_close_matches(str(word), [str(k) for k in known], 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""
