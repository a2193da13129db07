"""What a recipe should give: a number of somebody else's, how far from it still counts, and where a run landed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from bipose_lit.types import BiposeError

SPLIT = "test/"


@dataclass(frozen=True)
class Expected:
    """One number that an arm should reach.

    Attributes:
        metric: name in the results without its split, box rule included: "ap[det-box]", "pckh@0.5[gt-box]".
        value: in the metric's own unit; fractions of 1 for PCK, AP and the like.
        band: how far from it, either way, still counts.
        source: who published it, where, under which conditions.
        read: it was read in that source itself; False: in a secondary note, and is to be checked.
        gpu_hours: what the training costs on one GPU; None: unknown.
        arm: whose number; "" in a manifest of one arm.
    """

    metric: str
    value: float
    band: float
    source: str
    read: bool = True
    gpu_hours: float | None = None
    arm: str = ""

    @property
    def text(self) -> str:
        """The number, its band and its source."""
        return f"{self.metric} {self.value:g} ± {self.band:g} ({self.source}{'' if self.read else '; from a secondary note'})"

    @property
    def cost(self) -> str:
        """GPU-hours in words."""
        return "unknown" if self.gpu_hours is None else f"{self.gpu_hours:g}"


@dataclass(frozen=True)
class Landing:
    """Where the runs of an arm landed.

    Attributes:
        expected: what was expected.
        values: one per seed.
    """

    expected: Expected
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds; NaN without any."""
        return sum(self.values) / len(self.values) if self.values else math.nan

    @property
    def word(self) -> str:
        """ "in the band", "below the band", "above the band", "not measured" or "undefined" (a run whose number is NaN)."""
        gap = self.mean - self.expected.value
        if gap != gap:
            return "undefined" if self.values else "not measured"
        if abs(gap) <= self.expected.band + 1e-12:
            return "in the band"
        return f"{'below' if gap < 0 else 'above'} the band"

    @property
    def text(self) -> str:
        """One sentence."""
        if not self.values:
            return f"expected {self.expected.text}: not measured"
        runs = f"{len(self.values)} runs" if len(self.values) > 1 else "1 run"
        return f"expected {self.expected.text}: measured {self.mean:.4g} ({runs}), {self.word}"


def landed(expected: Sequence[Expected], results: Iterable[tuple[str, Mapping[str, float]]]) -> list[Landing]:
    """Where runs landed.

    Args:
        expected: the numbers.
        results: of finished runs: arm, and metrics by their full names.
    """
    runs = list(results)
    return [
        Landing(
            e,
            tuple(m[SPLIT + e.metric] for arm, m in runs if e.arm in ("", arm) and SPLIT + e.metric in m),
        )
        for e in expected
    ]


def read_expected(value: Any, arms: Sequence[str]) -> tuple[Expected, ...]:
    """The field `expected` of a manifest: a mapping or a list of them.

    Args:
        value: as the file has it.
        arms: of the manifest.

    Raises:
        BiposeError: an unknown or missing key, a value of another type, an arm that is not there or not named among several.
    """
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_read(item, arms) for item in items)


def _read(item: Any, arms: Sequence[str]) -> Expected:
    known = [f.name for f in fields(Expected)]
    if not isinstance(item, Mapping):
        raise BiposeError(f"expected must be a mapping with {', '.join(known)}, or a list of them, not {item!r}")
    for key in item:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0.6)
            raise BiposeError(
                f"expected: unknown key '{key}'{f'; did you mean {near[0]}?' if near else ''}; known: {', '.join(known)}"
            )
    for key in ("metric", "value", "band", "source", "gpu_hours"):
        if key not in item:
            raise BiposeError(f"expected: '{key}' is missing{' (null: unknown)' if key == 'gpu_hours' else ''}")
    texts = (("metric", str, "text"), ("source", str, "text"), ("arm", str, "text"), ("read", bool, "true or false"))
    for key, kind, wanted in texts:
        if key in item and (not isinstance(item[key], kind) or (item[key] == "" and key != "arm")):
            raise BiposeError(f"expected: {key} must be {wanted}, not {item[key]!r}")
    for key in ("value", "band", "gpu_hours"):
        number = item[key]
        if number is None and key == "gpu_hours":
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise BiposeError(
                f"expected: {key} must be a number{' or null' if key == 'gpu_hours' else ''}, not {number!r}"
            )
        if key != "value" and number <= 0:
            raise BiposeError(f"expected: {key} must be above 0, not {number}")
    if item["metric"].startswith(("train/", "val/", SPLIT)):
        raise BiposeError(f"expected: metric is a name without its split, not {item['metric']!r}")
    arm = item.get("arm", "")
    if arm and arm not in arms:
        raise BiposeError(f"expected: no arm '{arm}'; arms: {', '.join(arms)}")
    if not arm and len(arms) > 1:
        raise BiposeError(f"expected: say whose number it is: arm, one of {', '.join(arms)}")
    return Expected(**item)


__all__ = ["Expected", "Landing", "landed", "read_expected"]
