"""Figures of a report as inline SVG: matplotlib draws, colours become CSS variables, so a page's light and dark themes hold.

Equal inputs give equal bytes: no date, no version, ids from a fixed salt and prefixed by the figure's own name.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# stand-ins that no plot uses otherwise; `svg` turns them into CSS variables of the page
INK, MUTED, GRID, BAND, PAPER = "#101a11", "#101a12", "#101a13", "#101a14", "#101a15"
SERIES = tuple(f"#101b{i:02x}" for i in range(8))
SCALE = tuple(f"#101c{i:02x}" for i in range(5))
"""From the worst fifth to the best: steps of one hue in lightness, which everybody can tell apart."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
LOST_MARK = "x"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    BAND: "--band",
    PAPER: "--paper",
    **{c: f"--c{i}" for i, c in enumerate(SERIES)},
    **{c: f"--s{i}" for i, c in enumerate(SCALE)},
}

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bipose",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.6,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Line:
    """One curve: `x` and `y` (P,), optionally a band from `low` to `high`; `style` picks hue and marker, None is muted."""

    label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    style: int | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Spot:
    """One arm on the plane of accuracy and latency."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    style: int | None = None


@dataclass(frozen=True)
class Panel:
    """One axes of `curves`; `apart` cuts the last point off the curves, as a category of its own."""

    lines: Sequence[Line]
    xlabel: str
    ticks: Sequence[str] | None = None
    title: str = ""
    apart: bool = False


def curves(
    slug: str,
    title: str,
    description: str,
    panels: Sequence[Panel],
    ylabel: str,
    *,
    height: float = 3.3,
    width: float = 5.2,
    markers: bool = True,
    log: bool = False,
    zero: bool = False,
) -> str:
    """Curves in panels beside each other that share the vertical axis and one legend above.

    Args:
        slug: unique name in the page.
        title: for who cannot see the figure; likewise `description`.
        description: what the figure shows, in words.
        panels: left to right.
        ylabel: of the shared axis.
        height: inches.
        width: inches.
        markers: one at each point.
        log: logarithmic vertical axis.
        zero: the vertical axis starts at 0.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        handles: dict[str, Any] = {}
        for axis, panel in zip(axes, panels, strict=True):
            for line in panel.lines:
                handles.setdefault(line.label, _line(axis, _cut(line) if panel.apart else line, markers))
            handles.pop("", None)
            if panel.ticks is not None:
                at = [*range(len(panel.ticks) - 1), len(panel.ticks) - (0.6 if panel.apart else 1)]
                axis.set_xticks(at, panel.ticks, fontsize=6.5)
            else:
                axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axis.set_xlabel(panel.xlabel)
            axis.set_title(panel.title)
        axes[0].set_ylabel(ylabel)
        if log:
            axes[0].set_yscale("log")
        elif zero:
            # a band of few clusters can dwarf the curves
            highest = max(float(np.nanmax(line.y)) for panel in panels for line in panel.lines)
            axes[0].set_ylim(0, min(axes[0].get_ylim()[1], 1.8 * highest))
        legend(figure, handles)

    return svg(slug, title, description, width, height, draw)


def _cut(line: Line) -> Line:
    """A gap before the last point, which moves a little to the right."""

    def gap(values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        return None if values is None else np.concatenate([values[:-1], [np.nan], values[-1:]])

    x = np.concatenate([line.x[:-1], [np.nan], line.x[-1:] + 0.4])
    y = gap(line.y)
    assert y is not None
    return replace(line, x=x, y=y, low=gap(line.low), high=gap(line.high))


def by_cluster(slug: str, title: str, description: str, delta: NDArray[np.float64], margin: float, unit: str) -> str:
    """Differences by seed (left) and by cluster (right, sorted by their mean, one dot a seed, a bar at the mean).

    Args:
        slug: unique name in the page.
        title: for who cannot see the figure; likewise `description`.
        description: what the figure shows, in words.
        delta: (S, C) differences; NaN where a run lacks a cluster.
        margin: half width of the band of equivalence.
        unit: of the differences.
    """

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 4])
        seeds, clusters = delta.shape
        per_seed, per_cluster = _mean(delta, 1), _mean(delta, 0)
        order = np.argsort(per_cluster, kind="stable")
        for axis in (left, right):
            axis.axhspan(-margin, margin, color=BAND, lw=0)
            axis.axhline(0, color=MUTED, lw=1)
            axis.grid(visible=False, axis="x")
        # one call for all dots: an artist each would take most of a report's time where there are many seeds
        right.plot(
            np.tile(np.arange(clusters), seeds), delta[:, order].ravel(), "o", color=MUTED, ms=2.6, alpha=0.55, mew=0
        )
        means = per_cluster[order]
        for better, colour in ((True, SERIES[0]), (False, SERIES[1])):
            left.plot(*(v[(per_seed >= 0) == better] for v in (np.arange(seeds), per_seed)), "D", color=colour, ms=5)
            where = np.flatnonzero((means >= 0) == better)
            right.hlines(means[where], where - 0.38, where + 0.38, color=colour, lw=2.4)
        left.set_xticks(range(seeds), [str(s) for s in range(seeds)] if seeds <= 6 else [""] * seeds)
        left.set_xlim(-0.7, seeds - 0.3)
        left.set_xlabel("seed")
        left.set_ylabel(unit)
        right.set_xticks([])
        right.set_xlabel(f"{clusters} clusters, sorted")

    return svg(slug, title, description, 5.2, 2.9, draw)


def scatter(slug: str, title: str, description: str, spots: Sequence[Spot], xlabel: str, ylabel: str) -> str:
    """Arms as points with vertical intervals, each labelled beside its point."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for spot in spots:
            colour, marker = _look(spot.style)
            if spot.low is not None and spot.high is not None:
                axis.vlines(spot.x, spot.low, spot.high, color=colour, lw=1.6)
            axis.plot([spot.x], [spot.y], marker, color=colour, ms=6)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        axis.margins(x=0.15, y=0.1)
        _name_spots(figure, axis, spots)

    return svg(slug, title, description, 5.2, 3.6, draw)


def bars(
    slug: str, title: str, description: str, labels: Sequence[str], groups: Mapping[str, Sequence[float]],
    styles: Mapping[str, int | None], xlabel: str,
) -> str:  # fmt: skip
    """A dot plot: one row per label, one marker per group (arm)."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        rows = np.arange(len(labels))[::-1]
        table = np.array([list(v) for v in groups.values()], np.float64)
        axis.hlines(rows, np.nanmin(table, 0), np.nanmax(table, 0), color=GRID, lw=2)
        handles = {}
        for name, values in groups.items():
            colour, marker = _look(styles.get(name))
            handles[name] = axis.plot(values, rows, marker, color=colour, ms=5.5, ls="none")[0]
        axis.set_yticks(rows, labels)
        axis.tick_params(axis="y", colors=INK)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel(xlabel)
        legend(figure, handles)

    return svg(slug, title, description, 5.2, 1.2 + 0.23 * len(labels), draw)


def _line(axis: Axes, line: Line, markers: bool) -> Any:
    colour, marker = _look(line.style)
    if line.low is not None and line.high is not None:
        axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, lw=0)
    return axis.plot(
        line.x, line.y, color=colour, marker=marker if markers else "", ms=4.2, lw=1.8 if line.style is not None else 1.0,
        ls="--" if line.dashed else "-", alpha=1 if line.style is not None else 0.55,
        zorder=3 if line.style is not None else 2,
    )[0]  # fmt: skip


def _look(style: int | None) -> tuple[str, str]:
    return (MUTED, "o") if style is None else (SERIES[style % len(SERIES)], MARKERS[style % len(MARKERS)])


def _name_spots(figure: Figure, axis: Axes, spots: Sequence[Spot]) -> None:
    """Puts each name where it meets no marker, no interval and no other name, as far as there is room."""
    figure.draw_without_rendering()

    def place(x: float, y: float) -> tuple[float, float]:
        px, py = axis.transData.transform((x, y)) * 72 / figure.dpi
        return float(px), float(py)

    taken = []
    for spot in spots:
        x, y = place(spot.x, spot.y)
        taken.append((x - 5, y - 5, x + 5, y + 5))
        if spot.low is not None and spot.high is not None:
            taken.append((x - 2, place(spot.x, spot.low)[1], x + 2, place(spot.x, spot.high)[1]))
    frame = [place(a, b) for a, b in zip(axis.get_xlim(), axis.get_ylim(), strict=True)]
    for spot in spots:
        text = f"{spot.label}{spot.note and f' ({spot.note})'}"
        wide, high, (x, y) = 4.9 * len(text), 9.0, place(spot.x, spot.y)
        found = (8.0, 0.0)
        best = np.inf
        for dy in (0.0, 9.0, -9.0, 17.0, -17.0, 26.0, -26.0, 36.0, -36.0):
            for dx in (8.0, -8.0 - wide):
                box = (x + dx, y + dy - high / 2, x + dx + wide, y + dy + high / 2)
                out = max(frame[0][0] - box[0], box[2] - frame[1][0], 0.0) * 40
                cost = abs(dy) + out + sum(_overlap(box, other) for other in taken)
                if cost < best:
                    best, found = cost, (dx, dy)
        dx, dy = found
        taken.append((x + dx, y + dy - high / 2, x + dx + wide, y + dy + high / 2))
        side = "left" if dx > 0 else "right"
        axis.annotate(
            text, (spot.x, spot.y), xytext=(8 if dx > 0 else -8, dy), textcoords="offset points", fontsize=8.5, ha=side,
            va="center",
        )  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Common area of two boxes, plus a fixed price for touching at all."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high + 60 if wide > 0 and high > 0 else 0.0


def legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper left",
            columnspacing=1.2,
            ncols=len(handles) if sum(map(len, handles)) + 5 * len(handles) < 68 else 3,
        )


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    counted = np.isfinite(values)
    total = np.where(counted, values, 0).sum(axis)
    return np.asarray(total / np.maximum(counted.sum(axis), 1), np.float64)


def svg(slug: str, title: str, description: str, width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """What `draw` draws, as SVG whose colours are the page's; see `curves` for the arguments."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # the stubs list every key
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        draw(figure)
        for axis in figure.axes:
            axis.patch.set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{slug}-", text)
    text = re.sub(r"font-family: 'DejaVu Sans';? ?|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    head = (
        f'<svg role="img" aria-labelledby="{slug}-title {slug}-desc" viewBox="0 0 {width * 72:g} {height * 72:g}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{slug}-title">{html.escape(title)}</title><desc id="{slug}-desc">{html.escape(description)}</desc>'
    )
    return re.sub(r"\n\s*", "\n", head + text[text.index(">") + 1 :])
