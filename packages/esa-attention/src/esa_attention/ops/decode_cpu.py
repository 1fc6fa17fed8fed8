"""Attention of one decoded token on a CPU: gathering, both parts and one softmax, at the memory's speed.

With one query a head there is nothing to compute, only keys and values to read. What was measured to matter:
batched matrix products, which read keys two to three times as fast as torch's flash kernel; gathering some tokens at a
time, keys first and values later, so that the products find them in the nearest caches; widening half precision there,
since a product of half precision matrices gives no float32 scores; and one softmax over both parts, so that nothing has
to be merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from esa_attention.ops.attention_torch import attend
from esa_attention.ops.forms import PRODUCTS, Asked, Product, Size
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
    """Batched products of pieces that lie in the nearest caches, in float32 at least."""
    kv_heads, _, dim = near_keys.shape
    heads, width = far_query.shape[0], kv_heads * dim
    wide = torch.promote_types(store.dtype, torch.float32)
    rows = (kv_heads, heads // kv_heads, dim)
    flat = store.view(-1, width)  # keys and values of a token are two neighbouring rows
    held = scratch("piece", (PIECE, width), store.dtype, store.device)
    widened = held if wide == store.dtype else scratch("widened", (PIECE, width), wide, store.device)
    # As many tokens in each piece.
    parts = (2 * far).split(math.ceil(far.shape[0] / math.ceil(far.shape[0] / PIECE)))

    def gathered(indices: Tensor) -> Tensor:
        count = indices.shape[0]
        torch.index_select(flat, 0, indices, out=held[:count])
        if widened is not held:
            widened[:count].copy_(held[:count])
        return widened[:count].view(count, kv_heads, dim).transpose(0, 1)

    def near(tokens: Tensor) -> Iterator[Tensor]:
        if widened is held:
            yield tokens
            return
        for part in tokens.split(PIECE, dim=1):
            yield widened[: part.shape[1]].view(kv_heads, part.shape[1], dim).copy_(part)

    far_rows, near_rows = ((q.to(wide) * scaling).view(rows) for q in (far_query, near_query))
    scores = [torch.bmm(far_rows, gathered(part).transpose(1, 2)) for part in parts]
    # The other way round is faster for keys that lie together; the copy into one row of scores is due anyway.
    turned = near_rows.transpose(1, 2)
    scores += [torch.bmm(keys, turned).transpose(1, 2) for keys in near(near_keys)]
    weights = torch.cat(scores, dim=2).softmax(dim=2)
    out = torch.zeros(rows, dtype=wide)
    shares = iter(weights.split([s.shape[2] for s in scores], dim=2))
    for part in parts:
        out += torch.bmm(next(shares), gathered(part + 1))
    for values in near(near_values):
        out += torch.bmm(next(shares), values)
    return out.view(far_query.shape).to(far_query.dtype)


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


_FORMS = {"pieces": _pieces, "flash": _flash}
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
