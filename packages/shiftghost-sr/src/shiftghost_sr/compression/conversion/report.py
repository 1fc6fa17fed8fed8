"""What a conversion did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effkit.report import Table

__all__ = ["ConversionReport", "LayerReport"]


@dataclass(frozen=True)
class LayerReport:
    """One converted layer.

    Args:
        name: Of the convolution.
        channels: Of its output.
        intrinsic: Of these, computed.
        error: Squared distance of ghosts' filters from their sources', over the sum of all filters' squares.
        clusters: Size of cluster -> how many clusters have it.
        direction: What its shift starts at, ``(dy, dx)``.
    """

    name: str
    channels: int
    intrinsic: int
    error: float
    clusters: dict[int, int]
    direction: tuple[int, int]


@dataclass(frozen=True)
class ConversionReport:
    """A converted network.

    Args:
        layers: The converted ones.
        left: Convolutions that stay as they are -> why.
        params: Before and after, logits not counted.
        select: How filters were chosen.
        source: What ghosts are taken from.
        seed: Of the choice.
    """

    layers: list[LayerReport]
    left: dict[str, str]
    params: tuple[int, int]
    select: str
    source: str
    seed: int

    def tables(self) -> list[Table]:
        """For people."""
        rows: list[list[Any]] = []
        for layer in self.layers:
            sizes = ", ".join(f"{count} of {size}" for size, count in sorted(layer.clusters.items()))
            rows.append([layer.name, layer.channels, layer.intrinsic, round(layer.error, 4), sizes])
        note = "Error: squared distance of the ghosts' filters from their sources', over all filters' squares."
        tables = [Table("Converted", ["layer", "channels", "computed", "error", "clusters"], rows, note)]
        if self.left:
            tables.append(Table("Left as they are", ["layer", "why"], [[n, w] for n, w in self.left.items()]))
        return tables

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        layers = [
            {
                **vars(one),
                "direction": list(one.direction),
                "clusters": {str(k): n for k, n in one.clusters.items()},
            }
            for one in self.layers
        ]
        return {
            "layers": layers, "left": self.left, "params_before": self.params[0], "params_after": self.params[1],
            "select": self.select, "source": self.source, "seed": self.seed,
        }  # fmt: skip
