"""Steps of a deployed network that are several of its layers at once, so that nothing large is made in between.

On a CPU, frames go through in bands of rows: what a convolution gives is in its place before the next band is made.
On a GPU one kernel does it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shiftghost_sr.compression.deployment.folded import FoldedConv2d, Part, WithHalo
from shiftghost_sr.compression.deployment.slices import AddSlices
from shiftghost_sr.ops.bands import bands, conv_rows
from shiftghost_sr.ops.dispatch import activation_code, kernel_runs
from shiftghost_sr.ops.folded_conv_triton import folded_conv
from shiftghost_sr.ops.halo_buffer import empty_halo, layout_of, write_activated
from shiftghost_sr.ops.taps import Taps, targets_table

__all__ = ["AddedConv", "FoldedStep"]


class FoldedStep(nn.Module):
    """A convolution, zeros around what it gives, the folded convolution of that, and the sum with what goes around.

    Args:
        halo: Puts the zeros.
        conv: The folded convolution, of one group.
        producer: What the maps come from, where nothing else reads them and it runs in bands.
        add: What the result is added to something by; it reads nothing else.
        backend: ``auto``, ``torch`` or ``triton``.
    """

    table: Tensor

    def __init__(
        self, halo: WithHalo, conv: FoldedConv2d, producer: nn.Conv2d | None, add: AddSlices | None, backend: str
    ) -> None:
        super().__init__()
        self.halo, self.conv, self.producer, self.add, self.backend = halo, conv, producer, add, backend
        self.outputs = self.part.kernels[0].shape[0]
        targets = None if add is None else [(r.first, r.source, r.count, r.move) for r in add.runs]
        self.register_buffer("table", targets_table(targets, self.outputs), persistent=False)
        self._taps: tuple[Any, Taps] | None = None

    @property
    def part(self) -> Part:
        """The folded convolution's only group."""
        (part,) = self.conv.parts
        assert isinstance(part, Part)
        return part

    def forward(self, *inputs: Tensor) -> Tensor:
        """What is added to (with ``add``), then the producer's input, or the maps: to ``(N, outputs, H, W)``."""
        base, rest = (inputs[0], inputs[1:]) if self.add is not None else (None, inputs)
        if kernel_runs(self.backend, inputs, self.halo.activations()):
            return self._kernel(base, rest[0])
        part = self.part
        buffer = self.halo(*rest) if self.producer is None else self._produced(rest[0])
        if self.add is None or base is None:
            return part.convolve(buffer, False)
        out, strips = self.add.target(base), part.strips(buffer)
        for first, last in bands(base):
            self.add.add_rows(out, [part.rows(buffer, strips, first, last)], first, last)
        return out

    def _produced(self, x: Tensor) -> Tensor:
        """Zeros around what the producer gives, band by band."""
        producer, (act,) = self.producer, self.halo.activations()
        assert producer is not None
        cut = bands(x)
        if len(cut) == 1:
            return self.halo(producer(x))
        shape = (x.shape[0], producer.out_channels, *x.shape[2:])
        halo = None
        for first, last in cut:
            part = conv_rows(producer, x, first, last)
            if halo is None:  # of the type of what a convolution gives, which under autocast is another
                halo = empty_halo(part, shape, self.halo.pads)
            buffer, (rows, from_rows), (columns, from_columns) = halo
            low, high = max(first, from_rows.start), min(last, from_rows.stop)
            if low < high:
                moved = rows.start - from_rows.start
                there = buffer[:, :, low + moved : high + moved, columns]
                write_activated(there, part[:, :, low - first : high - first, from_columns], act)
        assert halo is not None
        buffer = halo[0]
        return buffer

    def _kernel(self, base: Tensor | None, x: Tensor) -> Tensor:
        maps = x if self.producer is None else self.producer(x)
        (act,) = self.halo.activations()
        code = activation_code(act)
        assert code is not None
        if base is not None and self.add is not None:
            out = self.add.target(base)
        else:
            shape = (maps.shape[0], self.outputs, *maps.shape[2:])
            out = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=layout_of(maps))
        bias = self.part.bias
        return folded_conv(out, maps, self._taps_for(maps), bias, self.table, code, add=self.add is not None)

    def _taps_for(self, maps: Tensor) -> Taps:
        """The weights as the kernel reads them, made once for each device and type."""
        values = [*self.part.parameters()]
        # An inference tensor counts no versions, and nobody changes it outside of inference mode.
        versions = tuple(-1 if v.is_inference() else v._version for v in values)
        key = (maps.device, maps.dtype, tuple(v.data_ptr() for v in values), versions)
        if self._taps is None or self._taps[0] != key:
            self._taps = key, self.part.taps(maps)
        return self._taps[1]


class AddedConv(nn.Module):
    """A plain convolution of the frame's size, added slice by slice to what goes around it.

    Args:
        conv: The convolution.
        add: The sum, which reads nothing else.
    """

    def __init__(self, conv: nn.Conv2d, add: AddSlices) -> None:
        super().__init__()
        self.conv, self.add = conv, add

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        """What is added to, and the convolution's input, which is something else: to their sum."""
        cut = bands(x)
        if len(cut) == 1:
            return self.add(base, self.conv(x))
        out = self.add.target(base)
        for first, last in cut:
            self.add.add_rows(out, [conv_rows(self.conv, x, first, last)], first, last)
        return out
