"""Networks with the decoders other than heatmaps' learn real pictures by heart: SimCC, plain regression, RLE.

The data and the bars are those of `test_overfit_real`: COCO's sixteen largest persons, each codec beside its own ceiling.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.codecs.simcc import SimCCCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.datasets.index import PoseIndex
from bipose_lit.losses import SimCCLoss, SmoothL1
from bipose_lit.losses.rle import RLE
from bipose_lit.metrics.coco_scoring import CocoScoring
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.models.decoders.simcc import SimCCDecoder
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(1200)]
SIZE, PERSONS = (144, 192), 16

ARMS: dict[str, dict[str, Any]] = {
    "simcc": {"parts": (SimCCDecoder, {}, SimCCCodec, SimCCLoss), "steps": 420, "lr": 2e-3},
    "regression": {"parts": (RegressionDecoder, {}, RegressionCodec, SmoothL1), "steps": 700, "lr": 2e-3},
    "rle": {"parts": (RegressionDecoder, {"sigma": True}, RegressionCodec, RLE), "steps": 700, "lr": 2e-3},
}


class Memorised:
    """One index as every split: what was learned by heart is what is asked.

    Args:
        index: the tracks to learn.
    """

    official = False

    def __init__(self, index: PoseIndex) -> None:
        self.whole, self.skeleton = index, index.skeleton

    def index(self, split: str) -> PoseIndex:
        name = f"memorised-{split}/{split}[{self.whole.box_rule}]"
        return replace(self.whole, split=split, name=name)


@pytest.fixture(scope="module")
def largest(real_data) -> PoseIndex:
    """The sixteen largest persons with eight labelled joints, and their images' labels alone."""
    from bipose_lit.datasets.coco import COCO

    index = COCO(real_data / "coco_mini", val_fraction=0.0).index("train")
    area = np.array([t.norms[0, 4] for t in index.tracks])
    labelled = np.array([(t.visible > 0).sum() for t in index.tracks])
    chosen = [i for i in np.argsort(-area, kind="stable") if labelled[i] >= 8][:PERSONS]
    tracks = tuple(index.tracks[i] for i in sorted(chosen))
    truth, uid = index.scoring.truth, np.array([t.uid[0] for t in tracks])
    kept = np.isin(truth.id, uid)
    names = ("id", "image", "category", "joints", "visible", "boxes", "area", "crowd", "ignore")
    one = {name: getattr(truth, name)[kept] for name in names}
    truth = replace(truth, images=np.unique(one["image"]), **one)
    order = [int(np.flatnonzero(truth.id == u)[0]) for u in uid]
    ones = np.ones(PERSONS)
    scoring = CocoScoring(truth, uid, truth.image[order], truth.category[order], ones, index.skeleton.sigmas)
    return replace(index, tracks=tracks, scoring=scoring)


def learn(index: PoseIndex, folder, arm: str) -> dict[str, float]:
    """Trains on an index from scratch and scores the same."""
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)  # once all is learned, gradients get so small that a step takes four times as long
    torch.manual_seed(0)
    decoder, options, codec, loss = ARMS[arm]["parts"]
    module = PoseModule(
        joints=len(index.skeleton),
        size=SIZE,
        backbone=TimmBackbone("resnet18", kwargs={"channels": [24, 48, 96, 192], "output_stride": 16}),  # 144 is 9 x 16
        decoder=decoder(**options),
        codec=codec(skeleton=index.skeleton.name),
        loss=loss(),
        recipe=Recipe("adamw", ARMS[arm]["lr"], schedule="cosine", warmup=0.05),
    )
    data = PoseDataModule(
        Memorised(index), size=SIZE, clips=ClipSampling(1), batch_size=PERSONS, eval_batch_size=PERSONS
    )
    evaluation = Evaluation()
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, max_steps=ARMS[arm]["steps"],
        gradient_clip_val=1.0, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[evaluation], use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    trainer.limit_val_batches = 1.0
    trainer.test(module, datamodule=data, verbose=False)
    return evaluation.metrics["test"]


@pytest.mark.parametrize("arm", ARMS)
def test_coco_persons(arm, largest, tmp_path, capsys):
    found = learn(largest, tmp_path, arm)
    with capsys.disabled():
        print(f"\n{PERSONS} COCO persons, {arm}: AP[gt-box] {found['test/ap[gt-box]']:.3f}")
    assert found["test/ap[gt-box]"] >= 0.90
