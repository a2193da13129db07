"""Forest plot of differences between arms: a table whose last column is drawn."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class ForestRow:
    """One comparison of a forest plot, in the unit of the axis (points)."""

    label: str
    estimate: float
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    named: bool = True
    note: str = ""


def forest_table(rows: Sequence[ForestRow], margin: float, unit: str) -> str:
    """A forest plot as a table whose last column is drawn, so that it reads on any width and without pictures.

    Args:
        rows: top to bottom; named contrasts in full colour, exploratory ones muted.
        margin: half width of the band of equivalence, in `unit`.
        unit: of the estimates, e.g. "points of PCK@0.1".
    """
    finite = [v for r in rows for v in (r.estimate, r.low, r.high) if v is not None and np.isfinite(v)]
    low, high = min([-margin, *finite]), max([margin, *finite])
    pad = 0.06 * (high - low or 1)
    low, high = low - pad, high + pad

    def x(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    def ground() -> str:
        width = f"{100 * 2 * margin / (high - low):.2f}%"
        return (
            f'<rect x="{x(-margin)}" y="0" width="{width}" height="100%" class="band"/>'
            f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="100%" class="zero"/>'
        )

    body = []
    for row in rows:
        interval = f" [{row.low:+.2f}, {row.high:+.2f}]" if row.low is not None and row.high is not None else ""
        words = f"{row.label}: {row.estimate:+.2f}{interval} {unit} {row.verdict}"
        bar = (
            f'<line x1="{x(row.low)}" x2="{x(row.high)}" y1="50%" y2="50%" class="ci"/>'
            if row.low is not None and row.high is not None
            else ""
        )
        body.append(
            f'<tr class="{"named" if row.named else "exploratory"}"><th scope="row">{html.escape(row.label)}'
            f"{f'<small>{html.escape(row.note)}</small>' if row.note else ''}</th>"
            f'<td class="num">{row.estimate:+.2f}<small>{html.escape(interval.strip())}</small></td>'
            f'<td><span class="verdict {html.escape(row.verdict.split(" ")[0].strip(",") or "none")}">'
            f"{html.escape(row.verdict)}</span></td>"
            f'<td class="plot"><svg class="strip" role="img" aria-label="{html.escape(words)}">{ground()}{bar}'
            f'<circle cx="{x(row.estimate)}" cy="50%" r="5.5" class="dot"/></svg></td></tr>'
        )
    ticks = "".join(
        f'<text x="{x(t)}" y="14" text-anchor="middle">{t:+g}</text>'
        for t in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
        if low <= t <= high
    ).replace("+0<", "0<")
    return (
        '<table class="forest"><thead><tr><th scope="col">comparison</th><th scope="col">difference</th>'
        '<th scope="col">verdict</th><th scope="col" class="plot">'
        f"{html.escape(unit)}; band: ±{margin:g}</th></tr></thead><tbody>{''.join(body)}</tbody>"
        f'<tfoot aria-hidden="true"><tr><td></td><td></td><td></td><td class="plot"><svg class="axis">{ticks}</svg>'
        "</td></tr></tfoot></table>"
    )
