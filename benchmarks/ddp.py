"""What a training step of two processes costs beside that of one: gradients averaged over gloo, on this machine's cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Spread, table
from benchmarks.setting import Setting, paragraphs

MODELS = {"per frame": "temporal/none.yaml", "bilstm": "temporal/bilstm.yaml"}
JOB = """
import json, statistics, sys, time
import lightning.pytorch as L
import torch
from bipose_lit.cli import build

config, processes, steps, out = json.loads(open(sys.argv[1]).read()), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

class Stamps(L.Callback):
    def __init__(self):
        self.times = []
    def on_train_batch_end(self, *args, **kwargs):
        self.times.append(time.perf_counter())

torch.set_num_threads(1)
torch.manual_seed(0)
module, data, _ = build(config)
stamps = Stamps()
trainer = L.Trainer(
    accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", max_steps=steps, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    limit_val_batches=0, use_distributed_sampler=False, callbacks=[stamps],
)
trainer.fit(module, datamodule=data)
if trainer.is_global_zero:
    gaps = [b - a for a, b in zip(stamps.times[2:], stamps.times[3:])]
    size = sum(p.numel() for p in module.parameters() if p.requires_grad)
    open(out, "w").write(json.dumps({"step": statistics.median(gaps), "parameters": size}))
"""
"""A fresh process: Lightning's launcher starts the other rank with the same command."""


def run(setting: Setting) -> str:
    """The section."""
    rows, said = [], []
    for name, overlay in MODELS.items():
        values: dict[str, list[float]] = {"one": [], "apart": [], "two": []}
        size = 0
        for r in range(setting.pick(2, 1)):
            order = list(values)
            for what in order[r % 3 :] + order[: r % 3]:
                setting.tell(f"{name}, {what}, round {r + 1}")
                found = _jobs(setting, overlay, what)
                values[what].append(sum(f["step"] for f in found) / len(found))
                size = found[0]["parameters"]
        one, apart, two = (Spread(tuple(values[what])) for what in values)
        rows.append([name, one.ms, apart.ms, two.ms, two.over(one), one.map(lambda s: 2 * s).over(two)])
        machine, group = (apart.median / one.median - 1) * 100, (two.median / apart.median - 1) * 100
        said.append(
            f"{name} ({size / 1e6:.2f} M trained parameters) {machine:+.0f}% by the machine, {group:+.0f}% by the group"
        )
    return paragraphs(
        "A whole training step (pixels to the optimiser, full precision, one thread a process), as many clips for each process; "
        "two processes do twice the work of one. Each round is a fresh start; a value is the median of its steps.",
        table(
            [
                "model",
                "ms, one process",
                "ms, two unconnected",
                "ms, two as DDP",
                "DDP over one",
                "clips a second, DDP over one",
            ],
            rows,
        ),
        "What limits a step of two processes now: what two unconnected ones take longer than one alone is the machine's (cores, "
        f"caches, memory), the rest is gradients averaged over gloo and waiting for the slower one: {'; '.join(said)}.",
    )


def _jobs(setting: Setting, overlay: str, what: str) -> list[dict[str, Any]]:
    """One process, two that know nothing of each other, or two in a group."""
    started = [_start(setting, overlay, 2 if what == "two" else 1, n) for n in range(2 if what == "apart" else 1)]
    return [_end(*job) for job in started]


def _start(setting: Setting, overlay: str, processes: int, number: int) -> tuple[subprocess.Popen[str], Path]:
    options = {
        "data.cache": None,
        "model.freeze_backbone": False,
        "data.batch_size": setting.pick(2, 1) * processes,
        "data.clips.length": setting.pick(8, 4),
        "data.supervise": None,
    }
    folder = setting.work / f"ddp{number}"
    folder.mkdir(exist_ok=True)
    config, out, code = folder / f"config{processes}.json", folder / "out.json", folder / "job.py"
    config.write_text(json.dumps(setting.config(overlay, options=options)))
    code.write_text(JOB)
    out.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(code), str(config), str(processes), str(setting.pick(16, 5)), str(out)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, cwd=folder, **pipes), out  # type: ignore[call-overload]


def _end(process: subprocess.Popen[str], out: Path) -> dict[str, Any]:
    said = process.communicate()[1]
    if process.returncode or not out.is_file():
        raise RuntimeError(f"a training ended with {process.returncode}: {said.strip()[-400:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found
