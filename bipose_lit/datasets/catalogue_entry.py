"""What is known of a data set: the form of the catalogue's entries. Nothing heavy is imported."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from bipose_lit.datasets.index import Entry, Reader

OPEN, HAND, CLICK, REQUEST, OWN = "open", "open, by hand", "licence click", "request", "your own"
"""How a set is had: by a plain download; freely, but not by a program; after accepting terms on a page; after asking its
owners; made by you."""


@dataclass(frozen=True)
class Download:
    """A file that a plain request gets.

    Attributes:
        url: where from.
        file: its name on disk.
        checksum: "md5:..." or "sha256:..." as published, "" where none was found.
        size: bytes as published, 0 where unknown, whole megabytes where it is rough; to plan with, and to judge a file that has
            no checksum and whose server does not tell its length.
        into: folder below the set's own that an archive is unpacked into ("" for the set's own); None for a file that stays.
        top: outermost folder of the archive's paths, which is dropped.
        extra: the reader does without it; fetched only where it is named.
        about: what is in it.
    """

    url: str
    file: str
    checksum: str = ""
    size: int = 0
    into: str | None = ""
    top: str = ""
    extra: bool = False
    about: str = ""


@dataclass(frozen=True)
class DataSet:
    """A data set as its owners publish it.

    Attributes:
        name: for commands.
        title: for people.
        paper: that introduced it.
        home: its page.
        licence: its terms, and who says so.
        access: OPEN, HAND, CLICK, REQUEST or OWN.
        how: what to do to get it, one sentence.
        reader: class path.
        arguments: of the reader, besides the root.
        files: arguments of the reader that name a file of the folder, each with the globs that find it; left out where none does.
        needs: first folders of the tree that this set needs although its reader may do without.
        spares: first folders that it does without although the reader needs them for other sets or for pixels.
        either: globs of label files of which any one is enough; entries of the tree that none of these is in may all be missing.
        apart: its splits share no source: a source in two of them is a fault, not the owners' choice.
        published: counts by split ("train+val" for both taken together), {"train": {"persons": 149813}}; what is counted is
            clips, pictures, frames (persons in frames) or persons.
        source: where these counts stand.
        downloads: what `bipose data fetch` gets.
        defects: known faults of the official files.
        joints: labelled joints.
        folder: where the recipes look for it.
        card: name of its page in data/, without suffix.
        aliases: other names.
    """

    name: str
    title: str
    paper: str
    home: str
    licence: str
    access: str
    how: str
    reader: str
    joints: int
    folder: str
    card: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    apart: bool = False
    published: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    source: str = ""
    downloads: tuple[Download, ...] = ()
    defects: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def reader_class(self) -> Any:
        """The reader's class, imported when asked for."""
        module, name = self.reader.rsplit(".", 1)
        return getattr(importlib.import_module(module), name)

    def make_reader(self, root: Path, **arguments: Any) -> Reader:
        """The set's reader of a folder; `arguments` come before the set's own.

        Raises:
            BiposeError: what the reader says of the folder.
        """
        found = {}
        for name, globs in self.files.items():
            there = [path for glob in globs for path in sorted(root.glob(glob))]
            if there:
                found[name] = there[0].name
        reader: Reader = self.reader_class()(root, **{**self.arguments, **found, **arguments})
        return reader

    def layout(self) -> tuple[Entry, ...]:
        """The tree that the reader wants."""
        entries: list[Entry] = []
        for entry in self.reader_class().layout:
            first = entry.path.split("/")[0]
            needed = first in self.needs or (entry.needed and first not in self.spares)
            entries.append(replace(entry, needed=needed))
        return tuple(entries)
