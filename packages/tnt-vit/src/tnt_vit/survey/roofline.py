"""Where a network stands below the roof that the machine's products and memory make (Williams et al. 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effkit.device import PRECISIONS

__all__ = ["Position", "position", "positions"]


@dataclass(frozen=True)
class Position:
    """One network at one batch size.

    Attributes:
        batch: Pictures a call.
        intensity: FLOP for each byte moved, two a multiply-add.
        flops_per_second: Reached.
        bytes_per_second: Reached, if every operator reads and writes memory.
        roof: FLOP/s that products and memory allow at this intensity.
        bound: What makes the roof there: ``products`` or ``memory``.
    """

    batch: int
    intensity: float
    flops_per_second: float
    bytes_per_second: float
    roof: float
    bound: str

    @property
    def share(self) -> float:
        """Of the roof; above 1 where caches or fused kernels spare memory."""
        return self.flops_per_second / self.roof


def position(
    macs: int, moved: int, seconds: float, floor: Mapping[str, float], *, batch: int = 1, itemsize: int = 4
) -> Position:
    """Place one measured call.

    Args:
        macs: Multiply-adds of a picture.
        moved: Numbers that the call moves, see :meth:`tnt_vit.survey.traffic.Traffic.moved`.
        seconds: Of the call.
        floor: The machine's ``flops_per_second`` of a large matrix product and ``bytes_per_second`` of a large copy.
        batch: Pictures a call.
        itemsize: Bytes of a number.
    """
    flops, moved_bytes = 2 * macs * batch, moved * itemsize
    intensity = flops / moved_bytes
    memory = intensity * floor["bytes_per_second"]
    bound = "memory" if memory < floor["flops_per_second"] else "products"
    roof = min(memory, floor["flops_per_second"])
    return Position(batch, intensity, flops / seconds, moved_bytes / seconds, roof, bound)


def positions(row: Mapping[str, Any]) -> list[Position]:
    """Of all batch sizes of a survey's row; none where it was not timed, or an older version counted it."""
    counted = row["counts"].get("traffic")
    if not counted or not row.get("sweep"):
        return []
    itemsize = PRECISIONS[row["settings"]["precision"]].itemsize
    return [
        position(
            row["counts"]["macs"], counted["weights"] + case["batch"] * counted["picture"], case["seconds"],
            row["floor"], batch=case["batch"], itemsize=itemsize,
        )
        for case in row["sweep"]
    ]  # fmt: skip
