"""A picture in tiles without seams: each tile is computed with as much around it as its pixels depend on.

How far a network sees follows from its layers and, in a ghost network, from the directions of its shifts, so it differs
by side. At the frame of the picture a tile ends where the picture ends, and the network pads there as it always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from effkit.errors import UserError
from effkit.progress import report_progress

__all__ = ["Halo", "Tile", "run_tiled", "tiles"]

Halo = tuple[int, int, int, int]
"""Pixels of the low-resolution picture that are needed above, below, left and right of a pixel."""


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in low-resolution pixels.

    Attributes:
        rows: First and last row (exclusive) that this tile computes.
        columns: Likewise.
        seen_rows: First and last row (exclusive) that it looks at.
        seen_columns: Likewise.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    seen_rows: tuple[int, int]
    seen_columns: tuple[int, int]

    def own(self, output: Tensor, scale: int) -> Tensor:
        """What of a network's output ``(..., H, W)`` for the seen part belongs to this tile."""
        top, left = self.rows[0] - self.seen_rows[0], self.columns[0] - self.seen_columns[0]
        height, width = self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]
        return output[..., top * scale : (top + height) * scale, left * scale : (left + width) * scale]


def tiles(size: tuple[int, int], tile: int | None, halo: Halo) -> list[Tile]:
    """Cut a picture into tiles of about equal size.

    Args:
        size: Height and width of the picture.
        tile: Largest side of a tile, without what is around it; ``None`` takes the picture in one piece.
        halo: What is around it.

    Raises:
        UserError: If ``tile`` is no whole number of at least 1.
    """
    if tile is not None and (isinstance(tile, bool) or not isinstance(tile, int) or tile < 1):
        raise UserError(f"tile={tile!r} must be a whole number of at least 1, or null for the whole picture")
    above, below, left, right = halo
    return [
        Tile(
            rows,
            columns,
            (max(0, rows[0] - above), min(size[0], rows[1] + below)),
            (max(0, columns[0] - left), min(size[1], columns[1] + right)),
        )
        for rows in _spans(size[0], tile)
        for columns in _spans(size[1], tile)
    ]


def _spans(length: int, tile: int | None) -> Iterator[tuple[int, int]]:
    count = 1 if tile is None else -(-length // tile)
    for number in range(count):
        yield length * number // count, length * (number + 1) // count


def run_tiled(
    run: Callable[[Tensor], Tensor],
    read: Callable[[Tile], Tensor],
    write: Callable[[Tile, Tensor], None],
    plan: list[Tile],
    scale: int,
) -> None:
    """Compute tiles one after the other.

    Args:
        run: The network.
        read: Gives what a tile sees, as the network takes it.
        write: Is given what a tile computed, without what is around it.
        plan: From :func:`tiles`.
        scale: How many times larger the result is than the picture that was cut into tiles.

    Raises:
        UserError: If the network's output is of another size.
    """
    for number, tile in enumerate(plan):
        output = run(read(tile))
        seen = [last - first for first, last in (tile.seen_rows, tile.seen_columns)]
        wanted = tuple(length * scale for length in seen)
        if tuple(output.shape[-2:]) != wanted:
            raise UserError(
                f"the model gives {tuple(output.shape[-2:])} pixels for {tuple(seen)}, scale={scale} means {wanted}"
            )
        write(tile, tile.own(output, scale))
        if len(plan) > 1:
            report_progress(f"tile {number + 1} of {len(plan)}", (number + 1) / len(plan))
