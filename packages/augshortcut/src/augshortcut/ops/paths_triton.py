"""All paths of a sub-layer in one Triton kernel, as an operator of torch; its backward pass recomputes in torch.

CUDA, or ``TRITON_INTERPRET=1`` for tests. Importing this module does not import triton.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augshortcut.ops.activations import ACTIVATIONS, SLOPES
from augshortcut.ops.crt import crt_apply, crt_parts
from augshortcut.ops.layout import diagonal_sums, toeplitz, transposed
from augshortcut.ops.names import ACTS
from effkit.cost import register_macs
from effkit.errors import UserError
from effkit.triton import check_runs, dot_constants, interpreted, kernels, launch, widened

__all__ = ["activated_paths"]


def _tile(dtype: torch.dtype) -> dict[str, Any]:
    """Tiles of rows, columns and K; four accumulators of ``BM x BC`` numbers live in registers."""
    if interpreted():
        return {"BM": 64, "BC": 64, "BK": 64}
    return {"BM": 64, "BC": 32, "BK": 32} if dtype == torch.float32 else {"BM": 128, "BC": 32, "BK": 32}


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor | None, act: str, dtype: torch.dtype) -> Tensor:
    paths, b_out, b_in, n = weight.shape
    half = n // 2
    w = weight if weight.dtype in (torch.float32, torch.float64) else weight.float()
    w0, w1 = w.flatten(0, 1).chunk(2, dim=-1)
    circ = toeplitz((w0 + w1) * 0.5).to(dtype).contiguous()
    skew = toeplitz((w0 - w1) * 0.5, -1).to(dtype).contiguous()
    out = torch.empty(x.shape[0], b_out * n, dtype=dtype, device=x.device)
    if x.shape[0] == 0:
        return out
    tensors = [None if t is None else widened(t.contiguous()) for t in (x, out, circ, skew, bias, gate)]
    tile = _tile(dtype)
    rows, columns = x.shape[0], b_out * half
    grid = (-(-rows // tile["BM"]), -(-columns // tile["BC"]))
    kernel = kernels(__package__, "paths_kernel").activated_paths_kernel
    constants: dict[str, Any] = {"T": paths, "H": half, "K": b_in * half, "C": columns, "ACT": ACTS.index(act)}
    warps = 8 if tile["BM"] == 128 else 4  # with fewer, registers spill
    launch(kernel, grid, *tensors, rows, warps=warps, **constants, **dot_constants(dtype), **tile)
    assert tensors[1] is not None
    return tensors[1].to(dtype)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor | None, act: str, dtype: torch.dtype
) -> list[Tensor]:
    """Gradients of x, weight, and of bias and gate where there are any; pre-activations are computed again.

    Matrix products of half sizes again: with the transposed parts for x, and for the weights one product per part,
    summed along wrapped diagonals in a fixed order.
    """
    paths, b_out, b_in, n = weight.shape
    flat = weight.flatten(0, 1)
    pre = crt_apply(x, crt_parts(flat, None if bias is None else bias.flatten(), 1, dtype))
    pre = pre.view(-1, paths, b_out * n)
    inner = grad.unsqueeze(1) if gate is None else grad.unsqueeze(1) * gate.to(grad.dtype)
    inner = SLOPES[act](inner.expand(pre.shape).contiguous(), pre)
    flat_grad = inner.flatten(1)
    found = [crt_apply(flat_grad, crt_parts(transposed(flat), None, 1, dtype)).to(x.dtype)]
    y, z = flat_grad.view(-1, paths * b_out, n), x.to(dtype).view(-1, b_in, n)
    y0, y1, z0, z1 = y[..., : n // 2], y[..., n // 2 :], z[..., : n // 2], z[..., n // 2 :]
    plus, minus = (
        diagonal_sums(
            ((y0 + s * y1).flatten(1).t() @ (z0 + s * z1).flatten(1)).to(weight.dtype), paths * b_out, b_in, s
        )
        for s in (1, -1)
    )
    both = torch.cat([plus + minus, plus - minus], dim=-1) * 0.5
    found.append(both.view(weight.shape))
    if bias is not None:
        found.append(inner.sum(dim=0).to(bias.dtype))
    if gate is not None:
        found.append((ACTIVATIONS[act](pre) * grad.unsqueeze(1)).sum(dim=0).to(gate.dtype))
    return [g.contiguous() for g in found]


_SCHEMA = "(Tensor x, Tensor weight, Tensor? bias, Tensor? gate, str act, ScalarType dtype) -> Tensor"
_op = torch.library.custom_op("augshortcut::paths", _run, mutates_args=(), schema=_SCHEMA)
_op.register_fake(
    lambda x, weight, bias, gate, act, dtype: x.new_empty(x.shape[0], weight.shape[1] * weight.shape[3], dtype=dtype)
)
_backward_op = torch.library.custom_op(
    "augshortcut::paths_backward", _backward, mutates_args=(), schema=f"(Tensor grad, {_SCHEMA[1:]}[]"
)
_backward_op.register_fake(
    lambda grad, x, weight, bias, gate, act, dtype: [
        torch.empty_like(t) for t in (x, weight, bias, gate) if t is not None
    ]
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.act, ctx.dtype = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    grads = iter(_backward_op(grad.contiguous(), *saved, ctx.act, ctx.dtype))
    return (*(None if t is None else next(grads) for t in saved), None, None)


_op.register_autograd(_differentiate, setup_context=_save)


def _macs(x: Tensor, weight: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """One split: half of the dense matrices' multiply-adds."""
    return x.shape[0] * weight.shape[0] * x.shape[1] * out.shape[1] // 2


register_macs("augshortcut::paths", _macs)


def activated_paths(
    x: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor | None, act: str, dtype: torch.dtype
) -> Tensor:
    """``sum_t gate_t act(Theta_t x + beta_t)`` by the kernel.

    Args:
        x: ``(..., b_in n)``.
        weight: ``(T, b_out, b_in, n)``; n even.
        bias: ``(T, b_out n)``.
        gate: ``(T, 1)`` or ``(T, b_out n)``, or ``None``.
        act: Name of the activation.
        dtype: Of the products and the result.

    Returns:
        ``(..., b_out n)``.

    Raises:
        UserError: If the kernel cannot run here, or blocks are odd.
    """
    if weight.shape[3] % 2:
        raise UserError(f"backend='triton' needs circulants of an even size, got {weight.shape[3]}")
    check_runs(x.device, {dtype, x.dtype}, plain="crt")
    width = weight.shape[1] * weight.shape[3]
    gates = None if gate is None else gate.expand(gate.shape[0], width)
    rows = _op(x.reshape(-1, x.shape[-1]), weight, bias, gates, act, dtype)
    return rows.view(*x.shape[:-1], width)
