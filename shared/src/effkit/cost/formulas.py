"""What each operator of torch costs in multiply-adds, and how a custom one says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["FORMULAS", "MacsFormula", "register_macs"]

MacsFormula = Callable[..., int]


aten = torch.ops.aten


def _matrix_product(first: int) -> MacsFormula:
    """Product of argument `first`, (..., M, K), and the one after it, (..., K, N)."""

    def macs(*args: Any, out: Any, **_: Any) -> int:
        left, right = args[first], args[first + 1]
        return left.numel() * right.shape[-1]

    return macs


def _vector_product(first: int) -> MacsFormula:
    def macs(*args: Any, out: Any, **_: Any) -> int:
        return args[first].numel()

    return macs


def _convolution(x: Tensor, weight: Tensor, *args: Any, out: Tensor, **_: Any) -> int:
    # aten.convolution(input, weight, bias, stride, padding, dilation, transposed, ...). Each output element of a
    # convolution, and each input element of a transposed one, meets weight[0] once: (C_in / groups) * kernel, or
    # (C_out / groups) * kernel.
    transposed = bool(args[4])
    return (x if transposed else out).numel() * weight[0].numel()


def _attention(query: Tensor, key: Tensor, value: Tensor, *_args: Any, out: Any, **_: Any) -> int:
    # (B, H, Nq, D), (B, Hkv, Nk, D), (B, Hkv, Nk, Dv)
    rows = query.numel() // query.shape[-1]
    return rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_BUILT_IN: dict[str, MacsFormula] = {
    "mm": _matrix_product(0),
    "bmm": _matrix_product(0),
    "_int_mm": _matrix_product(0),
    "_scaled_mm": _matrix_product(0),
    "addmm": _matrix_product(1),
    "_addmm_activation": _matrix_product(1),
    "baddbmm": _matrix_product(1),
    "addbmm": _matrix_product(1),
    "mv": _vector_product(0),
    "dot": _vector_product(0),
    "vdot": _vector_product(0),
    "addmv": _vector_product(1),
    "convolution": _convolution,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_attention_math_for_mps": _attention,
}


FORMULAS: dict[Any, MacsFormula] = {getattr(aten, name): f for name, f in _BUILT_IN.items() if hasattr(aten, name)}


def register_macs(op: Any, formula: MacsFormula) -> None:
    """Say what a custom operator costs, so that a fused kernel counts as much as the layers it replaces.

    Args:
        op: An operator: `torch.ops.ns.name`, an overload of it, what `torch.library.custom_op` returns, or "ns::name".
        formula: Called as `formula(*args, out=result, **kwargs)` with the operator's own arguments (tensors included);
            returns multiply-adds.

    Raises:
        UserError: If `op` is not a torch operator.

    Example:
        >>> register_macs("mine::gemm", lambda a, b, out: a.numel() * b.shape[1])  # doctest: +SKIP
    """
    found = op
    if isinstance(op, str):
        namespace, _, name = op.partition("::")
        found = getattr(getattr(torch.ops, namespace), name, None) if name else None
    found = getattr(found, "_opoverload", found)  # torch.library.CustomOpDef
    found = getattr(found, "overloadpacket", found)
    if not isinstance(found, torch._ops.OpOverloadPacket):
        raise UserError(
            f"op={op!r} is not a torch operator; give torch.ops.ns.name or 'ns::name' of one already defined"
        )
    FORMULAS[found] = formula
