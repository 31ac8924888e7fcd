"""Devices: how the network lies on them, and how its tensors come together and apart again.

A checkpoint holds whole tensors whatever the strategy, so that a run may go on with another.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from glm_annotate.errors import InputError
from glm_annotate.train.config import OptimConfig, RunConfig

_Tree = TypeVar("_Tree")


def make_fabric(run: RunConfig, optim: OptimConfig) -> Fabric:
    """Make the Fabric of a run.

    Raises:
        InputError: Parts of the config exclude each other.
    """
    world = run.devices * run.num_nodes
    if optim.name == "muon" and (run.strategy == "fsdp" or run.precision == "16-mixed"):
        found = "strategy = fsdp" if run.strategy == "fsdp" else "precision = 16-mixed"
        raise InputError(
            f"optim.name: muon works on whole matrices and not with run.{found}; "
            "use adamw, or strategy = ddp with bf16-mixed"
        )
    if run.strategy == "fsdp" and run.precision == "16-mixed":
        raise InputError("run.precision: 16-mixed is not for strategy = fsdp; use bf16-mixed")
    if optim.batch < world * optim.accumulate:
        raise InputError(
            f"optim.batch: found {optim.batch}, wanted {world * optim.accumulate} or more: each of "
            f"{world} devices needs a window for each of accumulate = {optim.accumulate} parts"
        )
    strategy: Any = "ddp" if world > 1 else "auto"
    if run.strategy == "fsdp":
        strategy = ModelParallelStrategy(_shard, data_parallel_size=world, tensor_parallel_size=1)
    with warnings.catch_warnings():
        # Where Slurm is installed, a run outside of it is no mistake.
        warnings.filterwarnings("ignore", "The `srun` command is available", category=UserWarning)
        return Fabric(
            accelerator=run.accelerator,
            devices=run.devices,
            num_nodes=run.num_nodes,
            strategy=strategy,
            precision=run.precision,
        )


def _shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Share a network out, the members of its lists of blocks one by one."""
    over = mesh["data_parallel"]
    for part in network.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                if next(block.parameters(), None) is not None:
                    fully_shard(block, mesh=over)
    fully_shard(network, mesh=over)
    return network


def whole(tree: _Tree) -> _Tree:
    """Give a copy of nested tables and lists with every tensor whole, all devices taking part."""
    found: Any = tree
    if isinstance(found, DTensor):
        found = found.full_tensor()
    elif isinstance(found, dict):
        found = {key: whole(value) for key, value in found.items()}
    elif isinstance(found, list):
        found = [whole(value) for value in found]
    result: _Tree = found
    return result


def _like(value: Tensor, own: Tensor) -> Tensor:
    """Share a whole tensor out as another one is."""
    if not isinstance(own, DTensor) or value.shape != own.shape:
        return value
    moved = value.to(own.device)
    return distribute_tensor(moved, own.device_mesh, own.placements)


@torch.no_grad()
def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put whole weights into a network that may be shared out."""
    own = network.state_dict()
    network.load_state_dict(
        {name: _like(value, own[name]) if name in own else value for name, value in weights.items()}
    )


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Put the whole state of an optimizer into one whose weights may be shared out."""
    owned = [weight for group in optimizer.param_groups for weight in group["params"]]
    shared = {
        number: {
            key: _like(value, owned[number]) if isinstance(value, Tensor) else value
            for key, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shared})
