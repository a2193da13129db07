"""The loss of one optimiser step whose clips are spread over processes and accumulated batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

Reduce = Callable[[Tensor], Tensor]


class StepLoss:
    """Lets the parts of a step have, together, the gradient of one batch with all their clips.

    A pose loss is a ratio: a sum over labelled joints by a normaliser. The mean of the parts' ratios is another number wherever
    they hold different numbers of labels, so each part is weighted by its share of the normaliser:

        loss_of_part = loss * normaliser * processes / D,    D = normaliser of the step's first batch, summed over processes

    of which DistributedDataParallel takes the mean over processes and Lightning the mean over accumulated batches. The batches
    that follow are not known at the first backward pass; `rescale` puts their normalisers in before the gradients are clipped
    and used. One process without accumulation keeps its loss and its gradients, bit for bit.

    Args:
        processes: that train together.
        accumulate: batches per optimiser step and process.
        reduce: sums a tensor over the processes.
    """

    def __init__(self, processes: int, accumulate: int, reduce: Reduce) -> None:
        self.processes, self.accumulate, self.reduce = processes, accumulate, reduce
        self._first: Tensor | None = None
        self._sums: Tensor | None = None

    def part(self, losses: Mapping[str, Tensor], normaliser: Tensor, first: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a part of the step, and the losses of the step so far, over all processes.

        Args:
            losses: scalars of this batch on this process; "loss" is the one that is trained on.
            normaliser: scalar that they were divided by.
            first: this batch is the step's first.

        Returns:
            The scalar to send backward, and detached scalars by the names of `losses`.
        """
        names = sorted(losses)
        if self.processes == 1 and self.accumulate == 1:
            return losses["loss"], {name: losses[name].detach() for name in names}
        own = normaliser.detach()
        sums = torch.stack([torch.ones_like(own), *(losses[name].detach() for name in names)]) * own
        if self.processes > 1:
            sums = self.reduce(sums)
        if first or self._first is None or self._sums is None:
            # Before a batch without labels comes one that has some, nothing is known of the sums' size: then 1 stands in.
            self._first = sums[0] if self.accumulate == 1 else sums[0].clamp(min=1)
            self._sums = sums
        else:
            self._sums = self._sums + sums
        so_far = self._sums[1:] / self._sums[0]
        share = own * self.processes / self._first
        return losses["loss"] * share, dict(zip(names, so_far.unbind(), strict=True))

    @torch.no_grad()
    def rescale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Turns the mean over accumulated batches into the ratio of sums; called once before the optimiser's step."""
        if self.accumulate == 1 or self._first is None or self._sums is None:
            return
        factor = self.accumulate * self._first / self._sums[0]
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor.to(parameter.grad.dtype))


__all__ = ["StepLoss"]
