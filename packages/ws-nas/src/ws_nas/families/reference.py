"""DARTS' second order as it was published: a copy of the model takes the step. Naive, and independent of the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["reference_second_order"]

ModelLoss = Callable[[nn.Module, Sequence[Tensor]], Tensor]


def reference_second_order(
    model: nn.Module,
    values: Sequence[Tensor],
    train_loss: ModelLoss,
    val_loss: ModelLoss,
    optimizer: torch.optim.SGD,
    scale: float = 0.01,
) -> list[Tensor]:
    """The gradient for the architecture, one step of the weights ahead.

    Args:
        model: Holds the weights; as it was afterwards, up to rounding.
        values: The architecture's parameters.
        train_loss: Of a model and values.
        val_loss: Of a model and values.
        optimizer: Of the model's weights, with one group; it may have momenta already.
        scale: Length of the two steps of the difference.
    """
    parameters = list(model.parameters())
    (group,) = optimizer.param_groups
    slopes = torch.autograd.grad(train_loss(model, values), parameters, allow_unused=True)
    ahead = copy.deepcopy(model)
    with torch.no_grad():
        for moved, parameter, slope in zip(ahead.parameters(), parameters, slopes, strict=True):
            slope = torch.zeros_like(parameter) if slope is None else slope
            step = slope + group["weight_decay"] * parameter
            buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
            moved.sub_(group["lr"] * (step if buffer is None else group["momentum"] * buffer + step))
    leaves = [v.detach().requires_grad_() for v in values]
    found = torch.autograd.grad(val_loss(ahead, leaves), [*leaves, *ahead.parameters()], allow_unused=True)
    direct = [torch.zeros_like(v) if g is None else g for v, g in zip(leaves, found, strict=False)]
    v = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found[len(leaves) :], strict=True)]
    eps = scale / float(torch.cat([x.flatten() for x in v]).norm())

    def nudged(times: float) -> list[Tensor]:
        with torch.no_grad():
            for parameter, direction in zip(parameters, v, strict=True):
                parameter.add_(times * eps * direction)
        return list(torch.autograd.grad(train_loss(model, leaves), leaves))

    above, below = nudged(1.0), nudged(-2.0)
    with torch.no_grad():
        for parameter, direction in zip(parameters, v, strict=True):
            parameter.add_(eps * direction)
    difference = [(a - b) / (2 * eps) for a, b in zip(above, below, strict=True)]
    return [d - group["lr"] * x for d, x in zip(direct, difference, strict=True)]
