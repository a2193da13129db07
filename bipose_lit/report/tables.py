"""The same table for terminals, GitHub and pages, and the tidy CSV of every number."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rich import box
from rich.markup import escape as mark
from rich.table import Table as RichTable
from rich.text import Text

from bipose_lit.metrics.summary import full_name
from bipose_lit.report import html
from bipose_lit.report.analysis import Analysis
from bipose_lit.report.load import Study

DASH = "–"
_VERDICTS = {"better": "bold green", "worse": "bold red", "equivalent": "bold cyan", "inconclusive": "yellow"}


@dataclass(frozen=True)
class Cell:
    """A number, what qualifies it, and a verdict; all text."""

    main: str = DASH
    small: str = ""
    verdict: str = ""

    @property
    def text(self) -> str:
        """On one line."""
        return " ".join(part for part in (self.main, self.small, self.verdict) if part)


@dataclass(frozen=True)
class Row:
    """An arm or a reference: its name, what it is, and a cell per column."""

    name: str
    cells: tuple[Cell, ...]
    about: str = ""
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """What every renderer reads; `columns` name the cells, `notes` are printed below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    first: str = "arm"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in percent, a dash where there is none."""
    return DASH if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits, a dash where there is none."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, factor: float = 100, digits: int = 1, sign: bool = False) -> str:
    """ "[low, high]" times `factor`; empty where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    form = f"{'+' if sign else ''}.{digits}f"
    return f"[{low * factor:{form}}, {high * factor:{form}}]"


def quantity(value: float | None) -> str:
    """A count with three figures and a letter: 16.6M, 1.85G."""
    if value is None or not math.isfinite(value):
        return DASH
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def to_rich(table: Table) -> RichTable:
    """For terminals."""
    out = RichTable(
        title=mark(table.title) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    out.add_column(mark(table.first), no_wrap=True)
    for i, column in enumerate(table.columns):
        out.add_column(mark(column), justify="right", width=_width(table, i))
    for i, row in enumerate(table.rows):
        style = "dim" if row.reference else ""
        cells = []
        for cell in row.cells:
            text = Text(cell.main)
            if cell.small:
                text.append(f"\n{cell.small}", "dim")
            if cell.verdict:
                text.append(f"\n{cell.verdict}", _VERDICTS.get(cell.verdict.split(" ")[0].strip(","), "dim"))
            cells.append(text)
        last = i + 1 == len(table.rows) or table.rows[i + 1].reference != row.reference
        out.add_row(Text(f"({row.name})" if row.reference else row.name), *cells, style=style, end_section=last)
    return out


def fitting(table: Table, width: int) -> list[RichTable]:
    """The table for a terminal of this width: cut into several with the same rows where it is too wide."""
    room = width - max(map(len, (table.first, *(f"({row.name})" for row in table.rows)))) - 4
    parts: list[list[int]] = [[]]
    left = room
    for i in range(len(table.columns)):
        needed = _width(table, i) + 3
        if needed > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(i)
        left -= needed
    titles = [table.title, *[""] * (len(parts) - 1)]
    return [
        to_rich(
            replace(
                table,
                title=title,
                columns=tuple(table.columns[i] for i in part),
                rows=tuple(replace(row, cells=tuple(row.cells[i] for i in part)) for row in table.rows),
            )
        )
        for title, part in zip(titles, parts, strict=True)
    ]


def _width(table: Table, column: int) -> int:
    """Of the longest word of the title and the longest line of the cells."""
    cells = [row.cells[column] for row in table.rows]
    return max(map(len, (*table.columns[column].split(" "), *(p for c in cells for p in (c.main, c.small, c.verdict)))))


def to_markdown(table: Table) -> str:
    """For GitHub."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    rows = [line([table.first, *table.columns]), line(["---", *["---:"] * len(table.columns)])]
    for row in table.rows:
        name = f"_{row.name}_" if row.reference else f"**{row.name}**"
        rows.append(line([name, *(cell.text for cell in row.cells)]))
    parts = [f"### {table.title}", "\n".join(rows)]
    if table.notes:
        parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def to_html(table: Table) -> str:
    """For pages; notes are left to the page."""
    rows, classes = [], []
    for i, row in enumerate(table.rows):
        cells = [html.escape(row.name) + (f"<small>{html.escape(row.about)}</small>" if row.about else "")]
        for cell in row.cells:
            small = f"<small>{html.escape(cell.small)}</small>" if cell.small else ""
            verdict = (
                f'<span class="verdict {html.escape(cell.verdict.split(" ")[0].strip(","))}">'
                f"{html.escape(cell.verdict)}</span>"
                if cell.verdict
                else ""
            )
            cells.append(html.escape(cell.main) + small + verdict)
        rows.append(cells)
        ends = i + 1 < len(table.rows) and table.rows[i + 1].reference != row.reference
        classes.append(" ".join(c for c in ("reference" if row.reference else "", "split" if ends else "") if c))
    return html.table([table.first, *map(html.escape, table.columns)], rows, classes, table.title)


_COLUMNS = (
    *("name", "kind", "arm", "control", "seed", "metric", "stratum", "value", "low", "high", "p", "margin"),
    *("verdict", "measured"),
)


def to_csv(a: Analysis) -> str:
    """Every number of every usable run, the references' levels and all comparisons, in one table.

    Rows by kind: "run" has one metric of one run; "reference" the endpoint's mean over seeds in one stratum, with its 95%
    interval; "named", "exploratory" and "assay" the difference arm minus control on the endpoint, with its interval, p (as
    corrected as in the report) and margin of equivalence. Numbers are in the metric's own unit: fractions, not points. A
    trial and an exploratory comparison have no verdict.

    What differs between equal runs (seconds, memory) stands in the last column alone, so two repetitions of an ablation
    agree in all others to the last bit (numbers are written exactly).
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for text in _run_texts(a.study):
        buffer.write(text)
    for row in (*_reference_rows(a), *_contrast_rows(a)):
        writer.writerow({"name": a.study.manifest.name} | {k: _exact(v) for k, v in row.items()})
    return buffer.getvalue()


def runs_csv(study: Study) -> str:
    """The rows of kind "run" alone."""
    return ",".join(_COLUMNS) + "\n" + "".join(_run_texts(study))


def _run_texts(study: Study) -> Iterator[str]:
    """Each run's rows as text: a thousand runs have a million of them, so each is put together, not written by csv."""
    gap = {name: "," * (_COLUMNS.index(name) - _COLUMNS.index("metric")) for name in ("value", "measured")}
    rest = "," * (len(_COLUMNS) - 1 - _COLUMNS.index("value"))
    name = _quoted(study.manifest.name)
    named: dict[str, str] = {}  # most names are those of every run: quoted once
    for (arm, seed), run in study.runs.items():
        result = run.result
        head = f"{name},run,{_quoted(arm)},,{seed},"  # name, kind, arm, control, seed
        lines = []
        for metric, value in sorted(result.metrics.items()):
            field = named.get(metric) or named.setdefault(metric, _quoted(metric) + gap["value"])
            lines.append(f"{head}{field}{value!r}{rest}\n")
        others: dict[str, Any] = {f"fact/{k}": v for k, v in sorted(result.facts.items())}
        others |= {f"scorings/{k}": v for k, v in sorted(result.scorings.items())}
        others |= {k: getattr(result, k) for k in ("config_hash", "data_fingerprint", "weights_hash")}
        for metric, value in others.items():
            lines.append(f"{head}{_quoted(metric)}{gap['value']}{_quoted(_exact(value))}{rest}\n")
        for metric, value in sorted(result.measured.items()):
            lines.append(f"{head}{_quoted(f'measured/{metric}')}{gap['measured']}{_quoted(_exact(value))}\n")
        yield "".join(lines)


@lru_cache(maxsize=65536)
def _quoted(text: str) -> str:
    """A field as csv writes it."""
    if not text:
        return ""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([text])
    return buffer.getvalue()


def _reference_rows(a: Analysis) -> Iterator[dict[str, Any]]:
    metric = full_name(a.metric, a.labels)
    for s in a.references.values():
        for stratum, sums in s.sums.items():
            if any(one.weights.any() for one in sums.values()):
                c = s.level(stratum)
                key = {"kind": "reference", "arm": s.name, "metric": metric, "stratum": stratum}
                yield {**key, "value": c.estimate, "low": _known(c.low), "high": _known(c.high)}


def _contrast_rows(a: Analysis) -> Iterator[dict[str, Any]]:
    metric = full_name(a.metric, a.labels)
    judged = [("exploratory" if v.exploratory else "named", v) for v in (*a.named, *a.others)]
    judged += [("assay", r.verdict) for r in a.assay if r.verdict is not None]
    for kind, v in judged:
        c = v.contrast
        key = {"kind": kind, "arm": c.arm, "control": c.control, "metric": metric, "stratum": c.stratum}
        numbers = {"value": c.estimate, "low": c.low, "high": c.high, "p": v.p, "margin": v.margin}
        told = not v.exploratory and not a.study.manifest.trial
        yield {**key, **{k: _known(n) for k, n in numbers.items()}, "verdict": v.verdict if told else ""}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _exact(value: Any) -> str:
    return repr(value) if isinstance(value, float) else "" if value is None else str(value)
