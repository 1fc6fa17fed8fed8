"""The budgets of a search's steps: a geometric row from what the start costs to the target."""

from __future__ import annotations

import math
from dataclasses import dataclass

from effkit.errors import UserError

__all__ = ["RATIO", "Schedule", "check_delta"]

RATIO = 1.155
"""Ratio of two budgets that the default number of steps comes closest to; ours, the paper's is not known to us."""


def check_delta(field: str, value: float) -> float:
    """Return a relative tolerance.

    Raises:
        UserError: If it is not in (0, 0.5).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 0.5:
        raise UserError(f"{field}={value!r} must be above 0 and below 0.5, e.g. 0.05")
    return float(value)


@dataclass(frozen=True)
class Schedule:
    """Budgets of the steps: ``round(start (target / start)^(n / steps))``.

    Attributes:
        start: MACs of the start.
        target: MACs to come to.
        steps: How many steps; 0 where the start is close enough already.
        delta: Largest allowed ``|MACs - budget| / budget`` of a step.
        delta_final: Of the last step.
    """

    start: int
    target: int
    steps: int
    delta: float = 0.05
    delta_final: float = 0.01

    @classmethod
    def plan(
        cls, start: int, target: int, steps: int | None = None, delta: float = 0.05, delta_final: float = 0.01
    ) -> Schedule:
        """Lay out a search.

        Args:
            start: MACs of the start.
            target: MACs to come to.
            steps: How many steps; ``None`` takes as many as bring the ratio of two budgets closest to :data:`RATIO`.
            delta: See the attributes.
            delta_final: Likewise.

        Raises:
            UserError: If the target is not above the start, or a value is out of range.
        """
        check_delta("delta", delta), check_delta("delta_final", delta_final)
        if isinstance(target, bool) or not isinstance(target, int) or target < 1:
            raise UserError(f"budget={target!r} must be a whole number of MACs")
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise UserError(f"steps={steps!r} must be a whole number of at least 1")
        if target <= start:
            raise UserError(
                f"budget={target:,} is {start - target:,} MACs below the start's {start:,}: a search only grows, "
                f"give a budget above {start:,} or a smaller start"
            )
        if target <= start * (1 + delta_final):
            return cls(start, target, 0, delta, delta_final)
        if steps is None:
            steps = max(1, round(math.log(target / start) / math.log(RATIO)))
        return cls(start, target, steps, delta, delta_final)

    def budget(self, step: int) -> int:
        """MACs of step ``n`` (0 is the start)."""
        if step == self.steps:
            return self.target
        return round(self.start * (self.target / self.start) ** (step / self.steps))

    def tolerance(self, step: int) -> float:
        """Relative tolerance of a step."""
        return self.delta_final if step == self.steps else self.delta
