"""Dropout and its kin as functions of (seed, optimiser step, micro-batch, rank): a resumed training draws what it would have."""

from __future__ import annotations

import os
import random
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch


class StepSeeds(L.Callback):
    """Seeds the global generators before every training batch.

    Nothing that was drawn before matters then: not the initial weights, not a validation in between, not the number of restarts.
    Ranks draw different numbers. Data does not depend on it: samples draw from generators of their own.

    Args:
        seed: of the run; None: the data module's, else the one that Lightning was seeded with, else 0.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._at = (-1, 0)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        step, batch = self._at
        self._at = (step, batch + 1) if step == trainer.global_step else (trainer.global_step, 0)
        seed_step(self._seed(trainer), *self._at, trainer.global_rank)

    def _seed(self, trainer: L.Trainer) -> int:
        if self.seed is not None:
            return self.seed
        given = getattr(getattr(trainer, "datamodule", None), "seed", None)
        return int(given if given is not None else os.environ.get("PL_GLOBAL_SEED") or 0)


def seed_step(seed: int, step: int, batch: int, rank: int) -> None:
    """Seeds torch (on every device), numpy and random for one micro-batch of one rank.

    Args:
        seed: of the run.
        step: optimiser steps done before.
        batch: number of the micro-batch within the step.
        rank: of the process.
    """
    state = np.random.SeedSequence([seed, step, batch, rank]).generate_state(2, np.uint64)
    torch.manual_seed(int(state[0]))
    random.seed(int(state[1]))
    np.random.seed(int(state[1] & np.uint64(0xFFFFFFFF)))  # noqa: NPY002 - third-party layers may still read it


__all__ = ["StepSeeds", "seed_step"]
