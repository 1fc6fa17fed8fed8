"""A stage of PyramidTNT: blocks on one grid, and the attention bias that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models._manipulate import checkpoint
from torch import Tensor, nn

from tnt_vit.pyramid.block import PyramidBlock
from tnt_vit.pyramid.positions import resample_relative

__all__ = ["Stage", "pooled"]


def pooled(grid: tuple[int, int], sr_ratio: int) -> tuple[int, int]:
    """The grid of keys that a grid of sentences is pooled to."""
    return grid[0] // sr_ratio, grid[1] // sr_ratio


class Stage(nn.Module):
    """Blocks of one width. The first one has an inner part, and the second one too where there are more than six.

    Args:
        depth: Blocks.
        grid: Rows and columns of sentences that the bias table is for.
        dim: Sentence width.
        num_heads: Heads among sentences.
        inner_dim: Word width.
        sr_ratio: Side of the cells that keys are pooled over.
        drop_path: Stochastic depth of each block.
        device: Where to put the parameters.
        dtype: Type of the parameters.
        **block: Further arguments of :class:`~tnt_vit.pyramid.block.PyramidBlock`.
    """

    blocks: Any  # an nn.ModuleList of PyramidBlock, which type checkers cannot say

    def __init__(
        self,
        depth: int,
        grid: tuple[int, int],
        dim: int,
        num_heads: int,
        inner_dim: int,
        *,
        sr_ratio: int,
        drop_path: Sequence[float],
        device: Any = None,
        dtype: Any = None,
        **block: Any,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.sr_ratio = sr_ratio
        self.blocks = nn.ModuleList(
            PyramidBlock(
                dim,
                num_heads,
                inner_dim=inner_dim if j == 0 or (j == 1 and depth > 6) else None,
                sr_ratio=sr_ratio,
                drop_path=drop_path[j],
                **block,
                **dd,
            )
            for j in range(depth)
        )
        keys = pooled(grid, sr_ratio)
        self.relative_pos = nn.Parameter(torch.zeros(1, num_heads, grid[0] * grid[1], keys[0] * keys[1], **dd))

    def bias(self, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """The bias table ``(1, h, n, k)``, resampled from the model's own grid for another one."""
        pairs = ((own, pooled(own, self.sr_ratio)), (grid, pooled(grid, self.sr_ratio)))
        return resample_relative(self.relative_pos, *pairs)

    def forward(
        self,
        words: Tensor,
        sentences: Tensor,
        own: tuple[int, int],
        grid: tuple[int, int],
        *,
        checkpointing: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks.

        Args:
            words: ``(B * n, m, c)``.
            sentences: ``(B, n, d)``.
            own: Grid of the bias table.
            grid: Grid of these sentences.
            checkpointing: Compute the blocks' activations again in the backward pass.
        """
        bias = self.bias(own, grid)  # once for all blocks
        for block in self.blocks:
            if checkpointing and torch.is_grad_enabled():
                words, sentences = checkpoint(block, words, sentences, grid, bias)
            else:
                words, sentences = block(words, sentences, grid, bias)
        return words, sentences
