"""One step of SGD, looked at without being taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["unrolled_step"]


@torch.no_grad()
def unrolled_step(
    optimizer: torch.optim.Optimizer, weights: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[list[Tensor], list[float]]:
    """Where a step would lead.

    Args:
        optimizer: SGD that trains these weights, with momentum, Nesterov's too, and decay.
        weights: As they are.
        gradients: Of the training loss.

    Returns:
        The weights after the step, and how far each moves against a unit of its gradient.

    Raises:
        UserError: If it is another optimizer, whose steps are no such sums.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        raise UserError(
            f"family.order=second looks one step of SGD ahead, and the weights' optimizer is "
            f"{type(optimizer).__name__}: choose optimizer.opt=momentum or family.order=first"
        )
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    moved, sensitivity = [], []
    for weight, gradient in zip(weights, gradients, strict=True):
        group = group_of[id(weight)]
        lr, momentum, dampening = float(group["lr"]), float(group["momentum"]), float(group["dampening"])
        buffer = optimizer.state.get(weight, {}).get("momentum_buffer")
        slope = gradient + group["weight_decay"] * weight
        if not momentum:
            direction, share = slope, 1.0
        else:
            kept = slope if buffer is None else momentum * buffer + (1 - dampening) * slope
            share = 1.0 if buffer is None else 1 - dampening
            direction = slope + momentum * kept if group["nesterov"] else kept
            share = 1 + momentum * share if group["nesterov"] else share
        moved.append(weight - lr * direction)
        sensitivity.append(lr * share)
    return moved, sensitivity
