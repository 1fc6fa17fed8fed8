"""What is done to a batch: one operator per picture and layer, with its argument."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_autoaug.ops.operators import NEAREST, Op

__all__ = ["Layer"]


@dataclass
class Layer:
    """One operator for every picture of a batch of B.

    Attributes:
        op: Operator numbers (:class:`Op`), int64 ``(B,)``.
        arg: Their arguments in the units of ``operators.ARGUMENTS``, float64 ``(B,)``; ignored where there is none.
        interpolation: Pillow's number of the interpolation (0 nearest, 2 bilinear, 3 bicubic), int64 ``(B,)``; read by
            affine operators.
        box: Of cutout: left, top, right, bottom in pixels, right and bottom not included, int64 ``(B, 4)``. May reach
            over the picture's edge.
        blurs: Whether an operator may be a Gaussian blur, which GPU kernels leave to torch. ``None`` if nobody has
            said: then it may.
    """

    op: Tensor
    arg: Tensor
    interpolation: Tensor
    box: Tensor
    blurs: bool | None = None

    @classmethod
    def of(
        cls,
        op: Tensor,
        arg: Tensor | None = None,
        interpolation: Tensor | int = NEAREST,
        box: Tensor | None = None,
    ) -> Layer:
        """Fill in what is not given: argument 0, nearest, an empty box."""
        batch, device = len(op), op.device
        if arg is None:
            arg = torch.zeros(batch, dtype=torch.float64, device=device)
        if isinstance(interpolation, int):
            interpolation = torch.full((batch,), interpolation, dtype=torch.int64, device=device)
        if box is None:
            box = torch.zeros(batch, 4, dtype=torch.int64, device=device)
        # On a GPU looking at the numbers would make the host wait.
        blurs = bool((op == int(Op.GAUSSIAN_BLUR)).any()) if device.type == "cpu" else None
        return cls(op.long(), arg.double(), interpolation.long(), box.long(), blurs)

    @classmethod
    def uniform(cls, op: Op, batch: int, arg: float = 0.0, interpolation: int = NEAREST) -> Layer:
        """The same operator and argument for all pictures."""
        return cls.of(torch.full((batch,), int(op)), torch.full((batch,), arg, dtype=torch.float64), interpolation)

    def to(self, device: torch.device | str) -> Layer:
        """The layer on another device."""
        parts = (self.op, self.arg, self.interpolation, self.box)
        op, arg, interpolation, box = (t.to(device, non_blocking=True) for t in parts)
        return Layer(op, arg, interpolation, box, self.blurs)

    def __len__(self) -> int:
        return len(self.op)

    def __getitem__(self, which: Tensor | slice) -> Layer:
        """The layer of some pictures."""
        return Layer(self.op[which], self.arg[which], self.interpolation[which], self.box[which], self.blurs)
