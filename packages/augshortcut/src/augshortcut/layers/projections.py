"""The kinds of projection a path can have; each holds all paths of one sub-layer and returns their gated sum.

Parameters of T paths are stacked along a first axis, so that all of them are one product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from augshortcut.config import AugmentConfig
from augshortcut.layers.circulant import spectral_norms, uniform_
from augshortcut.layers.kept import KeptParts
from augshortcut.ops.activations import ACTIVATIONS, LIPSCHITZ
from augshortcut.ops.fft import fft_apply
from augshortcut.ops.layout import block_sizes, check_block_circulant, sizes, toeplitz
from augshortcut.ops.paths import gated_sum, paths_with_parts
from augshortcut.ops.paths_triton import activated_paths
from augshortcut.ops.product import product_dtype, resolve
from augshortcut.ops.recorded import can_record, recorded_paths
from effkit.errors import UserError

__all__ = ["BottleneckPaths", "CirculantPaths", "DensePaths", "KroneckerPaths", "Paths", "make_paths"]


class Paths(nn.Module):
    """T projections of one width.

    Args:
        dim: d, the width.
        config: What they are.
        device: Of the parameters.
        dtype: Of the parameters.
    """

    weight_names: tuple[str, ...] = ("weight",)

    def __init__(self, dim: int, config: AugmentConfig, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.dim, self.config, self.made = dim, config, {"device": device, "dtype": dtype}

    def _new(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(self.config.num_paths, *shape, **self.made))

    def _draw(self, weight: Tensor, bias: Tensor | None, fan_in: int) -> None:
        if self.config.init == "trunc_normal":
            nn.init.trunc_normal_(weight, std=0.02)
            if bias is not None:
                nn.init.zeros_(bias)
            return
        uniform_(weight, fan_in)
        if bias is not None:
            uniform_(bias, fan_in)

    def forward(self, y: Tensor, gate: Tensor | None) -> Tensor:
        """``(..., d) -> (..., d)``: the sum of all paths, each times its gate ``(T, 1)`` or ``(T, d)``."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw all parameters anew."""
        raise NotImplementedError

    def matrices(self) -> Tensor:
        """Theta of each path, ``(T, d, d)``, where a path is ``act(Theta y + bias)``.

        Raises:
            UserError: If it is something else.
        """
        raise UserError(f"projection={self.config.projection!r} has no single matrix a path")

    def lipschitz(self) -> Tensor:
        """How much each path can stretch a difference of tokens, at most: ``(T,)``."""
        raise NotImplementedError


def _linear(y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """All paths of one input: ``(..., in)`` and ``(T, out, in)`` to ``(..., T, out)``."""
    flat = nn.functional.linear(y, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return flat.unflatten(-1, sizes(weight)[:2])


def _each(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Every path its own input: ``(..., T, in)`` and ``(T, out, in)`` to ``(..., T, out)``."""
    out = torch.einsum("...ti,toi->...to", z, weight)
    return out if bias is None else out + bias


def _norms(weight: Tensor) -> Tensor:
    exact = weight if weight.dtype == torch.float64 else weight.float()
    return torch.linalg.matrix_norm(exact, 2)


class CirculantPaths(Paths):
    """``act(Theta_t y + beta_t)``, Theta_t a grid of b x b circulants: ``weight`` is ``(T, b, b, n)``."""

    def __init__(self, dim: int, config: AugmentConfig, device: Any = None, dtype: Any = None) -> None:
        super().__init__(dim, config, device, dtype)
        b, _, n = block_sizes(dim, dim, config.num_blocks)
        self.backend = config.backend
        self.level = config.crt_level if config.backend in ("auto", "crt") else None
        if config.backend == "crt":
            resolve("crt", n, self.level)
        self.weight = self._new(b, b, n)
        self.bias = self._new(dim) if config.bias else None
        self._kept = KeptParts()
        self.redraw()

    def redraw(self) -> None:
        """Draw all parameters anew."""
        self._draw(self.weight, self.bias, self.dim)

    def forward(self, y: Tensor, gate: Tensor | None) -> Tensor:
        """See :meth:`Paths.forward`."""
        weight, bias = self.weight, self.bias
        paths, _, _, n = sizes(weight)
        stacked = weight.flatten(0, 1)
        flat = None if bias is None else bias.flatten()
        check_block_circulant(y, stacked, flat)
        backend, level = resolve(self.backend, n, self.level)
        dtype = product_dtype(y, weight)
        act = self.config.act
        if backend == "triton":
            return activated_paths(y, weight, bias, gate, act, dtype)
        if backend == "fft":
            pre = fft_apply(y.reshape(-1, self.dim), stacked, flat, dtype)
            return gated_sum(pre.view(*y.shape[:-1], paths, self.dim), gate, act)
        if can_record(y, weight, bias, gate):
            return recorded_paths(y, weight, bias, gate, act, dtype, level)
        return paths_with_parts(y, self._kept.get(stacked, flat, level, dtype), paths, gate, act)

    def matrices(self) -> Tensor:
        """See :meth:`Paths.matrices`."""
        return torch.stack([toeplitz(weight) for weight in self.weight])

    def lipschitz(self) -> Tensor:
        """See :meth:`Paths.lipschitz`; exact spectral norms."""
        return LIPSCHITZ[self.config.act] * spectral_norms(self.weight)


class DensePaths(Paths):
    """``act(Theta_t y + beta_t)`` with full matrices: ``weight`` is ``(T, d, d)``."""

    def __init__(self, dim: int, config: AugmentConfig, device: Any = None, dtype: Any = None) -> None:
        super().__init__(dim, config, device, dtype)
        self.weight = self._new(dim, dim)
        self.bias = self._new(dim) if config.bias else None
        self.redraw()

    def redraw(self) -> None:
        """Draw all parameters anew."""
        self._draw(self.weight, self.bias, self.dim)

    def forward(self, y: Tensor, gate: Tensor | None) -> Tensor:
        """See :meth:`Paths.forward`."""
        return gated_sum(_linear(y, self.weight, self.bias), gate, self.config.act)

    def matrices(self) -> Tensor:
        """See :meth:`Paths.matrices`."""
        return self.weight

    def lipschitz(self) -> Tensor:
        """See :meth:`Paths.lipschitz`."""
        return LIPSCHITZ[self.config.act] * _norms(self.weight)


class BottleneckPaths(Paths):
    """``W2_t act(W1_t y)`` of width d / r (PanGu-pi): ``down`` is ``(T, d/r, d)``, ``up`` ``(T, d, d/r)``."""

    weight_names = ("down", "up")

    def __init__(self, dim: int, config: AugmentConfig, device: Any = None, dtype: Any = None) -> None:
        super().__init__(dim, config, device, dtype)
        if dim % config.reduction:
            raise UserError(f"reduction={config.reduction} must divide the width {dim}")
        self.width = dim // config.reduction
        self.down, self.up = self._new(self.width, dim), self._new(dim, self.width)
        self.down_bias = self._new(self.width) if config.bias else None
        self.up_bias = self._new(dim) if config.bias else None
        self.redraw()

    def redraw(self) -> None:
        """Draw all parameters anew."""
        self._draw(self.down, self.down_bias, self.dim)
        self._draw(self.up, self.up_bias, self.width)

    def forward(self, y: Tensor, gate: Tensor | None) -> Tensor:
        """See :meth:`Paths.forward`."""
        z = ACTIVATIONS[self.config.act](_linear(y, self.down, self.down_bias))
        return gated_sum(_each(z, self.up, self.up_bias), gate, "identity")

    def lipschitz(self) -> Tensor:
        """See :meth:`Paths.lipschitz`."""
        return LIPSCHITZ[self.config.act] * _norms(self.down) * _norms(self.up)


class KroneckerPaths(Paths):
    """``L_t act(Y R_t)``, y seen as a matrix Y of k x p (HRViT's shortcut): ``right`` is ``(T, p, p)``, ``left`` k x k.

    With ``e = floor(log2 d)``, ``p = 2 ** (e - floor(e / 2))``; k = d / p.
    """

    weight_names = ("right", "left")

    def __init__(self, dim: int, config: AugmentConfig, device: Any = None, dtype: Any = None) -> None:
        super().__init__(dim, config, device, dtype)
        exponent = math.floor(math.log2(dim))
        self.p = 2 ** (exponent - exponent // 2)
        if dim % self.p:
            raise UserError(f"projection='kronecker' needs a width that is a multiple of {self.p}, got {dim}")
        self.k = dim // self.p
        self.right, self.left = self._new(self.p, self.p), self._new(self.k, self.k)
        self.right_bias = self._new(self.p) if config.bias else None
        self.left_bias = self._new(self.k) if config.bias else None
        self.redraw()

    def redraw(self) -> None:
        """Draw all parameters anew."""
        self._draw(self.right, self.right_bias, self.p)
        self._draw(self.left, self.left_bias, self.k)

    def forward(self, y: Tensor, gate: Tensor | None) -> Tensor:
        """See :meth:`Paths.forward`."""
        z = _linear(y.unflatten(-1, (self.k, self.p)), self.right, self.right_bias)  # (..., k, T, p)
        z = ACTIVATIONS[self.config.act](z)
        out = torch.einsum("...ktp,tjk->...tjp", z, self.left)
        if self.left_bias is not None:
            out = out + self.left_bias.unsqueeze(-1)
        return gated_sum(out.flatten(-2), gate, "identity")

    def lipschitz(self) -> Tensor:
        """See :meth:`Paths.lipschitz`: a Kronecker product's norm is the product of norms."""
        return LIPSCHITZ[self.config.act] * _norms(self.right) * _norms(self.left)


_KINDS: dict[str, type[Paths]] = {
    "circulant": CirculantPaths,
    "dense": DensePaths,
    "bottleneck": BottleneckPaths,
    "kronecker": KroneckerPaths,
}


def make_paths(dim: int, config: AugmentConfig, device: Any = None, dtype: Any = None) -> Paths:
    """The paths that a config asks for.

    Args:
        dim: Width.
        config: What to make; at least one path.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        UserError: If the width does not fit.
    """
    return _KINDS[config.projection](dim, config, device, dtype)
