"""How close ours must come to a printed figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from effkit.errors import UserError, choose
from effkit.report import format_cell

__all__ = ["Kind", "Tolerance"]

Kind = Literal["exact", "abs", "rel", "rounds_to", "at_least", "at_most"]


@dataclass(frozen=True)
class Tolerance:
    """How close ours must come to the figure.

    Args:
        kind: "exact"; "abs" (within `value`); "rel" (within the fraction `value`); "rounds_to" (ours, rounded to as
            many decimals as the figure was printed with, is that figure); "at_least" or "at_most" (`value` is slack).
        value: Meaning by kind, see above.
        decimals: For "rounds_to": printed decimals, where the number does not show them. `23.8` shows one, the integer
            `4599` none; 4.10, printed with two, needs `decimals=2`.
    """

    kind: Kind = "exact"
    value: float = 0.0
    decimals: int | None = None

    def __post_init__(self) -> None:
        choose("tolerance", self.kind, list(get_args(Kind)))
        if self.value < 0:
            raise UserError(f"tolerance value must not be negative, got {self.value}")

    def check(self, ours: float, paper: float) -> tuple[bool, str]:
        """Compare, and say in words how.

        Args:
            ours: Our figure.
            paper: The paper's, in the same unit.

        Returns:
            Whether ours is close enough, and the reason.
        """
        off = ours - paper
        signed = f"{'+' if off >= 0 else '-'}{format_cell(abs(off))}"
        if self.kind == "exact":
            return ours == paper, "equal" if ours == paper else f"off by {signed}"
        if self.kind == "abs":
            limit = f"{format_cell(self.value)}"
            return abs(off) <= self.value, f"within {limit}" if abs(
                off
            ) <= self.value else f"off by {signed}, allowed {limit}"
        if self.kind == "rel":
            limit = f"{format_cell(100 * self.value)} %"
            percent = 100 * abs(off) / abs(paper) if paper else math.inf
            good = abs(off) <= self.value * abs(paper)
            return good, f"within {limit}" if good else f"off by {format_cell(percent)} %, allowed {limit}"
        if self.kind == "rounds_to":
            decimals = _decimals(paper) if self.decimals is None else self.decimals
            # A tie may be rounded either way; the last term forgives the binary representation of decimals.
            good = abs(off) <= 0.5 * 10.0**-decimals + 1e-9 * max(1.0, abs(paper))
            printed = f"{paper:,.{decimals}f}"
            return good, f"rounds to {printed}" if good else f"rounds to {ours:,.{decimals}f}, not {printed}"
        if self.kind == "at_least":
            good, word, direction = ours >= paper - self.value, "at least", "below"
        else:
            good, word, direction = ours <= paper + self.value, "at most", "above"
        slack = f" (slack {format_cell(self.value)})" if self.value else ""
        return good, f"{word if good else direction} {format_cell(paper)}{slack}"


def _decimals(figure: float) -> int:
    exponent = Decimal(str(figure)).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
