"""What a step must read and multiply at least, by provider."""

from __future__ import annotations

import torch

from esa_attention.commands.bench.case import Case

__all__ = ["macs", "moved_bytes"]


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
    per_key = {
        "esa": case.compressor.rank * size,
        "esa_int8": case.compressor.rank + 4,
        "esa_exact": case.shape.key_dim * size,
    }[provider]
    return middle * per_key + attended * token


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
