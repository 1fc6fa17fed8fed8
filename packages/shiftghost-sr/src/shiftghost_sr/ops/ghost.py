"""Intrinsic maps and their moved copies in one tensor, as one operator with its own gradient.

Forward: maps and moved maps are written side by side into one buffer. Backward: the gradient of a map is its own plus
those of its copies moved back; the gradient of a one-hot kernel at each direction is the product of the copies'
gradient with the maps read there. The moved maps of the other directions are never made, and no sum is left to chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shiftghost_sr.ops.shift import Direction, add_shifted, copy_shifted, windows

__all__ = ["Placing", "ghost_maps"]


@dataclass(frozen=True)
class Placing:
    """Where maps go.

    Args:
        directions: All that a kernel may be at, in the order of its entries.
        chosen: Index among them for each group of ghosts.
        source: Intrinsic map of each ghost, ``(n_G,)``; on the CPU.
        kept: Channel of each intrinsic map in the output, ``(n_I,)``; ``None``: the first ``n_I``, in order.
        ghosts: Channel of each ghost, ``(n_G,)``; ``None``: those after the intrinsic maps, in order.
    """

    directions: tuple[Direction, ...]
    chosen: tuple[int, ...]
    source: Tensor
    kept: Tensor | None = None
    ghosts: Tensor | None = None

    def group_bounds(self) -> list[tuple[int, int]]:
        """First and last ghost (exclusive) of each group: as equal as can be, in order."""
        n, groups = len(self.source), len(self.chosen)
        edges = [i * n // groups for i in range(groups + 1)]
        return list(itertools.pairwise(edges))


def _runs(index: Tensor) -> list[tuple[int, int, int]]:
    """An index as runs of consecutive numbers: place in the index, first number, length."""
    found: list[tuple[int, int, int]] = []
    for place, value in enumerate(index.tolist()):
        if found and found[-1][1] + found[-1][2] == value:
            found[-1] = (*found[-1][:2], found[-1][2] + 1)
        else:
            found.append((place, value, 1))
    return found


def _rounds(source: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Ghosts in rounds in which no source comes twice, so that adding by index is exact and in a fixed order."""
    seen: dict[int, int] = {}
    rounds: list[tuple[list[int], list[int]]] = []
    for ghost, one in enumerate(source.tolist()):
        turn = seen[one] = seen.get(one, -1) + 1
        if turn == len(rounds):
            rounds.append(([], []))
        rounds[turn][0].append(ghost)
        rounds[turn][1].append(one)
    return [(torch.tensor(a), torch.tensor(b)) for a, b in rounds]


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Channels by index; a view where they are consecutive."""
    runs = _runs(index)
    if len(runs) == 1:
        return x.narrow(1, runs[0][1], runs[0][2])
    return x.index_select(1, index.to(x.device))


def _moved(f: Tensor, placing: Placing, out: Tensor) -> None:
    """Fill ``out`` ``(N, n_G, H, W)`` with the ghosts."""
    for (first, last), chosen in zip(placing.group_bounds(), placing.chosen, strict=True):
        for place, source, length in _runs(placing.source[first:last]):
            there = out.narrow(1, first + place, length)
            copy_shifted(there, f.narrow(1, source, length), placing.directions[chosen])


class _GhostMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, kernel: Tensor, placing: Placing) -> Tensor:
        ctx.placing = placing
        ctx.save_for_backward(f if kernel.requires_grad else f.new_empty(0))
        ctx.kernel = kernel.shape, kernel.dtype
        n, total = f.shape[1], f.shape[1] + len(placing.source)
        channels_last = f.dim() == 4 and f.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last and not f.is_contiguous() else torch.contiguous_format
        out = torch.empty((f.shape[0], total, *f.shape[2:]), dtype=f.dtype, device=f.device, memory_format=layout)
        if placing.kept is None or placing.ghosts is None:
            out.narrow(1, 0, n).copy_(f)
            _moved(f, placing, out.narrow(1, n, total - n))
            return out
        ghosts = torch.empty((f.shape[0], total - n, *f.shape[2:]), dtype=f.dtype, device=f.device)
        _moved(f, placing, ghosts)
        out.index_copy_(1, placing.kept.to(f.device), f)
        out.index_copy_(1, placing.ghosts.to(f.device), ghosts)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        placing: Placing = ctx.placing
        n_ghosts = len(placing.source)
        n = grad.shape[1] - n_ghosts
        if placing.kept is None or placing.ghosts is None:
            own, moved = grad.narrow(1, 0, n), grad.narrow(1, n, n_ghosts)
        else:
            own, moved = (grad.index_select(1, i.to(grad.device)) for i in (placing.kept, placing.ghosts))
        grad_f = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_f = own.clone()
            for (first, last), chosen in zip(placing.group_bounds(), placing.chosen, strict=True):
                v = placing.directions[chosen]
                _add_back(grad_f, moved.narrow(1, first, last - first), placing.source[first:last], (-v[0], -v[1]))
        if ctx.needs_input_grad[1]:
            (f,) = ctx.saved_tensors
            grad_kernel = _kernel_gradient(f, moved, placing, *ctx.kernel)
        return grad_f, grad_kernel, None


def _add_back(grad_f: Tensor, moved: Tensor, source: Tensor, v: Direction) -> None:
    runs = _runs(source)
    if len(runs) <= 4:
        for place, first, length in runs:
            add_shifted(grad_f.narrow(1, first, length), moved.narrow(1, place, length), v)
        return
    for ghosts, sources in _rounds(source):
        ghosts, sources = ghosts.to(grad_f.device), sources.to(grad_f.device)
        part = grad_f.index_select(1, sources)
        add_shifted(part, moved.index_select(1, ghosts), v)
        grad_f.index_copy_(1, sources, part)


def _kernel_gradient(f: Tensor, moved: Tensor, placing: Placing, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Products of the ghosts' gradient with the maps at every direction, ``(groups, directions)``; in fp32 or wider."""
    height, width = f.shape[-2:]
    wide = torch.promote_types(f.dtype, torch.float32)
    found = torch.zeros(tuple(shape), dtype=wide, device=f.device)
    for group, (first, last) in enumerate(placing.group_bounds()):
        maps, grad = _take(f, placing.source[first:last]), moved.narrow(1, first, last - first)
        for k, (dy, dx) in enumerate(placing.directions):
            (ty, sy), (tx, sx) = windows(height, dy), windows(width, dx)
            product = grad[..., ty, tx].to(wide) * maps[..., sy, sx].to(wide)
            found[group, k] = product.sum()
    return found.to(dtype)


def ghost_maps(f: Tensor, kernel: Tensor, placing: Placing) -> Tensor:
    """Intrinsic maps and ghosts in one tensor.

    Args:
        f: Intrinsic maps ``(N, n_I, H, W)``.
        kernel: One-hot ``(groups, directions)``; read for its gradient only, the values are those of ``placing``.
        placing: Which direction, and where maps go.

    Returns:
        ``(N, n_I + n_G, H, W)``, in the memory format of ``f``.
    """
    found: Tensor = _GhostMaps.apply(f, kernel, placing)  # type: ignore[assignment]
    return found
