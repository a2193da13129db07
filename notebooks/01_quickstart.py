# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart
#
# Make a few clips of synthetic people, look at them, fit a small network with a BiLSTM over time, look at what it predicts,
# and open its checkpoint. Everything runs on a laptop's CPU in under two minutes and downloads nothing.

# %%
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch
from IPython.display import Image, display

from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.datasets.sheet import contact_sheet
from bipose_lit.datasets.synthetic.make import make_dataset

torch.set_num_threads(1)
work = Path("quickstart")

# %% [markdown]
# ## Data
# The set is written in JHMDB's official layout and read by the same reader as the real one. Solid joints are visible, hollow ones
# are hidden behind something; the left side is one colour, the right side another.

# %%
made = make_dataset(
    work / "clips", {"train": 8, "val": 2, "test": 2}, frames=16, formats=("jhmdb",), workers=1, progress=False
)
reader = JHMDB(work / "clips")
train = reader.index("train")
print(train.name, len(train.tracks), "clips of", len(train.clusters), "people")
contact_sheet(train.tracks[:4], train.skeleton, work / "sheet.png", frames_per_clip=6)
display(Image(work / "sheet.png"))

# %% [markdown]
# ## Model
# A network is composed of parts. Channel counts are never written down: each part is sized by the one before it. Swap
# `ConvLSTM(direction="both")` for `ConvLSTM(direction="forward")` or for `None` and you have the arms of the ablation.

# %%
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.losses import HeatmapMSE
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe

L.seed_everything(0, workers=True)
module = PoseModule(
    backbone=TimmBackbone("resnet10t"),
    temporal=ConvLSTM(hidden=16, direction="both"),
    decoder=DeconvDecoder(channels=32, layers=3),
    codec=HeatmapCodec(stride=4, sigma=1.5, skeleton="jhmdb"),
    loss=HeatmapMSE(),
    joints=15,
    size=(64, 64),
    recipe=Recipe(optimizer="adamw", lr=2e-3, schedule="cosine"),
)
print(module.network.count_parameters())

# %%
data = PoseDataModule(reader, size=(64, 64), clips=ClipSampling(length=8), batch_size=4)
trainer = L.Trainer(
    accelerator="cpu", max_steps=100, logger=False, enable_progress_bar=False, enable_model_summary=False,
    default_root_dir=work, num_sanity_val_steps=0, check_val_every_n_epoch=25, use_distributed_sampler=False,
)  # fmt: skip
trainer.fit(module, datamodule=data)
metrics = trainer.validate(module, datamodule=data, verbose=False)[0]
print({k: round(v, 3) for k, v in metrics.items() if k in ("val_pck_0_2_clip_clip_box", "val/loss")})

# %% [markdown]
# Eight clips and a hundred steps teach nothing about people in general. On the clips it was fitted to, the network should
# be on its way to the labels:

# %%
from bipose_lit.drawing import draw_pose

module.eval()
batch = next(iter(data.train_dataloader()))
with torch.no_grad():
    out = module.predict_step(batch)
inverse = torch.linalg.inv(
    torch.cat([batch.to_image[0], torch.tensor([[[0.0, 0.0, 1.0]]]).expand(len(batch.to_image[0]), 1, 3)], 1)
)
tiles = []
for t in range(0, int(batch.valid[0].sum()), 2):
    joints = (torch.cat([out["joints"][0, t], torch.ones(15, 1)], 1) @ inverse[t].T)[:, :2]
    picture = batch.images[0, t].permute(1, 2, 0).numpy()
    tiles.append(draw_pose(picture, joints.numpy(), data.skeleton, scale=3.0))
import cv2

cv2.imwrite(str(work / "predictions.png"), np.concatenate(tiles, axis=1)[..., ::-1])
display(Image(work / "predictions.png"))

# %% [markdown]
# ## Checkpoint
# Checkpoints hold plain data (class paths and arguments) beside the weights, so one line rebuilds the model.

# %%
trainer.save_checkpoint(work / "model.ckpt")
again = PoseModule.load_from_checkpoint(work / "model.ckpt", map_location="cpu").eval()
print(again.hparams["temporal"])
with torch.no_grad():
    assert torch.equal(again.predict_step(batch)["joints"], out["joints"])
