"""Structure, speed, memory and the roofline as tables."""

from __future__ import annotations

from collections.abc import Sequence

from effkit.report import Table
from tnt_vit.survey.registry import FOUND_SOURCE, PUBLISHED_SOURCE
from tnt_vit.survey.roofline import positions
from tnt_vit.survey.tables.cells import MIB, Row, get

__all__ = ["memory", "roofline", "speed", "structure"]


def structure(rows: Sequence[Row]) -> Table:
    """Counts beside what is printed."""
    columns = ["name", "group", "pixels", "params, M", "printed, M", "MACs, G", "printed, G", "convolutions, %"]
    columns += ["linear layers, %", "elsewhere, %", "activations, M", "weights, MiB"]
    table = Table("Structure", columns)
    for row in rows:
        if row["counts"]:
            macs, parts = row["counts"]["macs"], row["counts"]["macs_by"]
            shares = [round(100 * part / macs, 1) for part in parts.values()]
            table.rows.append(
                [row["name"], row["backbone"]["group"], row["backbone"]["size"],
                 get(row, "counts", "params", scale=1e6), get(row, "backbone", "published", "params_m"),
                 macs / 1e9, get(row, "backbone", "published", "flops_g"),
                 *shares, get(row, "counts", "activations", scale=1e6), get(row, "counts", "weight_bytes", scale=MIB)]
            )  # fmt: skip
    table.note = (
        "Counted for one picture: multiply-adds of convolutions, linear maps and attention products. Elsewhere: "
        f"products outside of layers with weights, which is attention in most of them. Activations: numbers that these "
        f"products put out. Printed: {PUBLISHED_SOURCE}."
    )
    return table


def speed(rows: Sequence[Row]) -> Table:
    """Latency, throughput and, where it was asked for, energy."""
    columns = ["name", "latency ms", "95 % from", "to", "p90 ms", "images/s", "at batch", "times the first's"]
    columns += ["of the peak, %", "V100 images/s, printed", "RTX 4090 images/s, found", "noisy"]
    asked = any("energy" in row for row in rows)  # a part that nobody asks for takes no room
    table = Table("Speed", [*columns, *["J/image"] * asked])
    for row in rows:
        sweep = row.get("sweep")
        if not sweep:
            continue
        best = next(case for case in sweep if case["batch"] == row["best_batch"])
        interval = row["latency"]["interval"] or (None, None)
        peak = row["floor"]["flops_per_second"]
        table.rows.append(
            [row["name"], 1e3 * row["latency"]["seconds"], *(None if end is None else 1e3 * end for end in interval),
             get(row, "latency", "p90", scale=1e-3), row["throughput"], row["best_batch"],
             get(best, "ratio", "median"), 100 * 2 * row["counts"]["macs"] * row["throughput"] / peak,
             get(row, "backbone", "published", "v100"), get(row, "backbone", "found", "rtx4090"),
             any(case["noisy"] for case in sweep), *[get(row, "energy", "joules_per_image")] * asked]
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
        if asked:
            table.note += " J/image: by the counter of the whole GPU, at the batch of images/s, idling included."
    return table


def roofline(rows: Sequence[Row]) -> Table:
    """Where networks stand below the machine's roof, at the smallest and the best batch size."""
    columns = ["name", "batch", "FLOP/byte", "GFLOP/s", "GB/s", "of the roof, %", "roof is made by"]
    table = Table("Roofline", columns)
    for row in rows:
        found = positions(row)
        for at in [p for p in found if p.batch in (found[0].batch, row["best_batch"])]:
            rates = [at.flops_per_second / 1e9, at.bytes_per_second / 1e9]
            table.rows.append([row["name"], at.batch, at.intensity, *rates, 100 * at.share, at.bound])
    if table.rows:
        floor = next(row for row in rows if positions(row))["floor"]
        table.note = (
            f"Measured here: {floor['flops_per_second'] / 1e9:,.0f} GFLOP/s of a large matrix product, "
            f"{floor['bytes_per_second'] / 1e9:,.1f} GB/s of a large copy. FLOP: two a multiply-add. Bytes are "
            "counted, not measured: as if each operator of the network as it is written read and wrote memory (fused "
            "attention is one). Caches and fused kernels spare some of it, so that networks may stand above the roof "
            "of memory."
        )
    return table


def memory(rows: Sequence[Row]) -> Table:
    """Of inference and of a training step."""
    columns = ["name", "inference MiB", "at batch", "training MiB", "reserved MiB", "training step ms", "of pictures"]
    columns += ["largest batch"]
    table = Table("Memory beyond the weights", columns)
    for row in rows:
        if row.get("train") or row.get("peak_bytes") is not None:
            table.rows.append(
                [row["name"], get(row, "peak_bytes", scale=MIB), row.get("best_batch"),
                 get(row, "train", "peak_bytes", scale=MIB), get(row, "train", "reserved_bytes", scale=MIB),
                 get(row, "train", "seconds", scale=1e-3),
                 get(row, "train", "batch"), row.get("largest_batch")]
            )  # fmt: skip
    meanings = [m for row in rows if (m := get(row, "train", "memory_meaning"))]
    if meanings:
        table.note = (
            f"Memory: {meanings[0]}. A training step is forward and backward, no optimizer. Reserved: what torch took "
            "from a GPU for that, weights and unused blocks included."
        )
    return table
