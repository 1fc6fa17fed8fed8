"""Looking at what a network computes without changing it: evaluation for a while, hooks for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["evaluating", "hooked"]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's flag is as before afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextlib.contextmanager
def hooked(
    model: nn.Module, names: Sequence[str], hook: Callable[[str], Any], *, before: bool = False
) -> Iterator[None]:
    """Hooks on some modules for a while.

    Args:
        model: The model.
        names: Which modules.
        hook: Makes the hook of a module from its name.
        before: Whether it sees inputs instead of outputs.
    """
    modules = dict(model.named_modules())
    handles = []
    try:
        for name in names:
            module = modules[name]
            if before:
                handles.append(module.register_forward_pre_hook(hook(name), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(hook(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()
