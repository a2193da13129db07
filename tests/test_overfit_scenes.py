"""Scenes from reader to COCO's measure without boxes: a narrow network learns real pictures by heart, with all their people."""

from __future__ import annotations

from dataclasses import replace

import lightning.pytorch as L
import numpy as np
import pytest
import torch

from bipose_lit.callbacks.scene_evaluation import SceneEvaluation
from bipose_lit.codecs.scene import SceneCodec
from bipose_lit.datasets.coco import COCO
from bipose_lit.datasets.coco_json import take
from bipose_lit.datasets.scenes import SceneIndex
from bipose_lit.losses.scene import SceneMSE
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.openpose import OpenPoseDecoder
from bipose_lit.recipe import Recipe
from bipose_lit.scene_datamodule import SceneDataModule
from bipose_lit.scene_module import SceneModule

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(1200)]

IMAGES, STEPS, SIZE = 8, 240, (192, 192)


class Memorised:
    """One index as every split: what was learned by heart is what is asked.

    Args:
        index: the images to learn.
    """

    def __init__(self, index: SceneIndex) -> None:
        self.whole, self.skeleton = index, index.skeleton

    def scenes(self, split: str) -> SceneIndex:
        return replace(self.whole, split=split, name=f"memorised-{split}/{split}[whole-image]")


def chosen(index: SceneIndex) -> SceneIndex:
    """The images with two or more labelled people whose smallest person is the largest."""
    several = [s for s in index.scenes if len(s.joints) >= 2]
    several.sort(key=lambda s: (-float((s.boxes[:, 2] * s.boxes[:, 3]).min()), s.image))
    scenes = tuple(several[:IMAGES])
    truth = take(index.truth, np.isin(index.truth.images, [s.image for s in scenes]))
    return replace(index, scenes=scenes, truth=truth)


def score(module: SceneModule, data: SceneDataModule, folder) -> dict[str, float]:
    scoring = SceneEvaluation()
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[scoring], use_distributed_sampler=False,
    )  # fmt: skip
    trainer.test(module, datamodule=data, verbose=False)
    return scoring.metrics["test"]


def test_eight_images_are_learned_by_heart(real_data, tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # once all is learned, gradients get so small that a step takes four times as long
    torch.manual_seed(0)
    index = chosen(COCO(real_data / "coco_mini", val_fraction=0.0).scenes("train"))
    kwargs = {"channels": [16, 24, 32, 48], "output_stride": 8, "stem_type": "deep", "stem_width": 8}
    module = SceneModule(
        backbone=TimmBackbone("resnet18", kwargs=kwargs),
        decoder=OpenPoseDecoder(21, 1, 1, [64], 2, [32, 32], [64, 64]),
        codec=SceneCodec(),
        loss=SceneMSE(),
        joints=17,
        size=SIZE,
        recipe=Recipe("adamw", 4e-3, schedule="cosine", warmup=0.05),
    )
    data = SceneDataModule(Memorised(index), size=SIZE, batch_size=IMAGES)
    with monkeypatch.context() as perfect:
        perfect.setattr(module, "_encoded", lambda batch: module._target(batch, batch.valid)[0])
        best = score(module, data, tmp_path)["test/ap[whole-image]"]
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False, max_steps=STEPS, gradient_clip_val=1.0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    metrics = score(module, data, tmp_path)
    found = metrics["test/ap[whole-image]"]
    with capsys.disabled():
        print(
            f"\n{IMAGES} COCO images, {metrics['test/persons']:.0f} people: AP[whole-image] {found:.3f}, ground-truth maps "
            f"through the same assembly {best:.3f}"
        )
    assert best >= 0.75
    assert found >= 0.8 * best
