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

from collections.abc import Iterable

from effkit.papers import Paper, collect_rows
from effkit.rows import Row
from esa_attention.paper import cost, quality

__all__ = ["PAPER", "paper_rows"]

# Reading order; a table that is not listed would be an error.
_ORDER = [*map(str, range(1, 10)), "fig2", "counting-stars", "cost", "bytes", "settings"]


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated.

    Args:
        table: Only these, in any spelling of :func:`effkit.papers.table_names`; all if not given.

    Returns:
        Rows for ``effkit.rows.evaluate``.

    Raises:
        UserError: If there is no such table; names those that are.

    Example:
        >>> [row.name for row in paper_rows("table7")][0]
        '4k tokens'
    """
    parts = (
        quality.unreadable_rows,
        quality.needlebench_rows,
        quality.longbench_rows,
        quality.figure_rows,
        quality.star_rows,
        cost.cost_rows,
        cost.bytes_rows,
        cost.setting_rows,
    )
    return collect_rows(parts, _ORDER, table)


PAPER = Paper(
    name="esa-attention",
    distribution="esa-attention",
    title="Unshackling Context Length: An Efficient Selective Attention Approach through Query-Key Compression",
    reference=(
        "Haoyu Wang, Tong Teng, Tianyu Guo, An Xiao, Duyu Tang, Hanting Chen, Yunhe Wang: Unshackling Context Length: "
        "An Efficient Selective Attention Approach through Query-Key Compression. arXiv:2502.14477, 2025."
    ),
    rows=paper_rows,
    claim="esa_attention.paper.claim:run_claim",  # loads models: imported when it is wanted
    command="esa-attention reproduce",
)
