"""A row after evaluation, and the tables that outcomes become."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from effkit.report import Table

__all__ = ["EVIDENCE_COLUMNS", "Evidence", "Outcome", "Verdict", "outcome_tables", "table_title"]

Evidence = Literal["printed", "computed", "found", "unverified", "measured"]


Verdict = Literal["match", "differs", "not measured here", "nothing to compare"]


# Figures of different standing never share a column.
EVIDENCE_COLUMNS: dict[str, str] = {
    "printed": "paper",
    "computed": "computed",
    "found": "found elsewhere",
    "measured": "measured before",
    "unverified": "unverified",
}


@dataclass
class Outcome:
    """A row after evaluation; plain values only, so that it travels as JSON."""

    table: str
    name: str
    metric: str
    paper: float | None
    unit: str
    source: str
    evidence: str
    tolerance: str
    command: str
    ours: float | None
    verdict: Verdict
    reason: str
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Outcome:
        """The inverse of `to_dict`."""
        return cls(**value)


def table_title(table: str) -> str:
    """Name a table in words: "5" is Table 5, "fig2" Figure 2, "claim" the laptop-scale claim; other names stay."""
    if table == "claim":
        return "Laptop-scale claim"
    if table.startswith("fig") and table[3:].isalnum():
        return f"Figure {table[3:]}"
    return f"Table {table}" if table[:1].isdigit() else table


def outcome_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """One table per table of the paper; the column of a figure says what standing it has.

    Args:
        outcomes: In any order; tables appear in order of their first row.

    Returns:
        Tables with the columns row, metric (with its unit), one per kind of evidence that occurs, ours, verdict,
        reason, and source where it is another than the table.
    """
    tables = []
    for table in dict.fromkeys(o.table for o in outcomes):
        members = [o for o in outcomes if o.table == table]
        kinds = [e for e in EVIDENCE_COLUMNS if any(o.evidence == e and o.paper is not None for o in members)]
        figures = [EVIDENCE_COLUMNS[e] for e in kinds]
        title = table_title(table)
        # "Table 5" need not be said again in every row of Table 5.
        sources = ["" if o.source == title else o.source for o in members]
        columns = ["row", "metric", *figures, "ours", "verdict", "reason"] + (["source"] if any(sources) else [])
        rows: list[list[Any]] = [
            [o.name, f"{o.metric}, {o.unit}" if o.unit else o.metric]
            + [o.paper if o.evidence == e else None for e in kinds]
            + [o.ours, o.verdict, o.reason]
            + ([source] if any(sources) else [])
            for o, source in zip(members, sources, strict=True)
        ]
        tables.append(Table(title, columns, rows))
    return tables
