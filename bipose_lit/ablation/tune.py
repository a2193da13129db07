"""Equal tuning: the same number of trials for every arm, at the same points of the shared space, on validation data.

The points are a Latin hypercube fixed by the tuning seed, so a resumed or parallel tuning tries exactly what an
uninterrupted one tries, and arms are compared at the same settings of what they share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bipose_lit.ablation.manifest import Tune
from bipose_lit.types import BiposeError

SPLITS = ("train", "val", "test")


class NoTrialError(BiposeError):
    """A tuning without a single usable trial; its arm cannot run."""


def points(tune: Tune, arm: str) -> list[dict[str, Any]]:
    """The `tune.trials` settings of an arm, by dotted option; the shared options are equal for all arms."""
    space = {**tune.space, **tune.arms.get(arm, {})}
    columns = {key: _column(entry, tune.trials, _generator(tune.seed, key)) for key, entry in sorted(space.items())}
    return [{key: column[t] for key, column in columns.items()} for t in range(tune.trials)]


def _generator(seed: int, key: str) -> np.random.Generator:
    """Each option has its own stream, so that an arm's further options do not move the shared ones."""
    return np.random.default_rng(np.random.SeedSequence([seed, *key.encode()]))


def _column(entry: Any, trials: int, rng: np.random.Generator) -> list[Any]:
    order = rng.permutation(trials)
    unit = (order + rng.random(trials)) / trials
    if isinstance(entry, list):
        return [entry[int(u * len(entry))] for u in unit]
    low, high = entry["low"], entry["high"]
    if entry.get("int") and not entry.get("log"):
        low, high = low - 0.5, high + 0.5  # so that both ends get their full share
    values = np.exp(math.log(low) + unit * math.log(high / low)) if entry.get("log") else low + unit * (high - low)
    if entry.get("int"):
        return [int(np.clip(round(float(v)), entry["low"], entry["high"])) for v in values]
    return [float(f"{v:.6g}") for v in values]


def best(tune: Tune, scores: Sequence[float]) -> int:
    """The trial that won; the first of equals.

    Raises:
        NoTrialError: no score is a number, since every trial failed or diverged.
    """
    signed = [(s if tune.maximize else -s) if math.isfinite(s) else -math.inf for s in scores]
    if not any(math.isfinite(s) for s in signed):
        raise NoTrialError(
            f"tuning: {tune.metric} is not a number in any of the {len(scores)} trials (they failed or diverged); mend the space"
        )
    return signed.index(max(signed))


def find_metric(metrics: Mapping[str, float], name: str, split: str = "test") -> str:
    """The full name of a metric given short: "pck@0.1[clip]" is "test/pck@0.1[clip,clip-box]".

    Args:
        metrics: by full name, "SPLIT/WHAT[HOW,...]".
        name: a full name, or one without split, or with the first of what is in brackets alone.
        split: the split if the name has none.

    Raises:
        BiposeError: none or several fit.
    """
    if name in metrics:
        return name
    wanted = name if name.partition("/")[0] in SPLITS else f"{split}/{name}"
    if wanted in metrics:
        return wanted
    stem, how = _parts(wanted)
    fits = [k for k in metrics if _parts(k)[0] == stem and _parts(k)[1][: len(how)] == how]
    if len(fits) == 1:
        return fits[0]
    here = sorted(fits or [k for k in metrics if k.startswith(wanted.split("/")[0])])
    listed = ", ".join(here[:8]) + (" ..." if len(here) > 8 else "")
    raise BiposeError(f"metric '{name}' fits {'several' if fits else 'none'} of: {listed or 'no metrics at all'}")


def _parts(name: str) -> tuple[tuple[str, str], list[str]]:
    """What is before and after the brackets, and the list inside them."""
    before, _, rest = name.partition("[")
    inside, _, after = rest.partition("]")
    return (before, after), inside.split(",") if inside else []
