"""The compiled choice among scored tokens."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from esa_attention.ops.native.build import library

__all__ = ["select_native"]

_BLOCKS = 4  # blocks to one that is needed: the more, the fewer tokens reach the bound
_SIZES = (64, 32, 16, 8)
_LOOK = 4  # of so many tokens one may reach the bound; where more do, looking at all is as fast


def select_native(own: Tensor, proximity: int, k: int) -> Tensor | None:
    """The ``k`` best tokens, see :func:`esa_attention.ops.selection_cpu.select`.

    Args:
        own: Scores ``(M,)`` float32, with ``M > k``.
        proximity: Half-width of the max filter.
        k: How many.

    Returns:
        Indices ``(k,)``, ascending; ``None`` where these scores are too few, too alike or no numbers for this way.

    Raises:
        NotImplementedError: If it cannot be had here.
    """
    if own.dtype != torch.float32 or own.device.type != "cpu":
        raise NotImplementedError("only written for float32 in memory of the host")
    compiled = library("select")
    count, needed = own.shape[0], -(-k // (proximity + 1))
    size = next((s for s in _SIZES if s > proximity and count // s >= _BLOCKS * needed), 0)
    if not size:
        return None
    own, room = own.contiguous(), count // _LOOK
    best, near, chosen = (
        torch.empty(2 * (count // size)),
        torch.empty(room, dtype=torch.int64),
        torch.empty(k, dtype=torch.int64),
    )
    keys = torch.empty(2, room, dtype=torch.int64)
    scratch = [ctypes.c_void_p(t.data_ptr()) for t in (best, near, keys[0], keys[1])]
    sizes = [ctypes.c_ssize_t(n) for n in (count, proximity, k, size)]
    compiled.choose.restype = ctypes.c_ssize_t
    ends = ctypes.c_ssize_t(room), ctypes.c_void_p(chosen.data_ptr())
    written = compiled.choose(ctypes.c_void_p(own.data_ptr()), *sizes, *scratch, *ends)
    return chosen if written == k else None
