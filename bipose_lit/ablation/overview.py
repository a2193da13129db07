"""`bipose ablate --plan`: what would be done, and what it would take."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bipose_lit.ablation.keys import shared_key
from bipose_lit.ablation.plan import steps
from bipose_lit.ablation.process import Channel, call
from bipose_lit.ablation.progress import clock
from bipose_lit.ablation.worker import Session
from bipose_lit.types import BiposeError

WORDS = {"finished": "finished", "failed": "failed, will be repeated", "todo": "to do", "conflict": "CONFLICT"}


def show_plan(
    session: Session, workers: int, watch: Callable[[dict[str, Any]], None], close: Callable[[], None]
) -> None:
    """Prints every run with its state, and the time and disk space that the plan takes.

    Args:
        session: the plan and who would do it.
        workers: side by side.
        watch: sees the progress of what is computed for this.
        close: ends the progress display before the tables are printed.
    """
    from rich.console import Console
    from rich.table import Table

    plan, m = session.plan, session.plan.manifest
    table = Table(title=f"{m.name}: {m.question}", title_justify="left")
    for column in ("run", "configuration", "steps", "state"):
        table.add_column(column, overflow="fold")
    counts: dict[str, int] = {}
    shared: dict[tuple[str, int], Mapping[str, Any]] = {}
    for task in plan.tasks.values():
        state = plan.state(task)
        counts[state.name] = counts.get(state.name, 0) + 1
        spec = plan.bind(task)
        config = spec.config if spec else plan.config(task.of or task.arm, task.point)
        # Each seed's own per-frame model has features of its own, known before it is trained.
        shared.setdefault((shared_key(config), task.seed if m.stage1 == "per_seed" else 0), config)
        words = WORDS.get(state.name, f"waits {state.why}" if len(state.why) < 40 else "waits for tuning")
        table.add_row(
            task.key,
            spec.config_hash if spec else "known later",
            steps(config),
            f"{words} ({state.why})" if state.name in ("failed", "conflict") else words,
        )
    disk = "no cached features (mode: full)"
    if m.mode == "frozen":
        try:
            total = sum(call(partial(_cache_bytes, session, config), watch) for config in shared.values())
            disk = f"{total / 1e9:.3f} GB of cached features"
        except BiposeError as error:
            disk = f"cache unknown until the data are {'made' if m.make else 'there'} ({error})"
    close()
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
    seconds = plan.estimate(workers)
    gpus = f", GPUs: {len(session.runner.devices)}" if session.runner.devices else ""
    print(f"runs: {len(plan.tasks)}, " + ", ".join(f"{n} {s}" for s, n in sorted(counts.items())))
    print(f"workers: {workers}, threads each: {m.threads}{gpus}")
    print(f"disk: {disk}")
    print(f"time: {'about ' + clock(seconds) if math.isfinite(seconds) else 'unknown until the first run is finished'}")
    for expected in m.expected:
        print(f"expected: {expected.text}; GPU-hours: {expected.cost}")
    print(f"folder: {plan.folder}")


def _cache_bytes(session: Session, config: Mapping[str, Any], channel: Channel) -> int:
    return session.runner.backend.cache_bytes(dict(config))
