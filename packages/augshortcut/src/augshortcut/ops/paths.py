"""The paths of a sub-layer on tensors: ``sum_t gate_t act(Theta_t y + beta_t)`` with block-circulant Theta."""

from __future__ import annotations

import torch
from torch import Tensor

from augshortcut.ops.activations import ACTIVATIONS, IN_PLACE, unobserved
from augshortcut.ops.crt import CrtParts, crt_parts, outputs, splitted, whole
from augshortcut.ops.layout import sizes

__all__ = ["activated_sum", "gated_sum", "paths_torch", "paths_with_parts", "placed_gate"]


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
    return z[..., 0, :] if sizes(z)[-2] == 1 else z.sum(dim=-2)


def placed_gate(gate: Tensor, pre: Tensor) -> Tensor:
    """A gate ``(T, 1)`` or ``(T, d)`` as it is multiplied with ``(rows, p, T, b, e)``."""
    _, p, paths, b, e = sizes(pre)
    gate = gate.to(pre.dtype)
    return gate.view(paths, 1, 1) if sizes(gate)[1] == 1 else gate.view(paths, b, p, e).permute(2, 0, 1, 3)


def activated_sum(pre: Tensor, gate: Tensor | None, act: str, *, keep: bool = False) -> Tensor:
    """:func:`gated_sum` of pre-activations in pieces.

    Args:
        pre: ``(rows, p, T, b, e)``, see :func:`~augshortcut.ops.crt.joined`.
        gate: See :func:`gated_sum`.
        act: Likewise.
        keep: Whether ``pre`` will be read again.

    Returns:
        ``(rows, d)``.
    """
    rows, (_, p, paths, b, e) = pre.shape[0], sizes(pre)
    ours = unobserved(pre)
    z = IN_PLACE[act](pre) if ours and not keep else ACTIVATIONS[act](pre)
    if gate is not None:
        z = z * placed_gate(gate, pre)
    if paths == 1:
        return whole(z.squeeze(2))
    if not ours:
        return whole(z.sum(dim=2))
    out = z.new_empty(rows, b, p, e)
    place, (first, second, *others) = out.transpose(1, 2), z.unbind(2)
    torch.add(first, second, out=place)
    for other in others:
        place.add_(other)
    return out.view(rows, b * p * e)


def paths_with_parts(y: Tensor, parts: CrtParts, num_paths: int, gate: Tensor | None, act: str) -> Tensor:
    """The sum of all paths, from the parts of all their matrices stacked along the outputs.

    Args:
        y: ``(..., d)``.
        parts: Of the ``(T b, b, n)`` weights and ``(T d,)`` biases.
        num_paths: T.
        gate: See :func:`gated_sum`.
        act: Likewise.
    """
    leaves = splitted(y.reshape(-1, y.shape[-1]), parts.b_in, parts.level, parts.matrices.dtype)
    pre = outputs(leaves, parts, num_paths)
    out = activated_sum(pre, gate, act)
    return out.view(*y.shape[:-1], out.shape[-1])


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
