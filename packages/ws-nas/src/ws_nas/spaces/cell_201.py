"""NAS-Bench-201: 15,625 cells of four nodes, five operations on each of six edges (Dong and Yang, ICLR 2020)."""

from __future__ import annotations

import functools
import re
from typing import Any

from torch import nn

from effkit.errors import UserError
from ws_nas.spaces.space import Cost, Genotype, Graph, Layout, Space
from ws_nas.supernets.cell_201 import Supernet201
from ws_nas.supernets.networks.cell_201 import EDGES, OPERATIONS, Network201, Sizes201

__all__ = ["NASBench201Space", "is_connected", "nas_bench_201", "nb201_tiny"]

SHORT = ("none", "skip", "conv 1x1", "conv 3x3", "pool 3x3")
"""How operations are labelled, in the order of :data:`OPERATIONS`."""

_WORD = re.compile(r"\|?([a-z0-9_]+)~(\d)\|?")


class NASBench201Space(Space):
    """The topology space of NAS-Bench-201.

    Args:
        name: The space's name.
        sizes: Sizes of its networks.
        resolution: Side of the pictures.
        connected: Only cells whose output depends on their input: 15,284 of the 15,625.
    """

    def __init__(self, name: str, sizes: Sizes201, resolution: int, connected: bool = False) -> None:
        for key, value in (("channels", sizes.channels), ("cells", sizes.cells), ("classes", sizes.classes)):
            if value < 1:
                raise UserError(f"space.{key}={value} must be at least 1")
        if resolution < 4:
            raise UserError(f"space.resolution={resolution} must be at least 4: two reductions halve it")
        self.network, self.connected = sizes, connected
        described = {"channels": sizes.channels, "cells": sizes.cells, "connected": connected}
        super().__init__(name, [5] * len(EDGES), Layout(sizes.in_channels, resolution, sizes.classes), described)
        self.named = {
            "all_none": (0,) * 6,
            "all_skip": (1,) * 6,
            "all_conv_1x1": (2,) * 6,
            "all_conv_3x3": (3,) * 6,
            "all_pool": (4,) * 6,
        }
        if connected:
            self.named = {key: genes for key, genes in self.named.items() if is_connected(genes)}

    def format(self, genotype: Genotype) -> str:
        """Six digits, one per edge, in the order of :data:`EDGES`."""
        return "".join(map(str, genotype))

    def arch_string(self, genotype: Genotype) -> str:
        """As the benchmark writes it: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
        words: dict[int, list[str]] = {1: [], 2: [], 3: []}
        for (source, target), gene in zip(EDGES, self.check(genotype), strict=True):
            words[target].append(f"{OPERATIONS[gene]}~{source}")
        return "+".join("|" + "|".join(words[node]) + "|" for node in (1, 2, 3))

    def graphs(self, genotype: Genotype) -> dict[str, Graph]:
        """The cell."""
        chosen = zip(EDGES, self.check(genotype), strict=True)
        edges = tuple((source, target, SHORT[gene]) for (source, target), gene in chosen if gene)
        return {"cell": Graph(("in", "1", "2", "out"), edges)}

    def read(self, text: str) -> Genotype:
        """Six digits, or the benchmark's string."""
        if text.isdecimal():
            if len(text) != len(EDGES) or not set(text) <= set("01234"):
                raise ValueError("it needs six digits from 0 to 4")
            return tuple(map(int, text))
        nodes = text.split("+")
        if len(nodes) != 3 or not all(part.startswith("|") and part.endswith("|") for part in nodes):
            raise ValueError("it needs six digits from 0 to 4, or a string such as |none~0|+|none~0|none~1|+|...|")
        found: dict[tuple[int, int], int] = {}
        for target, part in enumerate(nodes, 1):
            for word in part.strip("|").split("|"):
                match = _WORD.fullmatch(word)
                if match is None:
                    raise ValueError(f"{word!r} is no edge, it needs OPERATION~NODE")
                operation, edge = match[1], (int(match[2]), target)
                if operation not in OPERATIONS:
                    raise ValueError(f"{operation!r} is no operation, choose from {', '.join(OPERATIONS)}")
                if edge not in EDGES or edge in found:
                    raise ValueError(f"{word!r} is {'twice' if edge in found else 'no edge'} at node {target}")
                found[edge] = OPERATIONS.index(operation)
        missing = [edge for edge in EDGES if edge not in found]
        if missing:
            raise ValueError(f"the edge from node {missing[0][0]} to node {missing[0][1]} is missing")
        return tuple(found[edge] for edge in EDGES)

    def is_valid(self, genotype: Genotype) -> bool:
        """Whether it is a cell, and a connected one where only those are asked for."""
        return self._fits(genotype) and (not self.connected or is_connected(genotype))

    def size(self) -> int:
        """How many genotypes there are."""
        return len(_connected()) if self.connected else super().size()

    def index(self, genotype: Genotype) -> int:
        """The place in the order of the codes; not the benchmark's own index, which its tables carry."""
        return _connected().index(self.check(genotype)) if self.connected else super().index(genotype)

    def from_index(self, index: int) -> Genotype:
        """The genotype at a place."""
        return _connected()[self._check_index(index)] if self.connected else super().from_index(index)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The first in order of the cells that compute the same: what carries nothing is none, skips are wires.

        Networks that are the same alone may inherit different weights of a supernet.
        """
        return _canonical()[_expression(self.check(genotype))]

    def cost(self, genotype: Genotype) -> Cost:
        """Parameters and MACs in closed form."""
        genes, sizes = self.check(genotype), self.network
        ones, threes = genes.count(2), genes.count(3)
        side, c = self.layout.resolution, sizes.channels
        params = sizes.in_channels * 9 * c + 2 * c
        macs = sizes.in_channels * 9 * c * side**2
        for stage, width in enumerate(sizes.widths):
            if stage:
                side, half = -(-side // 2), width // 2
                weights = 9 * half * width + 9 * width**2 + half * width
                params, macs = params + weights + 4 * width, macs + weights * side**2
            weights = (ones + 9 * threes) * width**2
            params += sizes.cells * (weights + 2 * width * (ones + threes))
            macs += sizes.cells * weights * side**2
        last = sizes.widths[-1]
        return Cost(params + 2 * last + (last + 1) * sizes.classes, macs + last * sizes.classes)

    def build(self, genotype: Genotype) -> nn.Module:
        """The stand-alone network."""
        return Network201(self.network, self.check(genotype))

    def supernet(self, **options: Any) -> Supernet201:
        """The super-network; options as of :class:`Supernet201`."""
        return Supernet201(self.network, self.space_id, **options)

    def _why_invalid(self, genotype: Genotype) -> str:
        return ": its output is not connected to its input"


def is_connected(genotype: Genotype) -> bool:
    """Whether a path without ``none`` leads from the input of a cell to its output."""
    reached = {0}
    for (source, target), gene in zip(EDGES, genotype, strict=True):
        if gene and source in reached:
            reached.add(target)
    return 3 in reached


def _expression(genotype: Genotype) -> str:
    """What the output node computes, as text; empty where it is zero."""
    nodes: list[list[str]] = [["x"], [], [], []]
    for (source, target), gene in zip(EDGES, genotype, strict=True):
        if gene == 0 or not nodes[source]:
            continue
        if gene == 1:
            nodes[target] += nodes[source]
        else:
            nodes[target].append(f"{gene}({'+'.join(sorted(nodes[source]))})")
    return "+".join(sorted(nodes[3]))


def _all() -> list[Genotype]:
    return [tuple((i // 5 ** (5 - e)) % 5 for e in range(6)) for i in range(5**6)]


@functools.cache
def _connected() -> list[Genotype]:
    return [genes for genes in _all() if is_connected(genes)]


@functools.cache
def _canonical() -> dict[str, Genotype]:
    found: dict[str, Genotype] = {}
    for genes in _all():
        found.setdefault(_expression(genes), genes)
    return found


def nas_bench_201(
    in_channels: int = 3,
    resolution: int = 32,
    classes: int = 10,
    channels: int = 16,
    cells: int = 5,
    connected: bool = False,
) -> NASBench201Space:
    """NAS-Bench-201 as published: 16 channels, 5 cells a stage, CIFAR pictures."""
    sizes = Sizes201(in_channels, classes, channels, cells)
    return NASBench201Space("nas_bench_201", sizes, resolution, connected)


def nb201_tiny(
    in_channels: int = 1,
    resolution: int = 8,
    classes: int = 10,
    channels: int = 4,
    cells: int = 1,
    connected: bool = False,
) -> NASBench201Space:
    """NAS-Bench-201 in small, for 8 x 8 digits: 4 channels, one cell a stage."""
    return NASBench201Space("nb201_tiny", Sizes201(in_channels, classes, channels, cells), resolution, connected)
