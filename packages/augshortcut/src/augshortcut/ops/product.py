"""Products with block-circulant matrices, and the one place that chooses how.

- ``crt``: real matrix products of half sizes (:mod:`~augshortcut.ops.crt`); what ``auto`` takes.
- ``dense``: one product with the dense matrix; what ``auto`` takes where blocks are odd and cannot be halved.
- ``fft``: float32 FFTs, for comparison.
- ``triton``: one kernel with a level of ``crt`` inside; asked for by name only, since its speed is not measured yet.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from augshortcut.ops.butterflies import most_levels
from augshortcut.ops.crt import CrtParts, crt_apply, crt_parts
from augshortcut.ops.fft import fft_apply
from augshortcut.ops.layout import check_block_circulant, sizes
from augshortcut.ops.names import BACKENDS
from augshortcut.ops.paths_triton import activated_paths
from effkit.errors import UserError, choose
from effkit.notes import say_once

__all__ = ["block_circulant", "materialise", "product_dtype", "resolve", "with_parts"]


def product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """Type of the products: autocast's if it is on, else that of ``x``, which the weights must have too.

    Raises:
        UserError: If they do not.
    """
    kind = x.device.type
    if kind in ("cpu", "cuda", "mps", "xpu") and torch.is_autocast_enabled(kind):  # "meta" would raise
        return torch.get_autocast_dtype(kind) if x.dtype != torch.float64 else x.dtype
    if weight.dtype != x.dtype:
        raise UserError(f"x and weight must have one type, got {x.dtype} and {weight.dtype}; convert one, or autocast")
    return x.dtype


@torch.compiler.assume_constant_result
def _say(line: str) -> None:
    say_once(line, __name__, logging.INFO)


def resolve(backend: str, n: int, level: int | None = None) -> tuple[str, int]:
    """Which implementation runs, and how often it splits.

    Args:
        backend: One of :data:`~augshortcut.ops.names.BACKENDS`.
        n: Size of the circulants.
        level: Splits asked for by name; ``None`` for at most 2, as often as n allows.

    Raises:
        UserError: If the backend is unknown, or cannot split so often.
    """
    choose("backend", backend, BACKENDS)
    possible = most_levels(n)
    if backend == "triton" and possible < 1:
        raise UserError(f"backend='triton' needs circulants of an even size, got {n}; use backend='auto' or 'dense'")
    if backend == "crt" and level is not None and level > possible:
        raise UserError(
            f"crt_level={level} needs circulants whose size is a multiple of {2 ** (level + (level > 1))}, got {n}; "
            f"use at most crt_level={possible}"
        )
    if backend in ("fft", "dense"):
        return backend, 0
    if backend == "triton":
        return backend, 1
    level = min(2 if level is None else level, possible)
    if backend == "auto":
        _say(f"circulants of size {n}: backend {f'crt, level {level}' if level else 'dense'}")
    return "crt", level


def materialise(weight: Tensor, bias: Tensor | None, level: int, dtype: torch.dtype) -> CrtParts:
    """Dense parts for :func:`with_parts`; with ``level=0`` the one dense matrix."""
    return crt_parts(weight, bias, level, dtype)


def with_parts(x: Tensor, parts: CrtParts) -> Tensor:
    """``x Theta^T + bias`` from parts: ``(..., in) -> (..., out)``."""
    rows = crt_apply(x.reshape(-1, x.shape[-1]), parts)
    return rows.view(*x.shape[:-1], rows.shape[-1])


def block_circulant(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto", level: int | None = None
) -> Tensor:
    r"""``y = x Theta^T + bias``: :math:`y_i = \sum_j w_{ij} \circledast x_j + \beta_i`.

    Differentiable twice with every backend but ``triton`` (once). Under autocast products run in its type.

    Args:
        x: ``(..., b_in n)``; any of the leading sizes may be 0.
        weight: ``(b_out, b_in, n)``: first columns of the circulants.
        bias: ``(b_out n,)``.
        backend: ``auto``, ``crt``, ``dense``, ``fft`` or ``triton``.
        level: Splits of ``crt``; 2, or as often as n allows, if not given.

    Returns:
        ``(..., b_out n)``.

    Raises:
        UserError: If shapes or types do not fit, or a backend asked for by name cannot run.

    Example:
        >>> weight = torch.arange(16.0).view(2, 2, 4)
        >>> block_circulant(torch.eye(8)[0], weight)
        tensor([ 0.,  1.,  2.,  3.,  8.,  9., 10., 11.])
    """
    check_block_circulant(x, weight, bias)
    chosen, level = resolve(backend, sizes(weight)[2], level)
    dtype = product_dtype(x, weight)
    if chosen == "fft":
        y = fft_apply(x.reshape(-1, x.shape[-1]), weight, bias, dtype)
        return y.view(*x.shape[:-1], y.shape[-1])
    if chosen == "triton":
        return activated_paths(x, weight[None], None if bias is None else bias[None], None, "identity", dtype)
    return with_parts(x, materialise(weight, bias, level, dtype))
