"""Which cells destroyed the label, and on what evidence.

A frozen teacher's failure is no such evidence: it may only have never met such pictures. Two things are: views that are
one flat colour, and an adapted probe that learned on these very views and still cannot tell the label. A probe's figure
is a lower bound, though, and one that was trained too briefly finds too little; so a probe flags a cell only if one
trained longer finds little as well, and hardly more. Otherwise the cell is undecided.
"""

from __future__ import annotations

from typing import NamedTuple

from effkit.errors import UserError
from kd_autoaug.analysis.cell import Cell
from kd_autoaug.analysis.result import AnalysisResult

__all__ = ["KEEP", "Flag", "flags"]

KEEP = 0.5
"""A probe that learns less than this share of what it learns without augmentation is looked at again."""
STILL_LEARNING = 0.1
"""A rise by more than this share, from longer training, says that the probe was not done."""


class Flag(NamedTuple):
    """A cell whose label information seems gone, why we say so, and whether that is settled."""

    operator: str
    magnitude: float | None
    reason: str
    certain: bool


def flags(result: AnalysisResult, keep: float = KEEP, blank: float = 0.5) -> list[Flag]:
    """Cells that destroy labels, and those of which that is undecided.

    Args:
        result: Of ``analyze``.
        keep: A cell is suspected if the upper end of what its adapted probe learned is below this share of what the
            same network learned without augmentation.
        blank: A cell is flagged if more than this share of its views are one flat colour.

    Raises:
        UserError: If a share is out of range.
    """
    for name, value in (("keep", keep), ("blank", blank)):
        if not 0 <= value <= 1:
            raise UserError(f"{name}={value!r} must be in 0..1")
    found = []
    for cell in result.cells:
        reasons, certain = [], False
        if cell.blank > blank:
            reasons, certain = [f"{cell.blank:.0%} of the views are one flat colour"], True
        said = _probe(cell, result.clean, keep)
        if said is not None:
            reasons, certain = [*reasons, said[0]], certain or said[1]
        if reasons:
            found.append(Flag(cell.operator, cell.magnitude, "; ".join(reasons), certain))
    return found


def _probe(cell: Cell, clean: Cell, keep: float) -> tuple[str, bool] | None:
    """What the probe says, and whether that is settled; ``None`` if it finds enough."""
    first, longer = cell.estimates.get("information_probe"), cell.estimates.get("information_longer")
    if first is None:
        return None
    whole = clean.estimates["information_probe"].value
    best = first if longer is None or longer.value < first.value else longer
    if not best.high < keep * whole:
        return None
    said = f"a probe trained on such views finds at most {best.high:.2f} of {whole:.2f} bits"
    if longer is None:
        return f"{said}; not tried with longer training", False
    said += f" ({first.value:.2f} after a shorter training)"
    if longer.value - first.value > STILL_LEARNING * whole:
        return f"{said} and may not be done", False
    return said, True
