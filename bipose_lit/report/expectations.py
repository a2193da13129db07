"""Where the runs landed beside the numbers that their manifest expects."""

from __future__ import annotations

from bipose_lit.expected import Landing, landed
from bipose_lit.report import html
from bipose_lit.report.html import Section
from bipose_lit.report.load import Study
from bipose_lit.report.tables import DASH, Cell, Row, Table, to_html


def landings(study: Study) -> list[Landing]:
    """Of every expected number, the runs at hand."""
    runs = ((arm, run.result.metrics) for (arm, _), run in study.runs.items())
    return landed(study.manifest.expected, runs)


def lines(study: Study) -> list[str]:
    """One sentence for each expected number."""
    found = (landing.text for landing in landings(study))
    return [f"{text[:1].upper()}{text[1:]}." for text in found]


def table(study: Study) -> Table | None:
    """Expected and measured, side by side; None where nothing is expected."""
    rows = []
    for landing in landings(study):
        e = landing.expected
        count = len(landing.values)
        measured = Cell(f"{landing.mean:.4g}", f"{count} run{'s' if count > 1 else ''}") if count else Cell(DASH)
        cells = (Cell(f"{e.value:g}", f"± {e.band:g}"), measured, Cell(landing.word), Cell(e.cost))
        about = e.source if e.read else f"{e.source} (from a secondary note)"
        rows.append(Row(f"{e.arm}: {e.metric}" if e.arm else e.metric, cells, about))
    notes = ("Final weights, no choice of an epoch; authors often print their best epoch on the set that they score.",)
    columns = ("expected", "measured", "landed", "GPU-hours")
    return Table("expected", columns, tuple(rows), notes, first="metric") if rows else None


def section(study: Study) -> Section:
    """The table as a part of the page."""
    found = table(study)
    body = to_html(found) + html.items(found.notes) if found is not None else ""
    return Section("expected", "Expected and measured", body)
