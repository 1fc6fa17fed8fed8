"""A convolution over maps and moved maps as one convolution over the maps alone: weights, and what the border needs.

A channel that is map ``s`` read at ``(a, b)`` adds its kernel, moved by ``(a, b)``, to the kernel of map ``s``. Taps
that fall together are added up, so that the folded kernel reads less than both would.

With zeros around the frame this is exact but for one thing: at a position outside the frame the moved map is zero,
where the map itself, at the moved place, may be inside. Such positions lie in strips along two sides; what a kernel
gets from them is computed alone and taken away again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shiftghost_sr.ops.shift import Direction

__all__ = ["Box", "Pads", "exact_boxes", "fold_kernel", "moved_kernels", "support"]

Pads = tuple[int, int, int, int]
"""Rows above and below, columns left and right of the frame that a kernel reads; negative where it does not reach."""


@dataclass(frozen=True)
class Box:
    """A rectangle of taps: first row and column inside the folded kernel, height and width."""

    row: int
    column: int
    height: int
    width: int

    @property
    def taps(self) -> int:
        """How many."""
        return self.height * self.width


def fold_kernel(weight: Tensor, source: Sequence[int], moves: Sequence[Direction], maps: int) -> tuple[Tensor, Pads]:
    """Fold moves into weights.

    Args:
        weight: ``(outputs, channels, k, k)``, k odd.
        source: Map of each channel.
        moves: Where each channel reads it.
        maps: How many maps there are.

    Returns:
        ``(outputs, maps, height, width)``, and how far it reads beyond the frame. Sums are in float32 at least.
    """
    outputs, _, k, _ = weight.shape
    half = k // 2
    lowest = [min(v[axis] for v in moves) for axis in (0, 1)]
    highest = [max(v[axis] for v in moves) for axis in (0, 1)]
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    size = [k + high - low for low, high in zip(lowest, highest, strict=True)]
    kernel = torch.zeros(outputs, maps, *size, dtype=wide.dtype, device=weight.device)
    for (a, b), channels in _by_move(moves).items():
        place = kernel[:, :, a - lowest[0] : a - lowest[0] + k, b - lowest[1] : b - lowest[1] + k]
        _add_channels(place, wide, channels, source)
    pads = (half - lowest[0], half + highest[0], half - lowest[1], half + highest[1])
    return kernel.to(weight.dtype), pads


def moved_kernels(
    weight: Tensor, source: Sequence[int], moves: Sequence[Direction], maps: int
) -> dict[Direction, Tensor]:
    """Kernels ``(outputs, maps, k, k)`` of the channels of each move other than none: what the border is made from."""
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    found = {}
    for v, channels in _by_move(moves).items():
        if v == (0, 0) or weight.shape[-1] == 1:
            continue
        kernel = torch.zeros(weight.shape[0], maps, *weight.shape[2:], dtype=wide.dtype, device=weight.device)
        _add_channels(kernel, wide, channels, source)
        found[v] = kernel.to(weight.dtype)
    return found


def support(k: int, moves: Sequence[Direction]) -> list[list[bool]]:
    """Which taps of the folded kernel some channel has."""
    lowest = [min(v[axis] for v in moves) for axis in (0, 1)]
    highest = [max(v[axis] for v in moves) for axis in (0, 1)]
    height, width = (k + high - low for low, high in zip(lowest, highest, strict=True))
    found = [[False] * width for _ in range(height)]
    for a, b in set(moves):
        for i in range(k):
            for j in range(k):
                found[a - lowest[0] + i][b - lowest[1] + j] = True
    return found


def exact_boxes(taps: Sequence[Sequence[bool]]) -> list[Box]:
    """Rectangles that cover all taps, each once, and nothing else: runs of a row, joined where rows are alike."""
    found: list[Box] = []
    open_runs: dict[tuple[int, int], Box] = {}
    for row, line in enumerate(taps):
        runs = []
        column = 0
        while column < len(line):
            width = 0
            while column + width < len(line) and line[column + width]:
                width += 1
            if width:
                runs.append((column, width))
            column += max(width, 1)
        going = {}
        for run in runs:
            before = open_runs.pop(run, None)
            start = row if before is None else before.row
            going[run] = Box(start, run[0], row - start + 1, run[1])
        found += open_runs.values()
        open_runs = going
    return [*found, *open_runs.values()]


def _by_move(moves: Sequence[Direction]) -> dict[Direction, list[int]]:
    found: dict[Direction, list[int]] = {}
    for channel, v in enumerate(moves):
        found.setdefault(v, []).append(channel)
    return found


def _add_channels(place: Tensor, weight: Tensor, channels: Sequence[int], source: Sequence[int]) -> None:
    index = torch.tensor([source[c] for c in channels], device=place.device)
    # Deterministic: index_add on the CPU goes in order, and this runs once.
    place.index_add_(1, index, weight[:, list(channels)])
