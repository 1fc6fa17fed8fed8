"""The end of a network, from the convolution that is enlarged on, in bands of rows.

The maps between that convolution and the picture are by far the largest of a network. Here they exist for one band at
a time: each convolution keeps the few rows that the next band needs, so that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftghost_sr.ops.bands import bands, padded_rows
from shiftghost_sr.ops.halo_buffer import layout_of

__all__ = ["StreamedTail", "WithNumber"]


class WithNumber(nn.Module):
    """``x`` plus, minus, times or over a number, or one of each channel.

    Args:
        operation: Of ``operator``.
        number: A number, or ``(1, channels, 1, 1)``.
    """

    value: Tensor | float

    def __init__(self, operation: Callable[..., Tensor], number: Tensor | float) -> None:
        super().__init__()
        self.operation = operation
        if isinstance(number, Tensor):
            self.register_buffer("value", number.detach().clone(), persistent=False)
        else:
            self.value = number

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, H, W)``, as it goes in."""
        found: Tensor = self.operation(x, self.value)
        return found


class StreamedTail(nn.Module):
    """Convolutions, shuffles of pixels, and what is done number by number, one after the other.

    Args:
        stages: The first is a convolution; of the frame's size, as the others.
    """

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.reach = sum(s.kernel_size[0] // 2 for s in stages[1:] if isinstance(s, nn.Conv2d))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the picture."""
        cut = bands(x)
        # A band must hold what the convolutions after the first look back by.
        if len(cut) == 1 or x.shape[2] // len(cut) <= self.reach:
            for stage in self.stages:
                x = stage(x)
            return x
        kept: dict[int, Tensor] = {}
        out: Tensor | None = None
        place = 0
        factor = 1
        for stage in self.stages:
            factor *= stage.upscale_factor if isinstance(stage, nn.PixelShuffle) else 1
        for first, last in cut:
            rows = self._through(x, first, last, kept)
            if out is None:
                shape = (x.shape[0], rows.shape[1], x.shape[2] * factor, rows.shape[3])
                out = torch.empty(shape, dtype=rows.dtype, device=x.device, memory_format=layout_of(x))
            out[:, :, place : place + rows.shape[2]] = rows
            place += rows.shape[2]
        assert out is not None
        return out

    def _through(self, x: Tensor, first: int, last: int, kept: dict[int, Tensor]) -> Tensor:
        """All that can be said of the picture once rows up to ``last`` are there."""
        start, end = first == 0, last == x.shape[2]
        rows: Tensor | None = None
        for number, stage in enumerate(self.stages):
            if not isinstance(stage, nn.Conv2d):
                rows = stage(rows)
                continue
            up, side = (k // 2 for k in stage.kernel_size)
            if rows is None:
                given = padded_rows(x, first - up, last + up)
            else:
                given = F.pad(rows, (0, 0, up if start else 0, up if end else 0))
                if not start:
                    given = torch.cat([kept[number], given], dim=2)
                kept[number] = given[:, :, given.shape[2] - 2 * up :].clone() if up else given[:, :, :0]
            rows = F.conv2d(given, stage.weight, stage.bias, padding=(0, side), groups=stage.groups)
        assert rows is not None
        return rows
