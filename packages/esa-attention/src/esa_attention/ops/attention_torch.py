"""Attention that also returns its lse, by torch's own kernels where they give it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from esa_attention.ops.states_torch import attention_states

__all__ = ["attend"]


@functools.cache
def _cpu_kernel_works(dtype: torch.dtype) -> bool:
    """Whether torch's private flash kernel for CPUs is there and returns what we think it does."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 8, generator=generator).to(dtype) for n in (3, 5, 5))
    try:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, scale=0.5)[:2]
        ours, our_lse = attention_states(q.double(), k.double(), v.double(), 0.5)
        return bool(
            out.shape == ours.shape
            and lse.shape == our_lse.shape
            and (out.double() - ours).abs().max() < 0.05
            and (lse.double() - our_lse).abs().max() < 0.05
        )
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return False


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool = False) -> tuple[Tensor, Tensor]:
    """Attention over all keys, or causal among as many keys as queries.

    Args:
        query: ``(B, H, T, D)``.
        key: ``(B, K, N, D)``, any strides; ``K`` must divide ``H``.
        value: ``(B, K, N, D)``.
        scaling: Factor on the scores.
        causal: Query ``t`` sees keys ``0..t``; then ``N`` must be ``T``.

    Returns:
        Output ``(B, H, T, D)`` in the type of the query, lse ``(B, H, T)`` in natural log, at least float32.
    """
    batch, heads, tokens, dim = query.shape
    # In float64 that kernel's exponential is good to 8 digits only.
    plain = query.device.type != "cpu" or query.dtype == torch.float64 or key.shape[2] == 0
    if plain or not _cpu_kernel_works(query.dtype):
        return attention_states(query, key, value, scaling, causal)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    kv_heads = key.shape[1]
    if causal and heads != kv_heads:
        # One head at a time has its own causal triangle; keys of a chunk are few, so they are repeated.
        group = heads // kv_heads
        key, value = (t.repeat_interleave(group, dim=1) for t in (key, value))
        kv_heads = heads
    # Without a mask the queries of a group are rows of one product: keys are read once for all of them.
    packed = query.reshape(batch, kv_heads, -1, dim)
    out, lse = kernel(packed, key, value, 0.0, causal, scale=scaling)[:2]
    if bool((lse == 0.0).any()):
        # With few keys that kernel answers a query with NaN by 0 and lse 0, as if nothing were wrong.
        out, lse = attention_states(packed, key, value, scaling, causal)
    return out.reshape(batch, heads, tokens, dim), lse.reshape(batch, heads, tokens)
