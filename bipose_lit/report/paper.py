"""The paper's claims, each beside the definition that it could have, what others published, and what was measured.

All numbers and sources stand in paper.yaml; what follows from them (above every value in the sources, what a per-frame ResNet-50
has, AP above AR) is computed here, and runs of the named recipes fill the column of measured values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import yaml

from bipose_lit.report.tables import DASH, percent
from bipose_lit.store import RESULT, RunResult
from bipose_lit.types import BiposeError

if TYPE_CHECKING:
    from rich.console import Console

FILE = Path(__file__).with_name("paper.yaml")
CLOSE = 0.015
"""Differences up to this say nothing: repositories' own numbers for one network differ as much (R50 on COCO: 70.4 and 71.8)."""
STEP = 1 / 101
"""AP is a mean over 101 levels of recall, the first of which is 0: it exceeds the largest recall by one of them at most."""


class Published(msgspec.Struct, forbid_unknown_fields=True):
    """A number of somebody else's.

    Attributes:
        value: fraction of 1.
        by: the network.
        how: under which conditions.
        source: key of the file's sources.
        read: whether it was read in that source itself.
    """

    value: float
    by: str
    how: str
    source: str
    read: bool


class Definition(msgspec.Struct, forbid_unknown_fields=True):
    """What a claimed number could be.

    Attributes:
        definition: in words.
        r50: key of what a per-frame ResNet-50 has under it.
        best: key of the highest value under it in the sources, which need not be the highest anywhere.
        recipe: manifest of experiments/recipes that trains the paper's network by the paper's recipe.
        metric: name of the number in its results.
        at_most: the claim that it exceeds by `STEP` at most under this definition, if that one is what its name says.
        bound: key of the source that says so.
    """

    definition: str
    r50: str | None = None
    best: str | None = None
    recipe: str | None = None
    metric: str | None = None
    at_most: str | None = None
    bound: str | None = None


class Number(msgspec.Struct, forbid_unknown_fields=True):
    """A number that the paper claims.

    Attributes:
        claim: its name.
        where: in the paper.
        value: as printed there.
        undefined: why the data do not define it; "" where they do.
        could_be: definitions that would give such a number.
    """

    claim: str
    where: str
    value: float
    undefined: str = ""
    could_be: list[Definition] = []


class Statement(msgspec.Struct, forbid_unknown_fields=True):
    """A claim without a number: what is said, what is known of it, the verdict."""

    said: str
    where: str
    known: str
    verdict: str
    source: str | None = None


class Claims(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    paper: str
    published: dict[str, Published]
    sources: dict[str, str]
    numbers: list[Number]
    statements: list[Statement]


@dataclass(frozen=True)
class Row:
    """A claimed number under one definition; texts, and the sources that they rest on."""

    claim: str
    value: str
    definition: str
    best: str
    r50: str
    measured: str
    verdict: str
    sources: tuple[str, ...] = ()


def load_claims(path: Path = FILE) -> Claims:
    """Reads the claims.

    Raises:
        BiposeError: a broken file, or a key that names nothing.
    """
    try:
        claims = msgspec.convert(yaml.safe_load(path.read_text()), Claims)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise BiposeError(f"{path}: {' '.join(str(error).split())}") from error
    names = {n.claim for n in claims.numbers}
    definitions = [d for n in claims.numbers for d in n.could_be]
    cited = {
        "published": ({key for d in definitions for key in (d.r50, d.best)}, set(claims.published)),
        "numbers": ({d.at_most for d in definitions}, names),
        "sources": (
            {p.source for p in claims.published.values()}
            | {s.source for s in claims.statements}
            | {d.bound for d in definitions},
            set(claims.sources),
        ),
    }
    for where, (keys, known) in cited.items():
        for key in sorted(key for key in keys if key is not None and key not in known):
            raise BiposeError(f"{path}: {key} is not under {where}")
        for key in sorted(known - keys) if where != "numbers" else ():
            raise BiposeError(f"{path}: nothing cites {key} under {where}")
    return claims


def measured(runs: Path | None, recipe: str | None, metric: str | None) -> str:
    """The mean over seeds of a recipe's finished runs in RUNS/RECIPE, with their number; says where there are none."""
    if recipe is None or metric is None:
        return DASH
    finished = []
    for folder in sorted((runs / recipe).glob("*/seed*")) if runs is not None else ():
        result = RunResult.load(folder) if (folder / RESULT).is_file() else None
        if result is not None and result.status == "finished":
            finished.append(result.metrics)
    values = [found[metric] for found in finished if metric in found]
    if not values:
        return f"not in {recipe}'s results" if finished else f"not run ({recipe})"
    mean = sum(values) / len(values)
    return f"{percent(mean) if mean == mean else 'undefined'} ({len(values)} run{'s' * (len(values) > 1)})"


def verdict(number: Number, definition: Definition | None, claims: Claims) -> str:
    """What follows from the published numbers for a claim under one definition."""
    found: list[str] = []
    if definition is None:
        return f"not defined: {number.undefined}"
    r50, best = (claims.published.get(key or "") for key in (definition.r50, definition.best))
    if best is not None and number.value > best.value:
        found.append(f"above every value in the sources ({best.by} {percent(best.value)})")
    elif r50 is not None and abs(number.value - r50.value) <= CLOSE:
        found.append("what a ResNet-50 has frame by frame")
    elif r50 is not None and number.value < r50.value:
        found.append(f"below a ResNet-50 frame by frame, by {100 * (r50.value - number.value):.1f} points")
    elif r50 is not None:
        found.append(f"{100 * (number.value - r50.value):.1f} points above a ResNet-50 frame by frame")
    other = next((n for n in claims.numbers if n.claim == definition.at_most), None)
    if other is not None and number.value > other.value + STEP:
        found.append(
            f"AP exceeds AR by at most 1/101, and this exceeds the table's recall by {100 * (number.value - other.value):.0f} "
            "points: that recall is no AR"
        )
    if number.undefined:
        found.append(number.undefined)
    return "; ".join(found)


def rows(claims: Claims, runs: Path | None = None) -> Iterator[Row]:
    """One row for each definition of each number, and one for a number without any.

    Args:
        claims: as `load_claims` reads them.
        runs: folder of recipes' runs, for the measured values.
    """
    for number in claims.numbers:
        value = percent(number.value, 0) if number.value <= 1 else f"{number.value:g}"
        if not number.could_be:
            yield Row(number.claim, value, DASH, DASH, DASH, DASH, verdict(number, None, claims))
        for definition in number.could_be:
            best, r50 = (claims.published.get(key or "") for key in (definition.best, definition.r50))
            yield Row(
                number.claim,
                value,
                definition.definition,
                _published(best),
                _published(r50),
                measured(runs, definition.recipe, definition.metric),
                verdict(number, definition, claims),
                tuple(
                    dict.fromkeys(s for s in (*(p.source for p in (best, r50) if p is not None), definition.bound) if s)
                ),
            )


def _published(found: Published | None) -> str:
    if found is None:
        return DASH
    return f"{percent(found.value)} ({found.by}; {found.how})" + ("" if found.read else " ~")


WIDE = 150
"""Columns of a window that the tables fit in."""
HEADS = (
    "claim",
    "value",
    "it could be",
    "highest in the sources",
    "ResNet-50 published",
    "measured here",
    "verdict",
    "sources",
)
SAID = ("said", "where", "known", "verdict", "sources")
NOTE = "~: from a secondary note. Values in percent, but for MPJPE. Published values are their authors', under their conditions."


def table(claims: Claims, runs: Path | None = None) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """Cells of the two tables (numbers, statements), and the numbered sources."""
    used: dict[str, int] = {}

    def cite(keys: tuple[str, ...]) -> str:
        return ", ".join(f"[{used.setdefault(key, len(used) + 1)}]" for key in keys)

    numbers = [
        [r.claim, r.value, r.definition, r.best, r.r50, r.measured, r.verdict, cite(r.sources)]
        for r in rows(claims, runs)
    ]
    said = [[s.said, s.where, s.known, s.verdict, cite((s.source,) if s.source else ())] for s in claims.statements]
    return numbers, said, [f"[{n}] {claims.sources[key]}" for key, n in used.items()]


def to_markdown(claims: Claims, runs: Path | None = None) -> str:
    """The report as Markdown."""
    numbers, said, sources = table(claims, runs)

    def lines(heads: tuple[str, ...], body: list[list[str]]) -> str:
        texts = [list(heads), ["---"] * len(heads), *body]
        return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in texts)

    parts = [
        f"# What the paper claims\n\n{claims.paper}",
        lines(HEADS, numbers),
        NOTE,
        lines(SAID, said),
        "\n".join(f"- {s}" for s in sources),
    ]
    return "\n\n".join(parts) + "\n"


def show(claims: Claims, runs: Path | None = None, console: Console | None = None) -> None:
    """Prints the report on a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    numbers, said, sources = table(claims, runs)
    console.print(claims.paper, style="bold", highlight=False, markup=False)
    for heads, body, key in ((HEADS, numbers, 2), (SAID, said, 1)):
        if console.width < WIDE:
            _show_listed(console, heads, body, key)
            continue
        shown = Table(box=box.SIMPLE_HEAD, show_lines=True, pad_edge=False)
        for head in heads:
            shown.add_column(head, overflow="fold")
        for line in body:
            shown.add_row(*(cell.replace("[", "\\[") for cell in line))
        console.print(shown)
    for text in (NOTE, *sources):
        console.print(text, style="dim", highlight=False, markup=False)


def _show_listed(console: Console, heads: tuple[str, ...], body: list[list[str]], key: int) -> None:
    """Rows one below the other, for a window in which their columns would break words: the first `key` cells, then the others."""
    from rich.padding import Padding
    from rich.text import Text

    for line in body:
        console.print()
        console.print(" ".join(line[:key]), style="bold", highlight=False, markup=False)
        for head, cell in zip(heads[key:], line[key:], strict=True):
            if cell not in ("", DASH):
                console.print(Padding(Text.assemble((f"{head}: ", "dim"), cell), (0, 0, 0, 2)))


def paper_report(runs: Path | None, out: Path | None) -> None:
    """Prints the paper's table, and writes it as Markdown if a file is named.

    Raises:
        BiposeError: no such folder of runs.
    """
    if runs is not None and not runs.is_dir():
        raise BiposeError(f"--runs {runs}: no such folder; name the one that 'bipose ablate' wrote recipes' runs to")
    claims = load_claims()
    show(claims, runs)
    if out is not None:
        from bipose_lit.store import atomic

        with atomic(out) as handle:
            handle.write(to_markdown(claims, runs))


__all__ = ["FILE", "Claims", "load_claims", "measured", "paper_report", "rows", "show", "to_markdown", "verdict"]
