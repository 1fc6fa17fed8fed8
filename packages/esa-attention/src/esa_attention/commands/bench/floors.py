"""What a step must read and multiply at least, by provider."""

from __future__ import annotations

import torch

from esa_attention.attention.cache.buffers import index_dtype
from esa_attention.commands.bench.case import Case

__all__ = ["kernel_bytes", "macs", "moved_bytes"]


def moved_bytes(case: Case, provider: str) -> int:
    """Bytes a step must read at least."""
    size = torch.finfo(case.dtype).bits // 8
    token = 2 * case.shape.key_dim * size
    if not provider.startswith("esa"):
        return (case.length + case.new) * token
    c = case.config
    middle = max(0, case.length - c.num_local - c.num_initial)
    attended = min(case.length, c.num_local + c.num_initial) + min(middle, c.num_selected) + case.new
    if middle <= c.num_selected:
        return attended * token
    return middle * _index_row(case, provider) + attended * token


def _index_row(case: Case, provider: str) -> int:
    """Bytes of a token in the index."""
    exact = provider == "esa_exact"
    asked = "int8" if provider == "esa_int8" else case.config.index_dtype
    dtype = index_dtype(asked, case.dtype, case.device.type, exact)
    rank = case.shape.key_dim if exact else case.compressor.rank
    return rank + 4 if dtype == torch.int8 else rank * torch.finfo(dtype).bits // 8


def kernel_bytes(case: Case, provider: str) -> dict[str, int]:
    """Bytes that the kernels of a decoding step read and write, scratch included, in their order.

    Args:
        case: Lengths and sizes.
        provider: One of ESA's.
    """
    size = torch.finfo(case.dtype).bits // 8
    c, shape = case.config, case.shape
    token = 2 * shape.key_dim * size
    total = case.length + case.new
    middle = max(0, case.length - c.num_local - c.num_initial)
    scores = 4 * middle  # own, and the same again dilated
    maps = 0 if provider == "esa_exact" else 8 * case.compressor.rank * shape.key_dim
    found = {"prepare": maps + 2 * token + 3 * shape.num_heads * shape.head_dim * size}
    if middle > c.num_selected:
        found["score, dilate, count"] = middle * _index_row(case, provider) + 2 * scores
        found["select"] = 3 * scores + 8 * c.num_selected
    attended = min(total, c.num_initial + c.num_local + min(middle, c.num_selected) + case.new)
    angles = 4 * shape.head_dim * min(case.length, c.num_local)
    return {**found, "attend and merge": attended * token + angles}


def macs(case: Case, provider: str) -> int:
    """Multiply-adds of scores and attention."""
    seen = case.length + (case.new + 1) // 2
    c = case.config
    middle = max(0, case.length - c.num_local - c.num_initial)
    if provider.startswith("esa"):
        seen = min(seen, c.num_initial + c.num_selected + c.num_local + (case.new + 1) // 2)
    attention = 2 * case.shape.num_heads * case.shape.head_dim * seen * case.new
    if not provider.startswith("esa") or middle <= c.num_selected:
        return attention
    rank = case.shape.key_dim if provider == "esa_exact" else case.compressor.rank
    return attention + rank * middle * case.new
