r"""Matrices of products in the rings that circulants fall apart into, and the sums that are their gradients.

A leaf of weights w is a polynomial; its matrix multiplies others by it modulo ``x^m - 1`` (circulant), ``x^m + 1``
(skew-circulant), or, for complex ones, modulo :math:`x^q - e^{i \varphi}`: Toeplitz, with entries above the diagonal
turned by :math:`\varphi`, and real as ``[[Re, -Im], [Im, Re]]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augshortcut.ops.butterflies import leaf_rings, pieces
from augshortcut.ops.layout import diagonal_pairs, sizes, toeplitz, toeplitz_blocks

__all__ = ["ring_gradients", "ring_matrices"]


def _turned(re: Tensor, im: Tensor, level: int, direction: int) -> tuple[Tensor, Tensor]:
    r"""Weights of the complex rings, or their gradients, times the ring's own :math:`e^{i \varphi}` or its conjugate.

    Args:
        re: ``(rings, b_out, b_in, q)``.
        im: Likewise.
        level: How often was split.
        direction: 1, or -1 for the conjugate.
    """
    angles = [direction * ring for ring in leaf_rings(level) if isinstance(ring, float)]
    turns = [(math.cos(a), math.sin(a), r, i) for a, r, i in zip(angles, re.unbind(0), im.unbind(0), strict=True)]
    return torch.stack([c * r - s * i for c, s, r, i in turns]), torch.stack([s * r + c * i for c, s, r, i in turns])


def ring_matrices(leaves: Tensor, level: int, b_in: int) -> Tensor:
    """Matrices that multiply rows of leaves by the weights; differentiable.

    Args:
        leaves: ``(2 ** level, b_out, b_in m)``: weights, split.
        level: How often.
        b_in: Blocks of inputs.

    Returns:
        ``(2 ** level, b_in m, g b_out e)``: inputs in the order of tokens, outputs in that of pieces.
    """
    count, b_out, width = sizes(leaves)
    m, g = width // b_in, pieces(level) // count
    leaves = leaves.view(count, b_out, b_in, m)
    if count == 1:
        return toeplitz(leaves[0]).t().unsqueeze(0)
    real = torch.stack([leaves[0], leaves[1]])
    blocks = toeplitz_blocks(real, torch.stack([leaves[0], -leaves[1]]))
    if count > 2:
        q = m // 2
        re, im = leaves[2:, ..., :q], leaves[2:, ..., q:]
        turned = toeplitz_blocks(torch.stack([re, im]), torch.stack(_turned(re, im, level, 1)))
        top, bottom = torch.stack([turned[0], -turned[1]], dim=-2), torch.stack([turned[1], turned[0]], dim=-2)
        complex_blocks = torch.stack([top, bottom], dim=-4).reshape(count - 2, b_out, b_in, m, m)
        blocks = torch.cat([blocks, complex_blocks])
    parts = blocks.unflatten(-1, (g, -1)).unflatten(-3, (g, -1))  # (leaf, b_out, b_in, piece, r, piece, s)
    return parts.permute(0, 2, 5, 6, 3, 1, 4).reshape(count, b_in * m, b_out * m)


def ring_gradients(grad: Tensor, level: int, b_out: int, b_in: int) -> Tensor:
    """The adjoint of :func:`ring_matrices`: back to ``(2 ** level, b_out, b_in m)``."""
    count, m = grad.shape[0], grad.shape[1] // b_in
    g = pieces(level) // count
    blocks = grad.view(count, b_in, m, g, b_out, m // g).permute(0, 4, 1, 2, 3, 5)
    return _gradients(blocks.reshape(count, b_out, b_in, m, m), level).flatten(2)  # [s, r]: matrices are transposed


def _gradients(blocks: Tensor, level: int) -> Tensor:
    count, m = blocks.shape[0], blocks.shape[-1]
    if count == 1:
        low, above = diagonal_pairs(blocks)
        return low + above
    low, above = diagonal_pairs(blocks[:2])
    found = torch.stack([low[0] + above[0], low[1] - above[1]])
    if count == 2:
        return found
    q = m // 2
    parts = blocks[2:].unflatten(-1, (2, q)).unflatten(-3, (2, q))  # (..., re or im of s, s, re or im of r, r)
    re = parts[..., 0, :, 0, :] + parts[..., 1, :, 1, :]
    im = parts[..., 0, :, 1, :] - parts[..., 1, :, 0, :]
    low, above = diagonal_pairs(torch.stack([re, im]))
    re, im = _turned(above[0], above[1], level, -1)
    return torch.cat([found, torch.cat([low[0] + re, low[1] + im], dim=-1)])
