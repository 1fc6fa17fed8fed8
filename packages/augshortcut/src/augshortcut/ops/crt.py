r"""Products with block-circulant matrices by real matrix products of a fraction of the size, exactly.

Inputs, weights and bias are split by :mod:`~augshortcut.ops.butterflies`; the leaves of all chunks lie side by side, so
that all products of a level are one batched matrix product; and the outputs are put together again. Multiply-adds
relative to the dense matrix: 1/2, 1/4, 1/8 for 1, 2, 3 levels. Sums and differences are formed in float32 for 16-bit
products and rounded once. The bias is split like a weight and so costs nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from augshortcut.ops.activations import unobserved
from augshortcut.ops.butterflies import join, split
from augshortcut.ops.flat import join_flat, split_flat
from augshortcut.ops.rings import ring_matrices

__all__ = ["CrtParts", "crt_apply", "crt_parts", "joined", "product", "splitted", "whole"]


class CrtParts(NamedTuple):
    """A block-circulant matrix, split.

    Attributes:
        matrices: One a leaf, ``(2 ** level, g b_in e, g b_out e)``, to be multiplied from the right.
        biases: The bias, split alike, ``(2 ** level, 1, g b_out e)``, or ``None``.
        b_out: Blocks of outputs.
        b_in: Blocks of inputs.
    """

    matrices: Tensor
    biases: Tensor | None
    b_out: int
    b_in: int

    @property
    def level(self) -> int:
        """How often it was split."""
        return self.matrices.shape[0].bit_length() - 1


def crt_parts(weight: Tensor, bias: Tensor | None, level: int, dtype: torch.dtype) -> CrtParts:
    """Split weights and bias.

    Args:
        weight: ``(b_out, b_in, n)``; see :func:`~augshortcut.ops.butterflies.most_levels`.
        bias: ``(b_out n,)``.
        level: Splits.
        dtype: Of the products.
    """
    b_out, b_in, n = weight.shape
    w = weight if weight.dtype in (torch.float32, torch.float64) else weight.float()
    matrices = ring_matrices(split(w, level) * 0.5**level, level, b_in).to(dtype)
    biases = None
    if bias is not None:
        biases = (split(bias.to(w.dtype).view(1, b_out, n), level) * 0.5**level).to(dtype)
    return CrtParts(matrices, biases, b_out, b_in)


def splitted(x: Tensor, chunks: int, level: int, dtype: torch.dtype) -> Tensor:
    """Rows ``(rows, chunks n)`` to leaves ``(2 ** level, rows, g chunks e)`` of a type."""
    if level == 0:
        return x.to(dtype).unsqueeze(0)
    exact = (x.float() if dtype in (torch.float16, torch.bfloat16) else x).view(
        x.shape[0], chunks, x.shape[1] // chunks
    )
    return (split_flat(exact, level) if unobserved(x) else split(exact, level)).to(dtype)


def joined(z: Tensor, chunks: int, paths: int = 1) -> Tensor:
    """The transpose of :func:`splitted`, of the leaves' type.

    Args:
        z: Leaves ``(2 ** level, rows, g chunks e)``.
        chunks: How many, of all paths.
        paths: How many paths they are of.

    Returns:
        ``(rows, p, paths, chunks / paths, e)``: whole chunks (p = 1) of one path or where the computation is recorded,
        else pieces side by side, which :func:`whole` puts together.
    """
    exact = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    count, rows, width = z.shape
    n = count * width // chunks
    level = count.bit_length() - 1
    if level == 0 or not unobserved(z):
        found = exact[0] if level == 0 else join(exact, chunks, level)
        return found.reshape(rows, 1, paths, chunks // paths, n).to(z.dtype)
    found = join_flat(exact, chunks, as_tokens=paths == 1)
    if paths == 1:
        return found.view(rows, 1, 1, chunks, n).to(z.dtype)
    return found.unflatten(2, (paths, -1)).to(z.dtype)


def whole(x: Tensor) -> Tensor:
    """Chunks in pieces ``(rows, p, b, e)`` as tokens ``(rows, b p e)``."""
    rows, p, b, e = x.shape
    return x.transpose(1, 2).reshape(rows, b * p * e)


def product(leaves: Tensor, parts: CrtParts) -> Tensor:
    """All products of the leaves: ``(2 ** level, rows, g b_in e)`` to ``(2 ** level, rows, g b_out e)``."""
    matrices, biases = parts.matrices, parts.biases
    if matrices.shape[0] == 1:
        out = leaves[0] @ matrices[0] if biases is None else torch.addmm(biases[0, 0], leaves[0], matrices[0])
        return out.unsqueeze(0)
    return torch.bmm(leaves, matrices) if biases is None else torch.baddbmm(biases, leaves, matrices)


def crt_apply(x: Tensor, parts: CrtParts) -> Tensor:
    """``x Theta^T + bias`` for rows ``(rows, b_in n)``, in the type of the parts: ``(rows, b_out n)``."""
    leaves = splitted(x, parts.b_in, parts.level, parts.matrices.dtype)
    return joined(product(leaves, parts), parts.b_out).flatten(1)
