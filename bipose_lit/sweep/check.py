"""Is every value of a space a value of its option? Asked of the real parser before the first trial, in a second or two."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bipose_lit.ablation.plan import overlay_file
from bipose_lit.sweep.plan import SweepPlan
from bipose_lit.sweep.space import Branch, Choice, Entry, Range
from bipose_lit.types import BiposeError

COMBINATIONS = 64
"""Choices that decide what else there is are tried in all combinations, up to this number; then each at least once."""


def check_space(plan: SweepPlan) -> None:
    """Resolves configurations until every value that decides (ends of ranges, choices, overlays) was in one where it exists.

    Raises:
        BiposeError: an option that is not there (or only with another choice), or that does not take a value of the space;
            says under which choices.
    """
    space = plan.sweep.space
    deciding = tuple(n for n, e in space.entries.items() if n in space.parents or isinstance(e, Branch))
    branches = _spread(list(itertools.islice(space.branches(deciding), 10_000)))
    with tempfile.TemporaryDirectory(prefix="bipose-") as scratch:
        resolver = _Resolver(plan, Path(scratch))
        seen: set[tuple[str, str]] = set()
        for branch in branches:
            free = [n for n in space.entries if n not in branch and space.active(n, branch)]
            columns = {n: _telling(space.entries[n]) for n in free}
            columns |= {n: [branch[n]] for n in branch}
            for row in range(max((len(c) for c in columns.values()), default=1)):
                point = {n: columns[n][min(row, len(columns[n]) - 1)] for n in space.entries if n in columns}
                here = {(n, repr(v)) for n, v in point.items()}
                if row and here <= seen:
                    continue
                resolver.check(point, branch)
                seen |= here


class _Resolver:
    """The parser, asked about points."""

    def __init__(self, plan: SweepPlan, scratch: Path) -> None:
        self.plan, self.scratch = plan, scratch
        self._files: dict[int, Path] = {}

    def check(self, point: Mapping[str, Any], branch: Mapping[str, Any]) -> None:
        """Raises BiposeError with the parameter that is to blame."""
        problem = self.problem(point)
        if not problem:
            return
        space, path = self.plan.sweep.space, self.plan.sweep.path
        if base := self.problem({}):
            raise BiposeError(f"{path}: base: {base}")
        with_ = ", ".join(f"{n}: {v}" for n, v in branch.items())
        for name in space.options(point):
            alone = {n: v for n, v in point.items() if n == name or isinstance(space.entries[n], Branch)}
            line = self.problem(alone)
            if not line or self.problem({n: v for n, v in alone.items() if n != name}):
                continue
            entry = space.entries[name]
            whole = "; add int: true" if isinstance(entry, Range) and not entry.whole and "an integer" in line else ""
            fits = whole or self._fits(name, alone)
            where = f"{path}: space: {name}: {line}"
            raise BiposeError(f"{where}{f' (with {with_})' if with_ else ''}{fits}")
        raise BiposeError(f"{path}: space{f' (with {with_})' if with_ else ''}: {problem}")

    def _fits(self, name: str, alone: Mapping[str, Any]) -> str:
        """For an option that only some overlays have: the condition to write."""
        space = self.plan.sweep.space
        for other, value in alone.items():
            entry = space.entries[other]
            if other == name or not isinstance(entry, Branch) or other in space.entries[name].when:
                continue
            good = [v for v in entry.values if v != value and not self.problem({**alone, other: v})]
            if good:
                return (
                    f"; it is an option with {other}: {', '.join(good)}, so say when: {{{other}: [{', '.join(good)}]}}"
                )
        return ""

    def problem(self, point: Mapping[str, Any]) -> str:
        """What the parser says of a point; "" if it takes it."""
        plan = self.plan
        overlays = plan.sweep.space.overlays(point)
        files = [*plan.sweep.base, *(self._file(o) for o in overlays)]
        try:
            plan.resolve(files, {**plan.options, **plan.sweep.space.options(point)})
        except BiposeError as error:
            return str(error)
        return ""

    def _file(self, overlay: Any) -> Path:
        if isinstance(overlay, Path):
            return overlay
        if id(overlay) not in self._files:
            self._files[id(overlay)] = overlay_file(overlay, self.scratch, f"overlay{len(self._files)}")
        return self._files[id(overlay)]


def _telling(entry: Entry) -> list[Any]:
    """The values that tell whether an option takes an entry: all choices; of a range both ends and something between them."""
    if isinstance(entry, Choice | Branch):
        return list(entry.values)
    return _ends(entry)


def _ends(entry: Range) -> list[Any]:
    if entry.whole:
        return [int(entry.low), int(entry.high)]
    if (listed := entry.listed()) is not None:
        return [listed[0], listed[-1], listed[len(listed) // 2], listed[1]]
    middle = math.sqrt(entry.low * entry.high) if entry.log else (entry.low + entry.high) / 2
    return [
        entry.low,
        entry.high,
        middle + 0.123 * (entry.high - middle),
    ]  # nobody's round number: an integer would refuse it


def _spread(branches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All branches, or where there are too many, some in which every value occurs."""
    if len(branches) <= COMBINATIONS:
        return branches
    return list(_covering(branches))


def _covering(branches: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: set[tuple[str, str]] = set()
    for branch in branches:
        here = {(n, repr(v)) for n, v in branch.items()}
        if not here <= seen:
            seen |= here
            yield branch
