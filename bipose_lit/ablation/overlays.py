"""Test predictions drawn over their frames, for dashboards; the report draws its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.ablation.keys import data_key
from bipose_lit.cli import build
from bipose_lit.datasets.index import PoseIndex
from bipose_lit.drawing import draw_pose, side_by_side
from bipose_lit.store import SPEC, Predictions, RunResult, RunSpec
from bipose_lit.types import BiposeError

SCALE = 2.0


class Overlays:
    """Draws some frames of each run; runs that scored the same data show the same frames.

    Args:
        count: clips, evenly spaced over the split; of each the frame in the middle.
    """

    def __init__(self, count: int = 4) -> None:
        self.count = count
        self._indexes: dict[str, PoseIndex] = {}

    def __call__(self, folder: Path) -> dict[str, NDArray[np.uint8]]:
        """Labels beside predictions by clip, RGB; empty for a run that scored no test split.

        A data set that cannot be read any more costs the pictures alone: a line says so.
        """
        result = RunResult.load(folder)
        name = result.predictions.get("test") if result is not None else None
        if name is None:
            return {}
        try:
            return self._draw(Predictions.load(folder / name), self._index(RunSpec.load(folder / SPEC).config))
        except BiposeError as error:
            print(f"no overlays of {folder}: {error}")
            return {}

    def _index(self, config: Mapping[str, Any]) -> PoseIndex:
        key = data_key(config)
        if key not in self._indexes:
            self._indexes[key] = build(config)[1].index("test")
        return self._indexes[key]

    def _draw(self, predictions: Predictions, index: PoseIndex) -> dict[str, NDArray[np.uint8]]:
        tracks = {track.clip: track for track in index.tracks}
        scored = np.unique(predictions.clip)
        places = np.unique(np.linspace(0, len(scored) - 1, self.count).round().astype(int))
        pictures = {}
        for clip in scored[places]:
            rows = np.flatnonzero(predictions.clip == clip)
            row = rows[len(rows) // 2]
            track = tracks.get(predictions.clips[clip])
            if track is None:
                raise BiposeError(f"{index.name} has no clip {predictions.clips[clip]} any more")
            (image,) = track.frames.read([int(predictions.frame[row])])
            seen = predictions.visible[row]
            pair = [
                draw_pose(image, points[row], index.skeleton, seen, SCALE, label=label)
                for points, label in ((predictions.joints, "label"), (predictions.pred, "prediction"))
            ]
            pictures[track.clip] = side_by_side(pair)
        return pictures


__all__ = ["Overlays"]
