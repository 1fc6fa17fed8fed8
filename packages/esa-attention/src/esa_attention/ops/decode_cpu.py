"""Attention of one decoded token on a CPU: gathering, both parts and one softmax, at the memory's speed.

With one query a head there is nothing to compute, only keys and values to read. What was measured to matter: batched
matrix products, which read keys two to three times as fast as torch's flash kernel; gathering keys and values together,
some tokens at a time, so that the products find the keys in the nearest caches; widening half precision there, since a
product of half precision matrices gives no float32 scores; and one softmax over both parts: nothing has to be merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from esa_attention.ops.attention_torch import attend
from esa_attention.ops.forms import PRODUCTS, Asked, Product, Size
from esa_attention.ops.native.decode import attend_native
from esa_attention.ops.states_torch import merge_attention_states

__all__ = ["attend_decode"]

# Tokens gathered or widened at a time.
PIECE = 544
# Below so many numbers in what is attended to any form takes as long as the calls around it.
_LEAST = 2**18

# (name, shape, type, device) -> scratch of that shape, of undefined contents.
Scratch = Callable[[str, Sequence[int], torch.dtype, torch.device], Tensor]


def _pieces(
    far_query: Tensor,
    store: Tensor,
    far: Tensor,
    near_query: Tensor,
    near_keys: Tensor,
    near_values: Tensor,
    scaling: float,
    scratch: Scratch,
) -> Tensor:
    """Batched products in float32 at least, of keys gathered some tokens at a time, so that they lie in a cache.

    Keys and values of a token lie side by side, as do chosen neighbours: both are gathered in one run.
    """
    kv_heads, _, dim = near_keys.shape
    wide = torch.promote_types(store.dtype, torch.float32)
    rows = (kv_heads, far_query.shape[0] // kv_heads, dim)
    far_rows, near_rows = ((q.to(wide) * scaling).view(rows) for q in (far_query, near_query))
    held = scratch("far", (far.shape[0], *store.shape[1:]), wide, store.device)
    narrow = held if wide == store.dtype else scratch("narrow", (PIECE, *store.shape[1:]), store.dtype, store.device)
    scores = []
    for low in range(0, far.shape[0], PIECE):
        part = held[low : low + PIECE]
        gathered = part if narrow is held else narrow[: part.shape[0]]
        torch.index_select(store, 0, far[low : low + PIECE], out=gathered)
        if gathered is not part:
            part.copy_(gathered)
        scores.append(torch.bmm(far_rows, part[:, 0].permute(1, 2, 0)))
    # The other way round is faster for keys that lie together; the copy into one row of scores is due anyway.
    turned = near_rows.transpose(1, 2)
    scores += [torch.bmm(keys, turned).transpose(1, 2) for keys in _widened(near_keys, wide, scratch)]
    weights = torch.cat(scores, dim=2).softmax(dim=2)
    out = torch.bmm(weights[:, :, : far.shape[0]], held[:, 1].transpose(0, 1))
    low = far.shape[0]
    for values in _widened(near_values, wide, scratch):
        out.baddbmm_(weights[:, :, low : low + values.shape[1]], values)
        low += values.shape[1]
    return out.view(far_query.shape).to(far_query.dtype)


def _widened(tokens: Tensor, wide: torch.dtype, scratch: Scratch) -> Iterator[Tensor]:
    """Near keys or values ``(K, L, D)`` as they are, or some tokens at a time in a wider type."""
    if tokens.dtype == wide:
        yield tokens
        return
    kv_heads, _, dim = tokens.shape
    held = scratch("wide", (PIECE * kv_heads, dim), wide, tokens.device)
    for part in tokens.split(PIECE, dim=1):
        count = part.shape[1]
        yield held[: count * kv_heads].view(kv_heads, count, dim).copy_(part)


def _flash(
    far_query: Tensor,
    store: Tensor,
    far: Tensor,
    near_query: Tensor,
    near_keys: Tensor,
    near_values: Tensor,
    scaling: float,
    scratch: Scratch,
) -> Tensor:
    """Torch's flash kernel for each part, merged by what it says of their sums."""
    held = scratch("far", (far.shape[0], *store.shape[1:]), store.dtype, store.device)
    torch.index_select(store, 0, far, out=held)
    keys, values = held.permute(1, 2, 0, 3)
    parts = [
        attend(query[None], key[None], value[None], scaling)
        for query, key, value in ((near_query, near_keys, near_values), (far_query, keys, values))
    ]
    return merge_attention_states([out[0] for out, _ in parts], [lse[0] for _, lse in parts])[0]


def _native(*arguments: Any) -> Tensor:
    """Compiled: keys and values are read where they lie, without a copy of the far ones."""
    return attend_native(*arguments[:-1])


_FORMS = {"pieces": _pieces, "native": _native, "flash": _flash}
_ATTEND = PRODUCTS["attend"] = Product("attend", _FORMS, lambda dtype: 64 * torch.finfo(dtype).eps)


def attend_decode(
    far_query: Tensor,
    store: Tensor,
    far: Tensor,
    near_query: Tensor,
    near_keys: Tensor,
    near_values: Tensor,
    scaling: float,
    scratch: Scratch,
    forms: Asked = "auto",
) -> Tensor:
    """Attention of one token over far tokens, which lie scattered, and near ones, under one softmax.

    Args:
        far_query: Query at the far position ``(H, 1, D)``.
        store: Unrotated keys and values ``(capacity, 2, K, D)``, contiguous.
        far: Indices of the far tokens ``(N,)``, at least one.
        near_query: Query at its own position ``(H, 1, D)``.
        near_keys: Rotated keys ``(K, L, D)``.
        near_values: Their values ``(K, L, D)``.
        scaling: Factor on the scores.
        scratch: Gives scratch by name, shape, type and device.
        forms: In which form, see :mod:`~esa_attention.ops.forms`.

    Returns:
        ``(H, 1, D)``.
    """
    arguments = (far_query, store, far, near_query, near_keys, near_values, scaling, scratch)
    numbers = (far.shape[0] + near_keys.shape[1]) * near_keys.shape[0] * near_keys.shape[2]
    if numbers < _LEAST or store.dtype == torch.float64:
        return _pieces(*arguments)
    size = Size(store.dtype, numbers.bit_length(), near_keys.shape[2], near_keys.shape[2], torch.get_num_threads())
    return _ATTEND(forms, size, *arguments)
