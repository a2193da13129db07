"""What a case is given: sizes, a scratch folder, and the data and configurations that cases share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.measure import ROOT

T = TypeVar("T")
EXPERIMENTS = ROOT / "experiments"
MANIFEST = EXPERIMENTS / "ablations" / "temporal.yaml"
FRAMES = 32


@dataclass(frozen=True)
class Setting:
    """How a case runs.

    Attributes:
        work: scratch folder, shared by the cases of one call.
        quick: tiny sizes and few rounds; the numbers then mean nothing.
        threads: of torch.
        tell: called with a line of progress.
    """

    work: Path
    quick: bool = False
    threads: int = 1
    tell: Callable[[str], None] = lambda line: None

    def pick(self, full: T, quick: T) -> T:
        """One of two values."""
        return quick if self.quick else full

    def limit_threads(self) -> None:
        """Fixes torch's and OpenCV's threads."""
        import cv2
        import torch

        torch.set_num_threads(self.threads)
        cv2.setNumThreads(0)

    def synthetic(self) -> Path:
        """The shared synthetic set, made on the first call: 12, 2 and 4 clips of 32 frames, 320x240."""
        from bipose_lit.datasets.synthetic.make import make_dataset

        root = self.work / "synthetic"
        if not root.exists():
            self.tell("making the synthetic set")
        counts = self.pick({"train": 12, "val": 2, "test": 4}, {"train": 2, "val": 1, "test": 1})
        make_dataset(
            root, counts, frames=self.pick(FRAMES, 12), workers=self.pick(2, 1), formats=("jhmdb",), progress=False
        )
        return root

    def config(self, *overlays: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The default ablation's configuration with overlays (paths below experiments/), on the shared set.

        The backbone's weights are random, but the same in every case, so that features are made once. A quick
        configuration is smaller, with the same parts.
        """
        start = {"model.weights": str(self._weights()), "model.weights_for": ["backbone"]}
        return self._resolved(overlays, {**start, **(options or {})})

    def _resolved(self, overlays: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
        from bipose_lit.cli import resolve

        files = [EXPERIMENTS / f for f in ("base.yaml", "data/synthetic.yaml", "trainer/heads.yaml", *overlays)]
        chosen: dict[str, Any] = {
            "data.reader.init_args.root": str(self.synthetic()),
            "data.cache.root": str(self.work / "features"),
            "data.cache.progress": False,
        }
        if self.quick:
            chosen |= {"data.size": [64, 64], "data.clips.length": 6, "data.batch_size": 2, "data.eval_batch_size": 1}
        if options.get("data.cache", "") is None:
            chosen = {k: v for k, v in chosen.items() if not k.startswith("data.cache.")}
        return resolve(files, {**chosen, **options})

    def _weights(self) -> Path:
        import torch

        from bipose_lit.cli import build
        from bipose_lit.weights import save_parts

        path = self.work / "backbone.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            save_parts(build(self._resolved((), {}))[0].network, path, ["backbone"])
        return path


def without_video_cache() -> None:
    """Lets every clip be decoded anew, as in a set of more clips than a process keeps."""
    from bipose_lit.datasets import frames

    os.environ[frames.CACHE] = "0"


def paragraphs(*parts: str | Sequence[str]) -> str:
    """Paragraphs, tables and lists of lines, a blank line between them."""
    return "\n\n".join(p if isinstance(p, str) else "\n".join(f"- {line}" for line in p) for p in parts if p)
