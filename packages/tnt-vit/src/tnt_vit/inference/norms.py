"""Layer norms without gain and offset: torch's, and a form for narrow rows in bfloat16."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnt_vit.inference.packed import PackedLinear, packed_kernels

__all__ = ["Normalize", "UnitNormalize"]


class Normalize(nn.Module):
    """Layer norm without gain and offset."""

    ones: Tensor
    zeros: Tensor

    def __init__(self, width: int, like: Tensor, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        # torch's CPU kernel is a third slower without gain and offset than with ones and zeros (measured, 24 wide).
        self.register_buffer("ones", like.new_ones(width), persistent=False)
        self.register_buffer("zeros", like.new_zeros(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return F.layer_norm(x, (self.width,), self.ones, self.zeros, self.eps)
        return F.layer_norm(x, (self.width,), None, None, self.eps)


class UnitNormalize(nn.Module):
    r"""Rows centred and brought to length one, which is layer norm but for a factor and an offset.

    torch's layer norm in bfloat16 takes rows narrower than its registers value by value, four times as long as a
    product and a division by the length do. With ``x`` of ``c`` channels, mean ``m`` and variance ``v``,

    .. math:: d = c (x - m) + c \sqrt{\epsilon} \, 1, \qquad |d|^2 = c^3 (v + \epsilon)

    because what is centred is orthogonal to ``1``. So ``d / |d|`` is the normalised row over ``sqrt(c)``, plus the same
    number in all channels; :func:`tnt_vit.inference.folding.of_unit_words` takes both out of the weights that read it.
    The product's weight is ``c I - 1``, whole numbers, exact in any type.
    """

    def __init__(self, width: int, like: Tensor, eps: float) -> None:
        super().__init__()
        weight = width * torch.eye(width, dtype=like.dtype, device=like.device) - 1
        self.centre = PackedLinear(weight, like.new_full((width,), width * eps**0.5))

    def runs(self, x: Tensor) -> bool:
        """Whether this is the faster form for ``x``, and there."""
        if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.bfloat16:
            return False
        return _divides()

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``(R, c)`` of length one."""
        return torch._weight_norm_interface(self.centre(x), x.new_ones(x.shape[0], 1), 0)[0]


@cache
def _divides() -> bool:
    """Whether this torch divides rows in bfloat16 by their length in one operator, beside a prepacked product."""
    x = torch.linspace(-2, 3, 72, dtype=torch.bfloat16).view(3, 24)
    try:
        unit = torch._weight_norm_interface(x, x.new_ones(3, 1), 0)[0]
    except (AttributeError, RuntimeError, TypeError):
        return False
    want = F.normalize(x.double(), dim=1)
    return bool(packed_kernels(torch.bfloat16)) and torch.allclose(unit.double(), want, rtol=2**-8, atol=0)
