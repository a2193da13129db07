"""Small fits, one after another, in one process or in several (under torchrun), and what each process then holds."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from plain_parts import PatchyReader, PlainBackbone, PlainDecoder
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.losses import HeatmapMSE
from bipose_lit.losses.rle import RLE
from bipose_lit.losses.steps import StepLoss
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.sharding import Sharded
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe
from bipose_lit.types import BiposeError
from bipose_lit.weights import fingerprint, read, save_parts


class Naive(StepLoss):
    """What a module does that does not think of it: the mean of the parts' own ratios."""

    def part(self, losses: Any, normaliser: Tensor, first: bool) -> Any:
        return losses["loss"], {"loss": losses["loss"].detach()}

    def rescale(self, parameters: Any) -> None:
        pass


class NaiveModule(PoseModule):
    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._step = Naive(1, 1, lambda sums: sums)


class Losses(L.Callback):
    """The logged loss and the learning rate of every optimiser step."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step > len(self.seen):
            self.seen.append(float(trainer.callback_metrics["train/loss"]))


def fit_case(folder: Path, name: str, case: dict[str, Any]) -> None:
    """Fits one case; FOLDER/NAME-RANK.json and, by rank 0, FOLDER/NAME.safetensors."""
    torch.manual_seed(0)
    ema, naive = case.get("ema"), case.get("naive")
    kind = NaiveModule if naive else PoseModule
    learning = case.get("rle", False)  # a loss with parameters of its own

    def decoder() -> Any:
        return RegressionDecoder(sigma=True) if learning else PlainDecoder()

    module = kind(
        PlainBackbone(norm=case.get("norm", False)),
        decoder(),
        RegressionCodec() if learning else HeatmapCodec(stride=4, sigma=1.0),
        RLE(layers=2, hidden=4) if learning else HeatmapMSE(),
        joints=5,
        size=(32, 32),
        compile=case.get("compile", False),
        recipe=Recipe(
            case.get("optimizer", "sgd"),
            lr=case.get("lr", 0.01),
            schedule=case.get("schedule", "cosine"),
            warmup=0 if "schedule" in case else 2,
            base_batch=case.get("base_batch"),
        ),
    )
    data = PoseDataModule(
        PatchyReader(case.get("clips", 17), 4),
        size=(32, 32),
        clips=ClipSampling(2),
        supervise=0.5,
        batch_size=case.get("batch", 12),
        eval_batch_size=8,
    )
    losses, evaluation = Losses(), Evaluation()
    options = dict(case.get("trainer", {}))
    if options.get("strategy") == "shards":
        options["strategy"] = Sharded(2)
    trainer = L.Trainer(
        **{"enable_checkpointing": False, "devices": int(os.environ.get("LOCAL_WORLD_SIZE", 1)), **options},
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=case.get("steps", 4),
        val_check_interval=case.get("val_every", 2),
        check_val_every_n_epoch=None,
        callbacks=[losses, evaluation, *([EMAWeightAveraging(decay=0.5)] if ema else [])],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    told = ""
    try:
        trainer.fit(module, datamodule=data)
    except BiposeError as error:
        told = str(error)
    found = {
        "told": told,
        "world": trainer.world_size,
        "steps": trainer.global_step,
        "losses": losses.seen,
        "rates": losses.rates,
        "scorings": evaluation.scorings.get("val", 0),
        "batches": 0 if told else trainer.num_training_batches,
        "names": sorted(module.state_dict()),
    }
    if not told:
        whole = get_model_state_dict(module.network, options=StateDictOptions(full_state_dict=True))
        network = PoseNetwork(PlainBackbone(norm=case.get("norm", False)), decoder(), joints=5, size=(32, 32))
        if whole:  # of a model in shards rank 0 alone gets it
            network.load_state_dict(whole)
        found["weights"] = fingerprint(network) if options.get("strategy") != "shards" or trainer.is_global_zero else ""
        found["loss"] = fingerprint(module.loss)
        if trainer.is_global_zero:
            parts = nn.ModuleDict({"backbone": network.backbone, "decoder": network.decoder, "loss": module.loss})
            save_parts(parts, folder / f"{name}.safetensors", list(parts))
    (folder / f"{name}-{trainer.global_rank}.json").write_text(json.dumps(found))


def distance(one: Path, two: Path) -> float:
    """Largest difference of two sets of weights, as a share of the tensor's largest weight."""
    first, second = read(one), read(two)
    assert first.keys() == second.keys()
    return max(float((first[k] - second[k]).abs().max() / first[k].abs().max()) for k in first)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        fit_case(folder, name, case)


if __name__ == "__main__":
    main()
