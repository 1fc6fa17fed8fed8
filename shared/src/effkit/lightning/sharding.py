"""``trainer.strategy=fsdp``: weights, gradients and optimizer state split among the processes (FSDP2, ``fully_shard``).

Lightning's own ``fsdp`` is the first version and for GPUs only; its strategy for the second leaves the splitting to the
module. Here the blocks of any network are split one by one, which is what makes it pay, and the rest with its root. A
checkpoint holds whole tensors under the usual names, so that evaluation and prediction read it like any other.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from effkit.errors import UserError

__all__ = ["ShardedStrategy", "blocks_of", "whole_again"]


class ShardedStrategy(ModelParallelStrategy):
    """Splits ``module.model`` among all processes; the network it was made from stays whole, with its first weights."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.whole: nn.Module | None = None

    def setup_environment(self) -> None:
        """Take all processes for one group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Split the network before the optimizer is made for its parts.

        Raises:
            UserError: If the module has no ``model``.
        """
        module: Any = self.lightning_module
        if not isinstance(getattr(module, "model", None), nn.Module):
            raise UserError(f"trainer.strategy=fsdp splits the network at {type(module).__name__}.model: there is none")
        if self.whole is None:
            self.whole = module.model
            module.model = _split(copy.deepcopy(module.model).to(self.root_device), self.device_mesh["data_parallel"])
        module.configure_model = lambda: None  # it is done; Lightning wants to see that somebody does it
        super().setup(trainer)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network: what stands in a list of at least two of one type, the outermost such lists."""
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        children = list(module.children())
        alike = len(children) > 1 and len({type(child) for child in children}) == 1
        if isinstance(module, nn.ModuleList | nn.Sequential) and alike and all(map(_has_weights, children)):
            found.extend(children)
            return
        for child in children:
            visit(child)

    visit(network)
    return found


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _split(network: nn.Module, mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    for block in blocks_of(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def whole_again(trainer: Trainer, module: Any) -> None:
    """Give ``module.model`` back whole, with the trained weights, where a strategy has split it; all processes call it.

    Args:
        trainer: After its work.
        module: The one it has trained.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, ShardedStrategy) or strategy.whole is None:
        return
    from torch.distributed.tensor import DTensor

    with torch.no_grad():
        state = module.model.state_dict()
        full = {k: (v.full_tensor() if isinstance(v, DTensor) else v).cpu() for k, v in state.items()}
    strategy.whole.load_state_dict(full)
    module.model, strategy.whole = strategy.whole, None
