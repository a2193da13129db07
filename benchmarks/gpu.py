"""The same fit on one GPU in full and in half precision, plain and compiled: what it learns, and what its steps take."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from typing import Any

import lightning.pytorch as L
import torch

from benchmarks.measure import Spread, number, table
from benchmarks.setting import Setting, paragraphs
from benchmarks.training import build_all

VARIANTS = {
    "32-true": ("32-true", False),
    "bf16-mixed": ("bf16-mixed", False),
    "bf16-mixed, compiled": ("bf16-mixed", True),
}
BLOCK = 10
"""Steps of a block: each gives one value; the first block's times do not count, the last one's losses are averaged."""


def why_not() -> str:
    """Why this case cannot be measured here; "" if it can."""
    return "" if torch.cuda.is_available() else "there is no CUDA device"


def run(setting: Setting) -> str:
    """The section."""
    setting.limit_threads()
    blocks, clips, frames = setting.pick(7, 2), setting.pick(8, 2), setting.pick(16, 4)
    fits: dict[str, _Fit] = {}
    setting.tell("warm-up")
    _Fit(setting, "32-true", False, 2, 2, 4)  # who is first pays for the libraries' start
    for name, (precision, compiled) in VARIANTS.items():
        setting.tell(name)
        fits[name] = _Fit(setting, precision, compiled, blocks, clips, frames)
    plain = next(iter(fits.values())).own
    rows = [
        [
            name, fit.own.ms, f"{plain.median / fit.own.median:.2f}", fit.step.ms, number(fit.first), f"{fit.memory / 1e9:.2f}",
            number(1e3 * fit.loss),
        ]
        for name, fit in fits.items()
    ]  # fmt: skip
    half = plain.median / fits["bf16-mixed"].own.median
    why = (
        ""
        if half > 1.2
        else f" Half precision is {half:.2f} times as fast, so a step's own time is not arithmetic: probably the launching of "
        "kernels, many and small where a head reads frame by frame."
    )
    waits = ", ".join(f"{name} {1 - fit.own.median / fit.step.median:.0%}" for name, fit in fits.items())
    return paragraphs(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; ResNet-50 and a bidirectional ConvLSTM, from pixels and "
        f"random weights, through the Trainer: {blocks * BLOCK} steps of {clips} clips of {frames} frames, the same data, "
        f"seed and order in every line. One fit a line, after one another; a value is the median of {BLOCK} steps. A "
        "step's own time runs from its batch's arrival on the device until all of its work there is done; a step of the Trainer "
        "also waits for the next clips.",
        table(
            [
                "fit", "ms, a step's own", "times as fast", "ms, a step of the Trainer", "s until the first step is done",
                "GB on the device", f"1000 x loss, last {BLOCK} steps",
            ],
            rows,
        ),
        "What limits a step of the Trainer now: the share in which the device waits for clips from "
        f"{setting.pick(8, 0)} loading processes, and for the Trainer, is {waits}.{why}",
    )  # fmt: skip


class _Clock(L.Callback):
    """When each step began and ended on the device, and its loss."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self.losses: list[torch.Tensor] = []
        self._begun = 0.0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        torch.cuda.synchronize()
        self._begun = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:
        torch.cuda.synchronize()
        self.spans.append((self._begun, time.perf_counter()))
        self.losses.append(outputs["step_loss"].detach())


class _Fit:
    """One fit.

    Attributes:
        own: seconds of a step on the device.
        step: seconds of a step of the Trainer.
        first: seconds until the first step was done.
        memory: bytes that tensors took at most.
        loss: mean over the last steps.
    """

    def __init__(self, setting: Setting, precision: str, compiled: bool, blocks: int, clips: int, frames: int) -> None:
        from bipose_lit.run import quiet

        torch.manual_seed(0)
        gc.collect()  # what the fit before left
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        options = {
            "model.backbone.init_args.pretrained": False, "model.weights": None, "model.weights_for": None,
            "model.freeze_backbone": False, "model.compile": compiled, "trainer.precision": precision, "data.cache": None,
            "data.supervise": None, "data.batch_size": clips, "data.clips.length": frames,
            "data.num_workers": setting.pick(8, 0), "data.size": setting.pick([192, 256], [64, 64]),
        }  # fmt: skip
        files = ("backbone/resnet50.yaml", "temporal/bilstm.yaml", "trainer/gpu.yaml")
        module, data, chosen = build_all(setting.config(*files, options=options))
        clock = _Clock()
        chosen = {k: v for k, v in chosen.items() if v is not None and k != "val_check_interval"}
        chosen.update(
            max_steps=blocks * BLOCK, limit_val_batches=0, default_root_dir=str(setting.work), logger=False,
            callbacks=[clock], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        start = time.perf_counter()
        with quiet():
            L.Trainer(**chosen).fit(module, datamodule=data)
        self.first = clock.spans[0][1] - start
        self.memory = float(torch.cuda.max_memory_allocated())
        self.loss = statistics.fmean(float(loss) for loss in clock.losses[-BLOCK:])
        ends = [end for _, end in clock.spans]
        self.own = _by_block([end - begun for begun, end in clock.spans][BLOCK:])
        self.step = _by_block([b - a for a, b in itertools.pairwise(ends)][BLOCK - 1 :])


def _by_block(values: list[float]) -> Spread:
    return Spread(tuple(statistics.median(values[i : i + BLOCK]) for i in range(0, len(values), BLOCK)))
