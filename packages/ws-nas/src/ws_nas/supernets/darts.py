"""The super-network of DARTS: all operations on all 14 edges of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ws_nas.supernets.networks.darts import (
    NODES,
    PAIRS,
    Cell,
    DartsNetwork,
    DartsSizes,
    cell_edges,
    cell_shapes,
    make_inputs,
    make_stem,
    run_stem,
)
from ws_nas.supernets.networks.darts_parts import OPERATIONS, make_operation
from ws_nas.supernets.networks.parts import copy_weights, like, plain_norm, pooled
from ws_nas.supernets.norm import norm_factory
from ws_nas.supernets.supernet import Supernet

__all__ = ["EDGES", "DartsSupernet"]

EDGES = tuple((source, node) for node in range(NODES) for source in range(node + 2))
"""The 14 edges (input, node) of a cell, in the order of DARTS' tables of architecture weights."""


class DartsSupernet(Supernet):
    """All networks of a DARTS space, at search scale.

    Args:
        sizes: All sizes; pools get a norm, there is no auxiliary head.
        space_id: Name and hash of the space.
        affine: Norms of cells have a learnt scale and shift.
        track_running_stats: Norms keep running statistics.
        partial: Operations see one of so many parts of the channels.
    """

    def __init__(
        self,
        sizes: DartsSizes,
        space_id: str,
        *,
        affine: bool = False,
        track_running_stats: bool = True,
        partial: int = 1,
    ) -> None:
        super().__init__(([len(p) if k == 0 else 7 for p in PAIRS for k in range(3)]) * 2, space_id)
        self.sizes = replace(sizes, pool_norm=True, auxiliary=False)
        self.affine, self.track, self.partial = affine, track_running_stats, partial
        norm, frame = norm_factory(affine, track_running_stats), norm_factory(True, track_running_stats)
        self.stem = make_stem(self.sizes, frame)
        self.shapes = cell_shapes(self.sizes)
        self.inputs = nn.ModuleList(make_inputs(shape, norm) for shape in self.shapes)
        self.cells = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList(
                    make_operation(
                        name,
                        shape.channels // partial,
                        2 if shape.reduction and source < 2 else 1,
                        norm,
                        pool_norm=True,
                    )
                    for name in OPERATIONS
                )
                for source, _ in EDGES
            )
            for shape in self.shapes
        )
        self.classifier = nn.Linear(NODES * self.shapes[-1].channels, sizes.classes)

    def operation(self, cell: int, source: int, node: int, operation: int) -> nn.Module:
        """The module of an operation on an edge."""
        return self.cells[cell][EDGES.index((source, node))][operation]  # type: ignore[index]

    def genes(self, cell: int, genotype: Sequence[int]) -> Sequence[int]:
        """The 12 genes that decide a cell."""
        return genotype[12:] if self.shapes[cell].reduction else genotype[:12]

    def run(self, x: Tensor, genotype: tuple[int, ...]) -> Tensor:
        """Run one path; see the base class."""
        before, last = run_stem(self.stem, x)
        for i, inputs in enumerate(self.inputs):
            states = [inputs[0](before), inputs[1](last)]  # type: ignore[index]
            for node, edges in enumerate(cell_edges(self.genes(i, genotype))):
                first, second = (self.operation(i, source, node, op)(states[source]) for source, op in edges)
                states.append(first + second)
            before, last = last, torch.cat(states[2:], 1)
        return self.classifier(pooled(last))

    def path_modules(self, genotype: tuple[int, ...]) -> list[nn.Module]:
        """Stem, inputs of cells, the operations taken, classifier."""
        taken = [
            self.operation(i, source, node, op)
            for i in range(len(self.cells))
            for node, edges in enumerate(cell_edges(self.genes(i, genotype)))
            for source, op in edges
        ]
        return [self.stem, self.inputs, *taken, self.classifier]

    def stem_bytes(self, x: Tensor) -> int:
        """Memory of what the stem makes of a batch."""
        return x.nbytes // x.shape[1] * self.shapes[0].last

    def export(self, genotype: Sequence[int]) -> nn.Module:
        """The sub-network as a plain module; see the base class."""
        genes = self.check(genotype)
        network = DartsNetwork(self.sizes, genes, plain_norm(self.affine, self.track), plain_norm(True, self.track))
        like(network, self)
        copy_weights(self.stem, network.stem)
        copy_weights(self.classifier, network.classifier)
        for i, cell in enumerate(network.cells):
            assert isinstance(cell, Cell)
            copy_weights(self.inputs[i], cell.inputs)
            for node, edges in enumerate(cell_edges(self.genes(i, genes))):
                for k, (source, op) in enumerate(edges):
                    copy_weights(self.operation(i, source, node, op), cell.operations[2 * node + k])
        return network.train(self.training)
