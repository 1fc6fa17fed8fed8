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

from effkit.errors import UserError
from ws_nas.supernets.cell_201 import Supernet201
from ws_nas.supernets.chain import ChainSupernet
from ws_nas.supernets.networks.cell_201 import EDGES, OPERATIONS, average
from ws_nas.supernets.supernet import Supernet

__all__ = ["Mixture", "Run", "Table", "mix", "mixture_of"]

Run: TypeAlias = Sequence[Sequence[Sequence[bool]]]
"""Which operations run, by table and edge."""

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
    """

    def __init__(self, supernet: Supernet, tables: Sequence[Table], *, recompute: bool = False) -> None:
        super().__init__()
        self.supernet, self.tables, self.recompute = supernet, tuple(tables), recompute

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


def first_largest(values: Tensor) -> int:
    """Index of the largest value, of equal ones the first, on every device."""
    return int((values == values.max()).nonzero()[0, 0])


class ChainMixture(Mixture):
    """A chain as a mixture: one edge a layer."""

    supernet: ChainSupernet

    def __init__(self, supernet: ChainSupernet, *, recompute: bool = False) -> None:
        options = tuple(f"e{o.expand}k{o.kernel}" if o.expand else "identity" for o in supernet.sizes.options)
        super().__init__(supernet, [Table("layers", len(supernet.choices), options)], recompute=recompute)

    def forward(self, x: Tensor, gates: Sequence[Tensor], run: Run | None = None) -> Tensor:
        """Run the mixture; see the base class."""
        x = self.supernet.stem(x)
        for layer, options in enumerate(self.supernet.layers):
            chosen = None if run is None else run[0][layer]
            x = mix(list(options), x, gates[0][layer], chosen, recompute=self.recompute)  # type: ignore[call-overload]
        return self.supernet.head(x)


class Mixture201(Mixture):
    """NAS-Bench-201 as a mixture: six edges, the same gates in every cell; ``none`` is an operation like others."""

    supernet: Supernet201

    def __init__(self, supernet: Supernet201, *, recompute: bool = False) -> None:
        super().__init__(supernet, [Table("edges", len(EDGES), OPERATIONS)], recompute=recompute)

    def forward(self, x: Tensor, gates: Sequence[Tensor], run: Run | None = None) -> Tensor:
        """Run the mixture; see the base class."""
        net = self.supernet
        x = net.get_submodule("stem")(x)
        for i in range(len(net.cells)):
            reduction = net._reduction(i)
            x = x if reduction is None else reduction(x)
            nodes: list[Tensor | None] = [x, None, None, None]
            for e, (source, target) in enumerate(EDGES):
                given = nodes[source]
                assert given is not None
                operations: list[Operation] = [None, nn.Identity(), net._edge(i, e, 2), net._edge(i, e, 3), average]
                chosen = None if run is None else run[0][e]
                part = mix(operations, given, gates[0][e], chosen, recompute=self.recompute)
                so_far = nodes[target]
                nodes[target] = part if so_far is None else so_far + part
            last = nodes[3]
            assert last is not None
            x = last
        return net._head(x)


def mixture_of(supernet: nn.Module, *, recompute: bool = False) -> Mixture:
    """A super-network as a mixture.

    Args:
        supernet: Of a space that has one.
        recompute: See :func:`mix`.

    Raises:
        UserError: If the space has no mixture.
    """
    if isinstance(supernet, ChainSupernet):
        return ChainMixture(supernet, recompute=recompute)
    if isinstance(supernet, Supernet201):
        return Mixture201(supernet, recompute=recompute)
    space = str(getattr(supernet, "space_id", type(supernet).__name__)).split(":")[0]
    raise UserError(f"space={space} has no mixture of operations: use a family that trains single paths, e.g. spos")
