"""Rows of what is counted in a network here and now, which papers' rows are mostly made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from effkit.rows.row import Row

__all__ = ["counted_network", "counted_row"]


def counted_row(
    table: str, name: str, metric: str, figure: float | None, compute: Callable[[], float], *, source: str, **more: Any
) -> Row:
    """A row that is computed from the paper's definition: a plain count, unless something else is said.

    Args:
        table: Where the paper has it.
        name: The row of that table.
        metric: The column.
        figure: The figure to come to; `None` if there is none.
        compute: Returns ours.
        source: What the figure comes from.
        **more: Other fields of `Row`; ``unit`` and ``evidence`` too, where it is no plain count or not our own.
    """
    defaults: dict[str, Any] = {"unit": "", "evidence": "computed"}
    return Row(
        table=table, name=name, metric=metric, paper=figure, source=source, compute=compute, **{**defaults, **more}
    )


def counted_network(
    table: str,
    name: str,
    figures: tuple[float | None, float | None],
    count: Callable[[str], float],
    *,
    source: str,
    **more: Any,
) -> list[Row]:
    """The two counts of a network, a row each.

    Args:
        table: Where the paper has them.
        name: The network.
        figures: Parameters and MACs to come to.
        count: Gives ours for ``"params"`` and for ``"macs"``.
        source: What the figures come from.
        **more: As of `counted_row`.
    """
    both = zip(("params", "MACs"), ("params", "macs"), figures, strict=True)
    return [
        counted_row(table, name, metric, figure, partial(count, which), source=source, **more)
        for metric, which, figure in both
    ]
