"""The network compiled, and in half precision: the same model, plain checkpoints. On a GPU where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from ddp_cases import distance, fit_case
from test_module import assert_same_predictions, data, make, trainer
from tiny import arguments, tiny_options, write_jhmdb

from bipose_lit.callbacks.guard import explained
from bipose_lit.cli import main
from bipose_lit.compatibility import check_asked
from bipose_lit.feature_cache import _evaluating
from bipose_lit.models.base import uncompiled
from bipose_lit.module import PoseModule
from bipose_lit.types import BiposeError
from bipose_lit.weights import fingerprint

BASE = Path(__file__).parents[1] / "experiments" / "base.yaml"
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")


def told(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}-0.json").read_text())


@pytest.mark.slow
def test_a_compiled_fit_learns_what_a_plain_one_learns(tmp_path):
    fit_case(tmp_path, "plain", {"clips": 5, "batch": 4})
    fit_case(tmp_path, "compiled", {"clips": 5, "batch": 4, "compile": True})
    assert told(tmp_path, "compiled")["names"] == told(tmp_path, "plain")["names"]
    assert told(tmp_path, "compiled")["losses"] == pytest.approx(told(tmp_path, "plain")["losses"], rel=1e-5)
    assert distance(tmp_path / "plain.safetensors", tmp_path / "compiled.safetensors") < 1e-5


@pytest.mark.slow
def test_checkpoints_of_a_compiled_model_are_plain(tmp_path):
    module = make(compile=True)
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(module, datamodule=data())
    fit.save_checkpoint(tmp_path / "last.ckpt")
    again = PoseModule.load_from_checkpoint(tmp_path / "last.ckpt")
    assert not any("_orig_mod" in name for name in again.state_dict())
    assert fingerprint(again.network) == fingerprint(module.network)
    before = dict(torch._dynamo.utils.counters["frames"])
    assert_same_predictions(module, again)
    assert torch._dynamo.utils.counters["frames"] == before, "scoring was compiled"


def test_features_and_scores_are_not_compiled(tmp_path):
    network = make().network.eval()
    for part in network.children():
        part.compile(backend="eager")
    network.compiled = True
    frames = torch._dynamo.utils.counters["frames"]
    images, before = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), frames["ok"]
    with _evaluating(network, None):
        plain = network.extract(images)
    with torch.no_grad(), uncompiled(network):
        network.extract(images)
    assert frames["ok"] == before
    with torch.no_grad():
        assert torch.equal(network.extract(images), plain)
    assert frames["ok"] > before, "the parts were not compiled at all"


def test_half_precision_on_a_processor_is_refused_where_lightning_would_take_another(tmp_path):
    options = arguments(tiny_options(write_jhmdb(tmp_path / "data", train=2, val=1, test=1)))
    place = f"--trainer.default_root_dir={tmp_path}"
    with pytest.raises(BiposeError, match="16-mixed needs a GPU"):
        main(["fit", "-c", str(BASE), *options, "--trainer.precision=16-mixed", place])
    check_asked({"accelerator": "gpu", "precision": "16-mixed", "devices": 2, "sync_batchnorm": True})
    with pytest.raises(BiposeError, match="sync_batchnorm works on GPUs alone"):
        check_asked({"accelerator": "cpu", "devices": 2, "sync_batchnorm": True})
    check_asked({"accelerator": "cpu", "devices": 1, "sync_batchnorm": True})
    check_asked({"accelerator": "cpu", "precision": "bf16-mixed"})


def on_gpu(folder: Path, **options) -> tuple[list[float], L.Trainer, PoseModule]:
    """Twenty steps on the GPU; the losses by step."""
    torch.manual_seed(0)
    losses: list[float] = []

    class Losses(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args, **kwargs) -> None:
            losses.append(float(trainer.callback_metrics["train/loss"]))

    module = make(compile=options.pop("compile", False))
    fit = trainer(
        folder,
        max_steps=20,
        accelerator="gpu",
        callbacks=[Losses()],
        limit_val_batches=1,
        gradient_clip_val=1.0,
        **options,
    )
    fit.fit(
        module, datamodule=data(batch_size=3)
    )  # all clips: a smaller last batch would be compiled again, a minute more
    return losses, fit, module


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16-mixed"},
        {"precision": "16-mixed"},
        {"compile": True},
        {"precision": "bf16-mixed", "compile": True},
    ],
    ids=str,
)
def test_the_same_fit_on_a_gpu(tmp_path, options):
    plain, _, _ = on_gpu(tmp_path)
    losses, fit, module = on_gpu(tmp_path, **options)
    assert losses == pytest.approx(plain, rel=0.1 if "precision" in options else 0.02)
    assert losses[-1] < losses[0]
    fit.save_checkpoint(tmp_path / "last.ckpt")
    assert fingerprint(PoseModule.load_from_checkpoint(tmp_path / "last.ckpt").network) == fingerprint(module.network)


@pytest.mark.gpu
@CUDA
def test_too_large_a_batch_on_a_gpu_is_one_line(tmp_path):
    class Greedy(L.Callback):
        def on_before_backward(self, *args) -> None:
            torch.empty(2**45, device="cuda")

    with pytest.raises(BiposeError, match="out of memory at step 0"), explained():
        trainer(tmp_path, accelerator="gpu", callbacks=[Greedy()]).fit(make(), datamodule=data())
