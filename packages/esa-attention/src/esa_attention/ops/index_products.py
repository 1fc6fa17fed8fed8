"""Scores of one query against the index on a CPU: the keys are read once, and nothing else matters.

The forms that a machine is asked to choose from (:mod:`~esa_attention.ops.forms`), for floating and for 8-bit keys.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from esa_attention.ops.forms import PRODUCTS, Asked, Product, Size
from esa_attention.ops.native.decode import scores_native

__all__ = ["decode_scores", "decode_scores_int8"]

# oneDNN compiles a kernel for every shape it has not seen, which takes longer than many a product: while a sequence
# grows token by token, it is given whole multiples of this.
_WHOLE = 1024
# Below so many numbers a product takes as long as the calls around it, and any form does.
_LEAST = 2**18
# Rows widened at a time, so that they are multiplied while they lie in a cache: fewer were slower, for the calls.
_BLOCK = 16384


def _mv(vector: Tensor, keys: Tensor) -> Tensor:
    """Torch's own: BLAS for float32, one thread in many builds."""
    return torch.mv(keys, vector)


def _onednn(vector: Tensor, keys: Tensor) -> Tensor:
    """OneDNN's product of the rows with one column, through torch's private door to it."""
    if not keys.is_contiguous():
        raise NotImplementedError("rows do not lie together")
    count = keys.shape[0]
    whole = count - count % _WHOLE
    scores = keys.new_empty(count)
    if whole:
        scores[:whole] = torch.ops.mkldnn._linear_pointwise(vector[None], keys[:whole], None, "none", [], "")[0]
    torch.mv(keys[whole:], vector, out=scores[whole:])
    return scores


def _columns(vector: Tensor, keys: Tensor) -> Tensor:
    """A part of the rows for each thread in one batched product with a column; rows need not lie together."""
    return _in_parts(vector, keys, lambda rows, column: torch.bmm(rows, column))


def _rows(vector: Tensor, keys: Tensor) -> Tensor:
    """The same the other way round, a row times the transposed keys: other kernels of BLAS."""
    return _in_parts(vector, keys, lambda rows, column: torch.bmm(column.transpose(1, 2), rows.transpose(1, 2)))


def _in_parts(vector: Tensor, keys: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    count, width = keys.shape
    parts = max(2, torch.get_num_threads())
    size = count // parts
    rows = keys[: parts * size].unflatten(0, (parts, size))
    # A column whose stride is a whole row: BLAS takes a slower path for one that looks like a matrix of one column.
    scores = multiply(rows, vector.expand(parts, 1, width).transpose(1, 2)).flatten()
    return scores if count == parts * size else torch.cat((scores, torch.mv(keys[parts * size :], vector)))


def _blocks(vector: Tensor, keys: Tensor) -> Tensor:
    """Rows in half precision are widened some at a time, and multiplied in float32."""
    if keys.dtype in (torch.float32, torch.float64):
        raise NotImplementedError("nothing to widen")
    return _widened(vector.float(), keys)


def _widened(vector: Tensor, keys: Tensor) -> Tensor:
    held = vector.new_empty(min(_BLOCK, keys.shape[0]), keys.shape[1])
    return torch.cat([_columns(vector, held[: block.shape[0]].copy_(block)) for block in keys.split(_BLOCK)])


def _tolerance(dtype: torch.dtype) -> float:
    """Sums of some hundred products in another order; in half precision the scores are rounded to it as well."""
    return 64 * torch.finfo(dtype).eps if dtype.is_floating_point else 1e-3


_FLOATS = {
    "columns": _columns,
    "onednn": _onednn,
    "rows": _rows,
    "blocks": _blocks,
    "native": scores_native,
    "mv": _mv,
}
_SCORES = PRODUCTS["scores"] = Product("scores", _FLOATS, _tolerance)


def decode_scores(query_index: Tensor, key_index: Tensor, forms: Asked = "auto") -> Tensor:
    """Scores of one query, ``(M,)``: without the subtraction of Eq. 4, which would not change their order.

    Args:
        query_index: ``(R,)``.
        key_index: ``(M, R)``, rows may be strided.
        forms: In which form, see :mod:`~esa_attention.ops.forms`.

    Returns:
        At least float32.
    """
    vector = query_index.to(key_index.dtype)
    small = key_index.numel() < _LEAST or key_index.dtype == torch.float64
    if small or key_index.device.type != "cpu":
        scores = torch.mv(key_index, vector)
    else:
        scores = _SCORES(forms, Size.of(key_index), vector, key_index)
    return scores.to(torch.promote_types(key_index.dtype, torch.float32))


def _digits(vector: Tensor) -> tuple[Tensor, float]:
    """A query with two 8-bit digits, ``(2, R)`` int8, so that only the keys are rounded; and what a step is worth."""
    step = float(vector.abs().max()) / 127
    high = (vector / step).round()
    low = ((vector / step - high) * 254).round_().clamp_(-127, 127)
    return torch.stack((high, low)).to(torch.int8), step


def _from_sums(sums: Tensor, scale: Tensor, step: float) -> Tensor:
    """Scores from the integer sums ``(2, M)`` of both digits."""
    wide = sums.float()
    return torch.add(wide[0], wide[1], alpha=1 / 254).mul_(scale).mul_(step)


def _by_digits(vector: Tensor, keys: Tensor, scale: Tensor, sums: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Scores from integer sums of both digits of the query, ``(2, M)``; the last rows are widened, see ``_WHOLE``."""
    whole = keys.shape[0] - keys.shape[0] % _WHOLE
    if not whole or not bool(vector.any()):
        return (keys.float() @ vector).mul_(scale)
    digits, step = _digits(vector)
    scores = vector.new_empty(keys.shape[0])
    scores[:whole] = _from_sums(sums(digits, keys[:whole]), scale[:whole], step)
    torch.mul(keys[whole:].float() @ vector, scale[whole:], out=scores[whole:])
    return scores


def _rows_int8(vector: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """A digit at a time: a single row is a case of its own in oneDNN, often the fastest."""
    return _by_digits(
        vector, keys, scale, lambda two, rows: torch.stack([torch._int_mm(two[i : i + 1], rows.T)[0] for i in range(2)])
    )


def _pair_int8(vector: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """Both digits as rows of one product, which reads the keys once."""
    return _by_digits(vector, keys, scale, lambda two, rows: torch._int_mm(two, rows.T))


def _columns_int8(vector: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """Both digits as columns: keys are what oneDNN reads as it lies."""
    return _by_digits(vector, keys, scale, lambda two, rows: torch._int_mm(rows, two.T).T)


def _blocks_int8(vector: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """Rows are widened some at a time, and multiplied in float32; the query is not rounded."""
    return _widened(vector, keys).mul_(scale)


_INT8 = {
    "pair": _pair_int8,
    "rows": _rows_int8,
    "columns": _columns_int8,
    "native": scores_native,
    "blocks": _blocks_int8,
}
_SCORES_INT8 = PRODUCTS["scores_int8"] = Product("scores_int8", _INT8, _tolerance)


def decode_scores_int8(query_index: Tensor, keys: Tensor, scale: Tensor, forms: Asked = "auto") -> Tensor:
    """Scores of one query against 8-bit keys; only the keys are rounded.

    Args:
        query_index: ``(R,)``.
        keys: ``(M, R)`` int8.
        scale: ``(M,)`` float32.
        forms: In which form, see :mod:`~esa_attention.ops.forms`.

    Returns:
        ``(M,)`` float32.
    """
    vector = query_index.float()
    if keys.numel() < _LEAST or keys.device.type != "cpu":
        return (keys.float() @ vector).mul_(scale)
    return _SCORES_INT8(forms, Size.of(keys), vector, keys, scale)
