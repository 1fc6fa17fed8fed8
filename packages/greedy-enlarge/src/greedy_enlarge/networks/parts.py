"""The stages of a built network, block by block, whatever its family calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["block_inputs", "stage_blocks"]


def stage_blocks(model: nn.Module) -> list[list[nn.Module]]:
    """Blocks of each stage.

    Args:
        model: From :func:`greedy_enlarge.build`.
    """
    found: Any = model
    if hasattr(found, "blocks"):
        stages = list(found.blocks)
    else:
        stem = "layer" if hasattr(found, "layer1") else "s"
        stages = [getattr(found, f"{stem}{i}") for i in range(1, 5)]
    return [list(stage.children()) for stage in stages]


@torch.no_grad()
def block_inputs(model: nn.Module, picture: Tensor) -> list[list[Tensor]]:
    """What each block is given when the network sees a picture.

    Args:
        model: From :func:`greedy_enlarge.build`.
        picture: ``(B, C, H, W)``.
    """
    stages = stage_blocks(model)
    found: list[list[Tensor]] = [[torch.empty(0)] * len(blocks) for blocks in stages]
    handles = []
    for i, blocks in enumerate(stages):
        for j, block in enumerate(blocks):

            def note(module: nn.Module, inputs: tuple[Tensor, ...], i: int = i, j: int = j) -> None:
                found[i][j] = inputs[0].clone()  # the block may write into it

            handles.append(block.register_forward_pre_hook(note))
    try:
        model(picture)
    finally:
        for handle in handles:
            handle.remove()
    return found
