"""The butterflies once more, for computations that nobody records: written straight to where their results belong.

Pieces of all chunks lie side by side, ``(rows, pieces, chunks, e)``, so that all additions but one run over long
stretches of memory: that one turns the order ``(rows, chunks, pieces, e)`` of tokens into this one, or back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augshortcut.ops.butterflies import CIRC, SKEW, Ring, children, pieces

__all__ = ["join_flat", "split_flat", "split_pieces"]

_HALF = math.sqrt(0.5)


def split_flat(x: Tensor, level: int) -> Tensor:
    """:func:`~augshortcut.ops.butterflies.split` of chunks ``(rows, b, n)``; level 1 at least."""
    rows, chunks, n = x.shape
    count = pieces(level)
    turned = x.view(rows, chunks, count, n // count).transpose(1, 2)
    return split_pieces(turned, level)


def split_pieces(x: Tensor, level: int) -> Tensor:
    """The same of pieces ``(rows, pieces, chunks, e)``."""
    rows, count, chunks, e = x.shape
    leaves = x.new_empty(2**level, rows, count >> level, chunks, e)
    _split(x, CIRC, leaves)
    return leaves.flatten(2)


def _split(x: Tensor, ring: Ring, leaves: Tensor) -> None:
    half, h = leaves.shape[0] // 2, x.shape[1] // 2
    if half == 1:
        low, high = leaves[0], leaves[1]
    else:
        both = x.new_empty(2, x.shape[0], h, *x.shape[2:])
        low, high = both[0], both[1]
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
        _split(low, first_ring, leaves[:half])
        _split(high, second_ring, leaves[half:])


def join_flat(leaves: Tensor, chunks: int, *, as_tokens: bool) -> Tensor:
    """:func:`~augshortcut.ops.butterflies.join` of leaves ``(2 ** level, rows, g chunks e)``; level 1 at least.

    Args:
        leaves: The leaves.
        chunks: How many.
        as_tokens: Whether chunks come out whole, ``(rows, chunks, pieces, e)``, or piece by piece,
            ``(rows, pieces, chunks, e)``.
    """
    count, rows, width = leaves.shape
    total = pieces(count.bit_length() - 1)
    g = total // count
    e = width // (g * chunks)
    if as_tokens:
        out = leaves.new_empty(rows, chunks, total, e)
        _join(leaves.view(count, rows, g, chunks, e), CIRC, out.transpose(1, 2))
    else:
        out = leaves.new_empty(rows, total, chunks, e)
        _join(leaves.view(count, rows, g, chunks, e), CIRC, out)
    return out


def _join(leaves: Tensor, ring: Ring, out: Tensor) -> None:
    half, h = leaves.shape[0] // 2, out.shape[1] // 2
    if half == 1:
        low, high = leaves[0], leaves[1]
    else:
        both = leaves.new_empty(2, out.shape[0], h, *out.shape[2:])
        low, high = both[0], both[1]
        first, second = children(ring)
        _join(leaves[:half], first, low)
        _join(leaves[half:], second, high)
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
