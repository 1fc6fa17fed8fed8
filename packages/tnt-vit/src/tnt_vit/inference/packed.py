"""A linear layer for inference whose weights are laid out for the CPU's matrix kernels.

Torch's own linear packs the weight anew at every call and copies the bias into the output first. Two families of
prepacked kernels come with torch (Inductor uses them for frozen models): oneDNN's, for float32 and bfloat16, with the
GELU inside, and MKL's, for float32, the faster one on Intel's processors for wide layers at the few hundred rows of one
picture (an EPYC takes 8 to 23 % less with oneDNN's). Which one runs depends on type, width and processor alone, so
results repeat exactly. Elsewhere, and while torch traces, this is ``F.linear``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.provenance import cpu_name

__all__ = ["PackedLinear", "packed_kernels"]

# From this many input columns on, MKL's kernel was the faster one on Intel's processors.
WIDE = 128


@cache
def packed_kernels(dtype: torch.dtype = torch.float32) -> frozenset[str]:
    """Which prepacked kernels work in this build of torch, of ``mkl`` and ``onednn``; tried once on a small product.

    Args:
        dtype: Of weights and inputs.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        return frozenset()
    weight, bias = torch.eye(16, dtype=dtype), torch.ones(16, dtype=dtype)
    x = torch.linspace(-2, 2, 64).to(dtype).view(4, 16)
    want = F.gelu(x.double() + 1)
    found = set()
    for name, kernel in _KERNELS.items():
        try:
            found_here = kernel(weight, 4)(x, weight, bias, True)
            good = torch.allclose(found_here.double(), want, atol=4 * torch.finfo(dtype).eps)
        except (AttributeError, RuntimeError, TypeError):  # operator of another torch version, or a build without it
            good = False
        if good:
            found.add(name)
    return frozenset(found)


@cache
def _made_by_intel() -> bool:
    return "intel" in cpu_name().lower()


class _Mkl:
    """A weight packed for MKL and a number of rows."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.rows = rows
        self.packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
        out = torch.ops.mkl._mkl_linear(x, self.packed, weight, bias, self.rows)
        return torch.ops.aten.gelu_(out) if gelu else out


class _OneDnn:
    """A weight packed for oneDNN."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
        post: tuple = ("gelu", [], "none") if gelu else ("none", [], "")
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, bias, *post)


_KERNELS: dict[str, type[_Mkl] | type[_OneDnn]] = {"mkl": _Mkl, "onednn": _OneDnn}


class PackedLinear(nn.Module):
    """``x W^T + b``, or its exact GELU.

    Args:
        weight: ``(out, in)``; copied.
        bias: ``(out,)`` or ``None``.
        gelu: Apply the exact GELU to the output.
        dtype: Type of both copies; the weight's if not given.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.gelu = gelu
        dtype = dtype or weight.dtype
        self.register_buffer("weight", weight.detach().to(dtype, copy=True).contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype, copy=True).contiguous())
        self._kernels: dict[int, _Mkl | _OneDnn] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the packed copy out of copies and pickles; it is made again at the next call."""
        return {**self.__dict__, "_kernels": {}}

    def _apply(self, fn: Any, recurse: bool = True) -> PackedLinear:
        self._kernels = {}  # moved or cast
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kernels = {}
        super()._load_from_state_dict(*args, **kwargs)

    def _pack(self, rows: int) -> _Mkl | _OneDnn | None:
        """The kernel for inputs of ``rows`` rows, made at the first call.

        Two are kept: a batch is cut into equal chunks and a remainder, and packing anew costs as much as a product.
        """
        kernel = self._kernels.pop(rows, None)
        if kernel is None:
            order = ("mkl", "onednn") if self.weight.shape[1] >= WIDE and _made_by_intel() else ("onednn", "mkl")
            known = packed_kernels(self.weight.dtype)
            name = next((n for n in order if n in known), None)
            if name is None:
                return None
            kernel = _KERNELS[name](self.weight, rows)
        self._kernels[rows] = kernel
        if len(self._kernels) > 2:
            del self._kernels[next(iter(self._kernels))]
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(R, in)`` to ``(R, out)``."""
        # The order matters: while tracing, asking for the number of rows would make it a constant of the graph.
        if not torch.compiler.is_compiling() and x.device.type == "cpu" and x.dtype == self.weight.dtype and x.shape[0]:
            kernel = self._pack(x.shape[0])
            if kernel is not None:
                return kernel(x, self.weight, self.bias, self.gelu)
        out = F.linear(x, self.weight, self.bias)
        return F.gelu(out) if self.gelu else out
