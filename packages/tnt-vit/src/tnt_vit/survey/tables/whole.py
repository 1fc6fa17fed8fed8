"""All tables of a survey, and one flat table for spreadsheets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from effkit.report import Table
from tnt_vit.survey.fronts import fronts
from tnt_vit.survey.roofline import positions
from tnt_vit.survey.tables.cells import Row, get
from tnt_vit.survey.tables.inside import attention, diversity
from tnt_vit.survey.tables.measured import memory, roofline, speed, structure
from tnt_vit.survey.tables.published import accuracy, agreement

__all__ = ["all_tables", "flat_table", "trouble"]


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
    makers = (structure, speed, roofline, memory, diversity, attention, accuracy, fronts, agreement, trouble)
    return [table for table in (make(rows) for make in makers) if table.rows]


def flat_table(rows: Sequence[Row]) -> Table:
    """One line a network with all single figures, for spreadsheets."""
    columns: dict[str, tuple[str, ...]] = {
        "name": ("name",), "status": ("status",), "reason": ("reason",), "row": ("backbone", "row"),
        "group": ("backbone", "group"), "library": ("backbone", "source"), "model": ("backbone", "model"),
        "tag": ("backbone", "tag"), "pixels": ("backbone", "size"), "params": ("counts", "params"),
        "trainable_params": ("counts", "trainable"), "activations": ("counts", "activations"),
        "macs": ("counts", "macs"), "latency_s": ("latency", "seconds"), "latency_p50_s": ("latency", "p50"),
        "latency_p90_s": ("latency", "p90"), "latency_p99_s": ("latency", "p99"), "images_per_s": ("throughput",),
        "best_batch": ("best_batch",), "peak_bytes": ("peak_bytes",), "train_peak_bytes": ("train", "peak_bytes"),
        "train_reserved_bytes": ("train", "reserved_bytes"),
        "train_step_s": ("train", "seconds"), "train_batch": ("train", "batch"), "largest_batch": ("largest_batch",),
        "flop_per_byte": ("best", "intensity"), "flop_per_s": ("best", "flops_per_second"),
        "bytes_per_s": ("best", "bytes_per_second"), "share_of_roof": ("best", "share"),
        "roof_made_by": ("best", "bound"), "joules_per_image": ("energy", "joules_per_image"),
        "attention_entropy_first": ("first_block", "entropy"), "attention_entropy_last": ("last_block", "entropy"),
        "attention_distance_first": ("first_block", "distance"), "attention_distance_last": ("last_block", "distance"),
        "printed_params_m": ("backbone", "published", "params_m"), "printed_g": ("backbone", "published", "flops_g"),
        "printed_v100_images_per_s": ("backbone", "published", "v100"),
        "printed_top1": ("backbone", "published", "top1"),
        "found_rtx4090_images_per_s": ("backbone", "found", "rtx4090"),
        "found_top1": ("backbone", "found", "timm_top1"), "machine": ("stamp", "machine"),
        "threads": ("settings", "threads"), "precision": ("settings", "precision"), "torch": ("settings", "torch"),
        "timm": ("settings", "timm"), "commit": ("stamp", "commit"), "date": ("date",),
    }  # fmt: skip
    whole = [{**row, **_ends(row)} for row in rows]
    return Table("", list(columns), [[get(row, *path) for path in columns.values()] for row in whole])


def _ends(row: Row) -> dict[str, Any]:
    """Single figures of what a row holds for each batch and each block."""
    best = [dataclasses.asdict(p) | {"share": p.share} for p in positions(row) if p.batch == row["best_batch"]]
    blocks = row.get("attention") or [{}]
    return {"best": best[0] if best else {}, "first_block": blocks[0], "last_block": blocks[-1]}
