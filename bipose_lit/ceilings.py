"""What codecs cost by themselves: labels encoded and decoded again, without a picture and without a network.

A network whose predictions are its targets to the last digit has the errors and scores of this table; none that is trained to
them can be expected to do better. `bipose codecs` writes it.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bipose_lit import geometry
from bipose_lit.codecs.base import TargetCodec
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.codecs.simcc import SimCCCodec
from bipose_lit.datasets.index import PoseIndex
from bipose_lit.datasets.transforms import clip_matrices, crop_labels
from bipose_lit.geometry import flip_points
from bipose_lit.metrics.summary import mean_of
from bipose_lit.store import Predictions, atomic
from bipose_lit.types import BiposeError

SIZES = ((64, 64), (128, 128), (192, 256), (256, 256), (288, 384))
"""Widths and heights of crops."""

CODECS: dict[str, Callable[[], TargetCodec]] = {
    "heatmaps, largest pixel": lambda: HeatmapCodec(refine="none"),
    "heatmaps, quarter": lambda: HeatmapCodec(refine="quarter"),
    "heatmaps, parabola": lambda: HeatmapCodec(refine="parabola"),
    "heatmaps, dark (the default)": lambda: HeatmapCodec(),
    "MSRA": lambda: HeatmapCodec(refine="quarter", grid="msra", quantised=True, patch=3.0, shift_flipped=True),
    "MSRA, flip without the shift": lambda: HeatmapCodec(refine="quarter", grid="msra", quantised=True, patch=3.0),
    "DARK": lambda: HeatmapCodec(grid="msra", shift_flipped=True, reach=3.0),
    "UDP": lambda: HeatmapCodec(grid="udp", patch=3.0),
    "SimCC": lambda: SimCCCodec(),
    "coordinates (regression, RLE)": lambda: RegressionCodec(),
}
"""As the overlays in experiments/codec and experiments/decoder have them: stride 4 and sigma 2, SimCC of ratio 2 and sigma 6."""

PADDING, DRAWN, BATCH = 1.25, 20_000, 64
HEAD = (
    "codec", "error px: mean", "95%", "largest", "flip test: mean", "COCO AP", "PCK@0.05", "PCK@0.1", "MPII PCKh@0.5", "PCKh@0.1"
)  # fmt: skip


@dataclass(frozen=True)
class Trip:
    """Distances in crop pixels between joints and what is decoded of their encoding.

    Attributes:
        mean: of the joints that the codec gives a weight.
        high: below which 95% of them are.
        worst: the largest.
        flipped: the mean where the encodings of both views are averaged, as in a flip test.
        lost: share of the joints without weight.
    """

    mean: float
    high: float
    worst: float
    flipped: float
    lost: float


def round_trip(codec: TargetCodec, size: tuple[int, int], joints: int = DRAWN, seed: int = 0) -> Trip:
    """Errors over joints drawn evenly over the whole crop, edges and all.

    Args:
        codec: as its constructor makes it; it is copied.
        size: width and height of the crops.
        joints: how many.
        seed: of the draw.
    """
    codec = copy.deepcopy(codec)
    codec.build(1, size)
    places = np.random.default_rng(seed).uniform(-0.5, np.array(size) - 0.5, (joints, 1, 2)).astype(np.float32)
    same, off, flipped, kept = torch.zeros(1, dtype=torch.long), [], [], []
    for start in range(0, joints, BATCH * 16):
        part = torch.from_numpy(places[start : start + BATCH * 16])
        visible = torch.full(part.shape[:2], 2)
        straight, weight = codec.encode(part, visible)
        back = codec.flip(codec.encode(flip_points(part, size[0], same), visible)[0], same)
        averaged = {key: (value + back[key]) / 2 for key, value in straight.items()}
        off.append((codec.decode(straight)[0] - part).norm(dim=-1))
        flipped.append((codec.decode(averaged)[0] - part).norm(dim=-1))
        kept.append(weight > 0)
    chosen = torch.cat(kept)
    errors, both = torch.cat(off)[chosen].double(), torch.cat(flipped)[chosen].double()
    high, worst = torch.quantile(errors, torch.tensor([0.95, 1.0], dtype=torch.float64)).tolist()
    return Trip(float(errors.mean()), high, worst, float(both.mean()), 1 - float(chosen.double().mean()))


def decoded(index: PoseIndex, codec: TargetCodec, size: tuple[int, int], padding: float = PADDING) -> Predictions:
    """Every person's labels after the way into the crop, through the codec and back.

    Args:
        index: whose tracks.
        codec: as its constructor makes it; it is copied.
        size: width and height of the crops.
        padding: factor on the boxes.
    """
    codec = copy.deepcopy(codec)
    codec.build(len(index.skeleton), size)
    rows: list[tuple[NDArray[np.float32], ...]] = []
    for joints, visible, matrices in _crops(index, size, padding):
        places, score = codec.decode(codec.encode(torch.from_numpy(joints), torch.from_numpy(visible))[0])
        back = geometry.apply(geometry.invert(matrices), places.double().numpy())
        rows.append((back.astype(np.float32), score.numpy()))
    tracks = index.tracks
    lengths = np.array([len(t) for t in tracks])
    return Predictions(
        uid=np.concatenate([t.uid for t in tracks]),
        clip=np.repeat(np.arange(len(tracks)), lengths),
        frame=np.concatenate([np.arange(n) for n in lengths]),
        pred=np.concatenate([pred for pred, _ in rows]),
        score=np.concatenate([score for _, score in rows]),
        joints=np.concatenate([t.joints for t in tracks]),
        visible=np.concatenate([t.visible for t in tracks]),
        norms=np.concatenate([t.norms for t in tracks]),
        fps=np.repeat(np.array([t.fps for t in tracks], np.float32), lengths),
        clips=tuple(t.clip for t in tracks),
        clusters=tuple(t.cluster for t in tracks),
        joint_names=index.skeleton.joints,
        data=index.name,
    )


def _crops(
    index: PoseIndex, size: tuple[int, int], padding: float
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]]:
    """Labels in crop pixels (N, K, 2), visibilities and the affines from original pixels, of tracks with together 64 frames."""
    waiting: list[tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]] = []
    for number, track in enumerate(index.tracks, 1):
        matrices = clip_matrices(track.boxes, size, padding)
        waiting.append((*crop_labels(track.joints, track.visible, matrices), matrices))
        if sum(len(m) for _, _, m in waiting) >= BATCH or number == len(index.tracks):
            joints, visible, affines = zip(*waiting, strict=True)
            yield np.concatenate(joints), np.concatenate(visible), np.concatenate(affines)
            waiting = []


def ceiling(index: PoseIndex, codec: TargetCodec, size: tuple[int, int], padding: float = PADDING) -> dict[str, float]:
    """What the labels score after the codec, in the set's own measure and in PCK.

    Returns:
        Names as `Scoring.score` has them ("ap", "pckh@0.5"), and "pck@T[torso]" for T of 0.05 and 0.1.
    """
    predictions = decoded(index, codec, size, padding)
    found = {} if index.scoring is None else index.scoring.score(predictions)
    return {**found, **{name: mean_of(predictions, name) for name in ("pck@0.05[torso]", "pck@0.1[torso]")}}


def codecs(coco: Path | None = None, mpii: Path | None = None, out: Path | None = None) -> None:
    """Prints the table of all codecs and sizes, and writes it where asked for.

    Args:
        coco: folder of COCO's layout; null for coco_mini in BIPOSE_REAL_DATA, else the synthetic set's.
        mpii: of MPII's, likewise.
        out: the markdown file to write.

    Raises:
        BiposeError: a folder that was named and is in another layout, or a file that cannot be written.
    """
    if out is not None and out.is_dir():
        raise BiposeError(f"--out {out}: is a folder; name a file")
    torch.set_num_threads(1)
    sets = {name: _index(name, given) for name, given in (("coco", coco), ("mpii", mpii))}
    parts = [_introduction(sets)]
    for size in SIZES:
        part = _section(size, sets)
        print(part, flush=True)
        parts.append(part)
    if out is not None:
        with atomic(out) as handle:
            handle.write("\n".join(parts))
        print(out)


def _index(name: str, given: Path | None) -> PoseIndex | None:
    """The test split of a set, if it is anywhere."""
    real = os.environ.get("BIPOSE_REAL_DATA")
    places = [given] if given else [*([Path(real) / f"{name}_mini"] if real else []), Path("data/synthetic") / name]
    folder = next((place for place in places if place.is_dir() or place == given), None)
    if folder is None:
        return None
    if name == "coco":
        from bipose_lit.datasets.coco import COCO

        return COCO(folder).index("test")
    from bipose_lit.datasets.mpii import MPII

    return MPII(folder).index("test")


def _introduction(sets: dict[str, PoseIndex | None]) -> str:
    from bipose_lit.run import commit

    told = [
        f"{title}: {len(index.tracks):,} persons of {index.name}"
        if index is not None
        else f"{title}: no labels here (`bipose data make --root data/synthetic --clips test=48` makes some)"
        for title, index in (("COCO", sets["coco"]), ("MPII", sets["mpii"]))
    ]
    return f"""# What codecs cost by themselves

Written by `bipose codecs --out FILE` at commit {commit()[:12] or "unknown"}; {"; ".join(told)}.

Labels are encoded and decoded again: no picture, no network. So these are the errors and scores of a network whose predictions
are its targets to the last digit. Errors are distances in crop pixels of {DRAWN:,} joints drawn evenly over the whole crop, edges
and all, but for those that the codec gives no weight. Flip test: the encodings of both views averaged, then decoded. Scores, in
percent, are of the labels in their boxes ({PADDING} times the box; joints outside the crop count); PCK is COCO's, by torso. AP
also depends on the order of the persons' scores. Where errors are 0, what is missing to 100 are joints outside the crop: maps and
bins cannot say where they are, and MSRA, DARK and UDP keep those whose Gaussian still reaches the map. Stride 4 and
sigma 2; SimCC with two bins a pixel. A trained network's maps are no Gaussians: which decoding suits them is another question.
"""


def _section(size: tuple[int, int], sets: dict[str, PoseIndex | None]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "| --- |" + " ---: |" * (len(HEAD) - 1)]
    for name, make in CODECS.items():
        trip = round_trip(make(), size)
        scores = {key: {} if index is None else ceiling(index, make(), size) for key, index in sets.items()}
        cells = [f"{v:.3f}" for v in (trip.mean, trip.high, trip.worst, trip.flipped)]
        cells += [_percent(scores["coco"].get(key)) for key in ("ap", "pck@0.05[torso]", "pck@0.1[torso]")]
        head = "[estimated_head]" if "pckh@0.5[estimated_head]" in scores["mpii"] else ""
        cells += [_percent(scores["mpii"].get(f"pckh@{t}{head}")) for t in ("0.5", "0.1")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return f"## Crops of {size[0]}x{size[1]}\n\n" + "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.2f}"


__all__ = ["CODECS", "SIZES", "Trip", "ceiling", "codecs", "decoded", "round_trip"]
