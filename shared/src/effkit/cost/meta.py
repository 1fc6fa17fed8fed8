"""Networks without memory for their weights, to be counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["on_meta"]

Built = TypeVar("Built")


def on_meta(build: Callable[[], Built]) -> Built:
    """Build a network on the meta device, where nothing takes memory or time; its counts are the same.

    Args:
        build: Gives the network, the same at every call. Some constructors compute with values, which the meta device
            has none of (RegNet's widths in timm before 1.0.30): they are called again without it.

    Returns:
        The network.
    """
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # what torch raises where meta tensors lack an operator
        return build()
