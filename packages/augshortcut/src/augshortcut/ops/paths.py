"""The paths of a sub-layer on tensors: ``sum_t gate_t act(Theta_t y + beta_t)`` with block-circulant Theta."""

from __future__ import annotations

import torch
from torch import Tensor

from augshortcut.ops.activations import ACTIVATIONS, IN_PLACE, unobserved
from augshortcut.ops.crt import CrtParts, crt_apply, crt_parts

__all__ = ["gated_sum", "paths_torch", "paths_with_parts"]


def gated_sum(pre: Tensor, gate: Tensor | None, act: str) -> Tensor:
    """Activate, scale and add up paths.

    Args:
        pre: ``(..., T, d)``.
        gate: ``(T, 1)`` or ``(T, d)``, or ``None``.
        act: Name of the activation.

    Returns:
        ``(..., d)``.
    """
    z = ACTIVATIONS[act](pre)
    if gate is not None:
        z = z * gate.to(z.dtype)
    return z[..., 0, :] if z.shape[-2] == 1 else z.sum(dim=-2)


def paths_with_parts(y: Tensor, parts: CrtParts, num_paths: int, gate: Tensor | None, act: str) -> Tensor:
    """The sum of all paths, from the parts of all their matrices stacked along the outputs.

    Args:
        y: ``(..., d)``.
        parts: Of the ``(T b, b, n)`` weights and ``(T d,)`` biases.
        num_paths: T.
        gate: See :func:`gated_sum`.
        act: Likewise.
    """
    pre = crt_apply(y.reshape(-1, y.shape[-1]), parts)
    pre = pre.view(*y.shape[:-1], num_paths, pre.shape[-1] // num_paths)
    if not unobserved(pre):
        return gated_sum(pre, gate, act)
    z = IN_PLACE[act](pre)  # its memory is ours
    if gate is not None:
        z *= gate.to(z.dtype)
    first, *others = z.unbind(-2)
    for other in others:
        first = first + other
    return first


def paths_torch(
    y: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor | None, act: str, dtype: torch.dtype, level: int
) -> Tensor:
    """The sum of all paths, from their weights.

    Args:
        y: ``(..., d)``.
        weight: ``(T, b_out, b_in, n)``.
        bias: ``(T, d)``.
        gate: See :func:`gated_sum`.
        act: Likewise.
        dtype: Of the products.
        level: Splits.
    """
    parts = crt_parts(weight.flatten(0, 1), None if bias is None else bias.flatten(), level, dtype)
    return paths_with_parts(y, parts, weight.shape[0], gate, act)
