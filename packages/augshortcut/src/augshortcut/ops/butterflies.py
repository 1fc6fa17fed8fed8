r"""The change of basis under which a circulant falls apart into smaller rings: butterflies, up to a factor orthogonal.

A chunk of n numbers is a polynomial modulo :math:`x^n - 1`. Over the reals, as often as asked:

- ``circ``, :math:`x^{2h} - 1 = (x^h - 1)(x^h + 1)`: sum and difference of the halves;
- ``skew``, :math:`x^{4q} + 1`: with :math:`x^q` at the two primitive eighth roots of 1 in the upper half plane, two
  rings of complex polynomials modulo :math:`x^q - e^{i \varphi}`, kept as real and imaginary parts side by side (the
  other two roots are their conjugates);
- complex, :math:`x^{2h} - e^{i \varphi} = (x^h - e^{i \varphi/2})(x^h + e^{i \varphi/2})`.

Each step takes a few additions, doubles all squared lengths, and halves the multiply-adds of a product: 1/2, 1/4, 1/8
of the dense matrix's after 1, 2, 3 levels. So :math:`S^T S = 2^L`, the inverse is the transpose :func:`join` divided by
:math:`2^L` (which the weights carry), and the same two functions serve forward and backward passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

__all__ = ["CIRC", "SKEW", "Ring", "children", "join", "joining", "leaf_rings", "most_levels", "pieces", "split"]

Ring = str | float
CIRC, SKEW = "circ", "skew"
_HALF = math.sqrt(0.5)


def most_levels(n: int) -> int:
    """How often circulants of size n can be split: once if n is even, further with one more factor of 2 a level."""
    twos = (n & -n).bit_length() - 1
    return twos if twos < 2 else twos - 1


def children(ring: Ring) -> tuple[Ring, Ring]:
    """The two rings that a ring falls apart into."""
    if ring == CIRC:
        return CIRC, SKEW
    if ring == SKEW:
        return math.pi / 4, 3 * math.pi / 4
    assert isinstance(ring, float)
    return ring / 2, ring / 2 + math.pi


def leaf_rings(level: int, ring: Ring = CIRC) -> tuple[Ring, ...]:
    """The rings that a circulant falls apart into: ``2 ** level`` of them, numbers being angles of complex ones."""
    if level == 0:
        return (ring,)
    first, second = children(ring)
    return leaf_rings(level - 1, first) + leaf_rings(level - 1, second)


def _split(x: Sequence[Tensor], ring: Ring, level: int) -> list[Tensor]:
    """Pieces of a chunk, in order, to pieces of its leaves, one leaf after the other."""
    if level == 0:
        return list(x)
    h = len(x) // 2
    a, b = x[:h], x[h:]
    if ring == CIRC:
        low, high = [p + q for p, q in zip(a, b, strict=True)], [p - q for p, q in zip(a, b, strict=True)]
    elif ring == SKEW:
        q = h // 2
        t0, t1, t2, t3 = x[:q], x[q:h], x[h : h + q], x[h + q :]
        odd = [(u - v) * _HALF for u, v in zip(t1, t3, strict=True)]
        even = [(u + v) * _HALF for u, v in zip(t1, t3, strict=True)]
        low = [u + v for u, v in zip(t0, odd, strict=True)] + [u + v for u, v in zip(t2, even, strict=True)]
        high = [u - v for u, v in zip(t0, odd, strict=True)] + [v - u for u, v in zip(t2, even, strict=True)]
    else:
        low, high = _turn(a, b, float(ring) / 2)
    first, second = children(ring)
    return _split(low, first, level - 1) + _split(high, second, level - 1)


def _turn(re: Sequence[Tensor], im: Sequence[Tensor], angle: float) -> tuple[list[Tensor], list[Tensor]]:
    """Halves z0, z1 of complex chunks to ``z0 + e z1`` and ``z0 - e z1``, e of an angle."""
    c, s, h = math.cos(angle), math.sin(angle), len(re) // 2
    turned_re = [c * u - s * v for u, v in zip(re[h:], im[h:], strict=True)]
    turned_im = [s * u + c * v for u, v in zip(re[h:], im[h:], strict=True)]
    both = [*zip(re[:h], turned_re, strict=True), *zip(im[:h], turned_im, strict=True)]
    return [u + v for u, v in both], [u - v for u, v in both]


def _join(z: Sequence[Tensor], ring: Ring, level: int) -> list[Tensor]:
    """The transpose of :func:`_split`."""
    if level == 0:
        return list(z)
    h = len(z) // 2
    first, second = children(ring)
    low, high = _join(z[:h], first, level - 1), _join(z[h:], second, level - 1)
    total = [u + v for u, v in zip(low, high, strict=True)]
    gap = [u - v for u, v in zip(low, high, strict=True)]
    if ring == CIRC:
        return total + gap
    q = h // 2
    if ring == SKEW:
        odd, even = gap[:q], total[q:]
        t1 = [(u + v) * _HALF for u, v in zip(odd, even, strict=True)]
        t3 = [(v - u) * _HALF for u, v in zip(odd, even, strict=True)]
        return total[:q] + t1 + gap[q:] + t3
    c, s = math.cos(float(ring) / 2), math.sin(float(ring) / 2)
    re = [c * u + s * v for u, v in zip(gap[:q], gap[q:], strict=True)]
    im = [c * v - s * u for u, v in zip(gap[:q], gap[q:], strict=True)]
    return total[:q] + re + total[q:] + im


def pieces(level: int) -> int:
    """Into how many pieces a chunk is cut, the shortest that the butterflies handle: two a leaf from level 2 on."""
    return 2 ** (level + (level > 1))


@cache
def joining(level: int, dtype: torch.dtype) -> Tensor:
    """The transpose of a split as a matrix between pieces, ``(g, g)`` with ``g = pieces(level)``, on the CPU.

    On a CPU one product with it is quicker than the additions it stands for, each of which passes over memory.
    """
    count = pieces(level)
    with torch.inference_mode(False), torch.no_grad():
        units = torch.eye(count, dtype=torch.float64, device="cpu").view(2**level, -1, count).transpose(1, 2)
        return join(units.contiguous(), 1, level, tokens=False).view(count, count).t().to(dtype).contiguous()


def split(x: Tensor, level: int, *, tokens: bool = True) -> Tensor:
    """Chunks to leaves; differentiable, fused when compiled.

    Args:
        x: ``(rows, b, n)``.
        level: How often.
        tokens: Whether a leaf has its g pieces of e numbers (see :func:`pieces`) chunk by chunk, ``(b, g, e)``, or each
            piece of all chunks side by side, ``(g, b, e)``.

    Returns:
        ``(2 ** level, rows, b g e)``.
    """
    leaves, count = 2**level, pieces(level)
    found = _split(x.unflatten(-1, (count, -1)).unbind(-2), CIRC, level)
    g, place = count // leaves, -2 if tokens else -3
    return torch.stack([torch.stack(found[i * g : (i + 1) * g], dim=place).flatten(-3) for i in range(leaves)])


def join(z: Tensor, chunks: int, level: int, *, tokens: bool = True) -> Tensor:
    """The transpose of :func:`split`: ``(2 ** level, rows, chunks g e)`` to ``(rows, chunks, n)``; differentiable."""
    g = pieces(level) // 2**level
    shape, place = ((chunks, g, -1), -2) if tokens else ((g, chunks, -1), -3)
    found = [piece for leaf in z.unbind(0) for piece in leaf.unflatten(-1, shape).unbind(place)]
    return torch.cat(_join(found, CIRC, level), dim=-1)
