"""Functions without arguments to time: a forward pass, a training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effkit.device import autocast

__all__ = ["inference", "training_step"]


def inference(model: Callable[[Tensor], Any], x: Tensor) -> Callable[[], Any]:
    """One forward pass without gradients.

    Args:
        model: In evaluation mode, or a compiled form of one.
        x: Its input.
    """

    def run() -> Any:
        with torch.inference_mode():
            return model(x)

    return run


def training_step(model: Any, x: Tensor, dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """Forward and backward of a model in training mode, without the optimizer.

    Args:
        model: A module, or a compiled one; put into training mode.
        x: Its input; weights stay in their own type.
        dtype: What autocast computes in; float32 switches it off.
    """
    model.train()

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(x.device, dtype):
            loss = model(x).float().square().mean()
        loss.backward()

    return run
