"""Every figure of the paper that we can read, as a row that is checked or that says why it cannot be here.

What stands in which table:

- ``1`` to ``9`` and ``fig2``: the paper's. Tables 1 to 4 are not legible in our copy; Tables 6 and 8 are one list in
  our notes and stand under 6;
- ``counting-stars``: the settings of that benchmark;
- ``cost``: Appendix A (operations, cache, parameters); ``bytes``: what a decoding step reads, which the paper leaves
  out;
- ``settings``: what the paper states and what we inferred, against our defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from effkit.errors import choose
from effkit.papers import Claim, Paper
from effkit.rows import Row

__all__ = ["PAPER", "paper_rows", "table_names"]

# Reading order; a table that is not listed would be an error.
_ORDER = [*map(str, range(1, 10)), "fig2", "counting-stars", "cost", "bytes", "settings"]


def table_names(table: str | int | Iterable[str | int] | None) -> list[str] | None:
    """Bring names of tables to the form that rows have: ``5``, ``"table5"`` and ``"Table 5"`` are ``"5"``.

    Args:
        table: One name or several; ``"fig2"`` and ``"figure2"`` are the same too. ``None`` stays.

    Returns:
        The names, not checked.

    Example:
        >>> table_names(["table5", "Figure 2", 7, "claim"])
        ['5', 'fig2', '7', 'claim']
    """
    if table is None:
        return None
    names = []
    for name in [table] if isinstance(table, (str, int)) else table:
        text = str(name).strip()
        found = re.fullmatch(r"(table|fig|figure)[ _-]?(\d+)", text, re.IGNORECASE)
        if found:
            text = found[2] if found[1].lower() == "table" else f"fig{found[2]}"
        names.append(text)
    return names


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated.

    Args:
        table: Only these, in any spelling of :func:`table_names`; all if not given.

    Returns:
        Rows for ``effkit.rows.evaluate``.

    Raises:
        UserError: If there is no such table; names those that are.

    Example:
        >>> [row.name for row in paper_rows("table7")][0]
        '4k tokens'
    """
    from esa_attention.paper import cost, quality

    parts = [
        quality.unreadable_rows(),
        quality.needlebench_rows(),
        quality.longbench_rows(),
        quality.figure_rows(),
        quality.star_rows(),
        cost.cost_rows(),
        cost.bytes_rows(),
        cost.setting_rows(),
    ]
    rows = [row for part in parts for row in part]
    rows.sort(key=lambda row: _ORDER.index(row.table))  # stable: inside a table the order above
    asked = table_names(table)
    if asked is None:
        return rows
    for name in asked:
        choose("table", name, _ORDER)
    return [row for row in rows if row.table in asked]


def _claim(run_dir: Path) -> Claim:
    from esa_attention.paper.claim.run import run_claim  # builds models: loads torch

    return run_claim(run_dir)


PAPER = Paper(
    name="esa-attention",
    distribution="esa-attention",
    title="Unshackling Context Length: An Efficient Selective Attention Approach through Query-Key Compression",
    reference=(
        "Haoyu Wang, Tong Teng, Tianyu Guo, An Xiao, Duyu Tang, Hanting Chen, Yunhe Wang: Unshackling Context Length: "
        "An Efficient Selective Attention Approach through Query-Key Compression. arXiv:2502.14477, 2025."
    ),
    rows=paper_rows,
    claim=_claim,
    command="esa-attention reproduce",
)
