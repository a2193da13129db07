"""The words and tables of a sweep's report."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from bipose_lit.report.statistics import MIN_SEEDS_INTERVAL
from bipose_lit.report.sweeps import FAILED, FINISHED, PRUNED, RUNNING, STATES, Optimism, Sweep, Trial, told
from bipose_lit.report.tables import DASH, Cell, Row, Table

MOST_TRIALS = 10
LEAST = 4
"""Finished trials before a search tells importances."""


def best_table(s: Sweep, most: int = MOST_TRIALS) -> Table:
    """The best trials with their parameters; of several objectives those that nobody beats in all."""
    several = len(s.objectives) > 1
    shown = s.shown()[:most]
    arms = {number: arm for arm, number in s.best.items()} if s.raw.get("best") else {}
    axes = [a for a in s.axes if any(a.option in t.params for t in shown)] or list(s.axes)
    rows = []
    for t in shown:
        cells = [Cell(o.show(t.value(i))) for i, o in enumerate(s.objectives)]
        cells += [Cell(told(t.params[a.option]) if a.option in t.params else DASH) for a in axes]
        note = f"as trial {t.copied_from}" if t.copied_from is not None else arms.get(t.number, "")
        rows.append(Row(str(t.number), (*cells, Cell(f"{t.seconds:.0f}")), note))
    columns = (*(o.label for o in s.objectives), *(a.short for a in axes), "seconds")
    title = "trials that none beats in all objectives" if several else f"the best {len(shown)} of {s.ended} trials"
    notes = [f"Values are of the validation split, as the search saw them; {told_short(s)}."]
    left = len(s.shown()) - len(shown)
    if left > 0:
        notes.append(f"{left} more are in trials.csv.")
    return Table(title, columns, tuple(rows), tuple(notes), first="trial")


def told_short(s: Sweep) -> str:
    """What the short names of parameters stand for."""
    longer = [f"{a.short} is {a.option}" for a in s.axes if a.short != a.option]
    return ", ".join(longer) if longer else "parameters have their full names"


def state_table(s: Sweep) -> Table:
    """How many trials ended how, and what they took."""
    rows = []
    for state in STATES:
        mine = s.of(state)
        if mine:
            total = sum(t.seconds for t in mine)
            rows.append(Row(state, (Cell(str(len(mine))), Cell(duration(total)), Cell(duration(total / len(mine))))))
    total = sum(t.seconds for t in s.trials)
    mean = duration(total / len(s.trials)) if s.trials else DASH
    rows.append(Row("all", (Cell(str(len(s.trials))), Cell(duration(total)), Cell(mean))))
    return Table("trials by state", ("trials", "time", "mean"), tuple(rows), first="state")


def optimism_table(s: Sweep, found: Sequence[Optimism]) -> Table:
    """The best trials' values in the search beside those on fresh seeds."""
    o, rows = s.objectives[0], []
    for x in found:
        has = x.low == x.low
        fresh = Cell(o.show(x.fresh), f"[{o.show(x.low)}, {o.show(x.high)}]" if has else "")
        ends = sorted((x.luck - (x.fresh - x.low), x.luck + (x.high - x.fresh))) if has else []
        signed = [f"{v * o.factor:+.2f}" if o.factor == 100 else f"{v:+.3g}" for v in (x.luck, *ends)]
        luck = Cell(signed[0], f"[{signed[1]}, {signed[2]}]") if has else Cell(DASH)
        rows.append(Row(x.arm, (Cell(str(x.trial)), Cell(o.show(x.searched)), fresh, luck, Cell(str(x.seeds)))))
    columns = ("trial", "in the search", "on fresh seeds", "luck", "seeds")
    notes = (
        f"{o.label} on the validation split, both; intervals are 95% over seeds, on the same clips. Luck: by how much the "
        "search's value is better. The best of many trials is partly the luckiest: fresh seeds tell what its setting is worth.",
        *(
            [f"Luck is not told from fewer than {MIN_SEEDS_INTERVAL} fresh seeds."]
            if any(x.low != x.low for x in found)
            else ()
        ),
    )
    return Table("what the search's best are worth", columns, tuple(rows), notes)


def optimism_sentence(s: Sweep, found: Sequence[Optimism]) -> str:
    """How much the best trial flattered itself; empty where it was not trained anew."""
    if not found:
        return ""
    x, o = found[0], s.objectives[0]
    unit = " points" if o.factor == 100 else ""
    digits = "1f" if o.factor == 100 else "3g"
    has = x.low == x.low
    between = f" [{o.show(x.low)}, {o.show(x.high)}]" if has else ""
    size = f"{abs(x.luck) * o.factor:.{digits}}{unit}"
    first = len(s.objectives) == 1 and [t.number for t in s.ranked()[:1]] == [x.trial]
    which = f"The best of {s.ended} trials" if first else f"Trial {x.trial}"
    text = f"{which} scored {o.show(x.searched)} in the search and {o.show(x.fresh)}{between} on {x.seeds} fresh seed"
    text += "s" * (x.seeds != 1)
    if not has:
        return f"{text} (fewer than {MIN_SEEDS_INTERVAL}: no interval): {size} {'worse' if x.luck > 0 else 'better'}."
    if x.sure:
        return f"{text}: {size} were luck." if unit else f"{text}: a difference of {size} was luck."
    if x.luck > 0:
        return f"{text}: {size} worse, no more than seeds differ by."
    return f"{text}: the search did not flatter it."


def headline(s: Sweep) -> str:
    """What the search found, in one sentence."""
    counts = ", ".join(f"{len(s.of(state))} {state}" for state in STATES if s.of(state))
    if not s.ranked():
        what = "No finished trial has a value of its own" if s.of(FINISHED) else "No trial has finished yet"
        return f"{what} ({counts or 'none has begun'})."
    if len(s.objectives) > 1:
        names = " and ".join(o.short for o in s.objectives)
        both = "both" if len(s.objectives) == 2 else "all of"
        return f"{len(s.front())} of {len(s.trials)} trials ({counts}) are beaten by none in {both} {names}."
    top, o = s.ranked()[0], s.objectives[0]
    found = f"{o.short} {o.show(top.value())} with {setting(s, top)}"
    return f"Trial {top.number} is the best of {len(s.trials)} ({counts}): {found}."


def setting(s: Sweep, t: Trial) -> str:
    """A trial's parameters in words: "head lstm, lr 0.001"."""
    return ", ".join(f"{a.short} {told(t.params[a.option])}" for a in s.axes if a.option in t.params)


def settings(s: Sweep) -> dict[str, str]:
    """What the arms are that repeat the search's best trials."""
    numbers = {t.number: t for t in s.trials}
    return {arm: f"trial {n}: {setting(s, numbers[n])}" for arm, n in s.best.items() if n in numbers}


def notes(s: Sweep) -> list[str]:
    """How the search was made and what must be known of it."""
    raw = s.raw
    found = [
        f"Sampler {_settings(raw.get('sampler'))}; pruner {_settings(raw.get('pruner'))}; budget {_budget(raw.get('budget'))}."
    ]
    seeds = raw.get("seeds")
    if isinstance(seeds, int) and seeds > 1:
        found.append(f"A trial's value is the mean of {seeds} seeds.")
    if s.of(RUNNING):
        found.append(f"Running or waiting for another worker: {len(s.of(RUNNING))}. This report is not the last one.")
    copied = [t for t in s.trials if t.copied_from is not None]
    if copied:
        found.append(f"Trials that met a point that was tried before and took its result over: {len(copied)}.")
    if s.of(PRUNED):
        found.append(
            "Pruned trials were stopped early; their last value is of an earlier step and is compared with no finished one."
        )
    if not s.importances.get(s.objectives[0].metric):
        few = len(s.of(FINISHED)) < LEAST
        why = (
            "four finished trials are needed" if few else "the values do not differ, or no parameter is in every trial"
        )
        found.append(f"No importances: {why}.")
    return found


def failures(s: Sweep) -> list[str]:
    """Why trials failed, equal reasons together."""
    reasons: dict[str, list[Trial]] = {}
    for t in s.of(FAILED):
        reasons.setdefault(t.error or "no reason was recorded", []).append(t)
    numbers = {why: f"trial{'s' * (len(ts) > 1)} {', '.join(str(t.number) for t in ts)}" for why, ts in reasons.items()}
    return [f"{which}: {why}" for why, which in numbers.items()]


def trials_csv(s: Sweep) -> str:
    """Every trial with its exact numbers; a parameter that a trial does not have is empty."""
    names = [a.option for a in s.axes]
    values = [o.metric for o in s.objectives]
    head = ["number", "state", *values, *names, "seconds", "pruned_at", "copied_from", "folder", "error"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for t in s.trials:
        numbers = ["" if math.isnan(t.value(i)) else repr(t.value(i)) for i in range(len(values))]
        params = ["" if n not in t.params else _exact(t.params[n]) for n in names]
        ends = ["" if v is None else str(v) for v in (t.pruned_at, t.copied_from)]
        writer.writerow([t.number, t.state, *numbers, *params, repr(t.seconds), *ends, t.folder, t.error])
    return buffer.getvalue()


def duration(seconds: float) -> str:
    """Seconds in words: 48 s, 12 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _exact(value: object) -> str:
    return repr(value) if isinstance(value, float) else told(value)


def _settings(value: object) -> str:
    """ "tpe (seed 0)"."""
    if not isinstance(value, dict):
        return str(value or "none")
    rest = ", ".join(f"{k} {told(v)}" for k, v in value.items() if k != "name" and v is not None)
    return f"{value.get('name', 'unknown')}" + (f" ({rest})" if rest else "")


def _budget(value: object) -> str:
    if not isinstance(value, dict):
        return str(value or "unknown")
    return " or ".join(f"{told(v)} {k}" for k, v in value.items() if v is not None) or "none"
