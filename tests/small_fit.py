"""The smallest training: one weight, ten batches an epoch, and a `Resume` that tells when it saves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from bipose_lit.callbacks.checkpoint_io import with_checkpoint_io
from bipose_lit.callbacks.checkpoints import Resume


class Saves(Resume):
    """Writes down the steps at which it saves."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps: list[int] = []

    def save(self, trainer: L.Trainer, pending: bool = False) -> None:
        super().save(trainer, pending)
        self.steps.append(trainer.global_step)


class Line(L.LightningModule):
    """One weight, ten batches an epoch."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.layer, self.pause = torch.nn.Linear(1, 1), pause

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        time.sleep(self.pause)
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.ones(10, 1), batch_size=1)


def fit(
    folder: Path, resume: Resume, module: L.LightningModule | None = None, ckpt: Any = None, **options: Any
) -> L.Trainer:
    trainer = L.Trainer(
        **{
            "default_root_dir": folder, "accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 2,
            "enable_progress_bar": False, "enable_model_summary": False, "callbacks": [resume],
            "plugins": with_checkpoint_io(None), **options,
        }
    )  # fmt: skip
    trainer.fit(module or Line(), ckpt_path=ckpt)
    return trainer
