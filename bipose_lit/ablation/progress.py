"""What a person sees while an ablation runs: a live display on a terminal, plain lines elsewhere; never a silent minute.

No thread is started (the parent forks): the engine calls `tick` several times a second.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

PLAIN_SECONDS = 10.0
SHOWN = ("loss", "train/loss")


@dataclass
class Running:
    """What one worker is at."""

    key: str
    what: str = "starting"
    step: int = 0
    total: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    first: tuple[int, float] | None = None

    def at(self, step: int, total: int) -> None:
        """A step was reached; where it begins anew, as another seed or another phase does, so does the clock."""
        if self.first is None or step < self.step or total != self.total:
            self.first = step, time.monotonic()
        self.step, self.total = step, total

    @property
    def resumed(self) -> bool:
        """Whether the first step that was heard of lies in the middle."""
        return self.first is not None and self.first[0] > 0.05 * self.total

    def pace(self, now: float) -> float:
        """Seconds per step since the clock began, in the middle where a run goes on from a checkpoint; NaN: too early."""
        if self.first is None or self.total <= 0:
            return math.nan
        steps, seconds = self.step - self.first[0], now - self.first[1]
        return seconds / steps if steps > 0.05 * self.total and seconds > 1 else math.nan

    @property
    def fraction(self) -> float:
        return min(1.0, self.step / self.total) if self.total > 0 else 0.0

    def words(self, endpoint: str = "") -> str:
        parts = [self.what] if self.what else []
        if self.total > 0:
            parts.append(f"{self.step}/{self.total}")
        return " ".join(parts + [f"{k.split('/')[-1]} {v:.4g}" for k, v in shown(self.metrics, endpoint).items()])


class Progress:
    """Counts and estimates; its children draw. All output goes to standard error, tables to standard output.

    Args:
        stream: where to.

    Attributes:
        endpoint: the metric that a running model's line shows if it has it.
        note: what else is to be said.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.phase_name = self.note = self.endpoint = ""
        self.done = self.failed = self.total = 0
        self.workers = 1
        self.seconds: list[float] = []
        self.running: dict[int, Running] = {}
        self._started = self._phase_started = time.monotonic()
        self._phase = Running("")

    def phase(self, name: str) -> None:
        """A new phase begins: "reading the manifest", "making data", "features", "runs", "report"."""
        self.phase_name, self._phase, self._phase_started = name, Running("", ""), time.monotonic()
        self.draw(force=True)

    def step(self, step: int, total: int, text: str = "") -> None:
        """Progress within a phase that has no runs."""
        self._phase.step, self._phase.total, self._phase.what = step, total, text
        self.draw()

    def watch(self, event: Mapping[str, Any]) -> None:
        """Shows an event of a process that does something for all runs; empty ones keep the display alive."""
        if event["event"] == "step":
            self.step(event["step"], event["total"], event.get("text", ""))
        elif event["event"] == "tell":
            self.line(f"bipose: warning: {event['line']}")
        self.tick()

    def start_runs(self, done: int, total: int, workers: int, seconds: list[float]) -> None:
        """The runs begin.

        Args:
            done: finished in earlier sessions.
            total: of the plan.
            workers: side by side.
            seconds: of finished runs, for the estimate.
        """
        self.done, self.total, self.workers, self.seconds = (
            done,
            total,
            workers,
            [s for s in seconds if math.isfinite(s)],
        )
        self.phase("runs")

    def taken(self, slot: int, key: str) -> None:
        self.running[slot] = Running(key)

    def run_step(self, slot: int, step: int, total: int, metrics: Mapping[str, float], text: str = "") -> None:
        run = self.running.setdefault(slot, Running("?"))
        run.at(step, total)
        run.what = text
        run.metrics.update(metrics)

    def run_phase(self, slot: int, text: str) -> None:
        if slot in self.running:
            run = self.running[slot]
            run.what, run.step, run.total, run.first = text, 0, 0, None

    def ended(
        self, slot: int, key: str, status: str, seconds: float, value: float | None, error: str, name: str
    ) -> None:
        """A run ended; says so in one line that stays."""
        self.running.pop(slot, None)
        if status in ("finished", "pruned"):
            self.done += 1
            self.seconds += [seconds] if math.isfinite(seconds) else []
            shown_value = f"  {name} {value:.4f}" if value is not None and name else ""
            self.line(f"{key} {status}{shown_value}  {clock(seconds)}  ({self._count()})")
        else:
            self.failed += 1
            self.line(f"{key} failed: {error}")

    def _count(self) -> str:
        return f"{self.done}/{self.total}" if self.total else str(self.done)  # a budget in hours knows no total

    def left(self, slot: int, key: str, why: str) -> None:
        """A run was left half done; it goes on when a worker takes it up."""
        self.running.pop(slot, None)
        self.line(f"{key} interrupted: {why}")

    def eta(self) -> float:
        """Seconds left, by finished runs, and by how fast running ones go that cost more; NaN if nothing tells."""
        now = time.monotonic()
        running = [(r, r.pace(now)) for r in self.running.values()]
        whole = [pace * r.total for r, pace in running if math.isfinite(pace)]
        usual = sum(self.seconds) / len(self.seconds) if self.seconds else 0.0
        known = self.seconds + [w for w in whole if w > usual]
        if not known:
            return math.nan
        mean = sum(known) / len(known)
        to_do = max(0, self.total - self.done - self.failed)
        ahead = 0.0
        for r, pace in running:
            by_pace = pace * (r.total - r.step) if math.isfinite(pace) else 0.0
            # A run that goes on from a checkpoint has spent less now than it cost; one that has just begun knows no pace.
            by_others = (
                max(0.0, (usual or mean) - (now - r.started)) if not math.isfinite(pace) or not r.resumed else 0.0
            )
            ahead += max(by_pace, by_others)
        return (ahead + max(0, to_do - len(running)) * mean) / max(1, min(self.workers, to_do))

    def summary(self) -> str:
        """One line on where it stands."""
        if self.phase_name != "runs":
            inner = self._phase.words()
            return f"{self.phase_name}{': ' + inner if inner else ''}"
        eta = self.eta()
        parts = [f"{self._count()} runs finished"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"about {clock(eta)} left"] if math.isfinite(eta) and self.done + self.failed < self.total else []
        return ", ".join(parts + ([self.note] if self.note else []))

    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def tick(self) -> None:
        """Redraws if it is time."""
        self.draw()

    def line(self, text: str) -> None:
        """A line that stays."""
        self.stream.write(text + "\n")
        self.stream.flush()

    def draw(self, force: bool = False) -> None:
        """Shows the present state."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


class PlainProgress(Progress):
    """A line at every event, and at least every ten seconds."""

    def __init__(self, stream: TextIO | None = None, every: float = PLAIN_SECONDS) -> None:
        super().__init__(stream)
        self.every = every
        self._last = 0.0
        self._said = ""

    def line(self, text: str) -> None:
        self._last = time.monotonic()
        super().line(f"[{clock(self.elapsed())}] {text}")

    def draw(self, force: bool = False) -> None:
        if force and self.phase_name != self._said:
            self._said = self.phase_name
            self.line(self.summary())
        elif time.monotonic() - self._last >= self.every:
            runs = [f"{r.key} {r.words(self.endpoint)}" for _, r in sorted(self.running.items())]
            self.line(" | ".join([self.summary(), *runs]))


class LiveProgress(Progress):
    """A bar for the whole, a line for each worker, redrawn five times a second."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.live import Live

        self.console: Console = Console(file=self.stream, highlight=False)
        # auto_refresh would start a thread, and a forked child of a parent with threads may hang.
        self.live: Live = Live(console=self.console, auto_refresh=False, transient=True, redirect_stdout=False)
        self.live.start()
        self._last = 0.0

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def draw(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._last >= 0.2:
            self._last = now
            self.live.update(self.render(), refresh=True)

    def render(self) -> Group:
        """The display at this moment."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1))
        fraction: float | None = None
        if self.phase_name == "runs" and self.total:
            inside = sum(r.fraction for r in self.running.values())
            fraction = min(1.0, (self.done + self.failed + inside) / self.total)
        elif self._phase.total:
            fraction = self._phase.fraction
        bar: Any = ProgressBar(total=1.0, completed=fraction or 0.0, width=30, pulse=fraction is None)
        head.add_row(bar, Text(self.summary()), Text(clock(self.elapsed()), style="dim"))
        rows = Table.grid(padding=(0, 1))
        for slot, run in sorted(self.running.items()):
            rows.add_row(
                Text(f"  {slot + 1}", style="dim"),
                Text(run.key, style="bold"),
                ProgressBar(total=1.0, completed=run.fraction, width=16),
                Text(run.words(self.endpoint)),
                Text(clock(time.monotonic() - run.started), style="dim"),
            )
        return Group(head, rows)

    def close(self) -> None:
        self.live.stop()


def make_progress(stream: TextIO | None = None) -> Progress:
    """The live display on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    return LiveProgress(stream) if stream.isatty() else PlainProgress(stream)


def shown(metrics: Mapping[str, float], endpoint: str = "") -> dict[str, float]:
    """The few numbers that fit on a line: the loss, and the endpoint (else the first metric) on the validation split."""
    chosen = {k: metrics[k] for k in SHOWN if k in metrics}
    chosen = dict(list(chosen.items())[:1])
    scores = [k for k in metrics if k.startswith("val/") and k.rsplit("/", 1)[-1] not in SHOWN]
    name = endpoint.removeprefix("test/").rstrip("]")
    preferred = [k for k in scores if name and k.startswith(f"val/{name}")]
    for key in (preferred or scores)[:1]:
        chosen[key] = metrics[key]
    return chosen


def clock(seconds: float) -> str:
    """12.3 s, 4:05, 1:02:03."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
