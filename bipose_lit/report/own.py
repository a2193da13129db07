"""The report of runs whose endpoint is a data set's own measure, such as COCO's AP in a detector's boxes.

Such a number is no mean over joints: it has no sums by cluster, so there are no intervals and no verdicts, and a detector's
boxes have no labels to draw. What remains: the numbers by arm, what was expected, and the cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bipose_lit.metrics.terms import parse
from bipose_lit.report import costs, expectations, html, results, tables
from bipose_lit.report.html import Section
from bipose_lit.report.load import MANIFEST, Study, load_study, metric_of
from bipose_lit.report.tables import Cell, Row, Table
from bipose_lit.store import atomic
from bipose_lit.types import BiposeError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class OwnReport:
    """What was built.

    Attributes:
        study: the runs.
        page, markdown, summary: the files.
    """

    study: Study
    page: Path
    markdown: Path
    summary: Path

    @property
    def shown(self) -> list[Table]:
        """Numbers, expectations, cost."""
        expected = expectations.table(self.study)
        return [own_table(self.study), *([expected] if expected is not None else []), _cost(self.study)]

    def show(self, console: Console | None = None) -> None:
        """Prints the tables, their footnotes and where the files are."""
        from rich.console import Console

        console = console or Console()
        for table in self.shown:
            for part in tables.fitting(table, console.width):
                console.print(part)
        for note in own_table(self.study).notes:
            console.print(f"· {note}", style="dim", highlight=False, markup=False)
        console.print(f"{self.page}\n{self.markdown}\n{self.summary}", highlight=False, markup=False, soft_wrap=True)


def is_own(folder: Path, manifest: Mapping[str, Any] | None = None) -> bool:
    """Whether an ablation's endpoint is no metric of the suite's own kind (`metrics.terms`)."""
    path = folder / MANIFEST
    if manifest is None and path.is_file():
        try:
            manifest = json.loads(path.read_text())
        except ValueError:
            return False  # `load_study` tells it
    endpoint = manifest.get("endpoint") if isinstance(manifest, Mapping) else None
    if not isinstance(endpoint, str):
        return False
    try:
        parse(endpoint)
    except BiposeError:
        return True
    return False


def build_own_report(folder: Path, manifest: Mapping[str, Any] | None = None) -> OwnReport:
    """Writes report.html, table.md and summary.csv.

    Raises:
        BiposeError: no usable run, or a run without the endpoint.
    """
    study = load_study(folder, manifest)
    report = OwnReport(study, folder / "report.html", folder / "table.md", folder / "summary.csv")
    title = study.manifest.question or study.manifest.name
    said = expectations.lines(study)
    with atomic(report.markdown) as handle:
        head = f"## {title}\n\n" + "".join(f"- {text}\n" for text in said)
        handle.write("\n".join([head, *map(tables.to_markdown, report.shown)]))
    with atomic(report.summary) as handle:
        handle.write(tables.runs_csv(study))
    header = f"<h1>{html.escape(title)}</h1>" + "".join(f'<p class="answer">{html.escape(text)}</p>' for text in said)
    with atomic(report.page) as handle:
        handle.write(html.page(title, header, _sections(study), "Written by bipose from result files alone."))
    return report


def own_table(study: Study) -> Table:
    """The endpoint, the manifest's further metrics and what is expected, by arm: the mean over seeds.

    Raises:
        BiposeError: a run without the endpoint.
    """
    m = study.manifest
    names = list(dict.fromkeys([m.endpoint, *m.metrics, *(e.metric for e in m.expected)]))
    rows = []
    for arm in study.arms:
        runs = study.of(arm)
        cells = []
        for name in names:
            found = {run.result.seed: metric_of(run.result.metrics, name) for run in runs}
            values = [v for v in found.values() if v is not None]
            if name == m.endpoint and len(values) < len(runs):
                run = next(run for run in runs if found[run.result.seed] is None)
                known = sorted(k.removeprefix("test/") for k in run.result.metrics if k.startswith("test/"))
                raise BiposeError(
                    f"ablation {m.name}: endpoint '{name}' is not among the test results of {arm}/seed{run.result.seed}; it has "
                    f"{', '.join(known[:6]) or 'none'}"
                )
            spread = f"{min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
            cells.append(Cell(f"{sum(values) / len(values):.3f}", spread) if values else Cell())
        rows.append(Row(arm, tuple(cells), m.about.get(arm, "")))
    seeds = len(study.seeds)
    notes = [
        f"Mean over {seeds} seed{'s' * (seeds != 1)}, final weights, on the test split. {m.endpoint} is the data set's own "
        "measure: no mean over joints, so it has no interval over sources, and no verdict.",
        *results.what_was_read(study, "the test split"),
        *results.warnings(study),
    ]
    return Table(f"{m.name}: test/{m.endpoint}", tuple(names), tuple(rows), tuple(notes))


def _cost(study: Study) -> Table:
    return costs.costs_of(study, {arm: study.manifest.about.get(arm, "") for arm in study.arms})


def _sections(study: Study) -> list[Section]:
    numbers, cost = own_table(study), _cost(study)
    return [
        Section("numbers", "All arms", tables.to_html(numbers) + html.items(numbers.notes)),
        expectations.section(study),
        Section("cost", "Cost", tables.to_html(cost) + html.items(cost.notes)),
    ]
