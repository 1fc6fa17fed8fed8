"""Every published figure as a row that is checked, or that says why it cannot be here."""

from __future__ import annotations

from collections.abc import Iterable

from effkit.papers import Paper
from effkit.rows import Row

__all__ = ["PAPER", "paper_rows"]


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated."""
    return []


PAPER = Paper(
    name="ws-nas",
    distribution="ws-nas",
    title="Weight-Sharing Neural Architecture Search",
    reference=(
        "Lingxi Xie, Xin Chen, Kaifeng Bi, Longhui Wei, Yuhui Xu, Zhengsu Chen, Lanfei Wang, An Xiao, Jianlong Chang, "
        "Xiaopeng Zhang, Qi Tian: Weight-Sharing Neural Architecture Search: A Battle to Shrink the Optimization Gap. "
        "ACM Computing Surveys 54(9), 2021. arXiv:2008.01475."
    ),
    rows=paper_rows,
    command="ws-nas reproduce",
)
