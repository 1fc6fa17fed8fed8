"""A linear layer whose matrix is a grid of circulants."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from augshortcut.layers.kept import KeptParts
from augshortcut.ops.layout import block_sizes, check_block_circulant, diagonal_means, sizes, toeplitz
from augshortcut.ops.product import block_circulant, product_dtype, resolve, with_parts
from augshortcut.ops.recorded import can_record, recorded_paths
from effkit.errors import UserError

__all__ = ["BlockCirculantLinear", "spectral_norms", "uniform_"]


def uniform_(weight: Tensor, fan_in: int) -> None:
    """Fill as ``nn.Linear`` does: uniform within ``1 / sqrt(fan_in)``."""
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(weight, -bound, bound)


def spectral_norms(weight: Tensor) -> Tensor:
    """Largest singular values of block-circulant matrices, exactly: those of ``n/2 + 1`` small matrices of spectra.

    Args:
        weight: ``(..., b_out, b_in, n)``.

    Returns:
        ``(...)``.
    """
    exact = weight if weight.dtype == torch.float64 else weight.float()
    spectra = torch.fft.rfft(exact).movedim(-1, -3)  # (..., f, b_out, b_in)
    return torch.linalg.svdvals(spectra)[..., 0].amax(dim=-1)


class BlockCirculantLinear(nn.Module):
    r"""``y = x Theta^T + bias`` with a block-circulant Theta: ``in * out / n`` weights instead of ``in * out``.

    Theta is a grid of ``b_out x b_in`` circulants of size n; ``weight[i, j]`` is the first column of block (i, j):
    :math:`C_{ij}[r, s] = w_{ij}[(r - s) \bmod n]`. (PEFT's C3A keeps first rows and divides by the width.)

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        block: Number of circulants along the smaller side, not their size: ``n = min(in, out) / block``.
        backend: ``auto`` (``crt``, or ``dense`` where n is odd), ``crt``, ``dense``, ``fft`` or ``triton``.
        bias: Whether there is one.
        crt_level: Splits of ``crt``; ``None`` for at most 2, as often as n allows.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        UserError: If the circulants do not fill both sides, or the backend cannot run with them.

    Example:
        >>> layer = BlockCirculantLinear(384, 384, block=4)
        >>> layer(torch.zeros(2, 197, 384)).shape, layer.weight.numel()
        (torch.Size([2, 197, 384]), 1536)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        block: int = 4,
        backend: str = "auto",
        *,
        bias: bool = True,
        crt_level: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        b_out, b_in, n = block_sizes(in_features, out_features, block)
        resolve(backend, n, crt_level)
        self.in_features, self.out_features = in_features, out_features
        self.block, self.backend, self.crt_level = block, backend, crt_level
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(b_out, b_in, n, **made))
        self.bias = nn.Parameter(torch.empty(out_features, **made)) if bias else None
        self._kept = KeptParts()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and bias anew: uniform within ``1 / sqrt(in_features)``, as in ``nn.Linear``."""
        uniform_(self.weight, self.in_features)
        if self.bias is not None:
            uniform_(self.bias, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features) -> (..., out_features)``."""
        weight, bias = self.weight, self.bias
        backend, level = resolve(self.backend, sizes(weight)[2], self.crt_level)
        if backend in ("fft", "triton"):
            return block_circulant(x, weight, bias, backend=backend)
        check_block_circulant(x, weight, bias)
        dtype = product_dtype(x, weight)
        if can_record(x, weight, bias):
            one = None if bias is None else bias.unsqueeze(0)
            return recorded_paths(x, weight.unsqueeze(0), one, None, "identity", dtype, level)
        return with_parts(x, self._kept.get(weight, bias, level, dtype))

    def weight_dense(self) -> Tensor:
        """The matrix itself, ``(out_features, in_features)``; differentiable."""
        return toeplitz(self.weight)

    def spectral_norm(self) -> Tensor:
        """Its largest singular value, exactly, from ``n/2 + 1`` small matrices; differentiable."""
        return spectral_norms(self.weight)

    @classmethod
    def from_dense(
        cls, matrix: Tensor, block: int = 4, backend: str = "auto", *, bias: Tensor | None = None, **more: Any
    ) -> BlockCirculantLinear:
        """The nearest block-circulant layer to a dense matrix: means along the blocks' wrapped diagonals.

        Args:
            matrix: ``(out_features, in_features)``, of the layer's type and device.
            block: See the class.
            backend: Likewise.
            bias: ``(out_features,)``; none if not given.
            **more: Likewise.

        Raises:
            UserError: If it is no matrix of floats, or circulants do not fill it.
        """
        if matrix.ndim != 2 or not matrix.is_floating_point():
            raise UserError(f"matrix must be 2-D and floating point, got {tuple(matrix.shape)} of {matrix.dtype}")
        out_features, in_features = matrix.shape
        if bias is not None and tuple(bias.shape) != (out_features,):
            raise UserError(f"bias must have the shape ({out_features},), got {tuple(bias.shape)}")
        made = {"device": matrix.device, "dtype": matrix.dtype, **more}
        layer = cls(in_features, out_features, block, backend, bias=bias is not None, **made)
        b_out, b_in, _ = layer.weight.shape
        with torch.no_grad():
            layer.weight.copy_(diagonal_means(matrix, b_out, b_in))
            if layer.bias is not None and bias is not None:
                layer.bias.copy_(bias)
        return layer

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, block={self.block}, "
            f"bias={self.bias is not None}, backend={self.backend!r}"
        )
