"""Rows of a paper, put together from its modules and selected by table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from effkit.errors import choose
from effkit.rows import Row

__all__ = ["collect_rows", "table_names"]


def table_names(table: str | int | Iterable[str | int] | None) -> list[str] | None:
    """Bring names of tables to the form that rows have: `5`, `"table5"` and `"Table 5"` are `"5"`.

    Args:
        table: One name or several; `"fig 2"`, `"fig2"` and `"Figure 2"` are the same too. `None` stays.

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


def collect_rows(
    parts: Iterable[Callable[[], Iterable[Row]]],
    order: Sequence[str],
    table: str | int | Iterable[str | int] | None = None,
) -> list[Row]:
    """The rows of a paper, table by table; nothing is computed before a row is evaluated.

    Args:
        parts: Functions that return rows of one or more tables.
        order: The tables in reading order.
        table: Only these, in any spelling of `table_names`; all if `None`.

    Returns:
        Rows in that order; inside a table in the order of the functions.

    Raises:
        UserError: If there is no such table; names those that are.
    """
    rows = [row for part in parts for row in part()]
    strange = sorted({row.table for row in rows} - set(order))
    assert not strange, f"tables {', '.join(strange)} are not in the reading order {', '.join(order)}"
    rows.sort(key=lambda row: order.index(row.table))  # stable
    asked = table_names(table)
    if asked is None:
        return rows
    known = list(dict.fromkeys(row.table for row in rows))
    for name in asked:
        choose("table", name, known)
    return [row for row in rows if row.table in asked]
