"""The whole chain can learn: a tiny network with a head over time learns eight clips by heart."""

import time

import lightning.pytorch as L
import pytest
import torch
from tiny import write_jhmdb

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.losses import HeatmapMSE, SmoothL1
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe

SECONDS = 60


class Memorised(JHMDB):
    """The training clips as validation: what was learned by heart is what is asked."""

    def index(self, split):
        from dataclasses import replace

        index = super().index("train")
        return index if split == "train" else replace(index, split=split, name=f"memorised-{split}/{split}[clip-box]")


def fit(root, tmp_path, steps, **parts):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = PoseModule(joints=15, size=(64, 64), **parts)
    data = PoseDataModule(
        Memorised(root), size=(64, 64), clips=ClipSampling(6), batch_size=8, supervise=0.5, eval_batch_size=8
    )
    evaluation = Evaluation()
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False, max_steps=steps, gradient_clip_val=1.0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, callbacks=[evaluation],
        use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    trainer.limit_val_batches = 1.0
    trainer.test(module, datamodule=data, verbose=False)
    return evaluation.metrics["test"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_jhmdb(tmp_path_factory.mktemp("jhmdb"), train=8, val=0, test=0, frames=6)


def test_heatmaps_with_a_recurrent_head_learn_eight_clips_by_heart(root, tmp_path):
    started = time.perf_counter()
    metrics = fit(
        root,
        tmp_path,
        steps=120,
        backbone=TimmBackbone("test_resnet", out_index=2),
        decoder=DeconvDecoder(32, 1),
        codec=HeatmapCodec(4, 1.0, skeleton="jhmdb"),
        loss=HeatmapMSE(),
        temporal=ConvLSTM(16),
        recipe=Recipe("adamw", 5e-3, schedule="cosine", warmup=0.05),
    )
    assert metrics["test/pck@0.1[clip,clip-box]"] >= 0.95
    assert metrics["test/pck@0.1[clip,clip-box]/occluded"] >= 0.95
    assert time.perf_counter() - started < SECONDS


@pytest.mark.slow
def test_coordinates_with_a_pooled_head_learn_eight_clips_by_heart(root, tmp_path):
    metrics = fit(
        root,
        tmp_path,
        steps=120,
        backbone=TimmBackbone("test_resnet"),
        decoder=RegressionDecoder([64]),
        codec=RegressionCodec(skeleton="jhmdb"),
        loss=SmoothL1(),
        pool=ConvLSTM(16, kernel=1),
        recipe=Recipe("adamw", 5e-3, schedule="cosine", warmup=0.05),
    )
    assert metrics["test/pck@0.1[clip,clip-box]"] >= 0.95
