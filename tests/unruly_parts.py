"""Callbacks and parts that misbehave at a given step, on a given rank."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch


class Unruly(L.Callback):
    """Does something bad as soon as `step` optimiser steps are done.

    Args:
        what: "hang", "kill", "nan" (a weight), "memory" (asks for more than there is), "exit".
        step: optimiser steps before it.
        rank: that does it.
    """

    def __init__(self, what: str, step: int = 1, rank: int = 0) -> None:
        self.what, self.step, self.rank = what, step, rank

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        if trainer.global_step != self.step or trainer.global_rank != self.rank:
            return
        sys.stderr.write(f"UNRULY {time.monotonic()}\n")
        sys.stderr.flush()
        if self.what == "hang":
            time.sleep(10_000)
        elif self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "exit":
            os._exit(7)
        elif self.what == "memory":
            torch.empty(2**50)
        elif self.what == "nan":
            with torch.no_grad():
                next(module.network.decoder.parameters()).fill_(float("nan"))


class Touch(L.Callback):
    """Makes a file when `step` optimiser steps are done, once: on rank 0, and only where none of that name was renamed.

    Args:
        path: of the file.
        step: optimiser steps before it.
    """

    def __init__(self, path: str, step: int) -> None:
        self.path, self.step = Path(path), step

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        done = self.path.with_name(f"{self.path.name}ed")
        if trainer.is_global_zero and trainer.global_step == self.step and not done.exists():
            self.path.touch()
            while not done.exists():  # the warning is on its way before the step ends
                time.sleep(0.02)
            time.sleep(0.5)
