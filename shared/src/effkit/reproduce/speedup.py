"""How much faster a reproduction is on several workers than on one, each with one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from effkit.bench.turns import in_turns
from effkit.errors import UserError
from effkit.executors import available_cores
from effkit.report import Report
from effkit.reproduce.together import reproduce_all
from effkit.results import append_csv

__all__ = ["speedup_report"]


def speedup_report(
    papers: str | Sequence[str] | None, *, workers: int | None, rounds: int, claims: bool, csv: str | Path
) -> Report:
    """Time `effkit reproduce` from nothing on one worker and on several, in turns.

    Args:
        papers: Which; all installed ones if `None`.
        workers: How many; one a core if `None`.
        rounds: How often each.
        claims: Also the claims, in their short form.
        csv: Results file to add to.

    Raises:
        UserError: If a value does not fit.
    """
    workers = available_cores() if workers is None else workers
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 2:
        raise UserError(f"workers={workers!r} must be a whole number of at least 2, to be compared with one")

    def once(count: int) -> None:
        with tempfile.TemporaryDirectory(prefix="effkit-bench-") as folder:
            reproduce_all(Path(folder), papers, claims=claims, workers=count)

    one, several = "1 worker", f"{workers} workers"
    found = in_turns({one: lambda: once(1), several: lambda: once(workers)}, rounds)
    which = "all" if papers is None else papers
    rows = found.rows(
        package="effkit", case="reproduce", mode="short claims" if claims else "rows", dtype="fp32", x_name="workers",
        x=workers, baseline=one, note=f"papers={which}; one thread a worker; from nothing",
    )  # fmt: skip
    table = found.table(one, title="effkit reproduce")
    return Report("effkit bench reproduce", [table], data={"speedup": found.ratio(one, several).median},
                  files=[append_csv(csv, rows)])  # fmt: skip
