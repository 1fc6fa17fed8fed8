"""What the fused kernels of the inner block take, and in which tiles they take it."""

from __future__ import annotations

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.triton import check_runs, interpreted, tf32

__all__ = ["Tile", "check_runnable", "chunk_of", "tile_shapes", "unsupported"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MAX_WORDS, _MAX_WIDTH = 64, 128  # beyond that a tile's scores or rows do not fit in registers

Tile = tuple[int, int, int]


def unsupported(num_words: int, width: int, dtype: torch.dtype, dot_dtype: torch.dtype) -> str | None:
    """What about these words the kernel cannot take, whatever the device; ``None`` if nothing."""
    for kind in (dtype, dot_dtype):
        if kind not in _DTYPES:
            return f"words of type {kind}; allowed are {', '.join(map(str, _DTYPES))}"
    if num_words > _MAX_WORDS or width > _MAX_WIDTH:
        return (
            f"{num_words} words of width {width}; allowed are at most {_MAX_WORDS} words of width at most {_MAX_WIDTH}"
        )
    return None


def chunk_of(hidden: int, padded_width: int) -> int:
    """Hidden channels at a time: the largest size that needs no padding, more where the words are wide."""
    sizes = (64, 32, 16) if padded_width > 64 else (32, 16)
    return next((size for size in sizes if hidden % size == 0), 32)


def tile_shapes(padded_words: int, padded_width: int, tensor_cores: bool) -> tuple[Tile, ...]:
    """Candidate ``(rows, warps, stages)``, chosen by registers, spills and barriers of the code compiled for sm_90.

    Hopper's tensor cores want 64 rows and four warps. With two stages all weights of a layer are loaded
    asynchronously while the words are normalised, for twice their size in shared memory. fp32 products without tensor
    cores keep their operands in registers, so those tiles are small and spread over many warps.
    """
    if not tensor_cores:
        shapes = [(32, 8, 1)] if padded_width <= 32 else [(16, 4, 1)]
    elif padded_words >= 64:
        shapes = [(64, 4, 2), (64, 4, 1), (64, 8, 1)]
    elif padded_width <= 32:
        shapes = [(64, 4, 2), (128, 8, 2), (128, 4, 2), (64, 4, 1), (128, 8, 1), (32, 2, 1)]
    elif padded_width <= 64:
        shapes = [(64, 4, 1), (128, 8, 1), (128, 8, 2)]
    else:
        shapes = [(64, 4, 1), (64, 8, 1)]
    group = max(padded_words, 16)
    if group < 64 and tensor_cores:  # batched products: a warp takes whole groups, so give each warp at least one
        shapes = [(max(rows, group * warps), warps, stages) for rows, warps, stages in shapes]
    return tuple(dict.fromkeys((max(rows, group), warps, stages) for rows, warps, stages in shapes))


def check_runnable(words: Tensor, dot_dtype: torch.dtype) -> None:
    """Refuse words that the kernels cannot take here.

    Raises:
        UserError: Saying why and what to do.
    """
    reason = unsupported(words.shape[1], words.shape[2], words.dtype, dot_dtype)
    if reason is not None:
        raise UserError(f"backend='triton' does not take {reason}; use backend='torch'")
    got, move = f"words on device {str(words.device)!r}", "move them to one, set TRITON_INTERPRET=1 (slow, for tests)"
    check_runs(words.device, {words.dtype, dot_dtype}, got=got, advice=f"{move}, or use backend='torch'")
    if not interpreted() and dot_dtype == torch.float32 and words.shape[2] > 64 and not tf32():
        raise UserError(
            f"backend='triton' does not take exact float32 products of words wider than 64, got {words.shape[2]} "
            "(no registers for them); use backend='torch', a narrower dtype, or allow TF32"
        )
