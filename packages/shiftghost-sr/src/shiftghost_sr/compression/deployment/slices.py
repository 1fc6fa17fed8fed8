"""Modules of a deployed graph that only move: ghosts written out, or added slice by slice to what they are added to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftghost_sr.compression.deployment.layout import Channel, Run, runs
from shiftghost_sr.ops.halo_buffer import layout_of
from shiftghost_sr.ops.shift import Direction, copy_shifted, windows

__all__ = ["AddSlices", "Materialise"]

_MANY = 8  # runs of one move; beyond, channels are gathered by index once instead of one by one


def _shifted(x: Tensor, v: Direction) -> Tensor:
    """Out of place, from slices and padding alone."""
    if v == (0, 0):
        return x
    a, b = v
    wide = F.pad(x, (max(-b, 0), max(b, 0), max(-a, 0), max(a, 0)))
    rows = slice(a, None) if a > 0 else slice(None, a or None)
    columns = slice(b, None) if b > 0 else slice(None, b or None)
    return wide[..., rows, columns]


class _Plan(nn.Module):
    """Runs of channels, and index lists for moves whose runs are too many."""

    inverse: Tensor

    def __init__(self, channels: Sequence[Channel], portable: bool) -> None:
        super().__init__()
        self.total, self.portable = len(channels), portable
        self.runs = runs(channels)
        self.plan = self.runs
        self.lists: list[tuple[int, Direction, str]] = []
        if len(self.plan) > _MANY and not portable:
            groups: dict[tuple[int, Direction], list[Run]] = {}
            for run in self.plan:
                groups.setdefault((run.base, run.move), []).append(run)
            self.plan = [r for members in groups.values() if len(members) <= 2 for r in members]
            for number, ((base, move), members) in enumerate(groups.items()):
                if len(members) <= 2:
                    continue
                source = [r.source + i for r in members for i in range(r.count)]
                target = [r.first + i for r in members for i in range(r.count)]
                self.register_buffer(f"source{number}", torch.tensor(source), persistent=False)
                self.register_buffer(f"target{number}", torch.tensor(target), persistent=False)
                self.lists.append((base, move, str(number)))
        self.order = None
        if portable:
            # Runs are joined in order of the tensors and moves, then put in place by one index.
            groups = {}
            for run in self.plan:
                groups.setdefault((run.base, run.move), []).append(run)
            self.pieces = [
                (base, move, [r.source + i for r in members for i in range(r.count)])
                for (base, move), members in groups.items()
            ]
            target = [r.first + i for members in groups.values() for r in members for i in range(r.count)]
            if target != list(range(self.total)):
                inverse = [0] * self.total
                for place, channel in enumerate(target):
                    inverse[channel] = place
                self.register_buffer("inverse", torch.tensor(inverse), persistent=False)
                self.order = "inverse"
            for number, (_, _, source) in enumerate(self.pieces):
                self.register_buffer(f"piece{number}", torch.tensor(source), persistent=False)

    def whole(self, bases: Sequence[Tensor]) -> Tensor:
        """All channels in a new tensor, out of place."""
        found = []
        for number, (base, move, source) in enumerate(self.pieces):
            x = bases[base]
            if source == list(range(source[0], source[0] + len(source))):
                part = x if len(source) == x.shape[1] else x[:, source[0] : source[0] + len(source)]
            else:
                part = x.index_select(1, getattr(self, f"piece{number}"))
            found.append(_shifted(part, move))
        joined = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        return joined if self.order is None else joined.index_select(1, self.inverse)


class Materialise(_Plan):
    """All channels in one tensor.

    Args:
        channels: What each is; ``base`` counts the inputs.
        portable: Nothing in place, for exporters.
    """

    def forward(self, *bases: Tensor) -> Tensor:
        """Tensors ``(N, maps, H, W)`` to ``(N, channels, H, W)``."""
        if self.portable:
            return self.whole(bases)
        x = bases[0]
        shape = (x.shape[0], self.total, *x.shape[2:])
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))
        for run in self.plan:
            there = out.narrow(1, run.first, run.count)
            copy_shifted(there, bases[run.base].narrow(1, run.source, run.count), run.move)
        for base, move, number in self.lists:
            part = bases[base].index_select(1, getattr(self, f"source{number}"))
            if move != (0, 0):
                moved = torch.empty_like(part)
                copy_shifted(moved, part, move)
                part = moved
            out.index_copy_(1, getattr(self, f"target{number}"), part)
        return out


class AddSlices(_Plan):
    """``x`` plus channels that are maps read at moved places, slice by slice.

    Args:
        channels: What each added channel is; ``base`` counts the inputs after ``x``.
        inplace: Whether ``x`` may be changed, because nobody reads it later.
        portable: Nothing in place, for exporters.
    """

    def __init__(self, channels: Sequence[Channel], inplace: bool, portable: bool) -> None:
        super().__init__(channels, portable)
        self.inplace = inplace

    def forward(self, x: Tensor, *bases: Tensor) -> Tensor:
        """``(N, channels, H, W)`` and the maps' tensors to the sum."""
        if self.portable:
            return x + self.whole(bases)
        out = self.target(x)
        self.add_rows(out, bases, 0, x.shape[2])
        return out

    def target(self, x: Tensor) -> Tensor:
        """What is added to."""
        return x if self.inplace else x.clone()

    def add_rows(self, out: Tensor, bases: Sequence[Tensor], first: int, last: int) -> None:
        """Add what some rows of the maps bring, into whatever rows they are moved to.

        Args:
            out: ``(N, channels, H, W)``, from :meth:`target`.
            bases: ``(N, maps, last - first, W)``.
            first: Row that the maps' first one is.
            last: Row, exclusive.
        """
        for run in self.plan:
            rows, columns, part = self._moved(out, bases[run.base], run.move, first, last)
            out[:, run.first : run.first + run.count, rows, columns].add_(part[:, run.source : run.source + run.count])
        for base, move, number in self.lists:
            source, target = (getattr(self, f"{name}{number}") for name in ("source", "target"))
            rows, columns, part = self._moved(out, bases[base], move, first, last)
            out[..., rows, columns].index_add_(1, target, part.index_select(1, source))

    @staticmethod
    def _moved(out: Tensor, x: Tensor, v: Direction, first: int, last: int) -> tuple[slice, slice, Tensor]:
        """Rows and columns that maps of some rows are added to, and the part of them that is."""
        (ty, sy), (tx, sx) = windows(out.shape[2], v[0]), windows(out.shape[3], v[1])
        low = min(max(sy.start, first), last)
        high = max(min(sy.stop, last), low)
        start = low + ty.start - sy.start
        return slice(start, start + high - low), tx, x[:, :, low - first : high - first, sx]
