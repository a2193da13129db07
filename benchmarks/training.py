"""Training steps and scoring with features from disk, computed again, and trained end to end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from benchmarks.measure import Spot, Spread, interleave, operator_profiler, operators
from benchmarks.setting import Setting

HEADS = {
    "none": ("temporal/none.yaml",),
    "lstm": ("temporal/lstm.yaml",),
    "bilstm": ("temporal/bilstm.yaml",),
    "pooled lstm, regression": ("decoder/regression.yaml", "pool/lstm.yaml"),
}
MODES = ("cached", "recomputed", "end to end")


@dataclass(frozen=True)
class Speed:
    """Of one head.

    Attributes:
        steps: seconds per training step by mode.
        scoring: seconds per scored clip by mode; end to end scores as recomputed.
        operators: where cached steps spend their time.
    """

    steps: dict[str, Spread]
    scoring: dict[str, Spread]
    operators: list[Spot]


def speeds(setting: Setting) -> dict[str, Speed]:
    """Of all heads."""
    found = {}
    rounds = setting.pick(3, 1)
    counts = dict(zip(MODES, setting.pick((20, 2, 1), (2, 1, 1)), strict=True))
    for head, overlays in HEADS.items():
        configs = {mode: _mode(setting, mode, overlays) for mode in MODES}
        values: dict[str, list[float]] = {mode: [] for mode in MODES}
        for r in range(rounds):
            for mode in MODES[r % 3 :] + MODES[: r % 3]:
                setting.tell(f"training, {head}, {mode}, round {r + 1} of {rounds}")
                values[mode].append(statistics.median(_fit(configs[mode], counts[mode], setting.work)))
        steps = {mode: Spread(tuple(v)) for mode, v in values.items()}
        scoring = _scoring(setting, {mode: configs[mode] for mode in MODES[:2]}, head)
        scoring["end to end"] = scoring["recomputed"]
        found[head] = Speed(steps, scoring, _operators(configs["cached"], setting.pick(10, 1), setting.work))
    return found


def build_all(config: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Model with its starting weights, data ready to open the cache, and the Trainer's options."""
    from bipose_lit.cli import build
    from bipose_lit.run import quiet

    with quiet():
        module, data, options = build(config)
        module.start_from_weights()
    data.extractor, data.flip_test = module.network, module.flip_test
    return module, data, options


def _mode(setting: Setting, mode: str, overlays: tuple[str, ...]) -> dict[str, Any]:
    pixels = {"data.cache": None, "model.freeze_backbone": mode != "end to end"}
    return setting.config(*overlays, options={} if mode == "cached" else pixels)


class Stamps(L.Callback):
    """When each training step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())


class Profile(Stamps):
    """Profiles every step but the first."""

    def __init__(self) -> None:
        super().__init__()
        self.profiler = operator_profiler()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end()
        if len(self.times) == 1:
            self.profiler.start()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.profiler.stop()


def _operators(config: dict[str, Any], steps: int, folder: Path) -> list[Spot]:
    profile = Profile()
    _fit(config, steps, folder, profile)
    return operators(profile.profiler, 3)


def _fit(config: dict[str, Any], steps: int, folder: Path, stamps: Stamps | None = None) -> list[float]:
    """Seconds of each of `steps` training steps by the Trainer, after an unmeasured one."""
    from bipose_lit.run import quiet

    torch.manual_seed(0)
    module, data, options = build_all(config)
    stamps = stamps or Stamps()
    chosen = {k: v for k, v in options.items() if v is not None}
    chosen.update(
        max_steps=steps + 1, limit_val_batches=0, default_root_dir=str(folder), logger=False, callbacks=[stamps],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    chosen.pop("val_check_interval", None)
    with quiet():
        L.Trainer(**chosen).fit(module, datamodule=data)
    return [b - a for a, b in zip(stamps.times, stamps.times[1:], strict=False)]


def _scoring(setting: Setting, configs: dict[str, dict[str, Any]], head: str) -> dict[str, Spread]:
    """Seconds per clip of predicting the test split."""
    jobs: dict[str, Callable[[], object]] = {}
    clips = 1
    for mode, config in configs.items():
        module, data, _ = build_all(config)
        module.eval()
        clips = len(data.index("test").tracks)
        loader = data.test_dataloader()
        jobs[mode] = lambda m=module, b=loader: [m.predict_step(batch) for batch in b]  # type: ignore[misc]
    tell = lambda line: setting.tell(f"scoring, {head}, {line}")  # noqa: E731
    return {mode: t.map(lambda s: s / clips) for mode, t in interleave(jobs, setting.pick(3, 1), 0.0, tell).items()}
