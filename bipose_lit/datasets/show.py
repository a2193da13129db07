"""`bipose data show`: labelled clips and pictures of a data set as one picture or one page."""

from __future__ import annotations

import base64
import html
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from bipose_lit.datasets.catalogue import find
from bipose_lit.datasets.catalogue_entry import DataSet
from bipose_lit.datasets.frames import FolderFrames, VideoFrames
from bipose_lit.datasets.index import FrameSource, PoseIndex, Reader, Track
from bipose_lit.datasets.layouts import check_layout
from bipose_lit.datasets.sheet import contact_sheet, facts, sample_tracks, strip
from bipose_lit.datasets.tiles import Company, Image
from bipose_lit.store import atomic
from bipose_lit.types import BiposeError

SPLITS = ("test", "val", "train")
FORMATS = (".png", ".html")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #1c1e22;
  background: #fafaf8; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1.05rem; margin-top: 2rem; }}
figure {{ display: inline-block; margin: 0 .8rem 1.2rem 0; vertical-align: top; max-width: 100%; }}
img {{ max-width: 100%; display: block; border-radius: 3px; }} small, .faint {{ color: #676c75; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .15rem .9rem .15rem 0; text-align: left; }}
</style></head><body>
{body}
</body></html>
"""


def show(
    name: str,
    root: Path,
    out: Path,
    split: str | None = None,
    clips: int = 12,
    crop: bool = False,
    skeleton: str | None = None,
) -> None:
    """Draws some clips of a data set.

    Args:
        name: of the catalogue.
        root: the set's folder.
        out: PNG or HTML to be written; a page holds its pictures.
        split: "train", "val" or "test"; default the first of test, val, train that is there.
        clips: how many, from as many sources as possible.
        crop: the padded boxes, one person each, instead of whole frames.
        skeleton: of video_json, a name or a YAML file.

    Raises:
        BiposeError: an unknown set, a folder in another layout, or what the reader says.
    """
    if out.suffix.lower() not in FORMATS:
        raise BiposeError(f"--out {out}: ends in none of {', '.join(FORMATS)}")
    if clips < 1:
        raise BiposeError(f"--clips {clips}: must be 1 or more")
    data = find(name)
    check_layout(data, root, "show")
    reader = make_reader(data, root, skeleton)
    index = first_index(reader, (split,) if split else SPLITS, root)
    tracks = choose(with_pictures(index), clips, crop)
    company = None if crop else Company(index.tracks)
    if out.suffix.lower() == ".html":
        _page(index, tracks, crop, company, out)
    else:
        stills = all(len(t) == 1 for t in tracks)
        contact_sheet(
            tracks, index.skeleton, out, 6, 2, 240 if stills else 168, crop, title=index.name, company=company
        )  # fmt: skip
    sources = f"{len(index.clusters)} source{'s' if len(index.clusters) != 1 else ''}"
    print(f"{out}: {len(tracks)} of {len(index.tracks)} clips of {index.name}, {sources}")
    for line in left_out(index.skipped):
        print(f"  {line}")


def make_reader(data: DataSet, root: Path, skeleton: str | None = None, **arguments: Any) -> Reader:
    """The set's reader, lenient with damaged label files; `arguments` that it does not take are dropped.

    Raises:
        BiposeError: a skeleton for a set that has its own, none for one that has not, or what the reader says.
    """
    known = inspect.signature(data.reader_class()).parameters
    given = {k: v for k, v in {"strict": False, **arguments}.items() if k in known}
    if skeleton is not None:
        if "skeleton" not in known:
            raise BiposeError(f"--skeleton: {data.name} has its own; it is for video_json")
        given["skeleton"] = skeleton
    elif "skeleton" in known and not (root / "skeleton.yaml").exists():
        raise BiposeError(f"{data.name} needs --skeleton NAME|YAML, or a skeleton.yaml in {root}")
    try:
        return data.make_reader(root, **given)
    except OSError as error:
        raise BiposeError(
            f"{error.filename or root}: cannot be read ({error.strerror}); change its permissions"
        ) from error


def first_index(reader: Reader, splits: Sequence[str], root: Path) -> PoseIndex:
    """The first split that can be read.

    Raises:
        BiposeError: none can; what was said of the first.
    """
    problem: BiposeError | None = None
    for split in splits:
        try:
            return reader.index(split)
        except BiposeError as error:
            problem = problem or error
        except OSError as error:
            where = error.filename or root
            problem = problem or BiposeError(f"{where}: cannot be read ({error.strerror}); change its permissions")
    raise problem or BiposeError(f"{root}: no clips")


def with_pictures(index: PoseIndex) -> PoseIndex:
    """The index with the tracks whose first picture or video is on this disk; as it is where none is."""

    def has(frames: FrameSource) -> bool:
        if isinstance(frames, FolderFrames):
            return (frames.root / frames.names[0]).exists()
        return not isinstance(frames, VideoFrames) or (frames.root / frames.name).exists()

    there = tuple(t for t in index.tracks if has(t.frames))
    return replace(index, tracks=there) if there else index


def choose(index: PoseIndex, count: int, crop: bool) -> list[Track]:
    """At most `count` tracks of as many sources as possible; of whole stills no picture twice."""
    if crop or any(len(t) > 1 for t in index.tracks):
        return sample_tracks(index, count)
    company = Company(index.tracks)
    chosen: list[Track] = []
    shown: set[int] = set()
    for track in sample_tracks(index, len(index.tracks) if len(index.tracks) < 4 * count else 4 * count):
        people = {id(other) for other, _ in company.people(track, 0)}
        if not people & shown:
            chosen.append(track)
            shown |= people
    return chosen[:count]


def left_out(skipped: Mapping[str, Sequence[str]]) -> list[str]:
    """What a reader left out or mended, a line per reason with the first five places."""
    return [f"{why}: {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}" for why, found in skipped.items()]


def _page(index: PoseIndex, tracks: Sequence[Track], crop: bool, company: Company | None, out: Path) -> None:
    persons = sum(len(t) for t in index.tracks)
    facts_ = {
        "clips": f"{len(index.tracks):,}", "persons in frames": f"{persons:,}", "sources": f"{len(index.clusters):,}",
        "joints": f"{len(index.skeleton)} ({index.skeleton.name})", "boxes": index.box_rule,
    }  # fmt: skip
    parts = [f"<h1>{html.escape(index.name)}</h1>", "<table>"]
    parts += [f"<tr><td class=faint>{k}</td><td>{html.escape(v)}</td></tr>" for k, v in facts_.items()]
    parts.append("</table>")
    if index.skipped:
        parts.append("<h2>What the reader left out or mended</h2><ul>")
        parts += [f"<li>{html.escape(line)}</li>" for line in left_out(index.skipped)]
        parts.append("</ul>")
    parts.append(
        f"<h2>{len(tracks)} of {len(index.tracks):,} clips</h2><p class=faint>Left limbs blue, right limbs orange; a hollow "
        "joint and a dashed limb are labelled but hidden.</p>"
    )
    for track in tracks:
        drawn = strip(track, index.skeleton, 6, 260 if len(track) == 1 else 200, crop, company, captions=False)
        about = f"{html.escape(track.clip)}<br><small>{html.escape(facts(track))}</small>"
        parts.append(f'<figure><img alt="" src="{_embedded(drawn)}"><figcaption>{about}</figcaption></figure>')
    try:
        with atomic(out, "w") as handle:
            handle.write(_PAGE.format(title=html.escape(index.name), body="\n".join(parts)))
    except OSError as error:
        raise BiposeError(f"{out}: cannot write the page ({error.strerror}); choose another place") from error


def _embedded(picture: Image) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
