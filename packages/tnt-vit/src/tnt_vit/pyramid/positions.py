"""Position tables for other grids of sentences: the official code is fixed to the size it was built for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["resample_relative", "resample_table"]

Grid = tuple[int, int]


def _bicubic(image: Tensor, grid: Grid) -> Tensor:
    return F.interpolate(image, size=grid, mode="bicubic", antialias=True)


def resample_table(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """The sentences' table ``(1, n, d)`` for another grid, bicubic with antialiasing in float32.

    Args:
        table: Codes row by row.
        old: Rows and columns.
        new: Rows and columns wanted.

    Returns:
        The table itself if the grids are equal, else a new one in its dtype, with a gradient.
    """
    if old == new:
        return table
    image = table.float().unflatten(1, old).movedim(-1, 1)
    return _bicubic(image, new).flatten(2).transpose(1, 2).to(table.dtype)


def resample_relative(table: Tensor, old: tuple[Grid, Grid], new: tuple[Grid, Grid]) -> Tensor:
    """The table of attention biases ``(1, h, n, k)`` for other grids of queries and keys.

    It is a picture of queries for every key and a picture of keys for every query: both are resampled, one after the
    other, bicubic with antialiasing in float32.

    Args:
        table: Biases of ``n`` queries and ``k`` keys.
        old: Grid of the queries and grid of the (pooled) keys.
        new: The grids wanted.

    Returns:
        The table itself if both grids are equal, else a new one in its dtype, with a gradient.
    """
    if old == new:
        return table
    (queries, keys), (new_queries, new_keys) = old, new
    heads = table.shape[1]
    out = table.float()
    if keys != new_keys:
        image = out.reshape(1, heads * queries[0] * queries[1], *keys)
        out = _bicubic(image, new_keys).reshape(1, heads, queries[0] * queries[1], -1)
    if queries != new_queries:
        image = out.transpose(2, 3).reshape(1, -1, *queries)
        out = _bicubic(image, new_queries).reshape(1, heads, out.shape[3], -1).transpose(2, 3)
    return out.to(table.dtype)
