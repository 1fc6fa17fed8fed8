"""The butterflies once more, for computations that nobody records: written straight to where their results belong.

The same additions for two orders in memory. That of tokens, ``(rows, b, pieces, e)``: chunks one after the other, which
inputs have. That of pieces, ``(rows, pieces, b, e)``: the same piece of all chunks side by side, in longer stretches;
what comes out of the products is ordered so, until the sum over paths writes tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augshortcut.ops.butterflies import CIRC, SKEW, Ring, children, pieces

__all__ = ["join_flat", "split_flat"]

_HALF = math.sqrt(0.5)


def _new(like: Tensor, rows: int, count: int, chunks: int, e: int, tokens: bool) -> Tensor:
    """Memory for pieces, seen as ``(rows, count, chunks, e)`` whatever its order."""
    if tokens:
        return like.new_empty(rows, chunks, count, e).transpose(1, 2)
    return like.new_empty(rows, count, chunks, e)


def _seen(leaves: Tensor, g: int, chunks: int, tokens: bool) -> Tensor:
    """Leaves as ``(2 ** level, rows, g, chunks, e)``."""
    count, rows, width = leaves.shape
    e = width // (g * chunks)
    if tokens:
        return leaves.view(count, rows, chunks, g, e).transpose(2, 3)
    return leaves.view(count, rows, g, chunks, e)


def split_flat(x: Tensor, level: int, *, tokens: bool) -> Tensor:
    """:func:`~augshortcut.ops.butterflies.split`; level 1 at least.

    Args:
        x: Pieces, seen as ``(rows, pieces, chunks, e)``.
        level: How often.
        tokens: The order of the leaves, and of what comes between; x may have either.

    Returns:
        ``(2 ** level, rows, chunks g e)``.
    """
    rows, count, chunks, e = x.shape
    leaves = x.new_empty(2**level, rows, chunks * (count >> level) * e)
    _split(x, CIRC, _seen(leaves, count >> level, chunks, tokens), tokens)
    return leaves


def _split(x: Tensor, ring: Ring, leaves: Tensor, tokens: bool) -> None:
    half, h = leaves.shape[0] // 2, x.shape[1] // 2
    if half == 1:
        low, high = leaves[0], leaves[1]
    else:
        low, high = (_new(x, x.shape[0], h, x.shape[2], x.shape[3], tokens) for _ in range(2))
    if ring == CIRC:
        torch.add(x[:, :h], x[:, h:], out=low)
        torch.sub(x[:, :h], x[:, h:], out=high)
    else:
        q = h // 2
        x0, x1, x2, x3 = x[:, :q], x[:, q:h], x[:, h : h + q], x[:, h + q :]
        if ring == SKEW:
            re, im, first, second = x1 - x3, (x1 + x3).mul_(_HALF), x0, x2
            torch.add(first, re, alpha=_HALF, out=low[:, :q])
            torch.sub(first, re, alpha=_HALF, out=high[:, :q])
            torch.add(second, im, out=low[:, q:])
            torch.sub(im, second, out=high[:, q:])
        else:
            c, s = math.cos(float(ring) / 2), math.sin(float(ring) / 2)
            re, im = (x1 * c).sub_(x3, alpha=s), (x1 * s).add_(x3, alpha=c)
            torch.add(x0, re, out=low[:, :q])
            torch.sub(x0, re, out=high[:, :q])
            torch.add(x2, im, out=low[:, q:])
            torch.sub(x2, im, out=high[:, q:])
    if half > 1:
        first_ring, second_ring = children(ring)
        _split(low, first_ring, leaves[:half], tokens)
        _split(high, second_ring, leaves[half:], tokens)


def join_flat(leaves: Tensor, chunks: int, *, tokens: bool, out_tokens: bool) -> Tensor:
    """:func:`~augshortcut.ops.butterflies.join`; level 1 at least.

    Args:
        leaves: ``(2 ** level, rows, chunks g e)``.
        chunks: How many.
        tokens: The order of the leaves and of what comes between.
        out_tokens: That of the result.

    Returns:
        Pieces, seen as ``(rows, pieces, chunks, e)``.
    """
    count, rows, width = leaves.shape
    total = pieces(count.bit_length() - 1)
    g = total // count
    out = _new(leaves, rows, total, chunks, width // (g * chunks), out_tokens)
    _join(_seen(leaves, g, chunks, tokens), CIRC, out, tokens)
    return out


def _join(leaves: Tensor, ring: Ring, out: Tensor, tokens: bool) -> None:
    half, h = leaves.shape[0] // 2, out.shape[1] // 2
    if half == 1:
        low, high = leaves[0], leaves[1]
    else:
        low, high = (_new(out, out.shape[0], h, out.shape[2], out.shape[3], tokens) for _ in range(2))
        first, second = children(ring)
        _join(leaves[:half], first, low, tokens)
        _join(leaves[half:], second, high, tokens)
    if ring == CIRC:
        torch.add(low, high, out=out[:, :h])
        torch.sub(low, high, out=out[:, h:])
        return
    q = h // 2
    o0, o1, o2, o3 = out[:, :q], out[:, q:h], out[:, h : h + q], out[:, h + q :]
    low_re, low_im, high_re, high_im = low[:, :q], low[:, q:], high[:, :q], high[:, q:]
    torch.add(low_re, high_re, out=o0)
    re = low_re - high_re
    if ring == SKEW:
        im = low_im + high_im
        torch.sub(low_im, high_im, out=o2)
        torch.add(re, im, out=o1).mul_(_HALF)
        torch.sub(im, re, out=o3).mul_(_HALF)
        return
    im = low_im - high_im
    c, s = math.cos(float(ring) / 2), math.sin(float(ring) / 2)
    torch.add(low_im, high_im, out=o2)
    torch.mul(re, c, out=o1).add_(im, alpha=s)
    torch.mul(im, c, out=o3).sub_(re, alpha=s)
