r"""Sizes of a block-circulant matrix, and its dense parts made of plain copies.

A grid of ``b_out x b_in`` circulants of size n is kept as ``(b_out, b_in, n)`` numbers. Dense matrices are made by
repeating a periodic sequence and reading it in rows one element shorter than its period: every row is the one before,
turned by one. Nothing but views and copies, so the backward pass is sums in a fixed order: deterministic, and real
under ``torch.compile``. (A gather by an index table would bring a scatter-add there.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = [
    "block_sizes",
    "check_block_circulant",
    "diagonal_means",
    "diagonal_pairs",
    "diagonal_sums",
    "sizes",
    "toeplitz",
    "toeplitz_blocks",
    "transposed",
]


def sizes(tensor: Tensor) -> tuple[int, ...]:
    """A tensor's sizes as plain numbers, where ``torch.jit.trace`` would give tensors: for sizes that are constants.

    Sizes of weights and channels are; how many rows there are is not, and is to be asked of ``tensor.shape``.
    """
    if not torch.jit.is_tracing():
        return tuple(tensor.shape)
    bindings: Any = torch._C  # the setter is in no stub
    state = bindings._get_tracing_state()
    bindings._set_tracing_state(None)
    try:
        return tuple(tensor.shape)
    finally:
        bindings._set_tracing_state(state)


def block_sizes(in_features: int, out_features: int, num_blocks: int) -> tuple[int, int, int]:
    """Numbers of blocks ``(b_out, b_in)`` and their size n: b blocks along the smaller side.

    Raises:
        UserError: If the blocks do not fill both sides; names the numbers.
    """
    for name, value in (("in_features", in_features), ("out_features", out_features), ("block", num_blocks)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    small = min(in_features, out_features)
    if small % num_blocks:
        fits = [b for b in range(1, small + 1) if small % b == 0][:12]
        raise UserError(
            f"block={num_blocks} (a number of circulants, not their size) must divide the width {small}; "
            f"such are {', '.join(map(str, fits))}"
        )
    n = small // num_blocks
    if in_features % n or out_features % n:
        raise UserError(
            f"in_features={in_features} and out_features={out_features} must both be multiples of the circulants' size "
            f"{n} = {small} / block={num_blocks}"
        )
    return out_features // n, in_features // n, n


def check_block_circulant(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check that ``y = x Theta^T + bias`` can be computed.

    Raises:
        UserError: Naming what does not fit and what would.
    """
    if weight.ndim != 3:
        raise UserError(f"weight must have the shape (b_out, b_in, n), got {tuple(weight.shape)}")
    if not x.is_floating_point():
        raise UserError(f"x must be floating point, got {x.dtype}; convert it, e.g. with .float()")
    b_out, b_in, n = sizes(weight)
    width, rows = b_in * n, b_out * n
    if x.ndim < 1 or sizes(x)[-1] != width:
        raise UserError(f"x must have {width} channels in its last dimension, got shape {tuple(x.shape)}")
    if bias is not None and sizes(bias) != (rows,):
        raise UserError(f"bias must have the shape ({rows},), got {tuple(bias.shape)}")


def toeplitz_blocks(weight: Tensor, above: Tensor) -> Tensor:
    """Toeplitz matrices with entries ``weight[r - s]`` for r >= s and ``above[r - s + n]`` above the diagonal.

    Args:
        weight: ``(..., n)``.
        above: Likewise; its first number is not used.

    Returns:
        ``(..., n, n)``.
    """
    *lead, n = sizes(weight)
    if n == 1:
        return weight.unsqueeze(-1)
    # The sequence weight, above has period 2n; read backwards, row r begins r elements earlier.
    backwards = torch.cat([weight[..., :1], above.flip(-1), weight[..., 1:].flip(-1)], dim=-1)
    repeated = backwards.unsqueeze(-2).expand(*lead, n, 2 * n).reshape(*lead, 2 * n * n)
    return repeated[..., : n * (2 * n - 1)].unflatten(-1, (n, 2 * n - 1))[..., :n]


def diagonal_pairs(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The adjoint of :func:`toeplitz_blocks`, for matrices with columns first.

    Args:
        matrix: ``(..., n, n)``, entry ``[s, r]`` belonging to row r and column s.

    Returns:
        Sums along the diagonals, of the weight and of what is above: ``(..., n)`` each.
    """
    n = matrix.shape[-1]
    # In rows of 2n numbers, of which the matrix is the second half, diagonals lie 2n + 1 apart.
    padded = torch.nn.functional.pad(matrix, (n, 0)).flatten(-2)
    padded = torch.nn.functional.pad(padded, (0, n))
    lead = padded.shape[:-1]
    turned = padded.reshape(-1, padded.shape[-1])
    sums = turned.as_strided((turned.shape[0], n, 2 * n), (turned.shape[1], 2 * n + 1, 1)).sum(dim=1)
    return sums[:, n:].reshape(*lead, n), sums[:, :n].reshape(*lead, n)


def toeplitz(weight: Tensor, sign: int = 1) -> Tensor:
    """Dense matrix of circulant (``sign=1``) or skew-circulant (``sign=-1``) blocks.

    Block entries are ``w[r - s]`` for r >= s and ``sign * w[r - s + n]`` above the diagonal.

    Args:
        weight: ``(b_out, b_in, n)``.
        sign: 1 or -1.

    Returns:
        ``(b_out n, b_in n)``.
    """
    b_out, b_in, n = sizes(weight)
    blocks = toeplitz_blocks(weight, weight if sign == 1 else -weight)
    return blocks.permute(0, 2, 1, 3).reshape(b_out * n, b_in * n)


def transposed(weight: Tensor) -> Tensor:
    """Weights of the transposed matrix: blocks swapped, indices backwards."""
    return torch.cat([weight[..., :1], weight[..., 1:].flip(-1)], dim=-1).transpose(0, 1)


def diagonal_sums(matrix: Tensor, b_out: int, b_in: int, sign: int = 1) -> Tensor:
    """The adjoint of :func:`toeplitz`: sums along wrapped diagonals, where they wrap times ``sign``.

    Args:
        matrix: ``(b_out n, b_in n)``.
        b_out: Blocks of rows.
        b_in: Blocks of columns.
        sign: 1 or -1.

    Returns:
        ``(b_out, b_in, n)``.
    """
    n = matrix.shape[0] // b_out
    blocks = matrix.reshape(b_out, n, b_in, n).permute(0, 2, 1, 3)
    r = torch.arange(n, device=matrix.device)
    distance = r[:, None] - r[None, :]  # [r, k] -> s, below 0 where the diagonal wraps
    entries = blocks.gather(3, (distance % n).expand(b_out, b_in, n, n))
    return (entries if sign == 1 else torch.where(distance < 0, -entries, entries)).sum(dim=2)


def diagonal_means(matrix: Tensor, b_out: int, b_in: int) -> Tensor:
    """Weights ``(b_out, b_in, n)`` of the nearest block-circulant matrix: means along the blocks' wrapped diagonals."""
    return diagonal_sums(matrix, b_out, b_in) / (matrix.shape[0] // b_out)
