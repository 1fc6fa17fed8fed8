"""The super-network of NAS-Bench-201: both convolutions on each edge of each cell; other operations have no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ws_nas.supernets.networks.cell_201 import (
    EDGES,
    Cell,
    Network201,
    Sizes201,
    average,
    make_convolution,
    make_frame,
    run_cell,
)
from ws_nas.supernets.networks.parts import copy_weights, like, plain_norm, pooled
from ws_nas.supernets.norm import norm_factory, rows_of
from ws_nas.supernets.supernet import Supernet

__all__ = ["Supernet201"]

CONVOLUTIONS = (2, 3)


class Supernet201(Supernet):
    """All networks of NAS-Bench-201.

    Args:
        sizes: All sizes.
        space_id: Name and hash of the space.
        affine: Norms of edges, and the last one, have a learnt scale and shift; where not, convolutions of edges have a
            bias, as the benchmark's search networks do.
        track_running_stats: Norms keep running statistics.
    """

    batched = True

    def __init__(
        self, sizes: Sizes201, space_id: str, *, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        super().__init__([5] * len(EDGES), space_id)
        self.sizes, self.affine, self.track = sizes, affine, track_running_stats
        norm, frame = norm_factory(affine, track_running_stats), norm_factory(True, track_running_stats)
        self.cells = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict({str(gene): make_convolution(gene, width, norm) for gene in CONVOLUTIONS}) for _ in EDGES
            )
            for width in sizes.widths
            for _ in range(sizes.cells)
        )
        for name, module in make_frame(sizes, frame, norm).items():
            self.add_module(name, module)

    def _edge(self, cell: int, edge: int, gene: int) -> nn.Module:
        return self.cells[cell][edge][str(gene)]  # type: ignore[index]

    def _reduction(self, cell: int) -> nn.Module | None:
        """What stands before a cell."""
        first = cell and cell % self.sizes.cells == 0
        return self.get_submodule(f"reductions.{cell // self.sizes.cells - 1}") if first else None

    def _head(self, x: Tensor) -> Tensor:
        return self.get_submodule("classifier")(pooled(self.get_submodule("last")(x)))

    def run(self, x: Tensor, genotype: tuple[int, ...]) -> Tensor:
        """Run one path; see the base class."""
        x = self.get_submodule("stem")(x)
        nothing = nn.Identity()
        for i in range(len(self.cells)):
            reduction = self._reduction(i)
            x = x if reduction is None else reduction(x)
            modules = [self._edge(i, e, g) if g in CONVOLUTIONS else nothing for e, g in enumerate(genotype)]
            x = run_cell(x, genotype, modules)
        return self._head(x)

    def run_many(self, x: Tensor, genotypes: Sequence[tuple[int, ...]]) -> Tensor:
        """Run several paths: each operation of an edge once, on the pictures of all paths that take it."""
        count = len(genotypes)
        by_edge = [[[i for i, g in enumerate(genotypes) if g[e] == op] for op in range(5)] for e in range(len(EDGES))]
        shared = self.get_submodule("stem")(x)
        stacked = shared.expand(count, *shared.shape)
        everyone = list(range(count))
        for i in range(len(self.cells)):
            reduction = self._reduction(i)
            if reduction is not None:
                with rows_of(everyone):
                    stacked = reduction(stacked.flatten(0, 1)).unflatten(0, (count, -1))
            stacked = self._many_cells(i, stacked, by_edge)
        with rows_of(everyone):
            return self._head(stacked.flatten(0, 1)).unflatten(0, (count, -1))

    def _many_cells(self, cell: int, stacked: Tensor, by_edge: list[list[list[int]]]) -> Tensor:
        count = len(stacked)
        nodes: list[Tensor | None] = [stacked, None, None, None]
        for edge, (source, target) in enumerate(EDGES):
            given = nodes[source]
            if given is None:
                given = nodes[source] = torch.zeros_like(stacked)
            so_far = nodes[target]
            if so_far is None:
                so_far = torch.zeros_like(stacked)
            for op, paths in enumerate(by_edge[edge]):
                if not paths or op == 0:
                    continue
                whole = len(paths) == count
                index = None if whole else torch.tensor(paths, device=stacked.device)
                rows = given if index is None else given[index]
                if op in (2, 3):
                    with rows_of(paths):
                        rows = self._edge(cell, edge, op)(rows.flatten(0, 1)).unflatten(0, (len(paths), -1))
                elif op == 4:
                    rows = average(rows.flatten(0, 1)).unflatten(0, (len(paths), -1))
                so_far = so_far + rows if index is None else so_far.index_add(0, index, rows)
            nodes[target] = so_far
        found = nodes[3]
        assert found is not None
        return found

    def path_modules(self, genotype: tuple[int, ...]) -> list[nn.Module]:
        """The frame, and the convolutions that the path takes."""
        taken = [
            self._edge(i, e, g) for i in range(len(self.cells)) for e, g in enumerate(genotype) if g in CONVOLUTIONS
        ]
        return [*(self.get_submodule(name) for name in ("stem", "reductions", "last", "classifier")), *taken]

    def export(self, genotype: Sequence[int]) -> nn.Module:
        """The sub-network as a plain module; see the base class."""
        genes = self.check(genotype)
        norm = plain_norm(self.affine, self.track)
        network = Network201(self.sizes, genes, norm, plain_norm(True, self.track), norm)
        like(network, self)
        for name in ("stem", "reductions", "last", "classifier"):
            copy_weights(self.get_submodule(name), network.get_submodule(name))
        for i, cell in enumerate(network.cells):
            for e, gene in enumerate(genes):
                if gene in CONVOLUTIONS:
                    copy_weights(self._edge(i, e, gene), cast(Cell, cell).edges[e])
        return network.train(self.training)
