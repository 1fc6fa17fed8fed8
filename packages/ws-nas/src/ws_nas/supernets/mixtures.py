"""Mixtures of the spaces: chains, NAS-Bench-201 cells, DARTS cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from ws_nas.supernets.cell_201 import Supernet201
from ws_nas.supernets.chain import ChainSupernet
from ws_nas.supernets.darts import EDGES as DARTS_EDGES
from ws_nas.supernets.darts import DartsSupernet
from ws_nas.supernets.mixed import Mixture, Operation, Run, Table, first_largest, mix
from ws_nas.supernets.networks.cell_201 import EDGES, OPERATIONS, average
from ws_nas.supernets.networks.darts import NODES, PAIRS, run_stem
from ws_nas.supernets.networks.darts_parts import OPERATIONS as DARTS_OPERATIONS
from ws_nas.supernets.networks.parts import pooled

__all__ = ["ChainMixture", "DartsMixture", "Mixture201", "darts_genes", "mixture_of"]


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
            operations = self.thinned(list(options), self.tables[0].operations)  # type: ignore[call-overload]
            x = mix(operations, x, gates[0][layer], chosen, recompute=self.recompute)
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
                operations = self.thinned(operations, OPERATIONS)
                chosen = None if run is None else run[0][e]
                part = mix(operations, given, gates[0][e], chosen, recompute=self.recompute)
                so_far = nodes[target]
                nodes[target] = part if so_far is None else so_far + part
            last = nodes[3]
            assert last is not None
            x = last
        return net._head(x)


class DartsMixture(Mixture):
    """DARTS cells as a mixture: 14 edges of 8 operations, one table for normal cells and one for reductions.

    With ``partial`` = K only the first of K parts of the channels go through operations; the others go by (through a
    2 x 2 maximum where the edge has stride 2), and the channels are shuffled (PC-DARTS).

    Attributes:
        skip_dropout: How often what a skip connection gives is dropped in training (P-DARTS).
    """

    supernet: DartsSupernet

    def __init__(self, supernet: DartsSupernet, *, recompute: bool = False) -> None:
        names = ("none", *DARTS_OPERATIONS)
        tables = [Table(name, len(DARTS_EDGES), names, nothing=0) for name in ("normal", "reduce")]
        super().__init__(supernet, tables, recompute=recompute)
        self.partial = supernet.partial
        self.skip_dropout = 0.0

    def forward(
        self,
        x: Tensor,
        gates: Sequence[Tensor],
        run: Run | None = None,
        edges: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Run the mixture.

        Args:
            x: ``(B, C, H, W)``.
            gates: Two ``(14, 8)``, of normal cells and of reductions.
            run: See :func:`mix`.
            edges: Two ``(14,)``, weights of the edges; 1 if not given.

        Returns:
            Logits ``(B, classes)``.
        """
        net = self.supernet
        before, last = run_stem(net.stem, x)
        for i, inputs in enumerate(net.inputs):
            states = [inputs[0](before), inputs[1](last)]  # type: ignore[index]
            table = int(net.shapes[i].reduction)
            for node in range(NODES):
                total: Tensor | None = None
                for source in range(node + 2):
                    e = DARTS_EDGES.index((source, node))
                    chosen = None if run is None else run[table][e]
                    part = self._edge(i, source, node, states[source], gates[table][e], chosen)
                    part = part if edges is None else edges[table][e] * part
                    total = part if total is None else total + part
                assert total is not None
                states.append(total)
            before, last = last, torch.cat(states[2:], 1)
        return net.classifier(pooled(last))

    def _edge(
        self, cell: int, source: int, node: int, x: Tensor, gates: Tensor, chosen: Sequence[bool] | None
    ) -> Tensor:
        stride = 2 if self.supernet.shapes[cell].reduction and source < 2 else 1
        operations: list[Operation] = [_nothing(stride)]
        for k, name in enumerate(DARTS_OPERATIONS):
            module = self.supernet.operation(cell, source, node, k)
            operations.append(self._dropped(module) if name == "skip_connect" and self.skip_dropout else module)
        operations = self.thinned(operations, self.tables[0].operations)
        if self.partial == 1:
            return mix(operations, x, gates, chosen, recompute=self.recompute)
        own = x.shape[1] // self.partial
        mixed = mix(operations, x[:, :own], gates, chosen, recompute=self.recompute)
        by = nn.functional.max_pool2d(x[:, own:], 2, 2) if stride == 2 else x[:, own:]
        return shuffled(torch.cat([mixed, by], 1), self.partial)

    def _dropped(self, module: nn.Module) -> Operation:
        return lambda x: nn.functional.dropout(module(x), self.skip_dropout, self.training)

    def genotype(self, strengths: Sequence[Tensor]) -> tuple[int, ...]:
        """DARTS' derivation: a node's two strongest edges, each with its strongest operation other than ``none``."""
        return tuple(gene for table in strengths for gene in darts_genes(table))

    def inputs(self) -> list[tuple[int, list[int]]]:
        """The nodes with three inputs and more; of each table."""
        nodes = [[e for e, (_, target) in enumerate(DARTS_EDGES) if target == node] for node in range(1, NODES)]
        return [(t, edges) for t in range(len(self.tables)) for edges in nodes]

    def skips(self, genotype: Sequence[int]) -> int:
        """Skip connections of the normal cell."""
        return sum(DARTS_OPERATIONS[gene] == "skip_connect" for k, gene in enumerate(genotype[:12]) if k % 3)

    def one_hot(self, genotype: Sequence[int]) -> list[Tensor]:
        """Gates at which the mixture is the sub-network of a genotype."""
        found = [torch.zeros(table.shape) for table in self.tables]
        for t, gates in enumerate(found):
            gates[:, 0] = 1.0
            for node in range(NODES):
                pair, *chosen = genotype[12 * t + 3 * node : 12 * t + 3 * node + 3]
                for source, operation in zip(PAIRS[node][pair], chosen, strict=True):
                    e = DARTS_EDGES.index((source, node))
                    gates[e, 0], gates[e, 1 + operation] = 0.0, 1.0
        return found


def _nothing(stride: int) -> Operation:
    """Zeros of the size that an edge's other operations give."""
    return None if stride == 1 else lambda x: torch.zeros_like(x[:, :, ::2, ::2])


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels in the order first of each group, second of each group, ...: ``(B, C, H, W)``."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def darts_genes(strengths: Tensor) -> list[int]:
    """The 12 genes of a cell from ``(14, 8)`` strengths, ``none`` first.

    Of equally strong edges, and of equally strong operations, the first is taken.
    """
    real = strengths[:, 1:]
    best = real.max(1).values.tolist()
    genes: list[int] = []
    for node in range(NODES):
        rows = {source: DARTS_EDGES.index((source, node)) for source in range(node + 2)}
        kept = sorted(sorted(rows, key=lambda source: -best[rows[source]])[:2])
        genes.append(PAIRS[node].index((kept[0], kept[1])))
        genes += [first_largest(real[rows[source]]) for source in kept]
    return genes


def mixture_of(supernet: nn.Module, *, recompute: bool = False) -> Mixture:
    """A super-network as a mixture.

    Args:
        supernet: Of a space that has one.
        recompute: See :func:`~ws_nas.supernets.mixed.mix`.

    Raises:
        UserError: If the space has no mixture.
    """
    if isinstance(supernet, ChainSupernet):
        return ChainMixture(supernet, recompute=recompute)
    if isinstance(supernet, Supernet201):
        return Mixture201(supernet, recompute=recompute)
    if isinstance(supernet, DartsSupernet):
        return DartsMixture(supernet, recompute=recompute)
    space = str(getattr(supernet, "space_id", type(supernet).__name__)).split(":")[0]
    raise UserError(f"space={space} has no mixture of operations: use a family that trains single paths, e.g. spos")
