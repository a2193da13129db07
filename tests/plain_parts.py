"""Parts without BatchNorm and dropout, and data whose batches hold very different numbers of labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from memory_index import MemoryReader
from torch import Tensor, nn

from bipose_lit.datasets.index import PoseIndex
from bipose_lit.models.base import Backbone, PoseDecoder
from bipose_lit.types import Encoded, FeatureSpec


class PlainBackbone(Backbone):
    """Two convolutions at stride 4.

    Args:
        channels: of the map.
        norm: BatchNorm between them.
    """

    def __init__(self, channels: int = 8, norm: bool = False) -> None:
        super().__init__()
        self.channels, self.norm = channels, norm
        self.spec = FeatureSpec(channels, 4)
        middle = nn.BatchNorm2d(channels) if norm else nn.Tanh()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, 2, 1), middle, nn.Conv2d(channels, channels, 3, 2, 1), nn.Tanh()
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class PlainDecoder(PoseDecoder):
    """One 1x1 convolution to heatmaps.

    Args:
        sleepless: for decoders that derive from it.
    """

    stride = 4

    def __init__(self, sleepless: bool = True) -> None:
        super().__init__()
        self.sleepless = sleepless

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        self.last = nn.Conv2d(spec.channels, joints, 1)

    def forward(self, features: Tensor) -> Encoded:
        return {"heatmaps": self.last(features)}


class StagedDecoder(PlainDecoder):
    """Two stages; the second adds to the first what one more convolution makes of it."""

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        super().build(spec, joints, size)
        self.more = nn.Conv2d(joints, joints, 1)

    def forward(self, features: Tensor) -> list[Encoded]:
        first = self.last(features)
        return [{"heatmaps": first}, {"heatmaps": first + self.more(first)}]


class PatchyReader(MemoryReader):
    """Training clips of which some have all labels, some few and some none."""

    def index(self, split: str) -> PoseIndex:
        index = super().index(split)
        if split != "train":
            return index
        tracks = []
        for number, track in enumerate(index.tracks):
            rng = np.random.default_rng(number)
            visible = track.visible.copy()
            visible[rng.random(visible.shape) < (0.0, 0.5, 0.9, 1.0)[number % 4]] = 0
            tracks.append(replace(track, visible=visible))
        return replace(index, tracks=tuple(tracks))
