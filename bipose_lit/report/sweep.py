"""`build_sweep_report`: a sweep's folder in; report.html, table.md, trials.csv and a summary for the terminal out.

The search comes first. Where its best trials and the baselines were trained on fresh seeds, their ablation follows in the
same page, read from the same folder as any other ablation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bipose_lit.report import build, html, results, sweep_figures, sweep_tables, tables
from bipose_lit.report.analysis import analyse
from bipose_lit.report.html import Section
from bipose_lit.report.load import MANIFEST, Study, load_study
from bipose_lit.report.pictures import Lookup
from bipose_lit.report.sweeps import SWEEP, Objective, Optimism, Sweep, load_sweep, optimism, value_of
from bipose_lit.store import RESULT, atomic
from bipose_lit.types import BiposeError

if TYPE_CHECKING:
    from rich.console import Console

TRIALS_CSV = "trials.csv"


@dataclass(frozen=True)
class SweepReport:
    """What was built.

    Attributes:
        sweep: the search.
        optimism: by how much its best trials flattered themselves.
        ablation: the report of the arms on fresh seeds; None before there are any.
        page, markdown, trials: the files.
        note: why there is no ablation.
    """

    sweep: Sweep
    optimism: list[Optimism]
    ablation: build.Report | None
    page: Path
    markdown: Path
    trials: Path
    note: str = ""

    @property
    def answers(self) -> list[str]:
        """What was found, and what it is worth on fresh seeds."""
        said = sweep_tables.optimism_sentence(self.sweep, self.optimism)
        return [sweep_tables.headline(self.sweep), *([said] if said else [])]

    def show(self, console: Console | None = None) -> None:
        """Prints the best trials, what they are worth, the ablation's tables, and where the files are."""
        from rich.console import Console

        console = console or Console()
        found = [sweep_tables.best_table(self.sweep, 5), sweep_tables.state_table(self.sweep)]
        if self.optimism:
            found.append(sweep_tables.optimism_table(self.sweep, self.optimism))
        for table in found:
            for part in tables.fitting(table, console.width):
                console.print(part)
        for text in self.answers:
            console.print(text, style="bold", highlight=False, markup=False)
        lines = [
            *sweep_tables.notes(self.sweep),
            *sweep_tables.failures(self.sweep),
            *([self.note] if self.note else []),
        ]
        for note in lines:
            console.print(f"· {note}", style="dim", highlight=False, markup=False)
        console.print(f"{self.trials}", highlight=False, markup=False, soft_wrap=True)
        if self.ablation is not None:
            self.ablation.show(console)
        else:
            console.print(f"{self.page}\n{self.markdown}", highlight=False, markup=False, soft_wrap=True)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's."""
    return (folder / SWEEP).is_file()


def build_sweep_report(folder: Path, frames: Lookup | None = None, train: Iterable[Any] | None = None) -> SweepReport:
    """Computes and writes the report of one sweep; equal inputs give equal files.

    Args:
        folder: OUT/NAME with sweep.json and trials.json, and with manifest.json and ARM/seedK/ once arms were trained on
            fresh seeds.
        frames: as in `build.build_report`, for that part.
        train: likewise.

    Raises:
        BiposeError: a damaged file, or files that contradict each other.
    """
    sweep = load_sweep(folder)
    study, note = _study(folder)
    ablation = None
    if study is not None:
        study.manifest = replace(study.manifest, about={**study.manifest.about, **sweep_tables.settings(sweep)})
        tracks = list(frames.values()) if frames is not None and train is not None else None
        ablation = build.write_tables(analyse(study, tracks, train), folder)
    runs = [] if ablation is None else list(ablation.analysis.study.runs.values())
    report = SweepReport(
        sweep, optimism(sweep, runs), ablation, folder / build.PAGE, folder / build.MARKDOWN, folder / TRIALS_CSV, note
    )
    with atomic(report.trials) as handle:
        handle.write(sweep_tables.trials_csv(sweep))
    with atomic(report.markdown) as handle:
        handle.write(_markdown(report))
    with atomic(report.page) as handle:
        handle.write(_page(report, frames))
    return report


def _study(folder: Path) -> tuple[Study | None, str]:
    """The arms on fresh seeds; a note where there are none yet."""
    none = "The best trials were not trained on fresh seeds yet: what they scored in the search flatters them."
    if not (folder / MANIFEST).is_file() or not any(folder.glob(f"*/seed*/{RESULT}")):
        return None, none
    try:
        return load_study(folder), ""
    except BiposeError as error:
        return None, f"No comparison on fresh seeds: {error}."


def _markdown(report: SweepReport) -> str:
    s = report.sweep
    head = f"## {s.question or s.name}\n\n" + "".join(f"- {text}\n" for text in report.answers)
    shown = [sweep_tables.best_table(s), sweep_tables.state_table(s)]
    if report.optimism:
        shown.append(sweep_tables.optimism_table(s, report.optimism))
    parts = [head, *map(tables.to_markdown, shown)]
    parts.append("\n".join(f"- {n}" for n in (*sweep_tables.notes(s), *([report.note] if report.note else []))) + "\n")
    if report.ablation is not None:
        parts.append(build.markdown(report.ablation))
    return "\n".join(parts)


def _page(report: SweepReport, frames: Lookup | None) -> str:
    s = report.sweep
    badges = ["sweep", f"{len(s.trials)} trials", f"{len(s.axes)} parameters", *(o.short for o in s.objectives)]
    study = report.ablation.analysis.study if report.ablation is not None else None
    trial = bool(s.raw.get("trial")) or (study is not None and study.manifest.trial)
    header = f"<h1>{html.escape(s.question or s.name)}</h1>"
    header += f'<p class="question">{html.escape(s.name)}</p>' if s.question else ""
    header += '<p class="badges">' + (f'<span class="alert">{results.TRIAL}</span>' if trial else "")
    header += "".join(f"<span>{html.escape(b)}</span>" for b in badges) + "</p>"
    header += "".join(f'<p class="answer">{html.escape(text)}</p>' for text in report.answers)
    header += f'<p class="answer warn">{html.escape(report.note)}</p>' if report.note else ""
    found = [
        _fresh(report), _best(s), _history(s), _parallel(s), _front(report), _importances(s), _slices(s), _steps(s), _trials(s),
    ]  # fmt: skip
    if report.ablation is not None:
        header += "".join(f'<p class="answer">{html.escape(text)}</p>' for text in report.ablation.answers)
        header += build.missing(report.ablation.analysis.study)
        found += build.sections_of(report.ablation, frames)
    return html.page(s.question or s.name, header, found, build.FOOTER)


def _fresh(report: SweepReport) -> Section:
    if not report.optimism:
        return Section("luck", "Worth", "")
    table = sweep_tables.optimism_table(report.sweep, report.optimism)
    return Section("luck", "What the search's best are worth", tables.to_html(table) + html.items(table.notes))


def _best(s: Sweep) -> Section:
    table = sweep_tables.best_table(s)
    body = (
        tables.to_html(table) + html.items(table.notes)
        if table.rows
        else f"<p>{html.escape(sweep_tables.headline(s))}</p>"
    )
    return Section("best", "The best trials" if len(s.objectives) == 1 else "Trials on the front", body)


def _history(s: Sweep) -> Section:
    if not s.scored:
        return Section("search", "Search", "")
    o = s.objectives[0]
    text = f"{o.short} of each trial in the order of their numbers, and the best so far."
    text += " Triangles: pruned, at their last value." if s.of("pruned") else ""
    if s.of("failed"):
        text += " Crosses at the foot: failed."
    return Section("search", "The search", html.figure(sweep_figures.history("search", s, text), text))


def _parallel(s: Sweep) -> Section:
    if len(s.scored) < 2 or not s.axes:
        return Section("parallel", "Parallel coordinates", "")
    text = (
        "One line a trial, from its parameters to its value; the colour tells its fifth, the best trial is thick. A line breaks "
        "where the trial does not have the parameter (*: it exists under conditions alone); lines through a choice are spread a "
        "little. Logarithmic axes where the space is."
    )
    dropped = len(s.axes) - sweep_figures.MOST_AXES
    text += f" The {dropped} least important parameters are left out." if dropped > 0 else ""
    plot = sweep_figures.parallel("parallel", s, text)
    return Section("parallel", "Parallel coordinates", html.figure(plot, text, wide=len(s.axes) > 4))


def _front(report: SweepReport) -> Section:
    s = report.sweep
    if len(s.objectives) < 2 or not s.scored:
        return Section("front", "Front", "")
    marks = _means(report, s.objectives[:2])
    one, two = s.objectives[:2]
    both = "both" if len(s.objectives) == 2 else f"all {len(s.objectives)} objectives"
    text = f"{one.short} against {two.short}. Coloured and numbered: trials that no other beats in {both}."
    text += " Larger marks: means over fresh seeds." if marks else ""
    plot = sweep_figures.front("front", s, text, marks)
    return Section("front", "Two objectives", html.figure(plot, text, beside=True))


def _means(report: SweepReport, objectives: tuple[Objective, ...]) -> dict[str, tuple[float, float]]:
    """Mean of each objective over the runs on fresh seeds, by arm; arms that lack one are left out."""
    if report.ablation is None:
        return {}
    found = {}
    for arm in report.ablation.analysis.study.arms:
        runs = report.ablation.analysis.study.of(arm)
        values = [[v for run in runs if (v := value_of(run, o)) is not None] for o in objectives]
        if all(values):
            found[arm] = (sum(values[0]) / len(values[0]), sum(values[1]) / len(values[1]))
    return found


def _importances(s: Sweep) -> Section:
    if not sweep_figures.estimated(s):
        return Section("importances", "Importances", "")
    text = (
        "Share of the differences between trials that each parameter explains, as Optuna estimates it (PED-ANOVA). An estimate "
        "from the trials that ran: it says little of regions that the search left early, and nothing below some ten trials. "
        "Parameters that not every trial has are left out."
    )
    return Section(
        "importances", "Importances", html.figure(sweep_figures.importances("importances", s, text), text, beside=True)
    )


def _slices(s: Sweep) -> Section:
    if len(s.scored) < 2 or not s.axes:
        return Section("slices", "By parameter", "")
    text = f"{s.objectives[0].short} against each parameter, the most important first."
    text += " Triangles: pruned, at their last value." if s.of("pruned") else ""
    return Section(
        "slices", "By parameter", html.figure(sweep_figures.slices("slices", s, text), text, wide=len(s.axes) > 3)
    )


def _steps(s: Sweep) -> Section:
    if not any(len(t.intermediate) > 1 for t in s.trials) or not s.scored:
        return Section("steps", "By step", "")
    text = f"{s.objectives[0].short} on the validation split by optimiser step."
    text += " Triangles: where trials were pruned." if s.of("pruned") else ""
    return Section("steps", "Trials by step", html.figure(sweep_figures.steps("steps", s, text), text, beside=True))


def _trials(s: Sweep) -> Section:
    body = tables.to_html(sweep_tables.state_table(s)) + html.items(sweep_tables.notes(s))
    lost = sweep_tables.failures(s)
    body += ("<h3>Failed trials</h3>" + html.items(lost)) if lost else ""
    every = sweep_tables.best_table(s, len(s.trials))
    if len(every.rows) > sweep_tables.MOST_TRIALS:
        body += f"<details><summary>All {len(every.rows)} ranked trials</summary>{tables.to_html(every)}</details>"
    return Section("trials", "All trials", body)
