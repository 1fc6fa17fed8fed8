"""A folded convolution as a list of taps, which is how a kernel goes through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shiftghost_sr.ops.fold import Box, Pads
from shiftghost_sr.ops.shift import Direction

__all__ = ["Taps", "Target", "tap_list", "targets_table"]

_NOWHERE = 1 << 24  # a displacement that is outside every frame
Offset = tuple[int, int, int, int]
Target = tuple[int, int, int, Direction]
"""First channel of an output, first map, how many, and their move."""


@dataclass(frozen=True)
class Taps:
    """What a kernel reads.

    Attributes:
        weights: ``(taps, maps, outputs)``.
        offsets: ``(taps, 4)``: row and column that a tap reads at; and a row and column of which one must be outside
            the frame for it to count.
        sides: Pixels above, below, left and right, near which more than the folded taps count.
        folded: How many taps count everywhere; they come first.
    """

    weights: Tensor
    offsets: Tensor
    sides: Tensor
    folded: int


def tap_list(
    kernels: Sequence[Tensor],
    boxes: Sequence[Box],
    used: Sequence[Sequence[bool]],
    pads: Pads,
    moved: Mapping[Direction, tuple[Tensor | None, Tensor | None]],
    k: int,
    like: Tensor,
) -> Taps:
    """List the taps of a folded kernel, then those that take away what it reads too much at the border.

    Args:
        kernels: Rectangles of the folded kernel, ``(outputs, maps, h, w)``.
        boxes: Where each lies in it.
        used: Which of its taps are not zero by construction, see :func:`~shiftghost_sr.ops.fold.support`.
        pads: How far it reads.
        moved: As of :func:`~shiftghost_sr.ops.folded_conv.border_strips`.
        k: Kernel before folding.
        like: For device and type.
    """
    offsets: list[Offset] = []
    slabs: list[Tensor] = []
    for kernel, box in zip(kernels, boxes, strict=True):
        for i in range(box.height):
            for j in range(box.width):
                if not used[box.row + i][box.column + j]:
                    continue
                own = (box.row + i - pads[0], box.column + j - pads[2])
                offsets.append((*own, _NOWHERE, _NOWHERE))
                slabs.append(kernel[:, :, i, j])
    folded = len(offsets)
    half = k // 2
    for v, (rows, columns) in moved.items():
        for (dy, dx), weight in _beyond(rows, columns, v, half):
            offsets.append((dy + v[0], dx + v[1], dy, dx))
            slabs.append(-weight)
    sides = [
        half * any(v[0] > 0 for v in moved), half * any(v[0] < 0 for v in moved),
        half * any(v[1] > 0 for v in moved), half * any(v[1] < 0 for v in moved),
    ]  # fmt: skip
    weights = torch.stack(slabs).transpose(1, 2).to(like.device, like.dtype).contiguous()
    to: dict[str, Any] = {"dtype": torch.int32, "device": like.device}
    return Taps(weights, torch.tensor(offsets, **to), torch.tensor(sides, **to), folded)


def _beyond(
    rows: Tensor | None, columns: Tensor | None, v: Direction, half: int
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Taps of a moved channel's kernel that may read beyond the side it moves from, each once."""
    k = 2 * half + 1
    for i in range(k):
        for j in range(k):
            dy, dx = i - half, j - half
            if rows is not None and dy * v[0] < 0:
                yield (dy, dx), rows[:, :, i if v[0] > 0 else i - half - 1, j]
            elif columns is not None and dx * v[1] < 0:
                yield (dy, dx), columns[:, :, i, j if v[1] > 0 else j - half - 1]


def targets_table(targets: Sequence[Target] | None, outputs: int) -> Tensor:
    """Which channels of an output each map goes to, and at which move.

    Args:
        targets: Runs of channels; ``None``: each map to the channel of its number.
        outputs: Maps.

    Returns:
        ``(most, outputs, 3)``, integers; channel -1 is none.
    """
    found: list[list[tuple[int, int, int]]] = [[] for _ in range(outputs)]
    for first, source, count, move in [(0, 0, outputs, (0, 0))] if targets is None else targets:
        for i in range(count):
            found[source + i].append((first + i, *move))
    most = max((len(one) for one in found), default=0)
    none = (-1, 0, 0)
    rows = [[one[r] if r < len(one) else none for one in found] for r in range(most)]
    return torch.tensor(rows, dtype=torch.int32).view(most, outputs, 3)
