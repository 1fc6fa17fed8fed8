r"""Products with block-circulant matrices by real matrix products: the Chinese remainder theorem on x^n - 1.

A circulant product is one of polynomials modulo :math:`x^n - 1 = (x^{n/2} - 1)(x^{n/2} + 1)`, so it splits into a
circulant and a skew-circulant product of half the size, for a few additions (x0, x1 are the halves of a chunk):

- inputs :math:`s = x_0 + x_1`, :math:`t = x_0 - x_1`; weights :math:`u = (w_0 + w_1)/2`, :math:`v = (w_0 - w_1)/2`;
- :math:`y_s = circ(u)\,s` (split again), :math:`y_t = skew(v)\,t`;
- outputs :math:`y_0 = y_s + y_t`, :math:`y_1 = y_s - y_t`.

The chunks of all blocks lie side by side, so each level is one plain matrix product. Multiply-adds relative to the
dense matrix: 1/2, 3/8, 11/32 for 1, 2, 3 levels. Sums and differences are formed in float32 for 16-bit products and
rounded once. The bias is split like a weight and so costs nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from augshortcut.ops.activations import unobserved
from augshortcut.ops.layout import toeplitz

__all__ = ["CrtParts", "crt_apply", "crt_parts"]


class CrtParts(NamedTuple):
    """A block-circulant matrix, split.

    Attributes:
        matrices: Of the smallest circulants, then skew-circulant ones of growing size, ``(b_out m, b_in m)`` each.
        biases: The bias, split alike, or ``None`` for each.
        b_out: Blocks of outputs.
        b_in: Blocks of inputs.
    """

    matrices: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    b_out: int
    b_in: int

    @property
    def level(self) -> int:
        """How often it was split."""
        return len(self.matrices) - 1


def crt_parts(weight: Tensor, bias: Tensor | None, level: int, dtype: torch.dtype) -> CrtParts:
    """Split weights and bias.

    Args:
        weight: ``(b_out, b_in, n)``; n must be divisible by ``2 ** level``.
        bias: ``(b_out n,)``.
        level: Splits.
        dtype: Of the products.
    """
    b_out, b_in, n = weight.shape
    w = weight if weight.dtype in (torch.float32, torch.float64) else weight.float()
    b = None if bias is None else bias.to(w.dtype).view(b_out, n)
    matrices: list[Tensor] = []
    biases: list[Tensor | None] = []
    for _ in range(level):
        w0, w1 = w.chunk(2, dim=-1)
        matrices.append(toeplitz((w0 - w1) * 0.5, -1).to(dtype))
        w = (w0 + w1) * 0.5
        if b is None:
            biases.append(None)
        else:
            b0, b1 = b.chunk(2, dim=-1)
            biases.append(((b0 - b1) * 0.5).reshape(-1).to(dtype))
            b = (b0 + b1) * 0.5
    matrices.append(toeplitz(w).to(dtype))
    biases.append(None if b is None else b.reshape(-1).to(dtype))
    return CrtParts(tuple(matrices[::-1]), tuple(biases[::-1]), b_out, b_in)


def _linear(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    x = x.to(matrix.dtype)
    return x @ matrix.t() if bias is None else torch.addmm(bias, x, matrix.t())


def _apply(x: Tensor, parts: CrtParts, level: int) -> Tensor:
    """Chunks ``(rows, b_in, m)`` to chunks ``(rows, b_out, m)``."""
    rows, _, m = x.shape
    matrix, bias = parts.matrices[level], parts.biases[level]
    if level == 0:
        return _linear(x.flatten(1), matrix, bias).view(rows, parts.b_out, m)
    x0, x1 = x[..., : m // 2], x[..., m // 2 :]
    yt = _linear((x0 - x1).flatten(1), matrix, bias).view(rows, parts.b_out, m // 2)
    ys = _apply(x0 + x1, parts, level - 1)
    if yt.dtype in (torch.float16, torch.bfloat16):
        yt = yt.float()
    if not unobserved(ys):
        return torch.stack((ys + yt, ys - yt), dim=2).view(rows, parts.b_out, m)
    out = torch.empty(rows, parts.b_out, m, dtype=torch.promote_types(ys.dtype, yt.dtype), device=x.device)
    torch.add(ys, yt, out=out[..., : m // 2])
    torch.sub(ys, yt, out=out[..., m // 2 :])
    return out


def crt_apply(x: Tensor, parts: CrtParts) -> Tensor:
    """``x Theta^T + bias`` for rows ``(rows, b_in n)``, in the type of the parts: ``(rows, b_out n)``."""
    dtype = parts.matrices[0].dtype
    low = dtype in (torch.float16, torch.bfloat16)
    chunks = (x.float() if low else x).view(x.shape[0], parts.b_in, x.shape[1] // parts.b_in)
    return _apply(chunks, parts, parts.level).flatten(1).to(dtype)
