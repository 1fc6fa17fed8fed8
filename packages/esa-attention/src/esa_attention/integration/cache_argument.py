"""What transformers calls the cache that a model's forward takes."""

from __future__ import annotations

import inspect

from torch import nn

from effkit.errors import UserError

__all__ = ["CACHE_NAMES", "cache_argument"]

CACHE_NAMES = ("cache", "past_key_values")  # the first since transformers 5.24


def cache_argument(model: nn.Module) -> str:
    """Name of the argument of a model's forward that takes the cache: it changed in transformers 5.24.

    Args:
        model: A causal language model or its decoder.

    Returns:
        ``"cache"`` or ``"past_key_values"``.
    """
    names = inspect.signature(type(model).forward).parameters
    for name in CACHE_NAMES:
        if name in names:
            return name
    raise UserError(f"model={type(model).__name__} takes no cache in its forward")
