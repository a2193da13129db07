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
import logging
import warnings
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
warnings.filterwarnings("ignore", module="lightning|tqdm|torch")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
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
contact_sheet(train.tracks[:4], train.skeleton, work / "sheet.png", frames_per_clip=6, title=train.name)
display(Image(work / "sheet.png"))

# %% [markdown]
# ## Model
# A network is composed of parts. Channel counts are never written down: each part is sized by the one before it. Swap
# `ConvLSTM(direction="both")` for `ConvLSTM(direction="forward")` or for `None` and you have the arms of the ablation.

# %%
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.losses import HeatmapMSE
from bipose_lit.models.backbones.timm_backbone import NarrowResNet
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe

L.seed_everything(0, workers=True)
module = PoseModule(
    backbone=NarrowResNet(channels=[32, 64, 128, 256]),  # or TimmBackbone("resnet50"): any timm model fits
    temporal=ConvLSTM(hidden=16, direction="both"),
    decoder=DeconvDecoder(channels=64, layers=3),
    codec=HeatmapCodec(stride=4, sigma=1.5, skeleton="jhmdb"),
    loss=HeatmapMSE(),
    joints=15,
    size=(64, 64),
    recipe=Recipe(optimizer="adamw", lr=3e-3, schedule="cosine"),
)
print(module.network.count_parameters())

# %%
data = PoseDataModule(reader, size=(64, 64), clips=ClipSampling(length=8), batch_size=4)
trainer = L.Trainer(
    accelerator="cpu", max_steps=150, logger=False, enable_progress_bar=False, enable_model_summary=False,
    enable_checkpointing=False, default_root_dir=work, num_sanity_val_steps=0, limit_val_batches=0,
    use_distributed_sampler=False,
)  # fmt: skip
trainer.fit(module, datamodule=data)
print(f"loss after {trainer.global_step} steps: {float(trainer.callback_metrics['train/loss']):.3f}")

# %% [markdown]
# ## Predictions
# Upper row: the labels, hidden joints included. Lower row: what the network says. On the clips that it was fitted to it should be
# close. Eight clips teach little about people in general: another person, further below, it takes for one that it knows.

# %%
import cv2

from bipose_lit.drawing import draw_pose


def predict(batch):
    """Joints in crop pixels (B, T, 15, 2); `predict_step` itself answers in pixels of the original frames."""
    module.eval()
    with torch.no_grad():
        joints = module.predict_step(batch)["joints"]
    linear, offset = batch.to_image[..., :2], batch.to_image[..., 2]
    return torch.linalg.solve(linear[:, :, None], (joints - offset[:, :, None])[..., None])[..., 0]


def compare(batch, clip, name):
    """A picture: labels above predictions, every second frame."""
    predicted, rows = predict(batch), []
    for joints in (batch.joints[clip], predicted[clip]):
        frames = [
            draw_pose(picture.permute(1, 2, 0).numpy(), pose.numpy(), data.skeleton, scale=3.0)
            for picture, pose in zip(batch.images[clip, ::2], joints[::2], strict=True)
        ]
        rows.append(np.concatenate(frames, axis=1))
    cv2.imwrite(str(work / name), np.concatenate(rows)[..., ::-1])
    return Image(work / name)


batch = next(iter(data.train_dataloader()))
error = (predict(batch) - batch.joints).norm(dim=-1)[batch.visible > 0]
print(f"median error on clips it was fitted to: {float(error.median()):.1f} of 64 pixels")
display(compare(batch, 0, "fitted.png"), compare(batch, 1, "fitted2.png"))

# %%
other = next(iter(data.val_dataloader()))
error = (predict(other) - other.joints).norm(dim=-1)[other.visible > 0]
print(f"median error on another person: {float(error.median()):.1f} of 64 pixels")
display(compare(other, 0, "other.png"))

# %% [markdown]
# ## Checkpoint
# Checkpoints hold plain data (class paths and arguments) beside the weights, so one line rebuilds the model.

# %%
trainer.save_checkpoint(work / "model.ckpt")
again = PoseModule.load_from_checkpoint(work / "model.ckpt", map_location="cpu", weights_only=True).eval()
print(again.hparams["temporal"]["class_path"], again.hparams["temporal"]["init_args"]["direction"])
with torch.no_grad():
    same = torch.equal(again.predict_step(batch)["joints"], module.predict_step(batch)["joints"])
print("the same predictions, bit for bit:", same)
assert same
