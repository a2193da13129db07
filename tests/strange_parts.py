"""Parts and a callback as somebody else's package would have them."""

import json
from pathlib import Path

import lightning.pytorch as L
from torch import Tensor, nn

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.models.base import TemporalHead
from bipose_lit.types import FeatureSpec
from bipose_lit.weights import fingerprint


class Smear(TemporalHead):
    """Adds a learned share of the clip's mean.

    Args:
        share: what it starts with.
        inner: a part of its own.
    """

    context = (None, None)

    def __init__(self, share: float = 0.5, inner: TemporalHead | None = None) -> None:
        super().__init__()
        self.share, self.inner = share, inner

    def build(self, spec: FeatureSpec) -> None:
        self.gate = nn.Conv2d(spec.channels, spec.channels, 1)
        if self.inner is not None:
            self.inner.build(spec)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        mask = valid[:, :, None, None, None]
        mean = (features * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        out = features + self.share * self.gate(mean.flatten(0, 1)).unflatten(0, (len(valid), 1))
        if self.inner is not None:
            out = self.inner(out, valid)
        return out * mask


class Witness(L.Callback):
    """Writes what each process holds after a fit or a scoring: FOLDER/fit-RANK.json and FOLDER/val-RANK.json."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(
            "fit",
            trainer,
            {
                "weights": fingerprint(nn.ModuleList(pl_module.network.children())),
                "steps": trainer.global_step,
                "world": trainer.world_size,
            },
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for callback in trainer.callbacks:
            if isinstance(callback, Evaluation):
                self._write("val", trainer, {"metrics": callback.metrics["val"], "world": trainer.world_size})

    def _write(self, what: str, trainer: L.Trainer, content: dict) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{what}-{trainer.global_rank}.json").write_text(json.dumps(content))
