"""The data cards in data/: blocks made from the catalogue and the readers' layouts, so that they cannot differ from the code.

`python -m bipose_lit.datasets.cards [FOLDER]` rewrites the blocks of all cards; a test holds that they are up to date. A block is
what stands between `<!-- KIND NAME -->` and `<!-- end -->`; the kinds are facts, tree and sets.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bipose_lit.datasets.catalogue import CATALOGUE, find
from bipose_lit.datasets.catalogue_entry import DataSet, Download
from bipose_lit.datasets.layouts import tree
from bipose_lit.types import BiposeError

_BLOCK = re.compile(r"<!-- (facts|tree|sets)(?: (\S+))? -->\n.*?<!-- end -->", re.DOTALL)


def refreshed(text: str) -> str:
    """A card's text with its blocks made anew.

    Raises:
        BiposeError: a block of an unknown set.
    """

    def made(found: re.Match[str]) -> str:
        kind, name = found[1], found[2] or ""
        body = sets() if kind == "sets" else facts(find(name)) if kind == "facts" else fenced_tree(find(name))
        return f"<!-- {kind}{f' {name}' if name else ''} -->\n{body}\n<!-- end -->"

    return _BLOCK.sub(made, text)


def stale(folder: Path) -> list[str]:
    """Cards whose blocks differ from what would be made now."""
    return [p.name for p in sorted(folder.glob("*.md")) if refreshed(text := p.read_text(encoding="utf-8")) != text]


def rewrite(folder: Path) -> list[str]:
    """Makes the blocks of all cards anew; returns the names of those that changed."""
    changed = stale(folder)
    for name in changed:
        path = folder / name
        path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
    return changed


def fenced_tree(data: DataSet) -> str:
    """The tree that the set's reader wants, as a code block."""
    return f"```\n{tree(data.layout(), data.folder)}\n```"


def facts(data: DataSet) -> str:
    """Where from, terms, counts, files and defects of a set."""
    rows = [("paper", data.paper), ("home", f"<{data.home}>" if "://" in data.home else ""), ("terms", data.licence)]
    rows += [("access", data.access), ("how", data.how), ("reader", f"`{data.reader}`{_arguments(data)}")]
    if data.joints:
        rows.append(("joints", str(data.joints)))
    rows.append(("counts", _counts(data)))
    lines = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows if value)]
    if data.downloads:
        lines += ["", "| file | what | size | checksum |", "|---|---|---|---|", *_files(data)]
        lines += ["", "Sizes and checksums are as others published them; where none was found there is none."]
    if data.defects:
        lines += ["", "Known defects of the official files:", "", *(f"- {defect}" for defect in data.defects)]
    return "\n".join(lines)


def sets() -> str:
    """The table of all sets."""
    lines = ["| set | name | joints | access | folder |", "|---|---|---|---|---|"]
    for d in CATALOGUE.values():
        joints = str(d.joints) if d.joints else "any"
        lines.append(f"| [{d.title}]({d.card}.md) | `{d.name}` | {joints} | {d.access} | `{d.folder}` |")
    return "\n".join(lines)


def _arguments(data: DataSet) -> str:
    given = ", ".join(f"{key}: {value}" for key, value in data.arguments.items())
    return f" with `{given}`" if given else ""


def _counts(data: DataSet) -> str:
    told = [
        f"{splits}: {', '.join(f'{number:,} {what}' for what, number in counts.items())}"
        for splits, counts in data.published.items()
    ]
    return "; ".join([*told, data.source] if data.source else told)


def _files(data: DataSet) -> list[str]:
    """A line per file; numbered files of one kind share a line."""
    groups: dict[str, list[Download]] = {}
    for item in data.downloads:
        groups.setdefault(re.sub(r"\d+(?=\.tar\.gz$)", "N", item.file) if item.extra else item.file, []).append(item)
    lines = []
    for name, items in groups.items():
        first = items[0]
        size = f"{'each ' if len(items) > 1 else ''}{_size(first.size)}" if first.size else "unknown"
        link = f"[{name}]({first.url})" + (f" ({len(items)} files)" if len(items) > 1 else "")
        only = "; only with `--only`" if first.extra else ""
        lines.append(
            f"| {link} | {first.about}{only} | {size} | {f'`{first.checksum}`' if first.checksum else 'none'} |"
        )
    return lines


def _size(count: int) -> str:
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.1f} MB"
        if count >= 1e6
        else f"{count / 1e3:.0f} kB"
    )


def main() -> None:
    """Rewrites the cards of a folder, default data/."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("data")
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder")
    try:
        changed = rewrite(folder)
    except BiposeError as error:
        raise SystemExit(str(error)) from error
    print(f"{folder}: {', '.join(changed) if changed else 'all cards are up to date'}")


if __name__ == "__main__":
    main()
