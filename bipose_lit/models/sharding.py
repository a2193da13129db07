"""A network whose weights are spread over processes (torch's second FSDP)."""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

LARGE = 1_000_000
"""Parameters from which a block inside a part is a unit of its own: gathered for its own computation only."""


class Sharded(ModelParallelStrategy):
    """trainer.strategy of a model that is spread over processes: Lightning's strategy, configured by plain values.

    Checkpoints are single files of whole tensors, under plain names, as those of one process.

    Args:
        processes: of the job, over all machines.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Spreads every part's parameters over the processes of a one-dimensional mesh, in place.

    Args:
        network: its children are the parts; blocks of `LARGE` parameters inside them are units of their own.
        mesh: the processes.
    """
    network.to(memory_format=torch.contiguous_format)  # shards are rows of plain tensors
    for part in network.children():
        for block in part.children():
            _units(block, mesh)
        fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)


def _units(block: nn.Module, mesh: DeviceMesh) -> None:
    if sum(p.numel() for p in block.parameters()) < LARGE:
        return
    for inner in block.children():
        _units(inner, mesh)
    if not isinstance(block, (nn.ModuleList, nn.ModuleDict)):  # they have no computation of their own
        fully_shard(block, mesh=mesh)


__all__ = ["Sharded", "shard"]
