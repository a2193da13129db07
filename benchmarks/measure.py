"""Timing in interleaved rounds, and where the time goes."""

from __future__ import annotations

import cProfile
import gc
import math
import pstats
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Job = Callable[[], object]
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Spread:
    """One number per round, told as median (lowest..highest)."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def ms(self) -> Spread:
        """Seconds as milliseconds."""
        return self.map(lambda seconds: 1e3 * seconds)

    def map(self, function: Callable[[float], float]) -> Spread:
        """Each round's number through a function."""
        return Spread(tuple(function(v) for v in self.values))

    def over(self, other: Spread) -> Spread:
        """Round by round, this one divided by the other.

        Raises:
            ValueError: another number of rounds.
        """
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def __str__(self) -> str:
        if len(self.values) == 1:
            return number(self.median)
        return f"{number(self.median)} ({number(min(self.values))}..{number(max(self.values))})"


def number(value: float) -> str:
    """Three significant digits, no exponent: 12345 -> 12,300; 0.01234 -> 0.0123."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    # Rounding up may add a digit: 9.996 is 10.0.
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def interleave(
    jobs: Mapping[str, Job], rounds: int, least: float = 0.0, tell: Callable[[str], None] | None = None
) -> dict[str, Spread]:
    """Seconds per call of each job, measured side by side.

    Every job is called once unmeasured. Then each round times all jobs, one after the other, in an order that rotates,
    so none always follows the same neighbour. Garbage is collected before, and never during, a measurement.

    Args:
        jobs: what to time, by name.
        rounds: number of values per job.
        least: seconds that a measurement lasts at least; a shorter job is repeated within it.
        tell: called with a line of progress.

    Raises:
        ValueError: no round.
    """
    if rounds < 1:
        raise ValueError("rounds: at least one is needed")
    repeats: dict[str, int] = {}
    for name, job in jobs.items():
        if tell is not None:
            tell(f"{name}, warm-up")
        job()
        start = time.perf_counter()
        if least > 0:
            job()
        once = max(time.perf_counter() - start, 1e-9)
        repeats[name] = max(1, math.ceil(least / once)) if least > 0 else 1
    names = list(jobs)
    values: dict[str, list[float]] = {name: [] for name in names}
    # What is alive now (mostly imports) is left out of the collections before each measurement, which it would slow down.
    gc.collect()
    gc.freeze()
    try:
        for r in range(rounds):
            if tell is not None:
                tell(f"round {r + 1} of {rounds}")
            for name in names[r % len(names) :] + names[: r % len(names)]:
                values[name].append(_seconds(jobs[name], repeats[name]))
    finally:
        gc.unfreeze()
    return {name: Spread(tuple(v)) for name, v in values.items()}


def _seconds(job: Job, repeats: int) -> float:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(repeats):
            job()
        return (time.perf_counter() - start) / repeats
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class Spot:
    """A function and its share of the profiled time."""

    name: str
    share: float

    def __str__(self) -> str:
        return f"{self.name} {self.share:.0%}"


def profile(job: Job) -> pstats.Stats:
    """A run under cProfile, which makes Python calls dearer than they are."""
    profiler = cProfile.Profile()
    profiler.runcall(job)
    return pstats.Stats(profiler)


def hottest(stats: pstats.Stats, count: int = 5) -> list[Spot]:
    """The functions with the most time of their own."""
    raw: Any = stats
    total = raw.total_tt or 1.0
    own = sorted(((tt, key) for key, (_, _, tt, _, _) in raw.stats.items()), reverse=True)
    return [Spot(_name(key), tt / total) for tt, key in own[:count]]


def stages(stats: pstats.Stats, parents: Iterable[tuple[str, str]], count: int = 5) -> list[Spot]:
    """What given functions spend the most time in, by the functions that they call, with all that those call in turn.

    Args:
        stats: the profile.
        parents: (file name, function) of the callers; their calls of one another are no stages.
        count: how many.
    """
    raw: Any = stats
    total = raw.total_tt or 1.0
    wanted = set(parents)
    found: list[tuple[float, tuple[str, int, str]]] = []
    for key, (_, _, _, _, callers) in raw.stats.items():
        if (Path(key[0]).name, key[2]) in wanted:
            continue
        inside = sum(c[3] for k, c in callers.items() if (Path(k[0]).name, k[2]) in wanted)
        if inside:
            found.append((inside, key))
    return [Spot(_name(key), t / total) for t, key in sorted(found, reverse=True)[:count]]


def _name(key: tuple[str, int, str]) -> str:
    file, _, function = key
    if file == "~":
        words = function.strip("<>").removeprefix("built-in method ").removeprefix("method ")
        return f"`{words.split(' of ')[0].strip(chr(39))}`"
    return f"`{Path(file).stem}.{function}`"


def operator_profiler() -> Any:
    """The profiler of torch's operators on the CPU, to be started and stopped."""
    import torch
    from torch.profiler import ProfilerActivity

    return torch.profiler.profile(activities=[ProfilerActivity.CPU])


def operators(profiler: Any, count: int = 4) -> list[Spot]:
    """The torch operators with the most time of their own in a finished profile."""
    own = sorted(((e.self_cpu_time_total, e.key) for e in profiler.key_averages() if "::" in e.key), reverse=True)
    total = sum(t for t, _ in own) or 1.0
    return [Spot(f"`{key.split('::')[-1]}`", t / total) for t, key in own[:count]]


def listed(spots: Sequence[Spot]) -> str:
    """Spots as words."""
    return ", ".join(map(str, spots))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
