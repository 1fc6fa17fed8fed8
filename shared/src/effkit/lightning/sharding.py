"""``trainer.strategy=fsdp``: weights, gradients and optimizer state split among the processes (FSDP2, ``fully_shard``).

Lightning's own ``fsdp`` is the first version and for GPUs only; its strategy for the second leaves the splitting to the
module. Here the blocks of any network are split one by one, which is what makes it pay, and the rest with its root. A
checkpoint holds whole tensors under the usual names, so that evaluation and prediction read it like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from effkit.errors import UserError

__all__ = ["ShardedStrategy", "blocks_of", "whole_again"]


class ShardedStrategy(ModelParallelStrategy):
    """Splits ``module.model`` among all processes; the network it was made from stays whole, with its first weights.

    Checkpoints are read before the network is split and written as if it were not: weights by the names that the
    network itself gives them, optimizer state by the places of the parameters, as every optimizer does.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.whole: nn.Module | None = None

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Before: the whole network takes the weights."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """As for any other strategy, by :meth:`load_optimizer_state_dict`."""
        return True

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

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors, on the first process; all of them call it."""
        assert self.lightning_module is not None
        return self._on_first(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Likewise."""
        return self._on_first(getattr(optimizer, "_optimizer", optimizer).state_dict())

    def _on_first(self, state: Any) -> Any:
        full = _whole(state)
        return full if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read it on every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give the weights to the network, which is not split yet."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Split the state of every parameter as the parameter is."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [n for group in state["param_groups"] for n in group["params"]]
            parts = {
                number: {k: _like(v, parameter) for k, v in state["state"][number].items()}
                for number, parameter in zip(numbers, parameters, strict=True)
                if number in state["state"]
            }
            optimizer.load_state_dict({**state, "state": parts})


def _whole(value: Any) -> Any:
    """Tensors that are split, whole and on the CPU, in any containers."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {k: _whole(v) for k, v in value.items()}
    return [_whole(v) for v in value] if isinstance(value, list) else value


def _like(value: Any, parameter: Tensor) -> Any:
    """A tensor of the parameter's shape, split as it is; anything else as it is."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


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
    with torch.no_grad():
        strategy.whole.load_state_dict(_whole(module.model.state_dict()))
    module.model, strategy.whole = strategy.whole, None
