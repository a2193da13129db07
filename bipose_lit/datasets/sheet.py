"""Contact sheets: labelled clips of any data set in one picture, to see with one's own eyes what a network will be given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.drawing import draw_pose
from bipose_lit.geometry import apply, crop_matrix
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, OCCLUDED, BiposeError

Image = NDArray[np.uint8]

_PAPER, _INK, _FAINT = (250, 250, 248), (28, 30, 34), (128, 132, 140)
_LEFT_INK, _RIGHT_INK = (24, 110, 170), (176, 112, 0)  # drawing's two hues, dark enough for paper
_GAP, _BORDER, _CAPTION = 4, 18, 34


def contact_sheet(
    tracks: Sequence[Track],
    skeleton: Skeleton,
    path: str | Path,
    frames_per_clip: int = 8,
    columns: int = 1,
    height: int = 176,
    crop: bool = False,
    title: str = "",
) -> Image:
    """Draws a strip over time for every track and writes them as one PNG.

    Args:
        tracks: what to show.
        skeleton: of their labels.
        path: PNG to be written.
        frames_per_clip: pictures in a strip, evenly spread from the first to the last frame.
        columns: strips side by side.
        height: of a picture in pixels.
        crop: show the padded box (as a network gets it, 3:4) instead of the whole frame.
        title: headline.

    Returns:
        The sheet, RGB.

    Raises:
        BiposeError: nothing to show, frames that cannot be read, or a sheet that cannot be written.
    """
    if not tracks:
        raise BiposeError(f"{path}: no clips to show")
    strips = [_strip(track, skeleton, frames_per_clip, height, crop) for track in tracks]
    sheet = _arrange(strips, columns, title)
    ok, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data.tobytes() if ok else b"")
    except OSError as error:
        raise BiposeError(f"{path}: cannot write the sheet ({error.strerror}); choose another place") from error
    return sheet


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


def _strip(track: Track, skeleton: Skeleton, count: int, height: int, crop: bool) -> Image:
    chosen = np.unique(np.linspace(0, len(track) - 1, min(count, len(track))).round().astype(int))
    tiles = []
    for t, image in zip(chosen, track.frames.read([int(t) for t in chosen]), strict=True):
        joints = track.joints[t].astype(np.float64)
        if crop:
            size = (height * 3 // 4, height)
            matrix = crop_matrix(track.boxes[t], size, padding=1.25)
            # Half a pixel is drawn finer than it is: enlarge in one warp, then draw.
            image = np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)
            joints = apply(matrix, joints)
            scale = 1.0
        else:
            scale = height / image.shape[0]
        tile = draw_pose(image, joints, skeleton, track.visible[t], scale)
        cv2.putText(
            tile, str(int(t)), (5, tile.shape[0] - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (20, 20, 24), 3, cv2.LINE_AA
        )
        cv2.putText(
            tile, str(int(t)), (5, tile.shape[0] - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (245, 245, 245), 1, cv2.LINE_AA
        )
        tiles.append(tile)
    width = sum(t.shape[1] for t in tiles) + _GAP * (len(tiles) - 1)
    strip = np.full((_CAPTION + height, width, 3), _PAPER, np.uint8)
    x = 0
    for tile in tiles:
        strip[_CAPTION : _CAPTION + tile.shape[0], x : x + tile.shape[1]] = tile[:height]
        x += tile.shape[1] + _GAP
    rate = f"  {track.fps:g} fps" if track.fps else ""
    dark = (track.visible == OCCLUDED).sum() / max((track.visible != ABSENT).sum(), 1)
    facts = f"{len(track)} frames{rate}  hidden {dark:.0%}  source {track.cluster}"
    _write(strip, _shortened(track.clip, 0.45, width), (0, 12), 0.45, _INK)
    _write(strip, _shortened(facts, 0.36, width), (0, 28), 0.36, _FAINT)
    return strip


def _arrange(strips: Sequence[Image], columns: int, title: str) -> Image:
    columns = max(1, min(columns, len(strips)))
    rows = [strips[i : i + columns] for i in range(0, len(strips), columns)]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    head = 58
    width = max(2 * _BORDER + sum(widths) + 3 * _BORDER * (columns - 1), 480)
    height = head + sum(max(s.shape[0] for s in row) + _BORDER for row in rows) + _BORDER // 2
    sheet = np.full((height, width, 3), _PAPER, np.uint8)
    _write(sheet, _shortened(title, 0.62, width - 2 * _BORDER), (_BORDER, 26), 0.62, _INK)
    x = _BORDER
    for text, ink in (
        ("left limbs", _LEFT_INK), ("right limbs", _RIGHT_INK), ("hollow joint, dashed limb: labelled but hidden", _FAINT),
    ):  # fmt: skip
        _write(sheet, text, (x, 45), 0.4, ink)
        x += cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)[0][0] + 16
    y = head
    for row in rows:
        x = _BORDER
        for strip, column in zip(row, widths, strict=False):
            sheet[y : y + strip.shape[0], x : x + strip.shape[1]] = strip
            x += column + 3 * _BORDER
        y += max(s.shape[0] for s in row) + _BORDER
    return sheet


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
