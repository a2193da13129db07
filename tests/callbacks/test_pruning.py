"""A training that a judge gives up ends there, and stays given up if it was stopped in that very moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from small_fit import Line, fit
from tiny import tiny_options, write_jhmdb

from bipose_lit import run
from bipose_lit.callbacks.checkpoint_io import LAST, read
from bipose_lit.callbacks.checkpoints import KEY, Resume
from bipose_lit.cli import resolve
from bipose_lit.store import RunResult, RunSpec, config_hash
from bipose_lit.types import Preempted

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pruned")
    config = resolve([FOLDER / "base.yaml"], tiny_options(write_jhmdb(folder / "data")))
    return lambda name: RunSpec("trial", "a", 0, folder / name, config, config_hash=config_hash(config))


class Judge:
    """Gives up after step 2; keeps what it was asked.

    Args:
        warn: a signal comes while it thinks.
    """

    def __init__(self, warn: bool = False) -> None:
        self.warn, self.asked, self.watch = warn, [], "val/pck@0.1[clip,clip-box]"

    def __call__(self, step: int, metrics: Mapping[str, float], clusters: Mapping[str, float]) -> bool:
        self.asked.append((step, dict(metrics), dict(clusters)))
        if self.warn:
            os.kill(os.getpid(), signal.SIGTERM)
        return step >= 2


def pruned(result: RunResult, asked: list) -> None:
    ((step, metrics, clusters),) = asked
    assert result.status == "pruned"
    assert result.facts["pruned_at"] == result.facts["steps"] == step == 2
    assert result.metrics == metrics
    assert result.metrics
    assert len(clusters) > 0
    assert result.scorings == result.predictions == {}


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_stopped_while_it_is_given_up_stays_given_up(job):
    judge, none = Judge(warn=True), Judge()
    spec = job("stopped")
    with pytest.raises(Preempted):
        run.execute(spec, judge=judge)
    assert RunResult.load(spec.folder) is None
    result = run.execute(spec, judge=none)
    pruned(result, judge.asked)
    assert none.asked == [], "the judgement was passed already"
    assert result.weights_hash == run.execute(job("twin"), judge=Judge()).weights_hash
    assert not (spec.folder / "checkpoints" / LAST).exists()


class Logs(Line):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", loss)
        return loss


class Stop(EarlyStopping):
    """The loss falls; who waits for it to rise stops after the second epoch. A signal comes with it."""

    def __init__(self, resume: Resume, warn: bool = False) -> None:
        super().__init__("train/loss", mode="max", patience=1, check_on_train_epoch_end=True)
        self.resume, self.warn = resume, warn

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.should_stop and self.warn:
            self.resume.signals.number = signal.SIGTERM


def keeper(run_of_a_batch: bool) -> Resume:
    made = Resume(every_minutes=None, epoch_ends=False)
    made.keep_final = not run_of_a_batch
    return made


@pytest.mark.filterwarnings("ignore")
def test_an_early_stop_holds_for_a_run_while_a_fit_may_be_told_to_go_on(tmp_path):
    path = tmp_path / "checkpoints" / LAST
    first = keeper(True)
    with pytest.raises(Preempted, match="after step 20, "):
        fit(tmp_path, first, Logs(), callbacks=[Stop(first, warn=True), first], max_epochs=5)
    assert read(path)[KEY]["stop"] is True
    assert fit(tmp_path, keeper(True), Logs(), path, max_epochs=5).global_step == 20
    assert fit(tmp_path, keeper(False), Logs(), path, max_epochs=5).global_step == 50
