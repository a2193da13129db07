"""How a network is trained: optimiser and learning-rate schedule as plain configuration.

The paper's recipe is `Recipe()` as it stands: SGD, 0.001, momentum 0.9, constant rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bipose_lit.models.base import Backbone
from bipose_lit.types import BiposeError


@dataclass
class Recipe:
    """Optimiser and schedule.

    Attributes:
        optimizer: "sgd" (with momentum), "adam" or "adamw".
        lr: peak learning rate of all parts but the backbone.
        backbone_lr: factor on it for the backbone (0 is not a way to freeze: use `freeze_backbone`).
        weight_decay: applies to weights of two and more dimensions, not to biases and normalisation.
        momentum: SGD alone.
        betas: Adam and AdamW.
        schedule: "constant"; "step": times `gamma` at each milestone; "cosine" or "linear": from the peak to `final`.
        warmup: steps of linear warm-up, or a fraction of all steps if below 1.
        milestones: for "step", fractions of all steps (SimpleBaselines drops at 90 and 120 of 140 epochs: 0.643, 0.857).
        gamma: for "step".
        final: factor that "cosine" and "linear" end at.
        base_batch: the batch (clips per optimiser step) that `lr` was chosen for: with another `data.batch_size` all rates are
            multiplied by data.batch_size / base_batch (the linear rule of Goyal et al. 2017, found for SGD with a warm-up of
            some epochs). Null: `lr` is taken as it stands. More processes alone change neither batch nor rate.
        layer_decay: factor on the rate from one layer of the backbone to the one before it, the last one's included, so that what
            was learned on other pictures changes least where it is most general (Clark et al. 2020; ViTPose has 0.75 to 0.85).
            The backbone must tell its layers (`Backbone.parameters_by_layer`).
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 1e-3
    backbone_lr: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["constant", "step", "cosine", "linear"] = "constant"
    warmup: float = 0.0
    milestones: list[float] = field(default_factory=list)
    gamma: float = 0.1
    final: float = 0.0
    base_batch: int | None = None
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or self.warmup < 0:
            raise BiposeError(
                f"recipe: lr {self.lr}, weight_decay {self.weight_decay} or warmup {self.warmup} is out of range; "
                "lr must be above 0, the others not below"
            )
        if self.base_batch is not None and self.base_batch < 1:
            raise BiposeError(f"recipe: base_batch {self.base_batch} is a number of clips, 1 or more, or null")
        if not 0 < self.layer_decay <= 1:
            raise BiposeError(f"recipe: layer_decay {self.layer_decay} must be above 0 and at most 1 (no decay)")
        if any(not 0 < m < 1 for m in self.milestones):
            raise BiposeError(f"recipe: milestones {self.milestones} are fractions of all steps, between 0 and 1")
        if self.schedule == "step" and not self.milestones:
            raise BiposeError("recipe: schedule 'step' needs milestones (fractions of all steps)")

    def scale(self, batch: int | None) -> float:
        """Factor on all rates for a batch of so many clips per optimiser step; 1 where no `base_batch` is given.

        Raises:
            BiposeError: `base_batch` is given, but nobody knows the batch.
        """
        if self.base_batch is None:
            return 1.0
        if batch is None:
            raise BiposeError(
                "recipe: base_batch needs the data's batch size; fit with a PoseDataModule, or set it to null"
            )
        return batch / self.base_batch

    def build(
        self, network: nn.Module, backbone: nn.Module | None, fused: bool = True, scale: float = 1.0
    ) -> Optimizer:
        """The optimiser over the trainable parameters.

        Args:
            network: whose parameters.
            backbone: the part of it that `backbone_lr` applies to.
            fused: one kernel for all parameters where they allow it (about three times cheaper, on processors too).
            scale: factor on all rates (see `scale`).

        Raises:
            BiposeError: nothing is trainable, or `layer_decay` for a backbone that does not tell its layers.
        """
        inner = self._backbone_factors(backbone)
        found: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
        for p in network.parameters():
            if p.requires_grad:
                factor = inner.get(id(p))
                key = (factor is not None, p.ndim < 2, 1.0 if factor is None else factor)
                found.setdefault(key, []).append(p)
        groups = [
            {"params": found[key], "lr": self.lr * scale * key[2], "weight_decay": 0.0 if key[1] else self.weight_decay}
            for key in sorted(found)
        ]
        if not groups:
            raise BiposeError("model: no trainable parameter; unfreeze the backbone or add a decoder")
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.lr * scale, momentum=self.momentum, fused=fused and _fusable(groups))
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.lr * scale, betas=self.betas, fused=fused and _fusable(groups))

    def _backbone_factors(self, backbone: nn.Module | None) -> dict[int, float]:
        """Factor on the rate for each parameter of the backbone, by id."""
        if backbone is None:
            return {}
        factors = dict.fromkeys(map(id, backbone.parameters()), self.backbone_lr)
        if self.layer_decay != 1:
            layers = backbone.parameters_by_layer() if isinstance(backbone, Backbone) else []
            if not layers:
                raise BiposeError(
                    f"recipe: layer_decay {self.layer_decay}: {type(backbone).__name__} does not tell its layers, as plain "
                    "vision transformers do; set layer_decay to 1, or take backbone_lr, one factor for the whole backbone"
                )
            for before_end, layer in enumerate(reversed(layers), 1):
                factors |= dict.fromkeys(map(id, layer), self.backbone_lr * self.layer_decay**before_end)
        return factors

    def factor(self, total: int) -> Callable[[int], float]:
        """The schedule as a factor on the peak rate by step (0-based), for `total` steps."""
        warmup = round(self.warmup * total) if self.warmup < 1 else round(self.warmup)

        def at(step: int) -> float:
            warm = (step + 1) / (warmup + 1) if step < warmup else 1.0
            if self.schedule == "step":  # drops count from the start, also while the rate still rises
                return float(warm * self.gamma ** sum(step >= m * total for m in self.milestones))
            if self.schedule == "constant" or step < warmup:
                return warm
            progress = min(1.0, (step - warmup) / max(1, total - warmup))
            curve = 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1 - progress
            return self.final + (1 - self.final) * curve

        return at

    def scheduler(self, optimizer: Optimizer, total: int) -> LambdaLR:
        """A per-step scheduler."""
        return LambdaLR(optimizer, self.factor(total))


def _fusable(groups: Iterable[dict]) -> bool:
    """Fused optimisers take floating-point parameters only, on one of these devices."""
    return all(
        p.device.type in ("cpu", "cuda") and torch.is_floating_point(p) for group in groups for p in group["params"]
    )
