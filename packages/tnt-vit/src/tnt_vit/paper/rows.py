"""Every figure of the paper's tables as a row that is checked, or that says why it cannot be here.

The sizes are counted here and now. Two habits of the paper show when its printed figures are held against exact counts:

- its parameters include ``outer_tokens``, a table of the official code that no forward pass reads. With it every
  printed figure comes out; without it those of TNT-B (65.4), of 64 words (23.7) and of 4 words (25.0) would not;
- TNT-B's 14.1 GMACs is 14.049 rounded twice (14.05, 14.1). All others round from the exact count.

The rows concerned say so, and exact counts of what lives stand beside them as rows of their own. PyramidTNT's figures
(table ``pyramid``) are those of the official code's readme.
"""

from __future__ import annotations

from collections.abc import Iterable

from effkit.papers import Paper, collect_rows
from effkit.rows import Row

__all__ = ["ORDER", "PAPER", "paper_rows"]

ORDER = [*map(str, range(1, 14)), "complexity", "legacy", "pyramid", "elsewhere", *(f"fig{n}" for n in range(3, 8))]


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated.

    Args:
        table: Only these: numbers of tables, ``"complexity"`` (section 2.2), ``"legacy"``, ``"pyramid"`` (PyramidTNT),
            ``"elsewhere"`` (accuracies that others report), ``"fig3"`` to ``"fig7"``; all if not given.

    Returns:
        Rows for ``effkit.rows.evaluate``.

    Raises:
        ValueError: If there is no such table; names those that are.

    Example:
        >>> [row.name for row in paper_rows(7)][0]
        'TNT-S, 1 inner heads'
    """
    from tnt_vit.paper import cost, recipe, trained  # torch and timm

    parts = [
        cost.cost_rows,
        cost.context_cost_rows,
        cost.complexity_rows,
        cost.pyramid_cost_rows,
        trained.accuracy_rows,
        trained.pyramid_accuracy_rows,
        trained.speed_rows,
        trained.data_set_rows,
        trained.fine_tuning_rows,
        trained.dense_rows,
        trained.picture_rows,
        recipe.recipe_rows,
    ]
    return collect_rows(parts, ORDER, table)


PAPER = Paper(
    name="tnt-vit",
    distribution="tnt-vit",
    title="Transformer in Transformer",
    reference=(
        "Kai Han, An Xiao, Enhua Wu, Jianyuan Guo, Chunjing Xu, Yunhe Wang: Transformer in Transformer. "
        "NeurIPS 2021, arXiv:2103.00112."
    ),
    rows=paper_rows,
    claim="tnt_vit.paper.claim:run_claim",
    command="tnt-vit reproduce",
)
