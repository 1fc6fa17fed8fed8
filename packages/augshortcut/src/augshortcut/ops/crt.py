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
from augshortcut.ops.butterflies import join, joining, pieces, split
from augshortcut.ops.flat import join_flat, split_flat
from augshortcut.ops.layout import sizes, toeplitz
from augshortcut.ops.rings import ring_matrices

__all__ = [
    "CrtParts",
    "crt_apply",
    "crt_parts",
    "join_rows",
    "joined",
    "outputs",
    "product",
    "split_pre",
    "splitted",
    "whole",
]


class CrtParts(NamedTuple):
    """A block-circulant matrix, split.

    Attributes:
        matrices: One a leaf, ``(2 ** level, b_in m, g b_out e)``, to be multiplied from the right.
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
        return sizes(self.matrices)[0].bit_length() - 1


def crt_parts(weight: Tensor, bias: Tensor | None, level: int, dtype: torch.dtype) -> CrtParts:
    """Split weights and bias.

    Args:
        weight: ``(b_out, b_in, n)``; see :func:`~augshortcut.ops.butterflies.most_levels`.
        bias: ``(b_out n,)``.
        level: Splits.
        dtype: Of the products.
    """
    b_out, b_in, n = sizes(weight)
    w = weight if weight.dtype in (torch.float32, torch.float64) else weight.float()
    if level == 0:
        return CrtParts(
            toeplitz(w).t().to(dtype).unsqueeze(0), None if bias is None else bias.to(dtype).view(1, 1, -1), b_out, b_in
        )
    scale = 0.5**level
    matrices = ring_matrices(splitted(w.reshape(b_out, b_in * n), b_in, level, w.dtype) * scale, level, b_in).to(dtype)
    biases = None
    if bias is not None:
        rows = bias.to(w.dtype).view(1, 1, 1, b_out, n)
        leaves = split_pre(rows, level) if unobserved(bias) else split(rows.flatten(0, 2), level, tokens=False)
        biases = (leaves * scale).to(dtype)
    return CrtParts(matrices, biases, b_out, b_in)


def _exact(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def splitted(x: Tensor, chunks: int, level: int, dtype: torch.dtype) -> Tensor:
    """Rows ``(rows, chunks n)`` to leaves ``(2 ** level, rows, chunks m)`` of a type, in the order of tokens."""
    if level == 0:
        return x.to(dtype).unsqueeze(0)
    exact = _exact(x).reshape(x.shape[0], chunks, sizes(x)[1] // chunks)
    if not unobserved(x):
        return split(exact, level).to(dtype)
    seen = exact.unflatten(2, (pieces(level), -1)).transpose(1, 2)
    return split_flat(seen, level, tokens=True).to(dtype)


def split_pre(x: Tensor, level: int) -> Tensor:
    """Gradients of pre-activations, ``(rows, p, paths, b, e)`` of :func:`joined`, to leaves in the order of pieces."""
    rows, p, paths, b, e = x.shape
    if level == 0:
        return x.reshape(1, rows, paths * b * e)
    seen = _exact(x).reshape(rows, p, paths * b, e)
    if p == 1:
        seen = seen.squeeze(1).unflatten(2, (pieces(level), -1)).transpose(1, 2)
    return split_flat(seen, level, tokens=False).to(x.dtype)


def joined(z: Tensor, chunks: int, paths: int = 1) -> Tensor:
    """Leaves of outputs, in the order of pieces, to the outputs; of the leaves' type.

    Args:
        z: ``(2 ** level, rows, g chunks e)``.
        chunks: How many, of all paths.
        paths: How many paths they are of.

    Returns:
        ``(rows, p, paths, chunks / paths, e)``: whole chunks (p = 1) of one path or where the computation is recorded,
        else pieces side by side, which :func:`whole` puts together.
    """
    count, rows, width = sizes(z)[0], z.shape[1], sizes(z)[2]
    level, n = count.bit_length() - 1, count * width // chunks
    exact = _exact(z)
    if level == 0 or not unobserved(z):
        found = exact[0] if level == 0 else join(exact, chunks, level, tokens=False)
        return found.reshape(rows, 1, paths, chunks // paths, n).to(z.dtype)
    found = join_flat(exact, chunks, tokens=False, out_tokens=paths == 1)
    if paths == 1:
        return found.transpose(1, 2).reshape(rows, 1, 1, chunks, n).to(z.dtype)
    return found.unflatten(2, (paths, -1)).to(z.dtype)


def join_rows(z: Tensor, chunks: int) -> Tensor:
    """The transpose of :func:`splitted`, for gradients: leaves in the order of tokens to rows ``(rows, chunks n)``."""
    count, rows, width = z.shape
    if count == 1:
        return z[0]
    found = join_flat(_exact(z), chunks, tokens=True, out_tokens=True)
    return found.transpose(1, 2).reshape(rows, count * width).to(z.dtype)


def whole(x: Tensor) -> Tensor:
    """Chunks in pieces ``(rows, p, b, e)`` as tokens ``(rows, b p e)``."""
    rows, p, b, e = x.shape
    return x.transpose(1, 2).reshape(rows, b * p * e)


def product(leaves: Tensor, parts: CrtParts) -> Tensor:
    """All products of the leaves: ``(2 ** level, rows, b_in m)`` to ``(2 ** level, rows, g b_out e)``."""
    matrices, biases = parts.matrices, parts.biases
    if sizes(matrices)[0] == 1:
        out = leaves[0] @ matrices[0] if biases is None else torch.addmm(biases[0, 0], leaves[0], matrices[0])
        return out.unsqueeze(0)
    return torch.bmm(leaves, matrices) if biases is None else torch.baddbmm(biases, leaves, matrices)


def outputs(leaves: Tensor, parts: CrtParts, paths: int = 1) -> Tensor:
    """Leaves of inputs to outputs: :func:`product`, :func:`joined`.

    At inference on a CPU the additions that join pieces are done as one product with a matrix of 8 x 8 (two levels):
    one pass over memory instead of six. Pieces are then one after the other in memory.

    Args:
        leaves: ``(2 ** level, rows, b_in m)``.
        parts: Of the matrices of all paths.
        paths: How many.

    Returns:
        ``(rows, p, paths, b_out / paths, e)``, see :func:`joined`.
    """
    level, matrices, biases = parts.level, parts.matrices, parts.biases
    # Whoever counts or watches operators is shown the additions, which are the same everywhere.
    watched = not all(map(unobserved, (leaves, matrices, matrices if biases is None else biases)))
    watched = watched or torch._C._len_torch_dispatch_stack() > 0
    if level == 0 or leaves.device.type != "cpu" or watched:
        return joined(product(leaves, parts), parts.b_out, paths)
    count, rows, width = leaves.shape
    total = pieces(level)
    g = total // count
    z = leaves.new_empty(count, g, rows, matrices.shape[2] // g)
    for i in range(count):  # one leaf for all its pieces, without copies of it
        leaf, matrix = leaves[i].expand(g, rows, width), matrices[i].unflatten(-1, (g, -1)).transpose(0, 1)
        if biases is None:
            torch.bmm(leaf, matrix, out=z[i])
        else:
            torch.baddbmm(biases[i].unflatten(-1, (g, -1)).transpose(0, 1), leaf, matrix, out=z[i])
    exact = _exact(z).view(total, rows * z.shape[3])
    with torch.autocast("cpu", enabled=False):
        found = joining(level, exact.dtype) @ exact
    return found.view(total, rows, paths, parts.b_out // paths, z.shape[3] // parts.b_out).transpose(0, 1).to(z.dtype)


def crt_apply(x: Tensor, parts: CrtParts) -> Tensor:
    """``x Theta^T + bias`` for rows ``(rows, b_in n)``, in the type of the parts: ``(rows, b_out n)``."""
    leaves = splitted(x, parts.b_in, parts.level, parts.matrices.dtype)
    return whole(outputs(leaves, parts).squeeze(2))
