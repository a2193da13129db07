"""Reading a search space: what each entry may be, and that conditions name what is there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from bipose_lit.ablation.fields import Fields, Overlay
from bipose_lit.ablation.text import close
from bipose_lit.sweep.space import Branch, Choice, Entry, Range, Space, label
from bipose_lit.types import BiposeError


class SpaceFields(Fields):
    """Takes the entry `space` of a file apart."""

    def space(self) -> Space:
        value = self.data.get("space")
        if not isinstance(value, Mapping) or not value:
            raise BiposeError(
                "space must map options to what is tried, e.g. {model.recipe.lr: {low: 1e-4, high: 1e-2, log: true}}"
            )
        for name in value:
            if not isinstance(name, str) or not name:
                raise BiposeError(f"space: {name!r} is no name of an option")
        entries = {name: self.entry(name, entry) for name, entry in value.items()}
        for name, entry in entries.items():
            self.conditions(name, entry, entries)
        try:
            return Space(entries)
        except ValueError as error:
            raise BiposeError(f"space: {error}; a parameter must not depend on itself") from error

    def entry(self, name: str, value: Any) -> Entry:
        where = f"space: {name}"
        if isinstance(value, list):
            value = {"choices": value}
        kinds = {"choices": ("when",), "overlays": ("when",), "low": ("high", "log", "int", "step", "when")}
        kind = next((k for k in kinds if isinstance(value, Mapping) and k in value), None)
        if kind is None:
            raise BiposeError(
                f"{where} must be a list of choices, {{choices: [...]}}, {{low: A, high: B}} (with log, int, step) or "
                f"{{overlays: {{NAME: FILE}}}}, not {value!r}"
            )
        known = (kind, *kinds[kind])
        for key in value:
            if key not in known:
                raise BiposeError(f"{where}: unknown key '{key}'{close(str(key), known)}; known: {', '.join(known)}")
        when = self.when(value.get("when"), where)
        if kind == "choices":
            return Choice(self.choices(value["choices"], where), when)
        if kind == "overlays":
            return Branch(self.branch(value["overlays"], where), when)
        return self.range(value, where, when)

    @staticmethod
    def choices(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise BiposeError(f"{where}: choices must be a list of values, not {value!r}")
        for choice in value:
            try:
                json.dumps(choice, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise BiposeError(
                    f"{where}: {choice} is no text, finite number, true, false, null, list or mapping of such; "
                    "write texts in quotes"
                ) from error
        labels = [repr(label(v)) for v in value]
        twice = next((v for v, text in zip(value, labels, strict=True) if labels.count(text) > 1), None)
        if twice is not None:
            raise BiposeError(f"{where}: {twice!r} is given twice; every choice is one value")
        return tuple(value)

    def branch(self, value: Any, where: str) -> dict[str, tuple[Overlay, ...]]:
        if not isinstance(value, Mapping) or not value:
            raise BiposeError(f"{where}: overlays must map names to configuration files, options or null")
        for name in value:
            if not isinstance(name, str):
                raise BiposeError(f"{where}: the name {name!r} must be text (write it in quotes)")
        return {name: self.overlays(overlay, f"{where}.{name}") for name, overlay in value.items()}

    @staticmethod
    def range(value: Mapping[str, Any], where: str, when: Mapping[str, tuple[Any, ...]]) -> Range:
        low, high, step = value["low"], value.get("high", "nothing"), value.get("step")
        log, whole = value.get("log", False), value.get("int", False)
        if not is_number(low) or not is_number(high) or not low < high:
            raise BiposeError(f"{where} needs numbers low < high, not {low!r} and {high!r}")
        if not isinstance(log, bool) or not isinstance(whole, bool):
            raise BiposeError(f"{where}: log and int are true or false")
        if log and low <= 0:
            raise BiposeError(f"{where} is logarithmic, so low must be above 0, not {low}")
        if whole and not all(isinstance(v, int) for v in (low, high, *([] if step is None else [step]))):
            raise BiposeError(f"{where} is of whole numbers, so low, high and step must be whole")
        if step is not None:
            if log:
                raise BiposeError(f"{where}: step and log exclude each other; list the values under choices instead")
            if (
                not is_number(step)
                or step <= 0
                or abs(round((high - low) / step) * step - (high - low)) > 1e-9 * (high - low)
            ):
                raise BiposeError(f"{where}: step must be above 0 and lead from low to high, not {step!r}")
        if whole:
            return Range(low, high, log, True, step, when)
        return Range(float(low), float(high), log, False, None if step is None else float(step), when)

    @staticmethod
    def when(value: Any, where: str) -> dict[str, tuple[Any, ...]]:
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not value:
            raise BiposeError(f"{where}: when must map another parameter to the values under which this one exists")
        found = {str(k): tuple(v) if isinstance(v, list) else (v,) for k, v in value.items()}
        for parent, allowed in found.items():
            if not allowed:
                raise BiposeError(f"{where}: when: {parent} lists no value, so this parameter would never exist")
        return found

    @staticmethod
    def conditions(name: str, entry: Entry, entries: Mapping[str, Entry]) -> None:
        for parent, allowed in entry.when.items():
            where = f"space: {name}: when"
            if parent not in entries:
                raise BiposeError(
                    f"{where}: no parameter '{parent}'{close(parent, entries)}; there are: {', '.join(entries)}"
                )
            other = entries[parent]
            if isinstance(other, Range):
                raise BiposeError(
                    f"{where}: {parent} is a range; a condition names values of a list of choices or overlays"
                )
            known = [label(v) for v in other.values]
            for value in allowed:
                if not any(label(value) == k and isinstance(k, bool) == isinstance(value, bool) for k in known):
                    words = [str(k) for k in known]
                    raise BiposeError(
                        f"{where}: {parent} is never {value!r}{close(str(value), words)}; it is one of: {', '.join(words)}"
                    )


def is_number(value: Any) -> bool:
    """Whether a value of a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
