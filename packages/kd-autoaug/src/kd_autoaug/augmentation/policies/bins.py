"""torchvision's spaces: levels are the numbers of bins, arguments float32 as its tables hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effkit.errors import UserError
from kd_autoaug.augmentation.policies.space import Space
from kd_autoaug.ops.operators import Op

__all__ = ["BinSpace"]

_PLAIN = frozenset({Op.IDENTITY, Op.AUTOCONTRAST, Op.EQUALIZE, Op.INVERT})
_TRANSLATE = frozenset({Op.TRANSLATE_X, Op.TRANSLATE_Y})
_ENHANCE = frozenset({Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS})
_SHEAR = frozenset({Op.SHEAR_X, Op.SHEAR_Y})
_OTHER = frozenset({Op.ROTATE, Op.POSTERIZE, Op.SOLARIZE})


@dataclass(frozen=True)
class BinSpace(Space):
    """A space of equidistant bins from no effect to the strongest.

    Its level b is bin b of ``bins``; ``maximum`` is the last bin. Values between bins do not exist.

    Attributes:
        bins: Number of bins.
        shear: Shear of the last bin.
        translate: Translation of the last bin: pixels, or a fraction of the side if ``relative``.
        relative: Whether it is a fraction.
        rotate: Degrees of the last bin.
        enhance: Distance of the last bin's factor from 1.
        posterize: Bits the last bin discards.
    """

    bins: int = 31
    shear: float = 0.3
    translate: float = 150.0 / 331.0
    relative: bool = True
    rotate: float = 30.0
    enhance: float = 0.9
    posterize: int = 4

    def __post_init__(self) -> None:
        """Refuse too few bins.

        Raises:
            UserError: If there are fewer than two bins.
        """
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or self.bins < 2:
            raise UserError(f"bins={self.bins!r} must be an integer of 2 or more")
        object.__setattr__(self, "maximum", self.bins - 1)

    def knows(self, op: Op) -> bool:
        """Whether the space has a table for the operator."""
        return op in _PLAIN | _TRANSLATE | _ENHANCE | _SHEAR | _OTHER

    def check_level(self, what: str, level: float, *, extrapolate: bool = False) -> float:
        """The bin's number, if it is one.

        Raises:
            UserError: If it is none; there is nothing to extrapolate.
        """
        if isinstance(level, int | float) and not isinstance(level, bool) and level in range(self.bins):
            return float(level)
        note = ", and has no law by which to extrapolate" if extrapolate else ""
        raise UserError(f"{what}={level!r} is outside space {self.name}, which has bins 0 to {self.bins - 1}{note}")

    def magnitudes(self, op: Op, size: tuple[int, int]) -> Tensor | None:
        """The magnitudes of all bins at a size (height, width), as torchvision has them; ``None`` without magnitude."""
        if op in _PLAIN:
            return None
        if op == Op.POSTERIZE:
            return (8 - (torch.arange(self.bins) / ((self.bins - 1) / self.posterize))).round().int()
        if op == Op.SOLARIZE:
            return torch.linspace(1.0, 0.0, self.bins)
        if op in _TRANSLATE:
            side = size[1] if op == Op.TRANSLATE_X else size[0]
            return torch.linspace(0.0, self.translate * side if self.relative else self.translate, self.bins)
        last = self.shear if op in _SHEAR else self.rotate if op == Op.ROTATE else self.enhance
        return torch.linspace(0.0, last, self.bins)

    def base(self, ops: Sequence[Op], levels: Tensor) -> Tensor:
        """See :meth:`Space.base`; translations are left as bin numbers, since their truncation depends on the size."""
        out = torch.empty(*levels.shape, 2, dtype=torch.float64)
        for row, op, level in zip(out, ops, levels, strict=True):
            magnitudes = None if op in _TRANSLATE else self.magnitudes(op, (1, 1))
            if magnitudes is None:
                row[:] = level[:, None] if op in _TRANSLATE else 0.0
                continue
            value = magnitudes.double()[level.long()]
            value = value * 255.0 if op == Op.SOLARIZE else value
            signed = op not in (Op.POSTERIZE, Op.SOLARIZE)
            middle = 1.0 if op in _ENHANCE else 0.0
            row[:, 0] = middle + value
            row[:, 1] = middle - value if signed else value
        return out

    def at_size(self, ops: Sequence[Op], base: Tensor, size: tuple[int, int]) -> Tensor:
        """See :meth:`Space.at_size`."""
        out = base.clone()
        for op in _TRANSLATE.intersection(ops):
            table = self.magnitudes(op, size)
            assert table is not None
            # torchvision moves the content by +int(magnitude); our argument is where a pixel is read from.
            pixels = table.double().trunc()
            rows = [e for e, other in enumerate(ops) if other == op]
            moved = pixels[base[rows, :, 0].long()]
            out[rows] = torch.stack((-moved, moved), -1)
        return out
