"""A search space: options and choices among overlays, some there under a condition alone. Knows neither files nor Optuna."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bipose_lit.ablation.fields import Overlay

When = Mapping[str, tuple[Any, ...]]
"""By name of another parameter, the values (labels) under which this one exists; all of them must hold."""
FIRST_SEED = 1_000_000
"""Seeds of trials begin here, so that what is trained anew after the search, with the usual small seeds, is fresh."""
MANY = 10_000
"""Spaces with more points than this are not listed."""


def label(value: Any) -> Any:
    """A choice as studies keep it: itself, or its JSON text if it is a list or a mapping."""
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class Choice:
    """One of several values of an option."""

    values: tuple[Any, ...]
    when: When = field(default_factory=dict)

    def listed(self) -> tuple[Any, ...] | None:
        return self.values


@dataclass(frozen=True)
class Branch:
    """One of several groups of overlays, by name."""

    overlays: Mapping[str, tuple[Overlay, ...]]
    when: When = field(default_factory=dict)

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(self.overlays)

    def listed(self) -> tuple[Any, ...] | None:
        return self.values


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones, evenly spaced ones, or spread by their logarithm if asked for."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    step: float | None = None
    when: When = field(default_factory=dict)

    @property
    def size(self) -> float:
        """Number of values; infinite for a continuous range."""
        if self.step is None and not self.whole:
            return math.inf
        steps = (self.high - self.low) / (self.step or 1)
        return float(math.floor(steps) if self.whole else round(steps)) + 1

    def nearest(self, value: float) -> float:
        """The value of an evenly spaced range that a sampler means by something beside it."""
        if self.whole or self.step is None:
            return value
        return self._at(round((value - self.low) / self.step))

    def _at(self, index: int) -> float:
        return round(self.low + index * (self.step or 1), 12)

    def listed(self) -> tuple[Any, ...] | None:
        """All values; None for a continuous range."""
        if self.whole:
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step)
        return tuple(self._at(i) for i in range(count + 1))


Entry = Choice | Branch | Range


class Suggests(Protocol):
    """What a space asks of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Any, /) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False
    ) -> float: ...


class Space:
    """Parameters in an order in which each comes after those that its condition names.

    A point maps the names of the parameters that exist in it to their values; for a choice among overlays, to the name of one.

    Args:
        entries: by name: a dotted option, or any name for a choice among overlays. Conditions must not run in circles
            (the reader checks this) and name choices only.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = {name: entries[name] for name in _ordered(entries)}
        self.parents = tuple(n for n in self.entries if any(n in e.when for e in self.entries.values()))

    def active(self, name: str, point: Mapping[str, Any]) -> bool:
        """Whether a parameter exists beside those that are set."""
        when = self.entries[name].when
        return all(parent in point and _among(point[parent], allowed) for parent, allowed in when.items())

    def suggest(self, trial: Suggests) -> dict[str, Any]:
        """The point of a trial; what the trial has been told before stays."""
        point: dict[str, Any] = {}
        for name, entry in self.entries.items():
            if self.active(name, point):
                point[name] = _suggest(trial, name, entry)
        return point

    def point(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The point whose parameters a study keeps as `params`."""
        found: dict[str, Any] = {}
        for name, entry in self.entries.items():
            if name in params:
                values = entry.values if isinstance(entry, Choice) else ()
                kept = entry.nearest(params[name]) if isinstance(entry, Range) else params[name]
                found[name] = next((v for v in values if _same(label(v), kept)), kept)
        return found

    def params(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point as a study keeps it."""
        return {name: label(value) for name, value in point.items()}

    def branches(self, names: tuple[str, ...] | None = None) -> Iterator[dict[str, Any]]:
        """All settings of the parameters that conditions name, or of `names` (choices), as partial points."""
        chosen = self.parents if names is None else names
        yield from self._walk([n for n in self.entries if n in chosen], {})

    def _walk(self, names: list[str], point: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if not names:
            yield dict(point)
            return
        name, *rest = names
        if not self.active(name, point):
            yield from self._walk(rest, point)
            return
        for value in self.entries[name].listed() or ():
            yield from self._walk(rest, {**point, name: value})

    def points(self) -> Iterator[dict[str, Any]]:
        """All points, in the order of the manifest; the space must be finite."""
        yield from self._walk(list(self.entries), {})

    def count(self) -> float:
        """Number of points; infinite for a continuous range."""
        total = 0.0
        for branch in self.branches():
            sizes = [
                entry.size if isinstance(entry, Range) else float(len(entry.values))
                for name, entry in self.entries.items()
                if name not in self.parents and self.active(name, branch)
            ]
            total += math.prod(sizes)
        return total

    def endless(self) -> list[str]:
        """Names of the continuous ranges."""
        return [n for n, e in self.entries.items() if isinstance(e, Range) and math.isinf(e.size)]

    def overlays(self, point: Mapping[str, Any]) -> tuple[Overlay, ...]:
        """Configuration files and settings that a point lays over the base, in order."""
        chosen = [e.overlays[point[n]] for n, e in self.entries.items() if isinstance(e, Branch) and n in point]
        return tuple(itertools.chain.from_iterable(chosen))

    def options(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted options that a point sets."""
        return {n: v for n, v in point.items() if not isinstance(self.entries[n], Branch)}

    def plain(self) -> dict[str, Any]:
        """The space as plain data, in the words of the manifest."""
        return {name: _plain(entry) for name, entry in self.entries.items()}


def key_of(point: Mapping[str, Any]) -> str:
    """Equal for equal points, however they are ordered."""
    text = json.dumps({str(k): v for k, v in point.items()}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seeds_of(point: Mapping[str, Any], count: int) -> tuple[int, ...]:
    """The seeds of a point's runs: they follow from its parameters, whoever tries it and whenever."""
    numbers: list[int] = []
    for index in itertools.count():
        digest = hashlib.sha256(f"{key_of(point)} {index}".encode()).hexdigest()
        number = FIRST_SEED + int(digest[:12], 16) % (2**31 - FIRST_SEED)
        if number not in numbers:
            numbers.append(number)
        if len(numbers) == count:
            break
    return tuple(numbers)


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted options as a configuration file has them."""
    tree: dict[str, Any] = {}
    for option, value in options.items():
        *path, last = option.split(".")
        inner = tree
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return tree


def layers(options: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Dotted options as configuration files to be laid one over the other: an option comes before those inside it, as a class
    before its arguments.
    """
    depth = {o: sum(o.startswith(f"{other}.") for other in options) for o in options}
    return tuple(nested({o: v for o, v in options.items() if depth[o] == d}) for d in sorted(set(depth.values())))


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _among(value: Any, allowed: tuple[Any, ...]) -> bool:
    return any(_same(label(value), label(a)) for a in allowed)


def _ordered(entries: Mapping[str, Entry]) -> list[str]:
    """Names, each after those that its condition names, else as given."""
    order: list[str] = []
    while len(order) < len(entries):
        ready = [n for n, e in entries.items() if n not in order and all(p in order for p in e.when)]
        if not ready:
            raise ValueError(f"conditions run in a circle: {', '.join(n for n in entries if n not in order)}")
        order.append(ready[0])
    return order


def _suggest(trial: Suggests, name: str, entry: Entry) -> Any:
    if isinstance(entry, Range):
        if entry.whole:
            return trial.suggest_int(name, int(entry.low), int(entry.high), step=int(entry.step or 1), log=entry.log)
        return entry.nearest(trial.suggest_float(name, entry.low, entry.high, step=entry.step, log=entry.log))
    chosen = trial.suggest_categorical(name, [label(v) for v in entry.values])
    return next(v for v in entry.values if _same(label(v), chosen))


def _plain(entry: Entry) -> dict[str, Any]:
    when = {"when": {k: list(v) for k, v in entry.when.items()}} if entry.when else {}
    if isinstance(entry, Choice):
        return {"choices": list(entry.values), **when}
    if isinstance(entry, Branch):
        shown = {n: [o.name if isinstance(o, Path) else dict(o) for o in group] for n, group in entry.overlays.items()}
        return {"overlays": shown, **when}
    found: dict[str, Any] = {"low": entry.low, "high": entry.high}
    found |= {"log": True} if entry.log else {}
    found |= {"int": True} if entry.whole else {}
    return found | ({"step": entry.step} if entry.step is not None else {}) | when
