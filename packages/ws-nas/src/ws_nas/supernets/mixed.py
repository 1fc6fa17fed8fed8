"""Super-networks run as mixtures: every operation of an edge at once, each behind a gate.

A mixture has no weights of its own: it runs the modules of a super-network, so that soft and single-path results are of
the same weights. Gates are given from outside; where they come from (softmax, Gumbel, binary) is a family's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ws_nas.supernets.networks.parts import thinned
from ws_nas.supernets.supernet import Supernet

__all__ = ["Mixture", "Operation", "Run", "Table", "first_largest", "mix"]

Run: TypeAlias = Sequence[Sequence[Sequence[bool]]]
"""Which operations run, by table and edge."""

SKIPS = ("skip_connect", "identity")

Operation: TypeAlias = Callable[[Tensor], Tensor] | None
"""``None`` gives zeros."""


@dataclass(frozen=True)
class Table:
    """Edges with the same operations.

    Attributes:
        name: What they are.
        edges: How many.
        operations: Names of the operations.
        nothing: Index of the operation that gives zeros and is never derived; ``None`` where all may be.
    """

    name: str
    edges: int
    operations: tuple[str, ...]
    nothing: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Edges and operations."""
        return self.edges, len(self.operations)


def mix(
    operations: Sequence[Operation],
    x: Tensor,
    gates: Tensor,
    run: Sequence[bool] | None = None,
    *,
    recompute: bool = False,
) -> Tensor:
    """The sum of an edge's operations, each times its gate.

    Args:
        operations: Of the edge.
        x: ``(B, C, H, W)``.
        gates: ``(operations,)``.
        run: Which ones run; ``None`` for all. Gates of the others must be zero: they are added as they are, so that
            they get a gradient.
        recompute: Keep nothing of the operations for the backward pass, and run them anew there.
    """

    def total(given: Tensor, gates: Tensor) -> Tensor:
        found: Tensor | None = None
        idle = [gates[k] for k in range(len(operations)) if run is not None and not run[k]]
        for k, operation in enumerate(operations):
            if operation is None or (run is not None and not run[k]):
                continue
            part = gates[k] * operation(given)
            found = part if found is None else found + part
        found = torch.zeros_like(given) if found is None else found
        return found + torch.stack(idle).sum() if idle else found

    if recompute and torch.is_grad_enabled():
        return checkpoint(total, x, gates, use_reentrant=False)
    return total(x, gates)


class Mixture(nn.Module):
    """A super-network as a mixture.

    Args:
        supernet: Whose modules run.
        tables: Its edges.
        recompute: See :func:`mix`.

    Attributes:
        drop_path: How often an operation that is no skip connection is left out of a picture's pass in training.
    """

    def __init__(self, supernet: Supernet, tables: Sequence[Table], *, recompute: bool = False) -> None:
        super().__init__()
        self.supernet, self.tables, self.recompute = supernet, tuple(tables), recompute
        self.drop_path = 0.0

    def forward(self, x: Tensor, gates: Sequence[Tensor], run: Run | None = None) -> Tensor:
        """Run the mixture.

        Args:
            x: ``(B, C, H, W)``.
            gates: One ``(edges, operations)`` a table.
            run: See :func:`mix`.

        Returns:
            Logits ``(B, classes)``.
        """
        raise NotImplementedError

    def skips(self, genotype: Sequence[int]) -> int:
        """How many edges of a genotype do nothing to what they carry."""
        (table,) = self.tables
        return sum(table.operations[gene] in SKIPS for gene in genotype)

    def inputs(self) -> list[tuple[int, list[int]]]:
        """Table and edges of the nodes that have more inputs than they may keep, which are two; no node by default."""
        return []

    def thinned(self, operations: Sequence[Operation], names: Sequence[str]) -> list[Operation]:
        """Operations with ``drop_path``, as it stands."""
        if not self.drop_path or not self.training:
            return list(operations)
        return [
            o if o is None or n in SKIPS else _left_out(o, self.drop_path)
            for o, n in zip(operations, names, strict=True)
        ]

    def genotype(self, strengths: Sequence[Tensor]) -> tuple[int, ...]:
        """The genotype of the strongest operations; of equal ones the first.

        Args:
            strengths: One ``(edges, operations)`` a table.
        """
        (table,) = strengths
        return tuple(first_largest(row) for row in table)

    def one_hot(self, genotype: Sequence[int]) -> list[Tensor]:
        """Gates at which the mixture is the sub-network of a genotype."""
        (table,) = self.tables
        found = torch.zeros(table.shape)
        found[range(table.edges), list(genotype)] = 1.0
        return [found]


def _left_out(operation: Callable[[Tensor], Tensor], p: float) -> Operation:
    """An operation that gives nothing to a share of the pictures, and more to the others."""
    return lambda x: thinned(operation(x), p)


def first_largest(values: Tensor) -> int:
    """Index of the largest value, of equal ones the first, on every device."""
    return int((values == values.max()).nonzero()[0, 0])
