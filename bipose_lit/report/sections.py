"""The sections of the page: figures and media with their captions, in the order in which a reader should look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics.summary import alias, full_name
from bipose_lit.metrics.terms import parse
from bipose_lit.report import costs, figures, html, media, pictures, results
from bipose_lit.report.analysis import Analysis, clip_means, frame_errors, gap_curve, gap_edges
from bipose_lit.report.figures import Line, Panel, Spot
from bipose_lit.report.forest import ForestRow, forest_table
from bipose_lit.report.html import Budget, Section
from bipose_lit.report.pictures import Lookup
from bipose_lit.report.tables import Table, to_html
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, OCCLUDED, BiposeError

Floats = NDArray[np.float64]
_MIN_COUNT = 10
_GONE = "No pictures: the prediction files of the arms to be shown are gone."


def styles(a: Analysis) -> dict[str, int | None]:
    """A hue for each arm that matters, none (muted) for the rest."""
    focus = a.focus[:8]
    return {arm: focus.index(arm) if arm in focus else None for arm in a.arms}


def forest(a: Analysis) -> Section:
    """Named contrasts and exploratory ones with the band of equivalence."""
    rows = [
        ForestRow(
            v.contrast.name.replace(" - ", " − "),
            v.contrast.estimate * a.factor,
            low=v.contrast.low * a.factor if v.contrast.low == v.contrast.low else None,
            high=v.contrast.high * a.factor if v.contrast.high == v.contrast.high else None,
            verdict=results.word(a, v),
            named=not v.exploratory,
            note="" if v.exploratory or a.study.manifest.trial else results.reason(a, v),
        )
        for v in (*a.named, *a.others)
        if v.contrast.estimate == v.contrast.estimate
    ]
    if not rows:
        return Section("differences", "Differences", "")
    side = "Right of zero is better" if parse(a.metric).higher_is_better else "Left of zero is better"
    lead = (
        f"Difference in {html.escape(results.endpoint_name(a))}; {results.over(a)}. {side}; inside the "
        "band two arms count as equivalent. Solid: named before the runs, Holm-corrected. Hollow: exploratory."
    )
    plot = forest_table(rows, a.study.manifest.margin * a.factor, a.unit)
    more = f"<details><summary>p-values and power</summary>{to_html(results.contrast_table(a))}"
    return Section(
        "differences", "Differences", plot + more + html.items(results.contrast_table(a).notes) + "</details>", lead
    )


def main_and_cost(a: Analysis) -> tuple[Table, Table | None]:
    """The result table and the cost table; a comparison has one for both."""
    if a.study.manifest.layout == "comparison":
        return costs.comparison_table(a), None
    return results.main_table(a), costs.cost_table(a)


def table(a: Analysis) -> Section:
    """The result table, further metrics and the cost table."""
    (main, cost), further = main_and_cost(a), results.further_table(a)
    body = to_html(main) + html.items(main.notes)
    if further is not None:
        body += "<h3>Further metrics</h3>" + to_html(further) + html.items(further.notes)
    if cost is not None:
        body += "<h3>Cost</h3>" + to_html(cost) + html.items(cost.notes)
    return Section("table", "All arms", body)


def gaps(a: Analysis) -> Section:
    """Error by frames since last and until next visible."""
    if not any(np.isfinite(gap_curve(s, "since")[0][1:]).any() for s in a.arms.values()):
        return Section("time", "Error while hidden", "")
    style, names, panels = styles(a), gap_edges(), []
    relative = a.labels.error == "error[clip]"
    factor = 100 if relative else 1
    for side, label in (("since", "frames since last seen"), ("until", "frames until seen again")):
        counts = gap_curve(next(iter(a.arms.values())), side)[3]
        used = np.flatnonzero(counts >= _MIN_COUNT)
        lines = []
        for arm in a.focus:
            mean, low, high, _ = gap_curve(a.arms[arm], side)
            x = np.arange(len(used), dtype=np.float64)
            lines.append(Line(arm, x, mean[used] * factor, low[used] * factor, high[used] * factor, style[arm]))
        panels.append(Panel(lines, label, [names[i] for i in used], apart=names[used[-1]] == "never"))
    unit = "% of the clip's box" if relative else "px"
    text = (
        "Mean error of a joint by how long it has been hidden (left) and how long until it is seen again (right); bands are "
        "95% intervals. A causal memory can flatten the left panel only, looking ahead the right one too."
    )
    plot = figures.curves("gaps", "Error while hidden", text, panels, f"mean error, {unit}", height=3.5, zero=True)
    return Section("time", "Error while hidden", html.figure(plot, text, beside=True))


def spread(a: Analysis) -> Section:
    """Differences by seed and cluster of the named contrasts."""
    found = []
    margin = a.study.manifest.margin * a.factor
    for i, v in enumerate(a.named or a.others[:1]):
        c = v.contrast
        name = c.name.replace(" - ", " − ")
        wins = int(((c.differences.mean(0) > 0) == c.higher_is_better).sum())
        text = f"{name}: better in {wins} of {len(c.clusters)} clusters. Dots: seeds. Bars: means. Band: margin."
        found.append(
            html.figure(figures.by_cluster(f"spread{i}", name, text, c.differences * a.factor, margin, a.unit), text)
        )
    return Section("spread", "By seed and cluster", html.grid(found))


def latency(a: Analysis) -> Section:
    """Accuracy against latency."""
    style, spots = styles(a), []
    runs = {arm: [r.result for r in a.study.of(arm)] for arm in a.arms}
    label = ""
    for key, unit in (("ms_per_frame", "ms per frame"), ("flops_per_frame", "GFLOPs per frame")):
        for arm, s in a.arms.items():
            times = [r.measured.get(key, r.facts.get(key)) for r in runs[arm]]
            known = [float(t) for t in times if isinstance(t, int | float)]
            if known:
                look = runs[arm][0].facts.get("look_ahead_frames", 0)
                ahead = "whole clip" if look is None else f"{look:g} ahead" if look else "causal"
                level = s.level()
                low, high = results.possible(a, level)
                bottom, top = (low * a.factor, high * a.factor) if low == low else (None, None)
                x = float(np.mean(known)) / (1 if key == "ms_per_frame" else 1e9)
                spots.append(Spot(arm, x, level.estimate * a.factor, bottom, top, note=ahead, style=style[arm]))
        if spots:
            label = unit
            break
    if len(spots) < 2:
        return Section("latency", "Accuracy and latency", "")
    text = "Each arm's accuracy with its 95% interval against its time per frame; in brackets how far it looks ahead."
    plot = figures.scatter("latency", "Accuracy and latency", text, spots, label, a.metric)
    return Section("latency", "Accuracy and latency", html.figure(plot, text, beside=True))


def learning(a: Analysis) -> Section:
    """Validation endpoint and training loss by step."""
    style, found = styles(a), []
    wanted = alias(full_name(a.metric, a.labels, "val"))
    for slug, label, pick in (
        ("val", f"val/{a.metric}", lambda k: alias(k) == wanted),
        ("loss", "train/loss", lambda k: alias(k) == "train_loss"),
    ):
        lines = [line for arm in a.arms if (line := _learning_line(a, arm, pick, style[arm]))]
        if lines:
            text = f"{label} by optimiser step: mean of seeds, band from the lowest to the highest seed."
            plot = figures.curves(
                f"learn-{slug}", label, text, [Panel(lines, "step")], label, markers=False, log=slug == "loss"
            )
            found.append(html.figure(plot, text))
    return Section("learning", "Learning curves", html.grid(found))


def joints(a: Analysis) -> Section:
    """The endpoint by joint."""
    style = styles(a)
    groups = {k: v for k, v in next(iter(a.arms.values())).joints.items() if not k.startswith(("left_", "right_"))}
    labels = [g for g in groups if np.isfinite(np.mean(groups[g]))]
    values = {arm: [float(np.mean(a.arms[arm].joints[g])) * a.factor for g in labels] for arm in a.focus}
    text = f"{a.metric} by joint, left and right together, mean of seeds."
    plot = figures.bars("joints", "By joint", text, labels, values, style, a.metric)
    more = f"<details><summary>Every joint and arm</summary>{to_html(results.joint_table(a))}</details>"
    return Section("joints", "By joint", html.figure(plot, text, beside=True) + more)


def regimes(a: Analysis) -> Section:
    """The endpoint by regime, and the assay."""
    body = to_html(results.regime_table(a))
    lead = (
        "Of a joint in a frame: visible, or hidden in one of four ways that differ in what memory could know. Across these "
        "lies N: joints whose visibility never changes in their clip, where memory should change nothing."
    )
    if a.assay:
        judged = []
        for row, r in zip(results.assay_table(a).rows, a.assay, strict=True):
            mark = {True: "passed", False: "failed", None: "none"}[r.passed if not a.study.manifest.trial else None]
            outcome = f'<td class="words"><span class="verdict {mark}">{html.escape(row.cells[2].main)}</span></td>'
            size = f"{html.escape(row.cells[1].main)}<small>{html.escape(row.cells[1].small)}</small>"
            judged.append([html.escape(row.name), outcome, html.escape(row.cells[0].main), size])
        head = ["regime and comparison", "outcome", "expected", f"difference, {html.escape(a.unit)}"]
        sentence = "" if a.study.manifest.trial else f"<p><strong>{html.escape(results.assay_sentence(a))}</strong></p>"
        body += "<h3>Did the assay come out?</h3>" + sentence + html.table(head, judged, label="assay")
    return Section("regimes", "By regime", body, lead)


def clips(a: Analysis, frames: Lookup | None, budget: Budget) -> Section:
    """Clips that play."""
    title, missing = "Clips", "No pictures: the data was not at hand when this report was built."
    if frames is None:
        return Section("clips", title, f"<p>{missing}</p>")
    arms = _shown(a)
    seed, predictions = _predictions(a, arms)
    main, control = a.main
    if not {main, control} <= set(predictions):
        return Section("clips", title, f"<p>{_GONE}</p>")
    labels = predictions[main]
    gain = clip_means(labels, a.metric) - clip_means(predictions[control], a.metric)
    gain = gain if parse(a.metric).higher_is_better else -gain
    order = [int(i) for i in np.argsort(-gain, kind="stable") if np.isfinite(gain[i]) and labels.clips[i] in frames]
    if not order:
        return Section("clips", title, f"<p>{missing}</p>")
    lowest = "largest loss" if gain[order[-1]] < 0 else "smallest gain"
    picks = {order[0]: "largest gain", order[len(order) // 2]: "median gain", order[-1]: lowest}
    hidden = np.bincount(labels.clip, weights=(labels.visible == OCCLUDED).sum(1), minlength=len(labels.clips))
    rest = [i for i in order if i not in picks and hidden[i]]
    if rest:
        picks[max(rest, key=lambda i: hidden[i])] = "most hidden joints"
    found = []
    for clip, why in picks.items():
        name = labels.clips[clip]
        rows = np.flatnonzero(labels.clip == clip)
        text = f"{name}: {why}; {main} over {control}: {gain[clip] * a.factor:+.1f} {a.unit}, seed {seed}."
        try:
            pages = pictures.clip_frames(frames[name].frames, predictions, name)
        except BiposeError as error:
            found.append(f"<p>{html.escape(f'{name}: {error}')}</p>")
            continue
        label, poster = f"{text} Panels: label, {', '.join(arms)}.", media.jpeg(pages[len(pages) // 2], 80)
        uri = media.video(pages, float(labels.fps[rows[0]])) if len(pages) > 1 else ""
        if budget.take(uri + poster):
            shown = html.video(uri, label, poster) if uri else html.image(poster, label)
            found.append(html.figure(shown, text))
    key = (
        '<p class="key"><i style="background:#56b4e9"></i>left<i style="background:#e69f00"></i>right of the person'
        '<i style="border:2px solid var(--muted)"></i>hollow, dashed: occluded</p>'
    )
    lead = (
        f"Chosen by rule: the clips where {main} gains most and least over {control}, the middle one, the most hidden."
    )
    return Section("clips", title, key + html.grid(found) + _refused(budget), html.escape(lead))


def worst(a: Analysis, frames: Lookup | None, budget: Budget) -> Section:
    """Frames in which arms differ most, and the largest errors."""
    if frames is None:
        return Section("worst", "Worst frames", "")
    main, control = a.main
    seed, predictions = _predictions(a, [control, main] if control != main else [main])
    if not {main, control} <= set(predictions):
        return Section("worst", "Worst frames", "")
    labels, relative = predictions[main], a.labels.error == "error[clip]"
    errors = {arm: frame_errors(p, a.labels.error) for arm, p in predictions.items()}
    groups = [(f"Where {main} errs most", errors[main])]
    if control != main:
        gain = errors[control] - errors[main]
        groups = [(f"Where {main} gains most over {control}", gain), (f"Where {main} loses most", -gain), *groups]
    found = []
    for title, value in groups:
        strips = []
        for row in _worst_rows(labels, value, frames):
            clip, frame = labels.clips[labels.clip[row]], int(labels.frame[row])
            try:
                strips.append(pictures.strip(frames[clip].frames, predictions, clip, frame, f"{clip} #{frame}"))
            except BiposeError as error:
                found.append(f"<p>{html.escape(f'{clip}: {error}')}</p>")
        if strips:
            uri = media.jpeg(pictures.stack(strips), 84)
            alt = f"{title}: label, {', '.join(predictions)}; red lines lead from labels to predictions."
            if budget.take(uri):
                found.append(html.figure(html.image(uri, alt), f"{title} (seed {seed})."))
    unit = "relative to the clip's box" if relative else "in pixels"
    lead = f"Single frames by mean error {unit}, at most one a clip; red lines lead from the label to the prediction."
    return Section("worst", "Worst frames", html.grid(found) + _refused(budget), lead)


def run_facts(a: Analysis) -> Section:
    """What was run."""
    rows = [
        [
            html.escape(f"{arm}/seed{seed}"),
            *(
                f"<code>{html.escape(v[:12] or '–')}</code>"
                for v in (
                    run.result.config_hash,
                    run.result.weights_hash,
                    run.result.data_fingerprint,
                    run.result.commit,
                )
            ),
        ]
        for (arm, seed), run in a.study.runs.items()
    ]
    hashes = html.table(["run", "configuration", "weights", "data", "commit"], rows, label="runs")
    body = html.facts(results.provenance(a)) + f"<details><summary>{len(rows)} runs</summary>{hashes}</details>"
    if a.study.missing:
        lost = [f"{arm}/seed{seed}: {why}" for arm, seed, why in a.study.missing]
        body += "<h3>Missing runs</h3>" + html.items(lost)
    return Section("run", "What was run", body)


def caveats(a: Analysis) -> Section:
    """Honest caveats."""
    return Section("caveats", "Read with care", html.items(results.caveats(a), ""))


def _learning_line(a: Analysis, arm: str, pick: Callable[[str], bool], style: int | None) -> Line | None:
    runs, tracks, names = a.study.of(arm), [], set[str]()
    for run in runs:
        names.update(*run.history)
    wanted = sorted(filter(pick, names))
    for run in runs:
        rows: dict[int, float] = {}
        for row in run.history:
            value: Any = next((row[k] for k in wanted if k in row), None)
            if isinstance(value, int | float):
                rows[int(row["step"])] = float(value)
        if rows:
            tracks.append(rows)
    steps = sorted(set.intersection(*map(set, tracks))) if tracks else []
    if len(steps) < 2:
        return None
    table = np.array([[t[s] for s in steps] for t in tracks])
    low, high = (table.min(0), table.max(0)) if len(tracks) > 1 and style is not None else (None, None)
    return Line(arm if style is not None else "", np.array(steps, np.float64), table.mean(0), low, high, style)


def _shown(a: Analysis) -> list[str]:
    """Control, another arm of the contrasts, main arm."""
    main, control = a.main
    other = [x for x in a.focus if x not in (main, control)][:1]
    return list(dict.fromkeys([control, *other, main]))


def _predictions(a: Analysis, arms: list[str]) -> tuple[int, Mapping[str, Predictions]]:
    common = set.intersection(*({r.seed for r in a.study.of(arm)} for arm in arms))
    seed = min(common) if common else -1
    found = {arm: p for arm in arms if (run := a.study.runs.get((arm, seed))) and (p := run.predictions()) is not None}
    return seed, found


def _worst_rows(labels: Predictions, value: Floats, frames: Lookup, count: int = 4) -> list[int]:
    """Rows of the largest positive values, at most one a clip."""
    found: dict[int, int] = {}
    usable = np.isfinite(value) & (labels.visible != ABSENT).any(1)
    for row in np.argsort(np.where(usable, -value, np.inf), kind="stable"):
        clip = int(labels.clip[row])
        if not usable[row] or value[row] <= 0 or len(found) == count:
            break
        if clip not in found and labels.clips[clip] in frames:
            found[clip] = int(row)
    return list(found.values())


def _refused(budget: Budget) -> str:
    return (
        f"<p>{budget.refused} pictures or videos were left out to keep this file small.</p>" if budget.refused else ""
    )
