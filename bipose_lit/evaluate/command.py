"""What `bipose evaluate` does: picks the protocol, scores, prints a table, writes the numbers."""

from __future__ import annotations

import difflib
import importlib
import math
from pathlib import Path
from typing import Any

from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.evaluate.protocols import PROTOCOLS
from bipose_lit.types import BiposeError


def evaluate(protocol: str, annotations: Path, predictions: Path, json: Path | None = None, **options: Any) -> Outcome:
    """Scores a file of predictions, prints the table and writes OUT where asked for.

    Args:
        protocol: one of PROTOCOLS.
        annotations: the labels' file or folder.
        predictions: the predictions' file or folder.
        json: where to write the numbers.
        options: of the protocol; None for its default.

    Raises:
        BiposeError: an unknown protocol, an option that it does not take, or what the files lack.
    """
    if protocol not in PROTOCOLS:
        near = difflib.get_close_matches(protocol, PROTOCOLS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise BiposeError(f"protocol {protocol!r} is none of {', '.join(PROTOCOLS)}{hint}")
    chosen = PROTOCOLS[protocol]
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in chosen.options:
            fits = ", ".join(p for p, known in PROTOCOLS.items() if name in known.options)
            raise BiposeError(
                f"--{name.replace('_', '-')} is not an option of protocol {protocol}; it belongs to {fits}"
            )
    for role, path, meant in (
        ("--annotations", annotations, chosen.annotations),
        ("--predictions", predictions, chosen.predictions),
    ):
        if not path.exists():
            raise BiposeError(f"{role} {path}: no such file or folder; {protocol} takes {meant}")
    if json is not None and json.is_dir():
        raise BiposeError(f"--json {json}: is a folder; name a file")
    outcome: Outcome = importlib.import_module(chosen.module).evaluate(annotations, predictions, **given)
    show(outcome)  # first: a file that cannot be written shall not cost the scores
    if json is not None:
        outcome.save(json)
    return outcome


def show(outcome: Outcome) -> None:
    """Prints an outcome: whole numbers first, then parts (joints) as one table with a column per metric."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    counts = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in outcome.counts.items())
    about = ", ".join(f"{what} {value}" for what, value in outcome.about.items())
    console.print(f"[bold]{outcome.protocol}[/bold]{_plain(f' ({about})') if about else ''}: {counts}")
    whole = {name: value for name, value in outcome.metrics.items() if "/" not in name}
    parts: dict[str, dict[str, float]] = {}
    for name, value in outcome.metrics.items():
        if "/" in name:
            metric, part = name.split("/", 1)
            parts.setdefault(part, {})[metric] = value
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in whole.items():
        table.add_row(_plain(name), _number(name, value))
    console.print(table)
    if parts:
        columns = list(dict.fromkeys(metric for row in parts.values() for metric in row))
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("")
        for metric in columns:
            table.add_column(_plain(metric), justify="right")
        for part, row in parts.items():
            table.add_row(_plain(part), *(_number(m, row[m]) if m in row else "" for m in columns))
        console.print()
        console.print(table)
    for note in outcome.notes:
        console.print(_plain(note), style="dim")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # not markup


def _number(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if _has_unit(name) else f"{100 * value:.3f}%"


def _has_unit(name: str) -> bool:
    """Whether a metric is in millimetres, pixels or their like, not a fraction."""
    return name.split("/")[0].startswith(("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "accel", "jitter", "error"))
