"""What a variant costs, counted here and now on the meta device, in three ways.

- executed: multiply-adds of the default path (two splits: a quarter of the paths' dense matrices);
- dense-equivalent: with the paths' matrices multiplied as dense ones, which is what the official code executes;
- paper-style: the base, and per token and projection ``4 b^2 (n/2 + 1) + 2 b n log2 n`` real multiplications, the count
  of FFTs from which the increments of the paper's column come. No code is known that executes it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch

from augshortcut.models.zoo import create_model
from augshortcut.reference import textbook_multiplications
from effkit.cost import Cost, measure_image

__all__ = ["Costs", "variant_cost"]


class Costs(NamedTuple):
    """Of one variant, for one picture of its own size."""

    params: int
    macs_executed: int
    macs_dense_equivalent: int
    macs_paper: int


def _measured(name: str) -> tuple[Any, Cost]:
    with torch.device("meta"):
        model = create_model(name)
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    return model, measure_image(model, size[1:], size[0])


@cache
def variant_cost(name: str) -> Costs:
    """Count a variant, for one picture of its own size.

    Args:
        name: One of :func:`augshortcut.models.zoo.list_models`, or a base.

    Raises:
        ValueError: If the name is not known.
    """
    model, executed = _measured(name)
    config = getattr(model, "aug_config", None)
    if config is None:
        return Costs(executed.params, executed.macs, executed.macs, executed.macs)
    inside = [layer.name for layer in executed.layers if layer.kind == "AugmentedShortcut"]
    own = sum(c.macs for c in executed.layers if any(c.name == p or c.name.startswith(f"{p}.") for p in inside))
    base = dense = paper = executed.macs - own
    for layer in executed.layers:
        if layer.kind == "AugmentedShortcut":
            *sizes, dim = layer.shape
            tokens = torch.Size(sizes).numel() * config.num_paths
            dense += tokens * dim * dim
            paper += tokens * textbook_multiplications(dim, config.num_blocks)
    if config.projection != "circulant":  # nothing else than what is executed
        dense = paper = base + own
    return Costs(executed.params, executed.macs, dense, paper)
