"""One figure of a paper against ours: the row, how close is close enough, and the outcome.

A row says where the paper's figure comes from and how sure we are of it; ours is computed when the row is evaluated. A
row that cannot be measured here (it needs ImageNet, weights, a V100) says why, and is shown with an empty cell instead
of being left out.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, get_args

from effkit.errors import UserError, choose
from effkit.report import Table, format_cell

__all__ = ["Evidence", "Outcome", "Row", "Tolerance", "Verdict", "evaluate", "outcome_tables", "table_title"]

log = logging.getLogger(__name__)

Evidence = Literal["printed", "computed", "found", "unverified", "measured"]
Verdict = Literal["match", "differs", "not measured here", "nothing to compare"]
Kind = Literal["exact", "abs", "rel", "rounds_to", "at_least", "at_most"]

# Figures of different standing never share a column.
EVIDENCE_COLUMNS: dict[str, str] = {
    "printed": "paper",
    "computed": "computed",
    "found": "found elsewhere",
    "measured": "measured before",
    "unverified": "unverified",
}


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


@dataclass(frozen=True)
class Row:
    """A figure of a paper and how to get ours.

    Args:
        table: Where the paper has it: "1", "5", "fig2"; "claim" for the laptop-scale run.
        name: The row of that table, e.g. "TNT-S".
        metric: The column, e.g. "params".
        paper: The figure, in `unit`; `None` if there is none to compare with.
        unit: "M", "G", "%", "img/s"; "" for plain counts.
        source: Where the figure was read: "Table 1", "closed form", a repository.
        evidence: "printed" in the paper; "computed" by us from the paper's definition; "found" in a public repository;
            "measured" by us before; "unverified".
        compute: Returns our figure in the same unit; `None` if it cannot be had here.
        tolerance: How close is close enough.
        not_measured: Why `compute` is `None`.
        command: Re-runs this row; the paper's own command with `table=` if empty.
    """

    table: str
    name: str
    metric: str
    paper: float | None
    unit: str
    source: str
    evidence: Evidence
    compute: Callable[[], float] | None = None
    tolerance: Tolerance = Tolerance()
    not_measured: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        where = f"row {self.name!r} of table {self.table!r}"
        choose(f"evidence of {where}", self.evidence, list(get_args(Evidence)))
        if (self.compute is None) == (self.not_measured == ""):
            raise UserError(f"{where} must have either compute or not_measured (the reason), not both and not neither")

    def judge(self, ours: Any, seconds: float = 0.0) -> Outcome:
        """Compare a figure with the paper's.

        Args:
            ours: Our figure; anything that holds one number.
            seconds: What it took.

        Returns:
            The outcome.
        """
        if hasattr(ours, "item"):  # numpy and torch scalars
            ours = ours.item()
        if isinstance(ours, bool) or not isinstance(ours, (int, float)):
            return self._outcome(None, "differs", f"compute returned {type(ours).__name__}, expected a number", seconds)
        if not math.isfinite(ours):
            return self._outcome(None, "differs", f"ours is {ours}", seconds)
        if self.paper is None:
            return self._outcome(ours, "nothing to compare", "no figure to compare with", seconds)
        good, reason = self.tolerance.check(ours, self.paper)
        return self._outcome(ours, "match" if good else "differs", reason, seconds)

    def evaluate(self) -> Outcome:
        """Compute our figure and judge it; an exception in `compute` is an outcome too."""
        if self.compute is None:
            return self._outcome(None, "not measured here", self.not_measured)
        start = time.perf_counter()
        try:
            ours = self.compute()
        except Exception as error:  # one bad row must not hide the others
            log.warning("table %s, %s, %s crashed", self.table, self.name, self.metric, exc_info=True)
            reason = f"crashed: {type(error).__name__}: {error}".splitlines()[0]
            return self._outcome(None, "differs", reason, time.perf_counter() - start)
        return self.judge(ours, time.perf_counter() - start)

    def _outcome(self, ours: float | None, verdict: Verdict, reason: str, seconds: float = 0.0) -> Outcome:
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Outcome) if hasattr(self, f.name)}
        shared["tolerance"] = self.tolerance.kind
        return Outcome(**shared, ours=ours, verdict=verdict, reason=reason, seconds=round(seconds, 3))


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


def evaluate(
    rows: Iterable[Row],
    tables: str | int | Sequence[str | int] | None = None,
    progress: Callable[[int, int, Row], None] | None = None,
) -> list[Outcome]:
    """Evaluate rows in order.

    Args:
        rows: The rows.
        tables: Only rows of these tables; all if `None`.
        progress: Called before each row with its index, the number of rows and the row.

    Returns:
        One outcome per row; a row that raises differs, "crashed: ...".

    Raises:
        UserError: If a table has no row; names those that have.
    """
    rows = list(rows)
    if tables is not None:
        asked = [str(t) for t in ([tables] if isinstance(tables, (str, int)) else tables)]
        known = list(dict.fromkeys(row.table for row in rows))
        for table in asked:
            choose("table", table, known)
        rows = [row for row in rows if row.table in asked]
    outcomes = []
    for index, row in enumerate(rows):
        if progress is not None:
            progress(index, len(rows), row)
        outcomes.append(row.evaluate())
    return outcomes


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
