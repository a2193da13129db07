"""`build_report`: one folder of runs in; a table on the terminal, table.md, summary.csv and report.html out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bipose_lit.report import costs, expectations, html, results, sections, tables, tuning
from bipose_lit.report.analysis import Analysis, analyse
from bipose_lit.report.load import Study, load_study
from bipose_lit.report.pictures import Lookup
from bipose_lit.store import atomic

if TYPE_CHECKING:
    from rich.console import Console

PAGE, MARKDOWN, SUMMARY = "report.html", "table.md", "summary.csv"
FOOTER = "Written by bipose from result files alone; nothing in this page is loaded from elsewhere."


@dataclass(frozen=True)
class Report:
    """What was built.

    Attributes:
        analysis: every number.
        main, cost: the tables; a comparison has one table for both.
        page, markdown, summary: the files.
    """

    analysis: Analysis
    main: tables.Table
    cost: tables.Table | None
    page: Path
    markdown: Path
    summary: Path

    @property
    def answers(self) -> list[str]:
        """One sentence for each named contrast, one for the assay, and in a comparison one on the mean pose."""
        a = self.analysis
        found = results.answers(a)
        found += [] if a.study.manifest.trial else [results.assay_sentence(a)]
        found += [costs.floor_sentence(a)] if self.cost is None else []
        return [sentence for sentence in found if sentence]

    def show(self, console: Console | None = None) -> None:
        """Prints the tables, their footnotes and where the files are."""
        from rich.console import Console

        console = console or Console()
        for table in filter(None, (self.main, self.cost, expectations.table(self.analysis.study))):
            for part in tables.fitting(table, console.width):
                console.print(part)
        for text in self.answers:
            console.print(text, style="bold", highlight=False, markup=False)
        for note in self.main.notes:
            console.print(f"· {note}", style="dim", highlight=False, markup=False)
        console.print(f"{self.page}\n{self.markdown}\n{self.summary}", highlight=False, markup=False, soft_wrap=True)


def build_report(
    folder: Path,
    manifest: Mapping[str, Any] | None = None,
    frames: Lookup | None = None,
    train: Iterable[Any] | None = None,
) -> Report:
    """Computes and writes the report of one ablation; equal inputs give equal files.

    Args:
        folder: OUT/NAME with manifest.json and ARM/seedK/.
        manifest: instead of the file.
        frames: clip's name -> Track of the test split, for pictures; without it the report says that it has none.
        train: training tracks; with them (and `frames` being tracks) the mean pose becomes a row, kept in references/.

    Raises:
        BiposeError: no usable run, a damaged file, a manifest that contradicts itself.
    """
    study = load_study(folder, manifest)
    tracks = list(frames.values()) if frames is not None and train is not None else None
    report = write_tables(analyse(study, tracks, train), folder)
    with atomic(report.page) as handle:
        handle.write(_page(report, frames))
    return report


def write_tables(analysis: Analysis, folder: Path) -> Report:
    """table.md and summary.csv; the page is left to the caller."""
    main, cost = sections.main_and_cost(analysis)
    report = Report(analysis, main, cost, folder / PAGE, folder / MARKDOWN, folder / SUMMARY)
    with atomic(report.markdown) as handle:
        handle.write(markdown(report))
    with atomic(report.summary) as handle:
        handle.write(tables.to_csv(analysis))
    return report


def tracks_by_clip(tracks: Iterable[Any]) -> Lookup:
    """The lookup that `build_report` wants, from an index's tracks."""
    return cast("Lookup", {track.clip: track for track in tracks})


def markdown(report: Report) -> str:
    """The text of table.md."""
    a = report.analysis
    head = f"## {a.study.manifest.question or a.study.manifest.name}\n\n"
    said = "".join(f"- {text}\n" for text in (*report.answers, *expectations.lines(a.study)))
    shown = (report.main, results.further_table(a), report.cost)
    parts = [head + said, *(tables.to_markdown(table) for table in shown if table is not None)]
    if (expected := expectations.table(a.study)) is not None:
        parts.append(tables.to_markdown(expected))
    if a.named or a.others:
        parts.append(tables.to_markdown(results.contrast_table(a)))
    if a.assay:
        parts.append(tables.to_markdown(results.assay_table(a)))
    tuned, objective = tuning.load_tuning(a.study), tuning.objective_of(a.study)
    if tuned and objective is not None:
        parts.append(tables.to_markdown(tuning.points_table(a.study, tuned, objective)))
    return "\n".join(parts)


def sections_of(report: Report, frames: Lookup | None) -> list[html.Section]:
    """The sections of the page, in reading order."""
    a, budget = report.analysis, html.Budget()
    return [
        sections.forest(a),
        expectations.section(a.study),
        sections.table(a),
        sections.gaps(a),
        sections.spread(a),
        sections.latency(a),
        tuning.section(a),
        sections.learning(a),
        sections.joints(a),
        sections.regimes(a),
        sections.clips(a, frames, budget),
        sections.worst(a, frames, budget),
        sections.run_facts(a),
        sections.caveats(a),
    ]


def missing(study: Study) -> str:
    """A warning in a page's head where runs are missing."""
    if not study.missing:
        return ""
    total = len(study.missing) + len(study.runs)
    return f'<p class="answer warn">{len(study.missing)} of {total} runs are missing; see <a href="#run">below</a>.</p>'


def _page(report: Report, frames: Lookup | None) -> str:
    a = report.analysis
    manifest = a.study.manifest
    alert = results.TRIAL if manifest.trial else ""
    seeds = len(a.study.seeds)
    badges = [manifest.mode and f"{manifest.mode} features", a.labels.data, f"{seeds} seed{'s' * (seeds != 1)}"]
    badges += [f"{a.labels.sources} clusters", f"{len(a.arms)} arms"]
    header = f"<h1>{html.escape(manifest.question or manifest.name)}</h1>"
    header += f'<p class="question">{html.escape(manifest.name)}</p>' if manifest.question else ""
    header += '<p class="badges">' + (f'<span class="alert">{alert}</span>' if alert else "")
    header += "".join(f"<span>{html.escape(b)}</span>" for b in badges if b) + "</p>"
    said = (*report.answers, *expectations.lines(a.study))
    header += "".join(f'<p class="answer">{html.escape(text)}</p>' for text in said)
    header += missing(a.study)
    return html.page(manifest.question or manifest.name, header, sections_of(report, frames), FOOTER)
