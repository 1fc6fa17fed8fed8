"""What is published, and whether it ranks the networks as this machine does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effkit.report import Table
from tnt_vit.survey.registry import FOUND_SOURCE, PUBLISHED_SOURCE
from tnt_vit.survey.tables.cells import Row

__all__ = ["accuracy", "agreement", "listing", "spearman"]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation, ties at their mean rank; NaN where a side does not vary.

    Example:
        >>> spearman([1, 2, 3], [10, 20, 15])
        0.5
    """

    def ranks(values: Sequence[float]) -> np.ndarray:
        x = np.asarray(values, dtype=float)
        return np.array([((x < v).sum() + (x <= v).sum() - 1) / 2 for v in x])

    p, q = ranks(a), ranks(b)
    p, q = p - p.mean(), q - q.mean()
    scale = np.sqrt((p**2).sum() * (q**2).sum())
    return float(round((p * q).sum() / scale, 12)) if scale > 0 else float("nan")


def listing(backbones: Sequence[Any]) -> Table:
    """What the registry holds."""
    columns = ["name", "survey's row", "group", "families", "library", "weights", "pixels", "suites"]
    rows = [
        [b.name, b.row, b.group, ", ".join(b.families), b.source, b.weights, b.size,
         ", ".join([*b.suites, *(["table2"] if b.row else [])])]
        for b in backbones
    ]  # fmt: skip
    return Table("Backbones", columns, rows, f"Rows: {PUBLISHED_SOURCE}.")


def accuracy(rows: Sequence[Row]) -> Table:
    """Of the literature; nothing of it was measured here."""
    table = Table("Accuracy on ImageNet-1k, top-1 in %", ["name", "survey's row", "printed", "found", "of the weights"])
    for row in rows:
        b = row["backbone"]
        printed, found = b["published"].get("top1"), b["found"].get("timm_top1")
        if printed or found:
            weights = f"{b['model']}.{b['tag']}" if b["tag"] else ""
            table.rows.append([row["name"], b["row"], printed, found, weights if found else ""])
    table.note = (
        f"Published only: nothing of this column was measured here. Printed: {PUBLISHED_SOURCE}. Found: {FOUND_SOURCE}."
    )
    return table


def agreement(rows: Sequence[Row]) -> Table:
    """Whether multiply-adds, the survey's V100 and this machine rank the networks alike."""
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.get("throughput"):
            values[row["name"]] = {
                "images/s here": row["throughput"],
                "1 / MACs": 1 / row["counts"]["macs"],
                "1 / latency here": 1 / row["latency"]["seconds"],
                "V100 images/s, printed": row["backbone"]["published"].get("v100", float("nan")),
                "RTX 4090 images/s, found": row["backbone"]["found"].get("rtx4090", float("nan")),
            }
    table = Table("Do they rank alike?", ["ranking", "beside", "Spearman's rank correlation", "networks"])
    kinds = list(next(iter(values.values()), {}))
    for i, first in enumerate(kinds):
        for second in kinds[i + 1 :]:
            pairs = [(v[first], v[second]) for v in values.values() if np.isfinite([v[first], v[second]]).all()]
            if len(pairs) > 2:
                table.rows.append([first, second, spearman(*zip(*pairs, strict=True)), len(pairs)])
    return table
