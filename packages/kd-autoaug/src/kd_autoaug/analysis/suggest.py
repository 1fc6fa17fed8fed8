"""From an analysis to a decision: how far to turn augmentation up, what to leave out, and how many classes to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from effkit.errors import UserError
from effkit.report import Table
from kd_autoaug.analysis.flags import Flag, flags
from kd_autoaug.analysis.result import POLICY, AnalysisResult, Cell, magnitude_name
from kd_autoaug.analysis.statistics import smallest_k

__all__ = ["KCurve", "OperatorAdvice", "Suggestion", "check_advice", "suggest"]


@dataclass(frozen=True)
class OperatorAdvice:
    """What an operator (or the whole policy) can bear.

    Attributes:
        operator: Its name.
        magnitude: The largest analysed one whose outlier rate is within the budget; ``None`` if none is.
        rate: Outlier rate there; at the smallest magnitude if none is within the budget.
        high: Upper end of its interval.
        gaps: Smaller magnitudes that are *not* within the budget (spaces in which an operator runs backwards).
    """

    operator: str
    magnitude: float | None
    rate: float
    high: float
    gaps: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class KCurve:
    """``K(M)``: how many classes hold most of the teacher's probability, by magnitude.

    Attributes:
        name: Operator or policy.
        k: K by magnitude, without augmentation first (key ``None``).
        non_decreasing: Whether K never falls as the magnitude grows.
    """

    name: str
    k: dict[float | None, int]
    non_decreasing: bool


@dataclass
class Suggestion:
    """The advice.

    Attributes:
        budget: Share of well-known pictures that may become outliers.
        use_upper: Whether the interval's upper end had to be within it, and not only the estimate.
        mass: Share of the teacher's probability that K classes have to hold.
        operators: Per operator.
        policy: For all operators together; ``None`` if that was not analysed.
        drop: Operators that are over the budget at every analysed magnitude.
        over_at: By magnitude, the operators that are over the budget there.
        k: K(M) of the policy first, then of every operator.
        flags: Cells whose label information is gone, and undecided ones.
        guessing: Why nothing is recommended: the teacher's answers are those of chance. Empty if they are not.
    """

    budget: float
    use_upper: bool
    mass: float
    operators: list[OperatorAdvice]
    policy: OperatorAdvice | None
    drop: list[str]
    over_at: dict[float, list[str]]
    k: list[KCurve]
    flags: list[Flag]
    guessing: str = ""

    def tables(self) -> list[Table]:
        """Magnitudes, operators over the budget, and K(M)."""
        bound = "upper end of the outlier rate" if self.use_upper else "outlier rate"
        rows: list[list[Any]] = []
        for advice in [*([self.policy] if self.policy else []), *self.operators]:
            gaps = ", ".join(map(magnitude_name, advice.gaps))
            mine = [f for f in self.flags if f.operator == advice.operator and f.certain]
            flagged = [f.magnitude for f in mine if f.magnitude is not None]
            lost = ", ".join(map(magnitude_name, flagged))
            rows.append([advice.operator, advice.magnitude, _round(advice.rate), _round(advice.high), gaps, lost])
        columns = [
            "operator",
            "largest M",
            "outlier rate",
            "upper end",
            "over budget at smaller M",
            "label mostly lost at M",
        ]
        note = f"Largest analysed magnitude whose {bound} is at most {self.budget:g}; empty: none is."
        first = Table("Largest magnitude within the budget", columns, rows, note)
        over = Table(
            "Operators over the budget",
            ["M", "operators"],
            [[m, ", ".join(names) or "none"] for m, names in self.over_at.items()],
        )
        heads = ["clean" if m is None else f"M={magnitude_name(m)}" for m in self.k[0].k] if self.k else []
        curves = [[c.name, *c.k.values(), c.non_decreasing] for c in self.k]
        title = f"K(M): classes that hold {self.mass:g} of the teacher's probability"
        return [first, over, Table(title, ["operator", *heads, "non-decreasing"], curves)]

    def lines(self) -> list[str]:
        """The advice in sentences."""
        if self.guessing:
            return [self.guessing]
        found = []
        if self.policy is not None:
            where = f"{self.policy.rate:.1%} (upper end {self.policy.high:.1%})"
            if self.policy.magnitude is None:
                found.append(f"No analysed magnitude keeps the policy within {self.budget:.1%} outliers: {where}.")
            else:
                found.append(f"Suggested magnitude: {magnitude_name(self.policy.magnitude)}, outliers {where}.")
                over = [o for o in self.over_at[self.policy.magnitude] if o not in self.drop]
                if over:
                    found.append(f"Over the budget by themselves at that magnitude: {', '.join(over)}.")
        if self.drop:
            found.append(f"Consider dropping, over the budget at every analysed magnitude: {', '.join(self.drop)}.")
        return found

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "budget": self.budget,
            "use_upper": self.use_upper,
            "mass": self.mass,
            "operators": [vars(o) for o in self.operators],
            "policy": None if self.policy is None else vars(self.policy),
            "drop": self.drop,
            "over_at": {magnitude_name(m): names for m, names in self.over_at.items()},
            "k": [
                {
                    "name": c.name,
                    "k": {"clean" if m is None else magnitude_name(m): k for m, k in c.k.items()},
                    "non_decreasing": c.non_decreasing,
                }
                for c in self.k
            ],
            "flags": [f._asdict() for f in self.flags],
            "guessing": self.guessing,
        }


def check_advice(budget: float, mass: float) -> None:
    """Refuse what :func:`suggest` would refuse, before anything is measured.

    Raises:
        UserError: If a number is out of range.
    """
    if not 0 <= budget <= 1:
        raise UserError(f"budget={budget!r} must be in 0..1: the share of pictures that may become outliers")
    if not 0 < mass <= 1:
        raise UserError(f"mass={mass!r} must be above 0 and at most 1: the share of probability that K classes hold")


def suggest(
    result: AnalysisResult,
    budget: float = 0.05,
    *,
    use_upper: bool = False,
    mass: float = 0.9,
) -> Suggestion:
    """Read advice off an analysis.

    Args:
        result: Of ``analyze``.
        budget: Largest outlier rate to accept, in [0, 1].
        use_upper: Require the upper end of its interval to be within the budget: the careful choice for few pictures.
        mass: Share of the teacher's probability that the K largest classes have to hold, in (0, 1].

    Raises:
        UserError: If a number is out of range.
    """
    check_advice(budget, mass)
    guessing = _guessing(result)

    def rate(cell: Cell) -> float:
        found = cell.estimates["outlier_rate"]
        return found.high if use_upper else found.value

    def within(cell: Cell) -> bool:
        return not guessing and rate(cell) <= budget  # NaN, from a teacher that knows no picture, is not

    def advise(name: str) -> OperatorAdvice:
        row = result.row(name)
        good = [c for c in row if within(c)]
        chosen = good[-1] if good else row[0]
        gaps = [c.magnitude for c in row if c.magnitude is not None and not within(c)]
        largest = chosen.magnitude if good else None
        found = chosen.estimates["outlier_rate"]
        below = [m for m in gaps if largest is not None and m < largest]
        return OperatorAdvice(name, largest, found.value, found.high, below)

    names = result.operators
    has_policy = any(c.operator == POLICY for c in result.cells)
    operators = [advise(n) for n in names]
    over_at = {m: [n for n in names if not within(result.cell(n, m))] for m in result.magnitudes}
    return Suggestion(
        budget,
        use_upper,
        mass,
        operators,
        advise(POLICY) if has_policy else None,
        [o.operator for o in operators if o.magnitude is None and not guessing],
        {} if guessing else over_at,
        [_k_curve(result, n, mass) for n in [*([POLICY] if has_policy else []), *names]],
        flags(result),
        guessing,
    )


def _guessing(result: AnalysisResult) -> str:
    """A sentence about a teacher that knows clean pictures no better than chance; empty for others."""
    known, chance = result.clean.estimates.get("teacher_accuracy"), 1 / len(result.class_names)
    if known is None or known.low > chance:
        return ""
    return (
        f"Nothing is recommended: the teacher names the class of {known.value:.1%} of clean pictures "
        f"({known.low:.1%} to {known.high:.1%}), chance is {chance:.1%}. Its weights, the order of its classes or its "
        "normalisation are not those of these pictures, so its outlier rates say nothing."
    )


def _k_curve(result: AnalysisResult, name: str, mass: float) -> KCurve:
    import torch

    cells = [result.clean, *result.row(name)]
    k = {c.magnitude: smallest_k(torch.tensor(c.mass, dtype=torch.float64), mass) for c in cells}
    return KCurve(name, k, all(a <= b for a, b in pairwise(k.values())))


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
