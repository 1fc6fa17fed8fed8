"""Calls of the compiled functions on tensors; what they cannot take is refused, and another form is taken."""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch
from torch import Tensor

from esa_attention.ops.native.build import library

__all__ = ["attend_native", "scores_native"]

_PER_WORD = {torch.float32: 1, torch.bfloat16: 2, torch.int8: 4}
_LANES = 16


class _Attention(ctypes.Structure):
    """``struct attention`` of ``decode.c``."""

    _fields_: ClassVar = [
        *(
            (name, ctypes.c_void_p)
            for name in ("store", "far", "keys", "values", "queries", "arranged", "states", "out")
        ),
        *((name, ctypes.c_ssize_t) for name in ("num_far", "num_near", "kv_heads", "group", "dim")),
        *((name, ctypes.c_ssize_t) for name in ("key_head", "key_row", "value_head", "value_row")),
        *((name, ctypes.c_ssize_t) for name in ("capacity", "threads")),
    ]


def _per_word(rows: Tensor, width: int, multiple: int) -> int:
    """How many numbers of the type fill 32 bits, if rows of this kind can be read here."""
    per_word = _PER_WORD.get(rows.dtype)
    if per_word is None:
        raise NotImplementedError(f"not written for {str(rows.dtype).removeprefix('torch.')}")
    if rows.device.type != "cpu":
        raise NotImplementedError("only for memory of the host")
    if width % multiple or rows.stride(-1) != 1:
        raise NotImplementedError(f"rows must be a multiple of {multiple} numbers that lie together")
    return per_word


def scores_native(vector: Tensor, keys: Tensor, scale: Tensor | None = None) -> Tensor:
    """Scores of one query.

    Args:
        vector: ``(R,)`` of the keys' type, or any floating one for 8-bit keys.
        keys: ``(M, R)`` float32, bfloat16 or int8; rows may be strided.
        scale: A factor for every row ``(M,)`` float32, or none.

    Returns:
        ``(M,)`` float32.

    Raises:
        NotImplementedError: If it cannot be had here, or does not take these.
    """
    count, width = keys.shape
    per_word = _per_word(keys, width, _LANES * _PER_WORD.get(keys.dtype, 1))
    compiled = library("decode", per_word)
    query = vector.float().contiguous()
    factors = None if scale is None else scale.float().contiguous()
    arranged, out = query.new_empty(width), query.new_empty(count)
    pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in (keys, query, factors, arranged, out)]
    sizes = [ctypes.c_ssize_t(size) for size in (keys.stride(0), count, width)]
    compiled.scores(pointers[0], *sizes, *pointers[1:], ctypes.c_int(torch.get_num_threads()))
    return out


def attend_native(
    far_query: Tensor,
    store: Tensor,
    far: Tensor,
    near_query: Tensor,
    near_keys: Tensor,
    near_values: Tensor,
    scaling: float,
) -> Tensor:
    """Attention of one token, see :func:`esa_attention.ops.decode_cpu.attend_decode` for the arguments.

    Scores, weights and sums are float32. Keys and values are read where they lie, once for the queries of a group,
    while those needed next are fetched.

    Returns:
        ``(H, 1, D)`` in the type of the query.

    Raises:
        NotImplementedError: If it cannot be had here, or does not take these.
    """
    kv_heads, near, dim = near_keys.shape
    per_word = _per_word(store, dim, 2 * _LANES)
    if not store.is_contiguous() or {near_keys.dtype, near_values.dtype} != {store.dtype}:
        raise NotImplementedError("keys and values must be of one type, and the store in one piece")
    if near_keys.stride(2) != 1 or near_values.stride(2) != 1:
        raise NotImplementedError("the numbers of a token must lie together")
    compiled = library("decode", per_word)
    heads, threads = far_query.shape[0], torch.get_num_threads()
    queries = torch.stack((far_query.view(heads, dim), near_query.view(heads, dim))).float().mul_(scaling)
    indices = far.to(torch.int64).contiguous()
    arranged = torch.empty_like(queries)
    states, out = queries.new_empty(threads * heads * (dim + 2)), queries.new_empty(heads, 1, dim)
    tensors = (store, indices, near_keys, near_values, queries, arranged, states, out)
    sizes = (far.shape[0], near, kv_heads, heads // kv_heads, dim)
    strides = (*near_keys.stride()[:2], *near_values.stride()[:2])
    asked = _Attention(*(t.data_ptr() for t in tensors), *sizes, *strides, store.shape[0], threads)
    if compiled.attend(ctypes.byref(asked)):
        raise IndexError(f"far tokens must be of the {store.shape[0]} that the store holds")
    return out.to(far_query.dtype)
