"""What the parts of `bipose data check` share."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from bipose_lit.datasets.frames import FolderFrames, VideoFrames
from bipose_lit.datasets.index import Track
from bipose_lit.datasets.video_json import VideoPiece

Findings = dict[str, list[str]]
"""{"reason": ["where", ...]}"""
T = TypeVar("T")


def pictures(track: Track) -> Iterator[tuple[str, int]]:
    """Its pictures: a file and the position in it, which is 0 for an image."""
    match track.frames:
        case FolderFrames(_, names):
            yield from ((name, 0) for name in names)
        case VideoFrames(_, name, count):
            yield from ((name, t) for t in range(count))
        case VideoPiece(video, start, step, count):
            yield from ((video.name, start + step * t) for t in range(count))


def settled(findings: Findings) -> Findings:
    """Without empty reasons and repeated places."""
    return {reason: list(dict.fromkeys(places)) for reason, places in findings.items() if places}


def progress(items: Iterable[T], text: str) -> Iterable[T]:
    """The items; on a terminal with a bar, on stderr."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(list(items), description=text, console=Console(stderr=True), transient=True)
