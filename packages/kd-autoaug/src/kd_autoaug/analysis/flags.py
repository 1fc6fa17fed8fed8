"""Which cells destroyed the label, and on what evidence.

A frozen teacher's failure is no such evidence: it may only have never met such pictures. Two things are: an adapted
probe that learned on these very views and still cannot tell the label, and views that are one flat colour.
"""

from __future__ import annotations

from typing import NamedTuple

from effkit.errors import UserError
from kd_autoaug.analysis.result import AnalysisResult, Cell

__all__ = ["Flag", "flags"]


class Flag(NamedTuple):
    """A cell whose label information is gone, and why we say so."""

    operator: str
    magnitude: float | None
    reason: str


def flags(result: AnalysisResult, keep: float = 0.5, blank: float = 0.5) -> list[Flag]:
    """Cells that destroy labels.

    Args:
        result: Of ``analyze``.
        keep: A cell is flagged if the upper end of what its adapted probe learned is below this share of what the same
            network learned without augmentation.
        blank: A cell is also flagged if more than this share of its views are one flat colour.

    Raises:
        UserError: If a share is out of range.
    """
    for name, value in (("keep", keep), ("blank", blank)):
        if not 0 <= value <= 1:
            raise UserError(f"{name}={value!r} must be in 0..1")
    found = []
    for cell in result.cells:
        reasons = [*_blank(cell, blank), *_probe(cell, result.clean, keep)]
        if reasons:
            found.append(Flag(cell.operator, cell.magnitude, "; ".join(reasons)))
    return found


def _blank(cell: Cell, limit: float) -> list[str]:
    return [f"{cell.blank:.0%} of the views are one flat colour"] if cell.blank > limit else []


def _probe(cell: Cell, clean: Cell, keep: float) -> list[str]:
    if "information_probe" not in cell.estimates:
        return []
    high, whole = cell.estimates["information_probe"].high, clean.estimates["information_probe"].value
    if not high < keep * whole:
        return []
    return [f"a probe trained on such views finds at most {high:.2f} of {whole:.2f} bits"]
