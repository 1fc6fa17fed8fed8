"""A figure of a paper, and how to get and judge ours."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from effkit.errors import UserError, choose
from effkit.rows.outcome import Evidence, Outcome, Verdict
from effkit.rows.tolerance import Tolerance

__all__ = ["Row", "evaluate"]

log = logging.getLogger(__name__)


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
    tolerance: Tolerance = field(default_factory=Tolerance)
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
