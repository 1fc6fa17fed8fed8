"""The paths of a sub-layer with a backward pass of our own: a fraction of the products, and few passes over memory.

Plain autograd records every sum of the butterflies and keeps what each of them read. Here the forward pass keeps the
split input and the pre-activations, and the backward pass uses that splitting and joining are each other's transposes.
Deterministic: products and sums in a fixed order. Differentiated once more, it is recorded by plain autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from augshortcut.ops.activations import ACTIVATIONS, SLOPES
from augshortcut.ops.crt import crt_parts, join_rows, joined, product, split_pre, splitted
from augshortcut.ops.paths import activated_sum, paths_torch, placed_gate
from augshortcut.ops.rings import ring_gradients

__all__ = ["can_record", "recorded_paths"]


def can_record(*tensors: Tensor | None) -> bool:
    """Whether gradients of these tensors and nothing else are asked for: no tracing, no transforms, no tangents."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    given = [t for t in tensors if t is not None]
    return any(t.requires_grad for t in given) and all(
        type(t) in (Tensor, torch.nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(t)
        and not t._is_zerotensor()
        and not _has_tangent(t)
        for t in given
    )


def _has_tangent(tensor: Tensor) -> bool:
    return torch.autograd.forward_ad._current_level >= 0 and unpack_dual(tensor).tangent is not None


class _Recorded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gate: Tensor | None,
        act: str,
        dtype: torch.dtype,
        level: int,
    ) -> Tensor:
        paths, b_out, b_in, n = weight.shape
        parts = crt_parts(weight.flatten(0, 1), None if bias is None else bias.flatten(), level, dtype)
        leaves = splitted(y.reshape(-1, y.shape[-1]), b_in, level, dtype)
        pre = joined(product(leaves, parts), paths * b_out, paths)
        ctx.save_for_backward(y, weight, bias, gate, leaves, parts.matrices, pre)
        ctx.how = act, dtype, level
        return activated_sum(pre, gate, act, keep=True).view(*y.shape[:-1], b_out * n)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        y, weight, bias, gate, leaves, matrices, pre = ctx.saved_tensors
        act, dtype, level = ctx.how
        (grad,) = grads
        inputs = [y, weight, bias, gate]
        needed = [t for t, need in zip(inputs, ctx.needs_input_grad, strict=False) if need and t is not None]
        if torch.is_grad_enabled():  # the gradient will be differentiated
            out = paths_torch(y, weight, bias, gate, act, dtype, level)
            found = iter(torch.autograd.grad(out, needed, grad, create_graph=True))
        else:
            found = iter(
                _gradients(grad, y, weight, bias, gate, leaves, matrices, pre, act, level, ctx.needs_input_grad)
            )
        return (*(next(found) if need else None for need in ctx.needs_input_grad[:4]), None, None, None)


def _gradients(
    grad: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    leaves: Tensor,
    matrices: Tensor,
    pre: Tensor,
    act: str,
    level: int,
    needed: tuple[bool, ...],
) -> list[Tensor]:
    """Gradients of the tensors that need one, in their order."""
    _, p, paths, b_out, e = pre.shape
    b_in = weight.shape[2]
    outer = grad.reshape(-1, b_out, p, e).transpose(1, 2).contiguous().unsqueeze(2)
    inner = outer if gate is None else outer * placed_gate(gate, pre)
    inner = SLOPES[act](inner.expand(pre.shape), pre)
    found = []
    if needed[0] or needed[1]:
        split_grad = split_pre(inner, level)
    if needed[0]:
        found.append(join_rows(torch.bmm(split_grad, matrices.transpose(1, 2)), b_in).view(y.shape).to(y.dtype))
    if needed[1]:
        products = torch.bmm(leaves.transpose(1, 2), split_grad)
        exact = products if products.dtype == torch.float64 else products.float()
        sums = ring_gradients(exact, level, paths * b_out, b_in) * 0.5**level
        found.append(join_rows(sums, b_in).view(weight.shape).to(weight.dtype))
    if needed[2] and bias is not None:
        found.append(_by_path(inner.sum(dim=0)).to(bias.dtype))
    if needed[3] and gate is not None:
        each = _by_path((ACTIVATIONS[act](pre) * outer).sum(dim=0))
        found.append((each.sum(dim=1, keepdim=True) if gate.shape[1] == 1 else each).to(gate.dtype))
    return found


def _by_path(x: Tensor) -> Tensor:
    """Sums ``(p, T, b, e)`` as ``(T, d)``."""
    return x.permute(1, 2, 0, 3).flatten(1)


def recorded_paths(
    y: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor | None, act: str, dtype: torch.dtype, level: int
) -> Tensor:
    """The sum of all paths, for training; see :func:`~augshortcut.ops.paths.paths_torch`.

    Args:
        y: ``(..., d)``.
        weight: ``(T, b_out, b_in, n)``.
        bias: ``(T, d)``.
        gate: ``(T, 1)`` or ``(T, d)``, or ``None``.
        act: Name of the activation.
        dtype: Of the products.
        level: Splits.
    """
    return _Recorded.apply(y, weight, bias, gate, act, dtype, level)
