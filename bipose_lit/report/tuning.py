"""The tuning of an ablation's arms: every arm got the same number of trials, and this is what came of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bipose_lit.report import html
from bipose_lit.report.analysis import Analysis
from bipose_lit.report.figures import LOST_MARK, MARKERS, MUTED, SERIES, legend, svg
from bipose_lit.report.html import Section
from bipose_lit.report.load import Study, metric_of
from bipose_lit.report.sweeps import Objective, shortened, told
from bipose_lit.report.tables import DASH, Cell, Row, Table, to_html
from bipose_lit.store import SPEC, RunResult
from bipose_lit.types import BiposeError


@dataclass(frozen=True)
class Tuned:
    """One arm's tuning.

    Attributes:
        arm: whose.
        values: validation value by trial; NaN where a trial failed or diverged.
        states: of each trial: "finished", "failed", or "missing".
        points: the setting of each trial by option, {} where it is not known.
        best: the trial that was chosen, the first of equals; None where no value is a number.
    """

    arm: str
    values: tuple[float, ...]
    states: tuple[str, ...]
    points: tuple[Mapping[str, Any], ...]
    best: int | None


def objective_of(study: Study) -> Objective | None:
    """What the tuning decided by; None where the manifest does not tune."""
    tune = study.manifest.raw.get("tune")
    if not isinstance(tune, Mapping) or not tune.get("metric"):
        return None
    return Objective(str(tune["metric"]), bool(tune.get("maximize", True)))


def load_tuning(study: Study) -> list[Tuned]:
    """The arms that have a tuning trial on disk, in the manifest's order; [] where the manifest does not tune."""
    tune, objective = study.manifest.raw.get("tune"), objective_of(study)
    if objective is None or not isinstance(tune, Mapping):
        return []
    found = []
    for arm in study.manifest.arms:
        options = [*(tune.get("space") or {}), *((tune.get("arms") or {}).get(arm) or {})]
        folders = {int(p.name[5:]): p for p in (study.folder / "tune" / arm).glob("trial*") if p.name[5:].isdigit()}
        if not folders:
            continue
        count = max(int(tune.get("trials") or 0), max(folders) + 1)
        trials = [_trial(folders.get(t), objective, options) for t in range(count)]
        values = tuple(value for value, _, _ in trials)
        sign = 1 if objective.maximize else -1
        finite = [t for t in range(count) if math.isfinite(values[t])]
        best = max(finite, key=lambda t: (sign * values[t], -t)) if finite else None
        found.append(Tuned(arm, values, tuple(s for _, s, _ in trials), tuple(p for *_, p in trials), best))
    return found


def section(a: Analysis) -> Section:
    """The tuning curve of each arm, and the chosen settings."""
    found, objective = load_tuning(a.study), objective_of(a.study)
    if not found or objective is None:
        return Section("tuning", "Tuning", "")
    most = max(len(t.values) for t in found)
    text = (
        f"Best {objective.short} on the validation split so far, by trial: every arm got the same {most} trials at the same "
        "points of what they share. Dots: single trials."
    )
    if any("failed" in t.states for t in found):
        text += " Crosses at the foot: failed."
    body = html.figure(curve("tuning-curve", found, objective, styles(a, found), text), text, beside=True)
    table = points_table(a.study, found, objective)
    return Section("tuning", "Tuning", body + "<h3>Chosen settings</h3>" + to_html(table) + html.items(table.notes))


def styles(a: Analysis, found: list[Tuned]) -> dict[str, int | None]:
    """Hues as in the other figures; here the arms that are muted there take what hues are left."""
    focus = a.focus[: len(SERIES)]
    others = [t.arm for t in found if t.arm not in focus]
    left = dict(zip(others, range(len(focus), len(SERIES)), strict=False))
    return {t.arm: focus.index(t.arm) if t.arm in focus else left.get(t.arm) for t in found}


def curve(slug: str, found: list[Tuned], o: Objective, style: Mapping[str, int | None], text: str) -> str:
    """Best value so far by trial, an arm a line, on one axis."""
    finite = [v * o.factor for t in found for v in t.values if math.isfinite(v)]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        handles: dict[str, Any] = {}
        foot = (min(finite) if o.maximize else max(finite)) if finite else 0.0
        for i, t in enumerate(found):
            number = style.get(t.arm)
            colour = MUTED if number is None else SERIES[number % len(SERIES)]
            marker = "o" if number is None else MARKERS[number % len(MARKERS)]
            # arms share their points' numbers: side by side none hides another
            x = np.arange(len(t.values)) + 0.5 * ((i + 0.5) / len(found) - 0.5)
            y = np.array(t.values) * o.factor
            axis.plot(x, y, marker, color=colour, ms=3.6, ls="none", alpha=0.55, mew=0)
            with np.errstate(invalid="ignore"):
                best = np.fmax.accumulate(y) if o.maximize else np.fmin.accumulate(y)
            handles[t.arm] = axis.plot(
                x, best, color=colour, lw=1.7, drawstyle="steps-post", marker=marker, ms=4, markevery=[len(x) - 1]
            )[0]
            lost = [x[j] for j, state in enumerate(t.states) if state == "failed"]
            if lost:
                axis.plot(lost, [foot] * len(lost), LOST_MARK, color=colour, ms=5, mew=1.5, ls="none", clip_on=False)
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.set_xlabel("trial")
        axis.set_ylabel(f"best {o.label} so far")
        legend(figure, handles)

    return svg(slug, "Tuning curves", text, 5.6, 3.5, draw)


def points_table(study: Study, found: list[Tuned], o: Objective) -> Table:
    """The chosen setting of each arm."""
    options = list(dict.fromkeys(option for t in found for point in t.points for option in point))
    short = shortened(options)
    rows = []
    for t in found:
        point = t.points[t.best] if t.best is not None else {}
        numbers = [v for v in t.values if math.isfinite(v)]
        cells = [
            Cell(DASH if t.best is None else str(t.best)),
            Cell(o.show(None if t.best is None else t.values[t.best])),
            Cell(o.show(float(np.median(numbers)) if numbers else None)),
            *(Cell(told(point[option]) if option in point else DASH) for option in options),
            Cell(f"{t.states.count('finished')}/{len(t.states)}"),
        ]
        rows.append(Row(t.arm, tuple(cells), study.manifest.about.get(t.arm, "")))
    columns = ("trial", f"best {o.label}", "median", *(short[option] for option in options), "finished")
    told_so = [f"{short[option]} is {option}" for option in options if short[option] != option]
    notes = ["Values of the validation split, from the tuning's own seed; the arms were trained anew on fresh seeds."]
    lost = {t.arm: [i for i, s in enumerate(t.states) if s == "failed"] for t in found if "failed" in t.states}
    if lost:
        words = "; ".join(f"{arm}: {', '.join(map(str, trials))}" for arm, trials in lost.items())
        notes.append(f"Failed trials count as the worst ({words}).")
    if told_so:
        notes.append("; ".join(told_so) + ".")
    return Table("tuning", columns, tuple(rows), tuple(notes))


def _trial(folder: Path | None, o: Objective, options: list[str]) -> tuple[float, str, dict[str, Any]]:
    run = next(iter(sorted(folder.glob("seed*"))), None) if folder is not None else None
    if run is None:
        return math.nan, "missing", {}
    point = _point(run / SPEC, options)
    try:
        result = RunResult.load(run)
    except BiposeError:  # a damaged result is a trial without one
        result = None
    if result is None:
        return math.nan, "missing", point
    if result.status != "finished":
        return math.nan, "failed", point
    value = metric_of(result.metrics, o.short, "val")
    finite = value is not None and math.isfinite(value)
    return (value if value is not None and finite else math.nan), ("finished" if finite else "failed"), point


def _point(path: Path, options: list[str]) -> dict[str, Any]:
    """The options' values in a run's configuration."""
    try:
        config = json.loads(path.read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    found = {}
    for option in options:
        value: Any = config
        for part in option.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[option] = value
    return found
