"""Modules of a deployed graph that convolve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from shiftghost_sr.ops.fold import Box, Pads, exact_boxes, fold_kernel, moved_kernels, support
from shiftghost_sr.ops.folded_conv import Strip, border_strips, box_convolutions, strips_of_rows, take_away
from shiftghost_sr.ops.halo_buffer import Activation, halo_buffer, padded
from shiftghost_sr.ops.shift import Direction
from shiftghost_sr.ops.taps import Taps, tap_list

__all__ = ["FoldedConv2d", "Group", "Part", "WithHalo", "frozen", "group_taps"]

# A full rectangle with some zero taps is one call instead of several; up to this many taps more it is the better way.
_SLACK = 1.2


@dataclass(frozen=True)
class Group:
    """Tensors that are read alike, and so convolved together.

    Args:
        bases: Places among the module's inputs.
        maps: Channels of each.
        channels: Channels of the weight that come from them.
        source: Map of each channel, counted over all of the group's.
        moves: Where each channel reads its map.
    """

    bases: tuple[int, ...]
    maps: tuple[int, ...]
    channels: tuple[int, ...]
    source: tuple[int, ...]
    moves: tuple[Direction, ...]


def frozen(value: Tensor | None) -> nn.Parameter | None:
    """A weight of a deployed network, which has no gradient."""
    return None if value is None else nn.Parameter(value.detach().clone(), requires_grad=False)


def _boxes(k: int, moves: Sequence[Direction], diagonal: str) -> list[Box]:
    taps = support(k, moves)
    exact = exact_boxes(taps)
    whole = Box(0, 0, len(taps), len(taps[0]))
    few = sum(b.taps for b in exact)
    if diagonal == "taps" or (diagonal == "auto" and whole.taps > _SLACK * few):
        return exact
    return [whole]


def group_taps(k: int, group: Group, diagonal: str) -> int:
    """Multiply-adds of a group for one output of one pixel."""
    return sum(group.maps) * sum(b.taps for b in _boxes(k, group.moves, diagonal))


class _Border(nn.Module):
    """What a folded kernel has too much along the sides; a module of its own, so that counters show it by itself."""

    def __init__(self, weight: Tensor, group: Group, pads: Pads) -> None:
        super().__init__()
        self.pads, self.k = pads, weight.shape[-1]
        half = self.k // 2
        kernels = moved_kernels(weight, group.source, group.moves, sum(group.maps))
        self.moves = list(kernels)
        self.rows, self.columns = nn.ParameterList(), nn.ParameterList()
        self.places: list[tuple[int | None, int | None]] = []
        for (a, b), kernel in kernels.items():
            place: list[int | None] = [None, None]
            if a:
                place[0] = len(self.rows)
                self.rows.append(frozen(kernel[:, :, :half] if a > 0 else kernel[:, :, half + 1 :]))
            if b:
                place[1] = len(self.columns)
                self.columns.append(frozen(kernel[..., :half] if b > 0 else kernel[..., half + 1 :]))
            self.places.append((place[0], place[1]))

    def moved(self) -> dict[Direction, tuple[Tensor | None, Tensor | None]]:
        """For each move the parts of the moved channels' kernel that can read beyond the frame, rows and columns."""
        moved: dict[Direction, tuple[Tensor | None, Tensor | None]] = {}
        for v, (row, column) in zip(self.moves, self.places, strict=True):
            moved[v] = (
                None if row is None else self.rows[row],
                None if column is None else self.columns[column],
            )
        return moved

    def forward(self, buffer: Tensor) -> list[Strip]:
        """From the maps with zeros around them."""
        return border_strips(buffer, self.pads, self.moved(), self.k)


class Part(nn.Module):
    """One group's share of the convolution."""

    def __init__(self, weight: Tensor, bias: Tensor | None, group: Group, diagonal: str) -> None:
        super().__init__()
        self.group, self.k = group, weight.shape[-1]
        kernel, self.pads = fold_kernel(weight, group.source, group.moves, sum(group.maps))
        self.boxes = _boxes(self.k, group.moves, diagonal)
        self.kernels = nn.ParameterList(
            [frozen(kernel[:, :, b.row : b.row + b.height, b.column : b.column + b.width]) for b in self.boxes]
        )
        self.bias = frozen(bias)
        self.centred = set(group.moves) == {(0, 0)}
        moving = self.k > 1 and not self.centred
        self.border = _Border(weight, group, self.pads) if moving else None

    @property
    def needs_halo(self) -> bool:
        """Whether zeros are put around its maps; a kernel that is centred pads by itself."""
        return not (self.centred and len(self.group.bases) == 1)

    def forward(self, inputs: Sequence[Tensor], acts: Sequence[Activation], portable: bool) -> Tensor:
        bases, own = [inputs[b] for b in self.group.bases], [acts[b] for b in self.group.bases]
        if not self.needs_halo:
            x = bases[0] if own[0] is None else own[0](bases[0])
            return F.conv2d(x, self.kernels[0], self.bias, padding=self.k // 2)
        return self.convolve((padded if portable else halo_buffer)(bases, own, self.pads), portable)

    def convolve(self, buffer: Tensor, portable: bool) -> Tensor:
        """From the maps with zeros around them."""
        out = box_convolutions(buffer, list(self.kernels), self.boxes, self.bias)
        return take_away(out, self.strips(buffer), portable=portable)

    def taps(self, like: Tensor) -> Taps:
        """For a kernel that goes through taps, on a tensor's device and in its type."""
        moved = {} if self.border is None else self.border.moved()
        used = support(self.k, self.group.moves)
        return tap_list(list(self.kernels), self.boxes, used, self.pads, moved, self.k, like)

    def strips(self, buffer: Tensor) -> list[Strip]:
        """What the convolution of the whole buffer has too much."""
        return [] if self.border is None else self.border(buffer)

    def rows(self, buffer: Tensor, strips: Sequence[Strip], first: int, last: int) -> Tensor:
        """Rows ``first`` to ``last`` of the result alone.

        Args:
            buffer: The maps with zeros around them.
            strips: Of all of it.
            first: Row.
            last: Row, exclusive.
        """
        whole = buffer.shape[2] - self.pads[0] - self.pads[1]
        there = buffer[:, :, first : buffer.shape[2] - (whole - last)]
        out = box_convolutions(there, list(self.kernels), self.boxes, self.bias)
        return take_away(out, strips_of_rows(strips, whole, first, last))


class WithHalo(nn.Module):
    """Puts zeros around maps, and activates them on the way, for a :class:`FoldedConv2d` of one group.

    A module of its own, so that the maps themselves are gone before the convolution makes its output.

    Args:
        conv: What it is for.
    """

    def __init__(self, conv: FoldedConv2d) -> None:
        super().__init__()
        self.acts, self.portable = conv.acts, conv.portable
        (part,) = conv.parts
        assert isinstance(part, Part)
        self.pads: Pads = part.pads

    def forward(self, *inputs: Tensor) -> Tensor:
        """Tensors ``(N, maps, H, W)`` to one with a halo."""
        return (padded if self.portable else halo_buffer)(inputs, self.activations(), self.pads)

    def activations(self) -> list[Activation]:
        """Of each tensor."""
        return [None if isinstance(a, nn.Identity) else a for a in self.acts]


class FoldedConv2d(nn.Module):
    """A stride-1, zero-padded convolution whose input channels are maps of some tensors, read at moved places.

    Args:
        weight: ``(outputs, channels, k, k)``, as of the convolution on all channels.
        bias: ``(outputs,)``.
        groups: Which channels come from what.
        acts: What is applied to each input first, with ``act(0) = 0``.
        diagonal: ``box``: the whole rectangle around a kernel's taps; ``taps``: rectangles that cover nothing else;
            ``auto``: the former unless it is far larger.
        portable: Nothing in place, for exporters.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        groups: Sequence[Group],
        acts: Sequence[nn.Module | None],
        diagonal: str = "auto",
        portable: bool = False,
    ) -> None:
        super().__init__()
        self.portable = portable
        self.acts = nn.ModuleList([nn.Identity() if a is None else a for a in acts])
        self.parts = nn.ModuleList(
            [Part(weight[:, list(g.channels)], bias if i == 0 else None, g, diagonal) for i, g in enumerate(groups)]
        )

        self.takes_buffer = len(groups) == 1 and self.parts[0].needs_halo

    def forward(self, *inputs: Tensor) -> Tensor:
        """Tensors ``(N, maps, H, W)`` to ``(N, outputs, H, W)``; of one group with a halo, its buffer alone."""
        if self.takes_buffer:
            only: Any = self.parts[0]
            return only.convolve(inputs[0], self.portable)
        acts: list[Activation] = [None if isinstance(a, nn.Identity) else a for a in self.acts]
        out: Tensor | None = None
        for part in self.parts:
            found = part(inputs, acts, self.portable)
            if out is not None:
                found = out + found if self.portable else out.add_(found)
            out = found
        assert out is not None
        return out
