"""On real pictures learned by heart, refiners of the body do no harm, fitted in closed form or trained on top."""

from __future__ import annotations

from dataclasses import replace

import lightning.pytorch as L
import numpy as np
import pytest
import torch

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.datasets.index import PoseIndex
from bipose_lit.losses import HeatmapMSE
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.structured.crf import MeanFieldCRF
from bipose_lit.models.structured.pictorial import PictorialStructures
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe
from bipose_lit.weights import save_parts

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(1800)]

SIZE, PCK = (96, 128), "test/pck@0.1[bbox,gt-box]"


class OneIndex:
    """The same tracks as every split.

    Args:
        index: the tracks.
    """

    official = False

    def __init__(self, index: PoseIndex) -> None:
        self.whole, self.skeleton = index, index.skeleton

    def index(self, split: str) -> PoseIndex:
        return replace(self.whole, split=split, name=f"by-heart-{split}/{split}[{self.whole.box_rule}]")


@pytest.fixture(scope="module")
def persons(real_data) -> OneIndex:
    """The 16 largest persons of the sample that show at least 8 joints."""
    from bipose_lit.datasets.coco import COCO

    index = COCO(real_data / "coco_mini", val_fraction=0.0).index("train")
    fit = [t for t in index.tracks if (t.visible > 0).sum() >= 8]
    chosen = sorted(fit, key=lambda t: -t.norms[0, 4])[:16]
    return OneIndex(replace(index, tracks=tuple(chosen), scoring=None))


@pytest.fixture(scope="module")
def learned(persons, tmp_path_factory):
    """Weights of a per-frame network that knows them, and its scores."""
    folder = tmp_path_factory.mktemp("by-heart")
    module, data = parts(persons, None, lr=2e-3)
    scores = fit(module, data, folder, 260)
    save_parts(module.network, folder / "weights.safetensors")
    return folder / "weights.safetensors", scores


def parts(persons, refiner, lr: float, weights=None) -> tuple[PoseModule, PoseDataModule]:
    torch.manual_seed(0)
    module = PoseModule(
        TimmBackbone("resnet18", kwargs={"channels": [24, 48, 96, 192], "output_stride": 16}),
        DeconvDecoder([64, 48]),
        HeatmapCodec(4, 1.5, skeleton="coco"),
        HeatmapMSE(),
        refiner=refiner,
        joints=17,
        size=SIZE,
        weights=None if weights is None else str(weights),
        freeze_backbone=weights is not None,
        recipe=Recipe("adamw", lr, schedule="cosine", warmup=0.05),
    )
    return module, PoseDataModule(persons, size=SIZE, clips=ClipSampling(1), batch_size=16, eval_batch_size=16)


def fit(module: PoseModule, data: PoseDataModule, folder, steps: int) -> dict[str, float]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    evaluation = Evaluation()
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, max_steps=steps, gradient_clip_val=1.0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, callbacks=[evaluation],
        use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    if steps:
        trainer.fit(module, datamodule=data)
    trainer.limit_val_batches = 1.0
    trainer.test(module, datamodule=data, verbose=False)
    return evaluation.metrics["test"]


REFINERS = {
    "pictorial, fitted": (PictorialStructures("coco"), 0),
    "pictorial, trained": (PictorialStructures("coco"), 40),
    "crf, trained": (MeanFieldCRF("coco", rounds=2, reach=10), 40),
}


@pytest.mark.parametrize("name", REFINERS)
def test_what_was_learned_by_heart_stays(name, persons, learned, tmp_path, capsys):
    weights, plain = learned
    refiner, steps = REFINERS[name]
    module, data = parts(persons, refiner, 1e-3, weights)
    if not steps:
        module.start_from_weights()
        batch = next(iter(data.test_dataloader()))
        refiner.fit(batch.joints[batch.valid], batch.visible[batch.valid], SIZE)
    scores = fit(module, data, tmp_path, steps)
    share = (refiner.gain * refiner.mix).detach()
    with capsys.disabled():
        print(
            f"\n16 COCO persons, {name}: PCK@0.1 {scores[PCK]:.3f}, without {plain[PCK]:.3f}; "
            f"mixed in by {np.mean(share.numpy()):.2f}, loss {scores['test/loss']:.3f}, without {plain['test/loss']:.3f}"
        )
    assert plain[PCK] > 0.9
    assert share.abs().max() > 0.01, "it does nothing"
    assert scores[PCK] > plain[PCK] - 0.03
