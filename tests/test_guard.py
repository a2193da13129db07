"""Failures of a fit are one line: a loss that is not finite, too little memory, a process that hangs or dies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from ddp_cases import PatchyReader, PlainBackbone, PlainDecoder
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import arguments, tiny_options, write_jhmdb
from unruly_parts import Unruly

from bipose_lit.callbacks.guard import Guard, explained
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.losses import HeatmapMSE
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe
from bipose_lit.types import BiposeError

TESTS = Path(__file__).parent
BASE = TESTS.parent / "experiments" / "base.yaml"
STALL = 4.0


def fit(folder: Path, *callbacks: L.Callback, steps: int = 6, rate: float = 1e-3, **options) -> None:
    """A fit of some small steps in this process."""
    torch.set_num_threads(1)
    module = PoseModule(
        PlainBackbone(),
        PlainDecoder(),
        HeatmapCodec(stride=4, sigma=1.0),
        HeatmapMSE(),
        joints=5,
        size=(32, 32),
        recipe=Recipe(lr=rate),
    )
    data = PoseDataModule(PatchyReader(6, 4), size=(32, 32), clips=ClipSampling(2), batch_size=2)
    trainer = L.Trainer(
        default_root_dir=folder, max_steps=steps, accelerator="cpu", devices=1, logger=False, callbacks=list(callbacks),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
        use_distributed_sampler=False, **{"enable_checkpointing": False, **options},
    )  # fmt: skip
    with explained():
        trainer.fit(module, datamodule=data)


def test_a_loss_that_is_not_finite_ends_the_fit_with_step_and_clips(tmp_path):
    with pytest.raises(BiposeError) as raised:
        fit(tmp_path, Unruly("nan", step=2))
    line = str(raised.value)
    assert re.match(
        r"training diverged: the loss is nan at step 3 \(clips clip\d{3}, clip\d{3}\); lower model.recipe.lr", line
    )
    assert "\n" not in line


def test_a_rate_that_is_too_high_is_told_as_such(tmp_path):
    with pytest.raises(BiposeError, match=r"training diverged: the loss is (inf|nan) at step [23]"):
        fit(tmp_path, rate=1e30)


class NoLook(Guard):
    """As on a GPU: looks every so many batches, not at each."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self._recent.append((trainer.global_step, outputs["step_loss"], outputs["loss"], batch.clip))
        if len(self._recent) >= self.every:
            self._look(trainer)


def test_a_guard_that_looks_seldom_still_names_the_first_bad_step(tmp_path):
    with pytest.raises(BiposeError, match="nan at step 3 "):
        fit(tmp_path, Unruly("nan", step=2), NoLook(every=5))
    with pytest.raises(BiposeError, match="nan at step 3 "):  # the fit ends before the next look
        fit(tmp_path, Unruly("nan", step=2), NoLook(every=100))


def test_no_checkpoint_of_a_diverged_model_takes_the_place_of_a_good_one(tmp_path):
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    with pytest.raises(BiposeError, match="nan at step 3 "):
        fit(tmp_path, Unruly("nan", step=2), NoLook(every=100), keep, enable_checkpointing=True)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["epoch=0-step=2.ckpt"]


def test_too_little_memory_is_one_line_with_the_batch_and_what_to_try(tmp_path):
    with pytest.raises(BiposeError) as raised:
        fit(tmp_path, Unruly("memory", step=2))
    line = str(raised.value)
    assert line.startswith("out of memory at step 2, ")
    assert "2 clips x 2 frames of 32x32" in line
    assert "trainer.accumulate_grad_batches 2" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_all_ways_of_running_out_of_memory_are_known(tmp_path, error):
    class Raise(L.Callback):
        def on_before_backward(self, *args) -> None:
            raise error

    with pytest.raises(BiposeError, match="out of memory at step 0, in the"):
        fit(tmp_path, Raise())


def test_other_errors_pass_as_they_are(tmp_path):
    class Raise(L.Callback):
        def on_before_backward(self, *args) -> None:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        fit(tmp_path, Raise())


def test_a_guard_of_ones_own_takes_the_place_of_the_usual_one(tmp_path):
    with pytest.raises(BiposeError, match="every 0"):
        Guard(every=0)

    class Count(L.Callback):
        def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            self.guards = [c for c in trainer.callbacks if isinstance(c, Guard)]

    own, count = Guard(stall=5), Count()
    fit(tmp_path, own, count, steps=1)
    assert count.guards == [own]


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_jhmdb(tmp_path_factory.mktemp("guard") / "data", train=6, val=1, test=1)


def two(root: Path, folder: Path, what: str, rank: int) -> tuple[int, list[str]]:
    """`bipose fit` on two processes of which one misbehaves; the exit status and what was said after that."""
    bad = {"class_path": "unruly_parts.Unruly", "init_args": {"what": what, "step": 1, "rank": rank}}
    guard = {"class_path": "bipose_lit.callbacks.guard.Guard", "init_args": {"stall": STALL}}
    done = subprocess.run(
        [sys.executable, "-m", "bipose_lit", "fit", "-c", str(BASE), *arguments(tiny_options(root)),
         "--trainer.devices=2", "--trainer.strategy=ddp", f"--trainer.callbacks={json.dumps([bad, guard])}",
         f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false",
         "--trainer.enable_model_summary=false", "--trainer.val_check_interval=4"],
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    _, mark, after = done.stderr.partition("UNRULY")
    assert mark, done.stderr[-3000:]
    return done.returncode, after.splitlines()[1:]


@pytest.mark.ddp
def test_a_rank_that_hangs_ends_the_job_and_says_where(root, tmp_path):
    status, said = two(root, tmp_path, "hang", 1)
    assert status == 1
    assert re.match(
        rf"bipose: error: rank 1 of 2 on \S+ made no progress for {STALL:.0f} s at step 1, between steps "
        r"\(in on_train_batch_start, .*unruly_parts.py:\d+\) \(stacks in .*stacks-rank1.txt\); mend what hangs",
        said[0],
    )
    assert len(said) <= 2  # rank 0 may see it end
    assert "unruly_parts.py" in (tmp_path / "stacks-rank1.txt").read_text()


@pytest.mark.ddp
def test_a_rank_that_is_killed_ends_the_job_with_one_line(root, tmp_path):
    status, said = two(root, tmp_path, "kill", 1)
    assert status == 1
    (line,) = said
    assert re.match(
        r"bipose: error: rank 1 of 2 \(process \d+\) was killed by signal 9 while this process was at step 1", line
    )


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_diverged_fit_is_told_once_with_the_clips_of_all_ranks(root, tmp_path, rank):
    status, (line,) = two(root, tmp_path, "nan", rank)
    assert status == 1
    assert re.match(
        r"bipose: error: training diverged: the loss is nan at step 2 \(clips move/scene\d+_0\); lower", line
    )


@pytest.mark.ddp
@pytest.mark.slow
def test_the_end_of_rank_0_is_told_by_another(root, tmp_path):
    status, (line,) = two(root, tmp_path, "kill", 0)
    assert status == -9
    assert "another process of the job ended while this process was at step 1" in line


@pytest.mark.ddp
@pytest.mark.slow
def test_too_little_memory_on_one_rank_names_it(root, tmp_path):
    status, said = two(root, tmp_path, "memory", 1)
    assert status == 1
    assert said[0].startswith(
        "bipose: error: rank 1 of 2: out of memory at step 1, between steps, with a batch of 1 clips"
    )
    assert all("ended" in line for line in said[1:])
