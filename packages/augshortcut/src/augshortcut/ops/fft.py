"""Products with block-circulant matrices by FFT, in float32 at least: exact and slow, to hold the others against.

No FFT of torch takes bfloat16, and half precision only powers of two on CUDA (96 and 192 are none), so low precision
is upcast, under autocast too.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from augshortcut.ops.layout import sizes

__all__ = ["fft_apply"]


def fft_apply(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``x Theta^T + bias``.

    Args:
        x: ``(rows, b_in n)``.
        weight: ``(b_out, b_in, n)``.
        bias: ``(b_out n,)``.
        dtype: Of the result.
    """
    b_out, b_in, n = sizes(weight)
    exact = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        spectrum = torch.fft.rfft(x.to(exact).view(x.shape[0], b_in, n))
        product = torch.einsum("oif,rif->rof", torch.fft.rfft(weight.to(exact)), spectrum)
        y = torch.fft.irfft(product, n=n).reshape(x.shape[0], b_out * n)
        return (y if bias is None else y + bias.to(exact)).to(dtype)
