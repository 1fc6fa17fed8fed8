"""A survey as tables: structure, speed and memory beside what is printed; each kind of figure in columns of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effkit.report import Table
from tnt_vit.survey.registry import FOUND_SOURCE, PUBLISHED_SOURCE

__all__ = ["agreement", "all_tables", "flat_table", "listing", "spearman", "trouble"]

_MIB = 2**20
Row = Mapping[str, Any]


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


def _get(row: Row, *path: str, scale: float = 1.0) -> Any:
    value: Any = row
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value / scale if isinstance(value, int | float) and scale != 1.0 else value


def _structure(rows: Sequence[Row]) -> Table:
    columns = ["name", "group", "pixels", "params, M", "printed, M", "MACs, G", "printed, G", "convolutions, %"]
    columns += ["linear layers, %", "elsewhere, %", "weights, MiB"]
    table = Table("Structure", columns)
    for row in rows:
        if row["counts"]:
            macs, parts = row["counts"]["macs"], row["counts"]["macs_by"]
            shares = [round(100 * part / macs, 1) for part in parts.values()]
            table.rows.append(
                [row["name"], row["backbone"]["group"], row["backbone"]["size"],
                 _get(row, "counts", "params", scale=1e6), _get(row, "backbone", "published", "params_m"),
                 macs / 1e9, _get(row, "backbone", "published", "flops_g"),
                 *shares, _get(row, "counts", "weight_bytes", scale=_MIB)]
            )  # fmt: skip
    table.note = (
        "Counted for one picture: multiply-adds of convolutions, linear maps and attention products. Elsewhere: "
        f"products outside of layers with weights, which is attention in most of them. Printed: {PUBLISHED_SOURCE}."
    )
    return table


def _speed(rows: Sequence[Row]) -> Table:
    columns = ["name", "latency ms", "95 % from", "to", "p90 ms", "images/s", "at batch", "times the first's"]
    columns += ["of the peak, %", "V100 images/s, printed", "RTX 4090 images/s, found", "noisy"]
    table = Table("Speed", columns)
    for row in rows:
        sweep = row.get("sweep")
        if not sweep:
            continue
        best = next(case for case in sweep if case["batch"] == row["best_batch"])
        interval = row["latency"]["interval"] or (None, None)
        peak = row["floor"]["flops_per_second"]
        table.rows.append(
            [row["name"], 1e3 * row["latency"]["seconds"], *(None if end is None else 1e3 * end for end in interval),
             _get(row, "latency", "p90", scale=1e-3), row["throughput"], row["best_batch"],
             _get(best, "ratio", "median"), 100 * 2 * row["counts"]["macs"] * row["throughput"] / peak,
             _get(row, "backbone", "published", "v100"), _get(row, "backbone", "found", "rtx4090"),
             any(case["noisy"] for case in sweep)]
        )  # fmt: skip
    if table.rows:
        first = next(row for row in rows if row.get("sweep"))
        where, how = first["stamp"], first["settings"]
        table.note = (
            f"{where['machine']}, {how['threads']} threads, {how['precision']}, torch {where['torch']}. Latency: batch "
            f"1, wall clock. Times the first's: {first['anchor']} took turns with each, ratios round by round. Peak: "
            f"{first['floor']['flops_per_second'] / 1e9:,.0f} GFLOP/s of a large matrix product here. Noisy: the "
            f"middle half of the samples spreads over more than 5 % of the median. Printed: {PUBLISHED_SOURCE}, one "
            f"V100 in float32. Found: {FOUND_SOURCE}."
        )
    return table


def _memory(rows: Sequence[Row]) -> Table:
    columns = ["name", "inference MiB", "at batch", "training MiB", "training step ms", "of pictures", "largest batch"]
    table = Table("Memory beyond the weights", columns)
    for row in rows:
        if row.get("train") or row.get("peak_bytes") is not None:
            table.rows.append(
                [row["name"], _get(row, "peak_bytes", scale=_MIB), row.get("best_batch"),
                 _get(row, "train", "peak_bytes", scale=_MIB), _get(row, "train", "seconds", scale=1e-3),
                 _get(row, "train", "batch"), row.get("largest_batch")]
            )  # fmt: skip
    meanings = [m for row in rows if (m := _get(row, "train", "memory_meaning"))]
    table.note = f"Memory: {meanings[0]}. A training step is forward and backward, no optimizer." if meanings else ""
    return table


def _features(rows: Sequence[Row]) -> Table:
    columns = ["name", "weights", "blocks", "cosine, first", "last", "distance to equal tokens, first", "last one's"]
    columns += ["effective rank, first", "last block's"]
    table = Table("Diversity of tokens", columns)
    for row in rows:
        if blocks := row.get("diversity"):
            ends = [blocks[i][key] for key in ("cosine", "relative_residual", "effective_rank") for i in (0, -1)]
            table.rows.append([row["name"], row["weights"], len(blocks), *ends])
    if table.rows:
        pictures = next(row for row in rows if row.get("diversity"))["settings"]["pictures"]
        table.note = (
            f"Means over {len(pictures)} pictures ({', '.join(pictures)}), after the first and the last block. Cosine: "
            "mean over pairs of tokens. Distance: |Z - mean| / |Z|, 0 if all tokens are equal. Random weights say what "
            "the structure does by itself, and nothing of trained networks."
        )
    return table


def _accuracy(rows: Sequence[Row]) -> Table:
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


def trouble(rows: Sequence[Row]) -> Table:
    """Networks without figures, and parts without them, each with its reason."""
    table = Table("Not measured", ["name", "survey's row", "status", "reason"])
    for row in rows:
        if row["status"] not in ("measured", "counted"):
            table.rows.append([row["name"], row["backbone"]["row"], row["status"], row["reason"]])
        table.rows += [[row["name"], row["backbone"]["row"], row["status"], note] for note in row["notes"]]
    return table


def all_tables(rows: Sequence[Row]) -> list[Table]:
    """All that has rows, in reading order."""
    tables = [_structure(rows), _speed(rows), _memory(rows), _features(rows), _accuracy(rows), agreement(rows)]
    return [table for table in (*tables, trouble(rows)) if table.rows]


def flat_table(rows: Sequence[Row]) -> Table:
    """One line a network with all single figures, for spreadsheets."""
    columns: dict[str, tuple[str, ...]] = {
        "name": ("name",), "status": ("status",), "reason": ("reason",), "row": ("backbone", "row"),
        "group": ("backbone", "group"), "library": ("backbone", "source"), "model": ("backbone", "model"),
        "tag": ("backbone", "tag"), "pixels": ("backbone", "size"), "params": ("counts", "params"),
        "macs": ("counts", "macs"), "latency_s": ("latency", "seconds"), "latency_p50_s": ("latency", "p50"),
        "latency_p90_s": ("latency", "p90"), "latency_p99_s": ("latency", "p99"), "images_per_s": ("throughput",),
        "best_batch": ("best_batch",), "peak_bytes": ("peak_bytes",), "train_peak_bytes": ("train", "peak_bytes"),
        "train_step_s": ("train", "seconds"), "train_batch": ("train", "batch"), "largest_batch": ("largest_batch",),
        "printed_params_m": ("backbone", "published", "params_m"), "printed_g": ("backbone", "published", "flops_g"),
        "printed_v100_images_per_s": ("backbone", "published", "v100"),
        "printed_top1": ("backbone", "published", "top1"),
        "found_rtx4090_images_per_s": ("backbone", "found", "rtx4090"),
        "found_top1": ("backbone", "found", "timm_top1"), "machine": ("stamp", "machine"),
        "threads": ("settings", "threads"), "precision": ("settings", "precision"), "torch": ("settings", "torch"),
        "timm": ("settings", "timm"), "commit": ("stamp", "commit"), "date": ("date",),
    }  # fmt: skip
    return Table("", list(columns), [[_get(row, *path) for path in columns.values()] for row in rows])
