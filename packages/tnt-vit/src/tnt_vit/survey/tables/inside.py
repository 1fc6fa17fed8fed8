"""What was seen inside the networks, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from effkit.report import Table
from tnt_vit.survey.tables.cells import Row

__all__ = ["attention", "diversity"]


def diversity(rows: Sequence[Row]) -> Table:
    """How different tokens are after the first and after the last block."""
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


def attention(rows: Sequence[Row]) -> Table:
    """How widely attention is spread in the first and in the last block that shows it; CNNs have an empty row."""
    columns = ["name", "weights", "blocks with attention", "entropy, first", "entropy, last"]
    columns += ["of uniform, first, %", "of uniform, last, %", "distance, first, %", "distance, last, %"]
    table = Table("Attention", columns)
    looked = [row for row in rows if "attention" in row]
    for row in looked if any(row["attention"] for row in looked) else []:
        blocks = row["attention"]
        ends = [blocks[0], blocks[-1]] if blocks else []
        cells = [end["entropy"] for end in ends]
        cells += [100 * end["entropy"] / end["uniform"] if end["uniform"] else None for end in ends]
        cells += [None if end["distance"] is None else 100 * end["distance"] for end in ends]
        table.rows.append([row["name"], row["weights"], len(blocks), *(cells or [None] * 6)])
    if table.rows:
        table.note = (
            "Means over the pictures, heads and queries. Entropy of the weights of a query, in nats, and as a share of "
            "that of uniform attention to as many keys (those of a window that no mask hides, where there are windows)"
            ". Distance: mean distance of the places that a place attends to, of a side of the picture; class tokens "
            "left out. Only blocks whose attention is plainly of tokens: softmax, then times values; for others "
            "nothing is said."
        )
    return table
