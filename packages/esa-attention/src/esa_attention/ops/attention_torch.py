"""Attention that also returns its lse, by torch's own kernels where they give it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from esa_attention.functional import attention_states

__all__ = ["attend", "one_softmax", "one_softmax_runs"]


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
    return out.reshape(batch, heads, tokens, dim), lse.reshape(batch, heads, tokens)


def one_softmax_runs(query: Tensor) -> bool:
    """Whether a step is one for :func:`one_softmax`: one query ``(H, 1, D)`` on a CPU, not in half precision."""
    return query.device.type == "cpu" and query.shape[1] == 1 and query.dtype in (torch.float32, torch.float64)


def one_softmax(far: tuple[Tensor, Tensor, Tensor], near: tuple[Tensor, Tensor, Tensor], scaling: float) -> Tensor:
    """Attention of one token over two sets of keys that it sees at different positions, under one softmax.

    The products of a few query rows with many keys are all there is to do. Batched matrix products reach the memory's
    speed on strided keys, where torch's flash kernel takes twice to three times as long, and with the scores of both
    parts side by side nothing has to be merged.

    Args:
        far: Query ``(H, 1, D)``, keys and values ``(K, N, D)``.
        near: The same for the other set.
        scaling: Factor on the scores.

    Returns:
        ``(H, 1, D)``.
    """
    (far_query, far_keys, far_values), (near_query, near_keys, near_values) = far, near
    rows = (far_keys.shape[0], far_query.shape[0] // far_keys.shape[0], far_query.shape[2])
    split = far_keys.shape[1]
    scores = torch.cat(
        (
            torch.bmm((far_query * scaling).view(rows), far_keys.transpose(1, 2)),
            torch.bmm((near_query * scaling).view(rows), near_keys.transpose(1, 2)),
        ),
        dim=2,
    )
    weights = scores.softmax(dim=2)
    out = torch.bmm(weights[:, :, :split], far_values)
    return out.baddbmm_(weights[:, :, split:], near_values).view(far_query.shape)
