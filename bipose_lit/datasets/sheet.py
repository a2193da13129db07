"""Contact sheets: labelled clips and pictures of any data set in one picture, to see what a network will be given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.datasets.tiles import Company, Image, tile
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, OCCLUDED, BiposeError

PAPER, _INK, _FAINT = (250, 250, 248), (28, 30, 34), (128, 132, 140)
_LEFT_INK, _RIGHT_INK = (24, 110, 170), (176, 112, 0)  # drawing's two hues, dark enough for paper
_GAP, _BORDER, _CAPTION, _HEAD = 4, 18, 34, 58
_WIDTH = 1560
"""Of a sheet of stills, where one picture is not wider."""
_WIDEST_STRIP = 1000
"""Wider strips are not set side by side."""


def contact_sheet(
    tracks: Sequence[Track],
    skeleton: Skeleton,
    path: str | Path,
    frames_per_clip: int = 8,
    columns: int = 1,
    height: int = 176,
    crop: bool = False,
    title: str = "",
    company: Company | None = None,
) -> Image:
    """Draws a strip over time for every track, or a grid of pictures where all are stills, and writes them as one PNG.

    Args:
        tracks: what to show.
        skeleton: of their labels.
        path: PNG to be written.
        frames_per_clip: pictures in a strip, evenly spread from the first to the last frame.
        columns: strips side by side, where they are not too wide; stills fill the sheet's width.
        height: of a picture in pixels.
        crop: show the padded box (as a network gets it, 3:4) instead of the whole frame.
        title: headline.
        company: who else is in the pictures, drawn as well in whole frames.

    Returns:
        The sheet, RGB. Frames without a picture are drawn on blank paper, and say so.

    Raises:
        BiposeError: nothing to show, or a sheet that cannot be written.
    """
    if not tracks:
        raise BiposeError(f"{path}: no clips to show")
    if all(len(track) == 1 for track in tracks):
        sheet = _flow([_still(track, skeleton, height, crop, company) for track in tracks], title)
    else:
        strips = [strip(track, skeleton, frames_per_clip, height, crop, company) for track in tracks]
        wide = max(strip_.shape[1] for strip_ in strips) > _WIDEST_STRIP
        sheet = _columns(strips, 1 if wide else columns, title)
    save_png(sheet, path)
    return sheet


def save_png(picture: Image, path: str | Path) -> None:
    """Writes a picture; BiposeError where that is not possible."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data.tobytes() if ok else b"")
    except OSError as error:
        raise BiposeError(f"{path}: cannot write the sheet ({error.strerror}); choose another place") from error


def sample_tracks(index: PoseIndex, count: int, seed: int = 0) -> list[Track]:
    """At most `count` tracks of as many sources as possible, in the index's order."""
    order = np.random.default_rng(seed).permutation(len(index.tracks))
    seen: dict[str, int] = {}
    rank: list[tuple[int, int, int]] = []
    for i in order:
        cluster = index.tracks[i].cluster
        seen[cluster] = seen.get(cluster, 0) + 1
        rank.append((seen[cluster], len(rank), int(i)))
    return [index.tracks[i] for i in sorted(i for _, _, i in sorted(rank)[:count])]


def strip(
    track: Track,
    skeleton: Skeleton,
    count: int,
    height: int,
    crop: bool = False,
    company: Company | None = None,
    captions: bool = True,
) -> Image:
    """`count` frames of a track side by side, under its name and facts."""
    chosen = np.unique(np.linspace(0, len(track) - 1, min(count, len(track))).round().astype(int))
    tiles = []
    for t in chosen:
        drawn = tile(track, int(t), skeleton, height, crop, company)
        if len(track) > 1:
            _number(drawn, str(int(t)))
        tiles.append(drawn)
    width = sum(t.shape[1] for t in tiles) + _GAP * (len(tiles) - 1)
    top = _CAPTION if captions else 0
    made = np.full((top + height, width, 3), PAPER, np.uint8)
    x = 0
    for drawn in tiles:
        made[top : top + drawn.shape[0], x : x + drawn.shape[1]] = drawn[:height]
        x += drawn.shape[1] + _GAP
    if not captions:
        return made
    _write(made, _shortened(track.clip, 0.45, width), (0, 12), 0.45, _INK)
    _write(made, _shortened(facts(track), 0.36, width), (0, 28), 0.36, _FAINT)
    return made


def facts(track: Track) -> str:
    """Length, frame rate, share of hidden joints and source of a track."""
    rate = f"  {track.fps:g} fps" if track.fps else ""
    dark = (track.visible == OCCLUDED).sum() / max((track.visible != ABSENT).sum(), 1)
    length = f"{len(track)} frames{rate}  " if len(track) > 1 else ""
    return f"{length}hidden {dark:.0%}  source {track.cluster}"


def _still(track: Track, skeleton: Skeleton, height: int, crop: bool, company: Company | None) -> Image:
    drawn = tile(track, 0, skeleton, height, crop, company)
    people = company.count(track, 0) if company and not crop else 1
    made = np.full((_CAPTION + height, drawn.shape[1], 3), PAPER, np.uint8)
    made[_CAPTION : _CAPTION + drawn.shape[0]] = drawn
    labelled = int((track.visible != ABSENT).sum())
    about = f"{people} people" if people > 1 else f"{labelled} of {len(skeleton)} joints"
    _write(made, _shortened(track.clip, 0.42, drawn.shape[1]), (0, 12), 0.42, _INK)
    _write(made, _shortened(about, 0.36, drawn.shape[1]), (0, 28), 0.36, _FAINT)
    return made


def _columns(strips: Sequence[Image], columns: int, title: str) -> Image:
    columns = max(1, min(columns, len(strips)))
    rows = [strips[i : i + columns] for i in range(0, len(strips), columns)]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    starts = np.cumsum([0, *(w + 3 * _BORDER for w in widths)])
    return _sheet([list(zip(row, starts, strict=False)) for row in rows], title)


def _flow(pictures: Sequence[Image], title: str) -> Image:
    """Pictures of one height, as many in a row as fit."""
    rows: list[list[tuple[Image, int]]] = [[]]
    x = 0
    for picture in pictures:
        if x and x + picture.shape[1] > _WIDTH:
            rows.append([])
            x = 0
        rows[-1].append((picture, x))
        x += picture.shape[1] + _BORDER
    return _sheet(rows, title)


def _sheet(rows: Sequence[Sequence[tuple[Image, int]]], title: str) -> Image:
    width = max(2 * _BORDER + max(x + picture.shape[1] for row in rows for picture, x in row), 480)
    height = _HEAD + sum(max(p.shape[0] for p, _ in row) + _BORDER for row in rows) + _BORDER // 2
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    _write(sheet, _shortened(title, 0.62, width - 2 * _BORDER), (_BORDER, 26), 0.62, _INK)
    at = _BORDER
    for text, ink in (
        ("left limbs", _LEFT_INK), ("right limbs", _RIGHT_INK), ("hollow joint, dashed limb: labelled but hidden", _FAINT),
    ):  # fmt: skip
        _write(sheet, text, (at, 45), 0.4, ink)
        at += cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)[0][0] + 16
    y = _HEAD
    for row in rows:
        for picture, x in row:
            sheet[y : y + picture.shape[0], _BORDER + x : _BORDER + x + picture.shape[1]] = picture
        y += max(picture.shape[0] for picture, _ in row) + _BORDER
    return sheet


def _number(picture: Image, text: str) -> None:
    at = (5, picture.shape[0] - 6)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (20, 20, 24), 3, cv2.LINE_AA)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (245, 245, 245), 1, cv2.LINE_AA)


def _write(image: Image, text: str, at: tuple[int, int], size: float, ink: tuple[int, int, int]) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other letters
    cv2.putText(image, plain, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def _shortened(text: str, size: float, width: int) -> str:
    def wide(t: str) -> int:
        return int(cv2.getTextSize(t, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])

    if wide(text) <= width:
        return text
    while text and wide(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
