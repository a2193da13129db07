"""The history's rows."""

import json

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from memory_index import MemoryReader

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.callbacks.history import History
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.losses import HeatmapMSE
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe


@pytest.fixture
def module():
    torch.set_num_threads(1)
    codec = HeatmapCodec(4, 1.0)
    recipe = Recipe("adamw", 1e-2, schedule="linear")
    return PoseModule(
        TimmBackbone("test_resnet"), DeconvDecoder(8, 3), codec, HeatmapMSE(), joints=5, size=(64, 64), recipe=recipe
    )


def fit(folder, module, history, *callbacks, ckpt_path=None, **options):
    trainer = L.Trainer(
        **{
            "default_root_dir": folder, "accelerator": "cpu", "devices": 1, "logger": False, "max_steps": 7,
            "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
            "use_distributed_sampler": False, "callbacks": [Evaluation(), history, *callbacks], **options,
        }
    )  # fmt: skip
    data = PoseDataModule(MemoryReader(4, 5), size=(64, 64), clips=ClipSampling(4), batch_size=2)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_at_the_first_every_third_and_the_last_step(tmp_path, module):
    told = []
    history = History(tmp_path / "deep" / "history.jsonl", every=3, report=lambda s, n, m: told.append((s, n)))
    fit(tmp_path, module, history, val_check_interval=None, check_val_every_n_epoch=2)
    found = rows(tmp_path / "deep" / "history.jsonl")
    training = [r for r in found if "train/loss" in r]
    assert [r["step"] for r in training] == [1, 3, 6, 7]
    assert [r["step"] for r in found if "val/loss" in r] == [4]
    assert all(0 <= r["lr"] <= 1e-2 for r in training)
    assert [r["epoch"] for r in found] == sorted(r["epoch"] for r in found)
    assert told == [(r["step"], 7) for r in found]
    # Protocol names, as in the result file.
    assert "val/pck@0.1[clip,clip-box]" in found[[r["step"] for r in found].index(4)]


def test_accumulated_batches_write_one_row_a_step(tmp_path, module):
    fit(tmp_path, module, History(tmp_path / "h.jsonl", every=1), accumulate_grad_batches=2, max_steps=3)
    assert [r["step"] for r in rows(tmp_path / "h.jsonl") if "train/loss" in r] == [1, 2, 3]


def test_a_new_fit_starts_a_new_file(tmp_path, module):
    path = tmp_path / "h.jsonl"
    path.write_text('{"step": 99}\n')
    fit(tmp_path, module, History(path, every=1), max_steps=1)
    assert [r["step"] for r in rows(path) if "train/loss" in r] == [1]


def test_a_fit_that_goes_on_drops_the_rows_after_its_checkpoint(tmp_path, module):
    path = tmp_path / "h.jsonl"
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    fit(tmp_path, module, History(path, every=1), keep, enable_checkpointing=True)
    whole = path.read_text()
    path.write_text(whole + '{"step": 8')  # a row of a step that was lost, cut off by a kill
    fit(tmp_path, module, History(path, every=1), keep, enable_checkpointing=True, ckpt_path=tmp_path / "step=3.ckpt")
    assert [r["step"] for r in rows(path) if "train/loss" in r] == [1, 2, 3, 4, 5, 6, 7]
    assert path.read_text().splitlines()[:3] == whole.splitlines()[:3]


def test_sanity_checks_and_scorings_outside_a_fit_leave_no_row(tmp_path, module):
    path = tmp_path / "h.jsonl"
    trainer = fit(tmp_path, module, History(path, every=1), max_steps=1, num_sanity_val_steps=1, limit_val_batches=1)
    before = path.read_text()
    trainer.validate(module, datamodule=trainer.datamodule, verbose=False)
    assert path.read_text() == before
    assert [r["step"] for r in rows(path)] == [1]
