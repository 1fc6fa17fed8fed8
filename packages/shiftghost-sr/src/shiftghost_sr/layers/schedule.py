"""The one thing that training has to tell shifts: where it stands."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from shiftghost_sr.layers.shift import LearnableShift2d

__all__ = ["set_epoch", "shift_logits", "shifts"]


def shifts(model: nn.Module) -> Iterator[tuple[str, LearnableShift2d]]:
    """Names and shifts of a network, each once."""
    for name, module in model.named_modules():
        if isinstance(module, LearnableShift2d):
            yield name, module


def set_epoch(model: nn.Module, epoch: float) -> int:
    """Tell every shift the epoch, counted from 1 (fractions are allowed), which the scale of its noise falls with.

    Args:
        model: Any network.
        epoch: 1 at the start.

    Returns:
        How many shifts there are.
    """
    count = 0
    for _, module in shifts(model):
        module.epoch = epoch
        count += 1
    return count


def shift_logits(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that should have no weight decay and may have a learning rate of their own."""
    return [module.logits for _, module in shifts(model) if isinstance(module.logits, nn.Parameter)]
