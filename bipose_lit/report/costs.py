"""What arms cost, and the one table of a comparison: every arm beside its size, its arithmetic and its time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bipose_lit.report import results
from bipose_lit.report.analysis import Analysis, Scores
from bipose_lit.report.load import Study
from bipose_lit.report.statistics import MIN_SEEDS_INTERVAL, Contrast, contrast
from bipose_lit.report.tables import DASH, Cell, Row, Table, interval, number, quantity

MEAN_POSE = "mean pose"
NOTE = "Measured times are means over seeds, on the machine that ran them; only ratios within one run are reliable."


def cost_table(a: Analysis) -> Table:
    """What the arms cost: size, arithmetic, time, look-ahead."""
    return costs_of(a.study, {arm: s.about for arm, s in a.arms.items()})


def costs_of(study: Study, arms: Mapping[str, str]) -> Table:
    """What the named arms cost, a row each.

    Args:
        study: the runs.
        arms: by name, what the arm is, in words.
    """
    rows = []
    for arm, about in arms.items():
        facts = [run.result.facts for run in study.of(arm)]
        measured = [run.result.measured for run in study.of(arm)]
        look = [f.get("look_ahead_frames", math.nan) for f in facts]
        ahead = "whole clip" if look and look[0] is None else DASH if look[0] != look[0] else f"{look[0]:g}"
        rows.append(
            Row(
                arm,
                (
                    Cell(quantity(_fact(facts, "parameters"))),
                    Cell(quantity(_fact(facts, "trainable_parameters"))),
                    Cell(quantity(_fact(facts, "flops_per_frame"))),
                    Cell(number(_fact(measured, "ms_per_frame"))),
                    Cell(ahead),
                    Cell(number(_fact(facts, "steps"), 0)),
                    Cell(number(_fact(measured, "train_seconds"), 0)),
                    Cell(number(_fact(measured, "peak_memory_mb"), 0)),
                ),
                about,
            )
        )
    columns = (
        "parameters",
        "trainable",
        "FLOPs/frame",
        "ms/frame",
        "look-ahead, frames",
        "steps",
        "training s",
        "peak MB",
    )
    empty = [i for i in range(len(columns)) if all(r.cells[i].main == DASH for r in rows)]
    kept = [i for i in range(len(columns)) if i not in empty]
    rows = [Row(r.name, tuple(r.cells[i] for i in kept), r.about) for r in rows]
    return Table("cost", tuple(columns[i] for i in kept), tuple(rows), (NOTE,))


def comparison_table(a: Analysis) -> Table:
    """Arms and references in one table: endpoint, difference to the mean pose, visibility, what an arm sees, what it costs."""
    floor = a.references.get(MEAN_POSE)
    hidden = any(one.weights.any() for one in next(iter(a.arms.values())).sums["occluded"].values())
    rows = []
    for s in (*a.arms.values(), *a.references.values()):
        runs = a.study.of(s.name) if not s.reference else []
        facts, measured = [run.result.facts for run in runs], [run.result.measured for run in runs]
        cells = [results.level_cell(a, s.level())]
        if floor is not None:
            cells.append(Cell() if s is floor else _difference(a, over_floor(a, s, floor)))
        cells += [Cell(results.value_of(a, s.level(r).estimate)) for r in ("visible", "occluded") if hidden]
        cells += [Cell(number(results.mean_of([sums.mean for sums in s.accel.values()]))), Cell(sees(facts))]
        cells += [Cell(quantity(_fact(facts, key))) for key in ("parameters", "flops_per_frame")]
        cells += [Cell(number(_fact(measured, "ms_per_frame"))), Cell(number(_fact(measured, "train_seconds"), 0))]
        rows.append(Row(s.name, tuple(cells), s.about, s.reference))
    head = [f"{a.metric}{' %' if a.factor == 100 else ''}"]
    head += [f"−\u00a0{MEAN_POSE}"] * (floor is not None) + ["visible", "occluded"] * hidden
    head += ["accel. error px/f²", "sees", "parameters", "FLOPs/frame", "ms/frame", "training s"]
    notes = [*results.footnotes(a), NOTE]
    if floor is not None:
        notes.insert(1, f"− {MEAN_POSE}: paired over the same clusters; nothing is corrected for the number of arms.")
    return Table(f"{a.study.manifest.name}: {results.endpoint_name(a)}", tuple(head), tuple(rows), tuple(notes))


def floor_sentence(a: Analysis) -> str:
    """How many trained arms lie above the mean pose with their whole intervals; "" where there is no mean pose.

    Of those that do not, it says for which the paired difference, which is what can be told best, is above zero all the same.
    """
    floor = a.references.get(MEAN_POSE)
    if floor is None:
        return ""
    level = floor.level()
    arms = [s for s in a.arms.values() if _fact([run.result.facts for run in a.study.of(s.name)], "steps") > 1]
    below = [s for s in arms if not s.level().low > level.high]
    above = len(arms) - len(below)
    text = f"{above} of {len(arms)} trained arms lie above the {MEAN_POSE} with their whole intervals"
    if len(a.study.seeds) < MIN_SEEDS_INTERVAL:
        text += " (over clusters alone, so of these runs and no others)"
    told = [f"{s.name}{' (but above it cluster by cluster)' * (over_floor(a, s, floor).low > 0)}" for s in below]
    return text + (f"; not: {', '.join(told)}." if below else ".")


def over_floor(a: Analysis, s: Scores, floor: Scores) -> Contrast:
    """An arm against the mean pose, cluster by cluster."""
    return contrast(s.sums["all"], floor.sums["all"], (s.name, MEAN_POSE), a.metric, "all")


def sees(facts: Sequence[dict[str, Any]]) -> str:
    """The frames that an arm reads: "frame", "past", "past +4" (so many later ones) or "clip"."""
    if not facts or "look_back_frames" not in facts[0]:
        return DASH
    back, ahead = facts[0]["look_back_frames"], facts[0]["look_ahead_frames"]
    if ahead is None:
        return "clip"
    return f"past +{ahead:g}" if ahead else "past" if back != 0 else "frame"


def _difference(a: Analysis, c: Contrast) -> Cell:
    signed = f"{c.estimate * a.factor:+.1f}" if math.isfinite(c.estimate) else DASH
    return Cell(signed, interval(c.low, c.high, a.factor, 1, sign=True))


def _fact(rows: Sequence[dict[str, Any]], key: str) -> float:
    return results.mean_of([float(row[key]) for row in rows if isinstance(row.get(key), int | float)])


__all__ = ["MEAN_POSE", "comparison_table", "cost_table", "costs_of", "floor_sentence", "over_floor", "sees"]
