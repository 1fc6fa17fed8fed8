"""Every known figure about the paper as a row that is checked, or that says why it cannot be here.

The text and tables of the paper were not reachable: only its abstract was. So a column says how well a figure is known:

- "paper": printed in the abstract [A];
- "found elsewhere": in citing papers, official READMEs and public code [C] [V];
- "computed": counted by us [M];
- "unverified": from a machine-written summary of the paper [S], from a re-implementation [R], or not checkable [?].

The mark stays in the text of the source. Nothing unverified is asserted as the paper's: the default hyper-parameters
are rows of the table ``defaults``, printed as what they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from effkit.papers import Paper, collect_rows
from effkit.rows import Row

__all__ = ["PAPER", "paper_rows"]

# Reading order.
_ORDER = [
    "imagenet", "cifar", "magnitude", "detection", "digits", "baselines", "randaugment", "adversarial", "efficientnet",
    "structure", "operators", "policies", "cache", "defaults",
]  # fmt: skip


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated.

    Args:
        table: Only these: ``"imagenet"``, ``"cifar"``, ``"magnitude"`` and ``"detection"`` (the paper's results),
            ``"digits"`` (the pilot of the laptop claim), ``"baselines"``, ``"randaugment"``, ``"adversarial"`` and
            ``"efficientnet"`` (results of others), ``"structure"`` (parameters and multiply-adds), ``"operators"``,
            ``"policies"``, ``"cache"``, ``"defaults"``; all if not given.

    Returns:
        Rows for ``effkit.rows.evaluate``.

    Raises:
        ValueError: If there is no such table; names those that are.

    Example:
        >>> [row.paper for row in paper_rows("imagenet")][0]
        85.8
    """
    from kd_autoaug.paper import cost, defaults, policies, trained

    parts = (
        trained.method_rows,
        trained.digits_rows,
        trained.baseline_rows,
        trained.randaugment_rows,
        trained.adversarial_rows,
        trained.efficientnet_rows,
        cost.structure_rows,
        policies.operator_rows,
        policies.policy_rows,
        cost.cache_rows,
        defaults.default_rows,
    )
    return collect_rows(parts, _ORDER, table)


PAPER = Paper(
    name="kd-autoaug",
    distribution="kd-autoaug",
    title="Circumventing Outliers of AutoAugment with Knowledge Distillation",
    reference=(
        "Longhui Wei, An Xiao, Lingxi Xie, Xiaopeng Zhang, Xin Chen, Qi Tian: Circumventing Outliers of AutoAugment "
        "with Knowledge Distillation. ECCV 2020, arXiv:2003.11342."
    ),
    rows=paper_rows,
    claim="kd_autoaug.paper.claim:run_claim",
    command="kd-autoaug reproduce",
)
