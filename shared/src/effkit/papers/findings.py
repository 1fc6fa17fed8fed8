"""Figures that a claim measured, judged one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from effkit.rows import Evidence, Kind, Outcome, Row, Tolerance

__all__ = ["Findings", "judge"]


def judge(
    name: str,
    metric: str,
    ours: Any,
    figure: float | None = None,
    kind: Kind = "at_least",
    *,
    slack: float = 0.0,
    unit: str = "",
    source: str = "",
    evidence: Evidence = "measured",
    seconds: float = 0.0,
    command: str = "",
    table: str = "claim",
) -> Outcome:
    """Judge one figure that is already known.

    Args:
        name: What was measured.
        metric: Which figure of it.
        ours: The figure.
        figure: What to hold it against; `None` shows it without a verdict.
        kind: How, see `effkit.rows.Tolerance`.
        slack: The tolerance's value.
        unit: Of both figures.
        source: Where `figure` comes from; "our claim", or "shown beside it" where there is none.
        evidence: The standing of `figure`.
        seconds: What measuring it took.
        command: Re-runs it; the claim's own command if empty.
        table: The table it belongs to.
    """
    source = source or ("shown beside it" if figure is None else "our claim")
    row = Row(
        table, name, metric, figure, unit, source, evidence,
        compute=lambda: ours, tolerance=Tolerance(kind, slack), command=command,
    )  # fmt: skip
    return row.judge(ours, round(seconds, 1))


@dataclass
class Findings:
    """Judged figures in the order they were found; what most of them share is said once.

    Args:
        unit: Unit of those that name none.
        command: Command of those that name none.
        rows: The figures, for `Claim.rows`.

    Example:
        >>> found = Findings(unit="%")
        >>> found.add("TNT on digits", "test accuracy", 97.2, 95.5, seconds=12.0).verdict
        'match'
        >>> found.add("plain ViT on digits", "test accuracy", 97.8).verdict
        'nothing to compare'
        >>> len(found.rows)
        2
    """

    unit: str = ""
    command: str = ""
    rows: list[Outcome] = field(default_factory=list)

    def add(
        self,
        name: str,
        metric: str,
        ours: Any,
        figure: float | None = None,
        kind: Kind = "at_least",
        **more: Any,
    ) -> Outcome:
        """Judge a figure and keep it; arguments as those of `judge`.

        Returns:
            The outcome.
        """
        outcome = judge(name, metric, ours, figure, kind, **{"unit": self.unit, "command": self.command, **more})
        self.rows.append(outcome)
        return outcome
