"""Figures of a sweep: the search by trial, parallel coordinates, slices, importances, and the front of two objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bipose_lit.report.figures import GRID, INK, MARKERS, MUTED, PAPER, SCALE, SERIES, legend, svg
from bipose_lit.report.sweeps import FAILED, FINISHED, PRUNED, Axis, Objective, Sweep, Trial, told

Floats = NDArray[np.float64]
GOOD, LOST = SERIES[0], SERIES[1]
MOST_AXES, MOST_SLICES = 9, 12


def history(slug: str, sweep: Sweep, text: str) -> str:
    """Value by trial: dots, the best so far as a line, pruned and failed trials marked."""
    o = sweep.objectives[0]
    scored = sweep.scored
    low, high = window([t.value() for t in scored], o)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        handles: dict[str, Any] = {}
        x, y = _xy(scored, o)
        inside = (y >= low) & (y <= high)
        handles["finished"] = axis.plot(x[inside], y[inside], "o", color=GOOD, ms=4.2, ls="none", alpha=0.75)[0]
        pruned = [t for t in sweep.of(PRUNED) if math.isfinite(t.value())]
        px, py = _xy(pruned, o)
        foot = low if o.maximize else high
        hollow: dict[str, Any] = {"mfc": "none", "ms": 5, "ls": "none", "clip_on": False}
        if not inside.all():
            beyond = x[~inside]
            handles["finished, beyond the axis"] = axis.plot(
                beyond, np.full(len(beyond), foot), "o", mec=GOOD, **hollow
            )[0]
        if len(px):  # stopped early, most of them lie far below: at the foot they do not squeeze the others
            handles["pruned, last value"] = axis.plot(px, np.clip(py, low, high), "v", mec=MUTED, **hollow)[0]
        failed = [t.number for t in sweep.of(FAILED)]
        if failed:
            handles["failed"] = axis.plot(
                failed, [foot] * len(failed), "x", color=LOST, ms=5.5, mew=1.6, ls="none", clip_on=False, zorder=4
            )[0]
        best = sweep.so_far()
        if best:
            bx = [n for n, _ in best] + [max(t.number for t in sweep.trials)]
            by = [v * o.factor for _, v in best] + [best[-1][1] * o.factor]
            handles["best so far"] = axis.plot(bx, by, color=INK, lw=1.6, drawstyle="steps-post")[0]
        axis.set_ylim(low - 0.03 * (high - low), high + 0.06 * (high - low))
        axis.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axis.set_xlabel("trial")
        axis.set_ylabel(o.label)
        legend(figure, handles)

    return svg(slug, "Search", text, 7.2, 3.4, draw)


def parallel(slug: str, sweep: Sweep, text: str) -> str:
    """Parallel coordinates: one line a trial through its parameters to its value, coloured by fifths of the value.

    A line breaks where a trial does not have the parameter. Lines through one choice are spread a little, or sixty of them
    would look like one.
    """
    o, axes = sweep.objectives[0], sweep.important()[:MOST_AXES]
    axes = [a for a in sweep.axes if a in axes]  # in the manifest's order, where conditions follow what they hang on
    scored = sorted(sweep.scored, key=lambda t: t.value() if o.maximize else -t.value())  # the best on top
    fifth = fifths([t.value() for t in scored], o)
    low, high = window([t.value() for t in scored], o)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.set_xlim(-0.35, len(axes) + 0.55)
        axis.set_ylim(-0.07, 1.1)
        axis.axis("off")
        for t in sweep.of(PRUNED):
            places = [place(a, t) for a in axes]
            axis.plot(range(len(axes)), places, color=MUTED, lw=0.6, alpha=0.45, ls=(0, (4, 2)), zorder=1)
        for t in sweep.of(FAILED):
            places = [place(a, t) for a in axes]
            axis.plot(range(len(axes)), places, color=LOST, lw=1.0, alpha=0.9, ls=(0, (1, 1.5)), zorder=2)
        for t, f in zip(scored, fifth, strict=True):
            value = min(max((t.value() * o.factor - low) / (high - low), 0.0), 1.0)
            places = [*(place(a, t) for a in axes), value]
            last = t is scored[-1]
            axis.plot(
                range(len(places)), places, color=SCALE[f], lw=2.6 if last else 1.3, alpha=1 if f > 2 else 0.8,
                marker="o", ms=4 if last else 2.2, mew=0, zorder=3 + f + 2 * last,
            )  # fmt: skip
        for i, a in enumerate(axes):
            _upright(axis, i, _ticks(a), a.short + (" *" if a.conditional else ""))
        labels = MaxNLocator(5).tick_values(low, high)
        value_ticks = [((v - low) / (high - low), f"{v:g}") for v in labels if low <= v <= high]
        _upright(axis, len(axes), value_ticks, o.label, right=True)
        _fifths_legend(figure, axis, sweep, [t.value() for t in scored], fifth)

    return svg(slug, "Parallel coordinates", text, max(7.2, 1.25 * (len(axes) + 1) + 1), 4.5, draw)


def place(axis: Axis, trial: Trial) -> float:
    """Where a trial's parameter stands on its axis, 0 to 1; NaN where it has none."""
    if axis.option not in trial.params:
        return math.nan
    value = trial.params[axis.option]
    if axis.choices:
        text, n = told(value), len(axis.choices)
        if text not in axis.choices:
            return math.nan
        middle = axis.choices.index(text) / (n - 1) if n > 1 else 0.5
        return middle + _spread(trial.number) * 0.35 / max(n, 4)
    low, high, x = axis.low, axis.high, float(value)
    if axis.log:
        low, high, x = math.log(low), math.log(high), math.log(x) if x > 0 else math.nan
    return (x - low) / (high - low) if high > low else 0.5


def slices(slug: str, sweep: Sweep, text: str) -> str:
    """Value against each parameter, a panel each; pruned trials hollow."""
    o, axes = sweep.objectives[0], sweep.important()[:MOST_SLICES]
    low, high = window([t.value() for t in sweep.scored], o)
    columns = min(4, len(axes))
    rows = -(-len(axes) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for number, panel in enumerate(grid.flat):
            if number >= len(axes):
                panel.axis("off")
                continue
            a = axes[number]
            for trials, style in (
                (sweep.of(PRUNED), {"mfc": "none", "mec": MUTED, "marker": "v", "ms": 3.8, "alpha": 0.7}),
                (sweep.scored, {"color": GOOD, "marker": "o", "ms": 3.8, "alpha": 0.75, "mew": 0}),
            ):
                points = [(_at(a, t), t.value() * o.factor) for t in trials if a.option in t.params]
                points = [(x, min(max(y, low), high)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
                if points:
                    panel.plot(*zip(*points, strict=True), ls="none", **style)
            if a.choices:
                panel.set_xticks(range(len(a.choices)), [_cut(c, 9) for c in a.choices], fontsize=8)
                panel.set_xlim(-0.5, len(a.choices) - 0.5)
            else:
                if a.log:
                    panel.set_xscale("log")
                    panel.set_xticks([float(t) for _, t in _ticks(a, 4)], [t for _, t in _ticks(a, 4)])
                else:
                    panel.xaxis.set_major_locator(MaxNLocator(3))
                pad = 0.04
                panel.set_xlim(*_padded(a, pad))
                panel.minorticks_off()
            panel.set_xlabel(_cut(a.short, 24))
            if number % columns == 0:
                panel.set_ylabel(o.label)
        grid[0, 0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))

    return svg(slug, "By parameter", text, max(2.4 * columns, 4.8), 2.3 * rows + 0.2, draw)


def importances(slug: str, sweep: Sweep, text: str) -> str:
    """Bars: each parameter's share of importance, a panel for each objective."""
    known = estimated(sweep)
    axes = [a for a in sweep.important() if any(a.option in shares for _, shares in known)]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(known), sharey=True, squeeze=False)[0]
        rows = np.arange(len(axes))[::-1]
        for panel, (o, shares) in zip(panels, known, strict=True):
            values = [shares.get(a.option, 0.0) for a in axes]
            panel.barh(rows, values, color=GOOD, height=0.6)
            for y, v, a in zip(rows, values, axes, strict=True):
                share = f" {100 * v:.0f} %" if a.option in shares else " –"
                panel.text(v, y, share, va="center", fontsize=8.5, color=MUTED)
            panel.set_xlim(0, max([*values, 0.01]) * 1.2)
            panel.set_xticks([])
            panel.grid(visible=False)
            panel.spines["bottom"].set_visible(False)
            panel.set_title(o.short if len(known) > 1 else "")
        panels[0].set_yticks(rows, [a.short for a in axes])
        panels[0].tick_params(axis="y", colors=INK)

    return svg(slug, "Importances", text, 5.2 if len(known) == 1 else 7.2, 0.6 + 0.3 * len(axes), draw)


def estimated(sweep: Sweep) -> list[tuple[Objective, Mapping[str, float]]]:
    """Importances of the space's parameters by objective; objectives without any are left out."""
    options = {a.option for a in sweep.axes}
    every = [(o, sweep.importances.get(o.metric, {})) for o in sweep.objectives]
    return [(o, shares) for o, shares in every if options & set(shares)]


def front(slug: str, sweep: Sweep, text: str, marks: Mapping[str, tuple[float, float]]) -> str:
    """Two objectives against each other; the trials that nobody beats in all are numbered, and joined if there are but two.

    Args:
        slug: unique name in the page.
        sweep: has two objectives.
        text: what the figure shows, in words.
        marks: mean values of arms that were trained on fresh seeds, by name.
    """
    one, two = sweep.objectives[:2]
    kept = sweep.front()

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        handles: dict[str, Any] = {}
        rest = [t for t in sweep.scored if t not in kept]
        style: dict[str, Any] = {"ls": "none", "alpha": 0.6}
        handles["finished"] = axis.plot(*_plane(rest, one, two), "o", color=MUTED, ms=4, mew=0, **style)[0]
        x, y = _plane(kept, one, two)
        order = np.argsort(x)
        # who may spend what lies between two points gets the lesser one: a stair
        stair = "steps-pre" if two.maximize else "steps-post"
        if len(sweep.objectives) == 2:  # of more, what is seen of the front in a plane is no stair
            axis.plot(x[order], y[order], color=SERIES[0], lw=1.2, alpha=0.6, drawstyle=stair)
        handles["nobody is better in both" if len(sweep.objectives) == 2 else "nobody is better in all"] = axis.plot(
            x, y, "o", color=SERIES[0], ms=6, ls="none"
        )[0]
        for t, a, b in zip(kept, x, y, strict=True):
            axis.annotate(str(t.number), (a, b), xytext=(5, 4), textcoords="offset points", fontsize=8)
        for i, (name, (first, second)) in enumerate(marks.items(), 1):
            point = ([second * two.factor], [first * one.factor])
            colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
            handles[f"{name}, fresh seeds"] = axis.plot(*point, marker, color=colour, ms=7, ls="none", zorder=4)[0]
        axis.set_xlabel(two.label)
        axis.set_ylabel(one.label)
        axis.margins(0.08)
        legend(figure, handles)

    return svg(slug, "Front", text, 5.6, 3.9, draw)


def steps(slug: str, sweep: Sweep, text: str) -> str:
    """Intermediate values by optimiser step, where trials were pruned a mark."""
    o = sweep.objectives[0]
    every = [t.value() for t in sweep.scored] + [v for t in sweep.trials for v in t.intermediate.values()]
    low, high = window(every, o)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        handles: dict[str, Any] = {}
        ranked = sweep.ranked()
        for t in sweep.of(FINISHED, PRUNED):
            at = sorted(t.intermediate)
            values = [min(max(t.intermediate[s] * o.factor, low), high) for s in at]
            if not at:
                continue
            best = bool(ranked) and t is ranked[0]
            name = "best" if best else t.state
            look: dict[str, Any] = {"color": INK if best else GOOD if t.state == FINISHED else MUTED}
            look |= {"lw": 1.8 if best else 0.9, "alpha": 1 if best else 0.55, "zorder": 4 if best else 2}
            handles[name] = axis.plot(at, values, marker="o" if len(at) == 1 else "", ms=3, **look)[0]
            if t.state == PRUNED:
                mark: dict[str, Any] = {"mfc": "none", "mec": MUTED, "ms": 5, "ls": "none", "zorder": 3}
                handles["pruned here"] = axis.plot(at[-1:], values[-1:], "v", **mark)[0]
        axis.set_xlabel("step")
        axis.set_ylabel(o.label)
        legend(figure, handles)

    return svg(slug, "Trials by step", text, 5.2, 3.3, draw)


def window(values: Sequence[float], o: Objective) -> tuple[float, float]:
    """Ends of a value axis for print: all values, unless bad ones far off would squeeze the good ones together.

    The bad end is at most four times as far from the best value as the median is.
    """
    finite = np.array([v for v in values if math.isfinite(v)]) * o.factor
    if not len(finite):
        return 0.0, 1.0
    best, middle = float(finite.max() if o.maximize else finite.min()), float(np.median(finite))
    reach = 4 * abs(best - middle)
    worst = float(max(finite.min(), best - reach) if o.maximize else min(finite.max(), best + reach))
    if worst == best:
        return best - 0.5 * (abs(best) or 1), best + 0.5 * (abs(best) or 1)
    return min(worst, best), max(worst, best)


def fifths(values: Sequence[float], o: Objective) -> list[int]:
    """The fifth of each value among all, 0 the worst to 4 the best; equal values share one."""
    table = np.array(values, np.float64) * (1 if o.maximize else -1)
    below = (table[None, :] < table[:, None]).sum(1) if len(table) else table
    return [int(min(4, 5 * b // max(len(table), 1))) for b in below]


def _fifths_legend(figure: Figure, axis: Axes, sweep: Sweep, values: Sequence[float], fifth: Sequence[int]) -> None:
    o, handles = sweep.objectives[0], {}
    for f in sorted(set(fifth)):
        mine = [v for v, g in zip(values, fifth, strict=True) if g == f]
        words = " to ".join(dict.fromkeys((o.show(min(mine)), o.show(max(mine)))))
        handles[words + (" (best)" if f == max(fifth) else "")] = axis.plot([], [], color=SCALE[f], lw=2.4)[0]
    if sweep.of(PRUNED):
        handles["pruned"] = axis.plot([], [], color=MUTED, lw=1, ls=(0, (4, 2)))[0]
    if sweep.of(FAILED):
        handles["failed"] = axis.plot([], [], color=LOST, lw=1.2, ls=(0, (1, 1.5)))[0]
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles), columnspacing=1.0, fontsize=8
    )


def _upright(axis: Axes, at: float, ticks: Sequence[tuple[float, str]], name: str, right: bool = False) -> None:
    """One vertical axis with its ticks and its name above."""
    axis.plot([at, at], [0, 1], color=GRID, lw=1.2, zorder=0.5)
    for y, text in ticks:
        axis.plot([at - 0.03, at + 0.03], [y, y], color=MUTED, lw=0.8, zorder=8)
        axis.text(
            at + (0.06 if right else -0.06), y, _cut(text, 10), ha="left" if right else "right", va="center", fontsize=8,
            color=INK, zorder=20, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )  # fmt: skip
    axis.text(at, 1.06, _cut(name, 22), ha="center", va="bottom", fontsize=8.5, color=INK)


def _ticks(a: Axis, most: int = 6) -> list[tuple[float, str]]:
    """Place from 0 to 1 and text of at most so many ticks."""
    if a.choices:
        n = len(a.choices)
        return [(i / (n - 1) if n > 1 else 0.5, c) for i, c in enumerate(a.choices)]
    if a.log:
        first, last = math.log10(a.low), math.log10(a.high)
        inner = list(range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1))
        every = -(-len(inner) // most)
        found = [((k - first) / (last - first), f"1e{k}") for k in inner[::every]]
        if len(found) > 1:
            return found
        return [(0.0, f"{a.low:.2g}"), (1.0, f"{a.high:.2g}")]
    ticks = [t for t in MaxNLocator(4).tick_values(a.low, a.high) if a.low <= t <= a.high]
    return [((t - a.low) / ((a.high - a.low) or 1), f"{t:g}") for t in ticks]


def _padded(a: Axis, pad: float) -> tuple[float, float]:
    if a.high <= a.low:
        return a.low - 0.5 * (abs(a.low) or 1), a.high + 0.5 * (abs(a.high) or 1)
    if a.log:
        ratio = (a.high / a.low) ** pad
        return a.low / ratio, a.high * ratio
    return a.low - pad * (a.high - a.low), a.high + pad * (a.high - a.low)


def _at(a: Axis, t: Trial) -> float:
    value = t.params[a.option]
    if not a.choices:
        return float(value)
    text = told(value)
    return a.choices.index(text) + 0.5 * _spread(t.number) if text in a.choices else math.nan


def _spread(number: int) -> float:
    """-0.5 to 0.5, evenly filled by consecutive numbers (the golden ratio's multiples), the same in every drawing."""
    return (number * 0.6180339887498949) % 1.0 - 0.5


def _xy(trials: Sequence[Trial], o: Objective) -> tuple[Floats, Floats]:
    return np.array([float(t.number) for t in trials]), np.array([t.value() * o.factor for t in trials], np.float64)


def _plane(trials: Sequence[Trial], one: Objective, two: Objective) -> tuple[Floats, Floats]:
    """Second objective along, first one up."""
    return np.array([t.value(1) * two.factor for t in trials]), np.array([t.value(0) * one.factor for t in trials])


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
