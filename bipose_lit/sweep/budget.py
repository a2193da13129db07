"""What a search has used up: trials that were run, and hours in which any was running."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from bipose_lit.sweep.manifest import Budget

Span = tuple[float, float]
"""From and to, seconds since the epoch."""


def busy_seconds(spans: Iterable[Span]) -> float:
    """Length of the union of time spans: what ran side by side counts once, a night in between not at all."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def without(span: Span, gaps: Iterable[Span]) -> list[Span]:
    """What is left of a span when gaps are taken out: the time in which nobody was at a trial."""
    left: list[Span] = []
    start, stop = span
    for first, last in sorted(gaps):
        if last <= start or first >= stop:
            continue
        if first > start:
            left.append((start, first))
        start = max(start, last)
    return [*left, (start, stop)] if start < stop else left


def seconds(moment: datetime | None, otherwise: float) -> float:
    """A study's time (naive, local) in seconds since the epoch."""
    return otherwise if moment is None else moment.timestamp()


def room(budget: Budget, trials: int, spans: Sequence[Span]) -> bool:
    """Whether another trial may begin.

    Args:
        budget: of the search.
        trials: that were begun.
        spans: in which trials were running.
    """
    if budget.trials is not None and trials >= budget.trials:
        return False
    return budget.hours is None or busy_seconds(spans) < budget.hours * 3600
