"""Networks of DARTS cells: stem, normal cells, two reduction cells, an auxiliary head (Liu et al., ICLR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from ws_nas.supernets.networks.darts_parts import (
    OPERATIONS,
    DropPath,
    FactorizedReduce,
    make_operation,
    relu_conv_norm,
)
from ws_nas.supernets.networks.parts import Norm, plain_norm, pooled

__all__ = ["NODES", "PAIRS", "AuxiliaryHead", "CellShape", "DartsNetwork", "DartsSizes", "cell_edges", "cell_shapes"]

NODES = 4
PAIRS = [list(combinations(range(node + 2), 2)) for node in range(NODES)]
"""The pairs of inputs each node may have: 1, 3, 6, 10 of them; inputs 0 and 1 are the two cells before."""


@dataclass(frozen=True)
class DartsSizes:
    """All sizes.

    Attributes:
        in_channels: Of the picture.
        classes: Of the answer.
        channels: Of the first cells; each reduction doubles them.
        layers: Cells; those at a third and at two thirds reduce.
        stem: ``cifar`` (one convolution to three times the channels) or ``imagenet`` (three of stride 2).
        pool_norm: A norm follows the pools, as in search networks.
        auxiliary: A second head in training.
    """

    in_channels: int
    classes: int
    channels: int
    layers: int
    stem: str
    pool_norm: bool = False
    auxiliary: bool = False

    @property
    def reductions(self) -> tuple[int, int]:
        """Which cells reduce."""
        return self.layers // 3, 2 * self.layers // 3


@dataclass(frozen=True)
class CellShape:
    """Channels of the two inputs, of the cell's nodes; and whether it, and the one before, reduce."""

    before_last: int
    last: int
    channels: int
    reduction: bool
    reduced_before: bool


def cell_shapes(sizes: DartsSizes) -> list[CellShape]:
    """Shapes of all cells."""
    channels, found = sizes.channels, []
    first = 3 * channels if sizes.stem == "cifar" else channels
    before_last = last = first
    reduced_before = sizes.stem == "imagenet"
    for i in range(sizes.layers):
        reduction = i in sizes.reductions
        channels *= 2 if reduction else 1
        found.append(CellShape(before_last, last, channels, reduction, reduced_before))
        before_last, last, reduced_before = last, NODES * channels, reduction
    return found


def cell_edges(genes: Sequence[int]) -> list[list[tuple[int, int]]]:
    """The two (input, operation) of each node from 12 genes: pair, operation, operation of each node."""
    found = []
    for node in range(NODES):
        pair, first, second = genes[3 * node : 3 * node + 3]
        low, high = PAIRS[node][pair]
        found.append([(low, first), (high, second)])
    return found


def make_stem(sizes: DartsSizes, norm: Norm) -> nn.ModuleList:
    """The stem: one part, or two of which each feeds one input of the first cell."""
    c, channels = sizes.in_channels, sizes.channels
    if sizes.stem == "cifar":
        return nn.ModuleList([nn.Sequential(nn.Conv2d(c, 3 * channels, 3, 1, 1, bias=False), norm(3 * channels))])
    half = channels // 2
    first = nn.Sequential(
        nn.Conv2d(c, half, 3, 2, 1, bias=False),
        norm(half),
        nn.ReLU(),
        nn.Conv2d(half, channels, 3, 2, 1, bias=False),
        norm(channels),
    )
    return nn.ModuleList([first, relu_conv_norm(channels, channels, 3, 2, norm)])


def make_inputs(shape: CellShape, norm: Norm) -> nn.ModuleList:
    """What brings a cell's two inputs to its channels and side."""
    first = (
        FactorizedReduce(shape.before_last, shape.channels, norm)
        if shape.reduced_before
        else relu_conv_norm(shape.before_last, shape.channels, 1, 1, norm)
    )
    return nn.ModuleList([first, relu_conv_norm(shape.last, shape.channels, 1, 1, norm)])


def run_stem(stem: nn.ModuleList, x: Tensor) -> tuple[Tensor, Tensor]:
    """The two inputs of the first cell."""
    first = stem[0](x)
    return (first, first) if len(stem) == 1 else (first, stem[1](first))


class Cell(nn.Module):
    """A cell with two operations a node."""

    def __init__(self, genes: Sequence[int], shape: CellShape, norm: Norm, pool_norm: bool) -> None:
        super().__init__()
        self.inputs = make_inputs(shape, norm)
        self.edges = cell_edges(genes)
        self.operations = nn.ModuleList()
        for node in self.edges:
            for source, operation in node:
                stride = 2 if shape.reduction and source < 2 else 1
                made = make_operation(OPERATIONS[operation], shape.channels, stride, norm, pool_norm)
                self.operations.append(made)
        self.drop = DropPath()

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """Map (B, C0, H0, W0), (B, C1, H, W) to (B, 4 channels, H', W')."""
        states = [self.inputs[0](before_last), self.inputs[1](last)]
        for node, edges in enumerate(self.edges):
            parts = []
            for k, (source, _) in enumerate(edges):
                operation = self.operations[2 * node + k]
                y = operation(states[source])
                parts.append(y if isinstance(operation, nn.Identity) else self.drop(y))
            states.append(parts[0] + parts[1])
        return torch.cat(states[2:], 1)


class AuxiliaryHead(nn.Module):
    """A small classifier two thirds down, which only training looks at."""

    def __init__(self, source: int, classes: int, stem: str, norm: Norm) -> None:
        super().__init__()
        stride = 3 if stem == "cifar" else 2
        last = [norm(768)] if stem == "cifar" else []  # the published ImageNet networks have none there
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride, count_include_pad=False),
            nn.Conv2d(source, 128, 1, bias=False),
            norm(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *last,
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, S, S) to (B, classes): S is 8 with the CIFAR stem, 7 with the other."""
        return self.classifier(self.features(x).flatten(1))


class DartsNetwork(nn.Module):
    """A stand-alone network.

    Args:
        sizes: All sizes.
        genotype: 24 genes: 12 of the normal cell, 12 of the reduction cell.
        norm: Makes the norms of cells.
        frame_norm: Makes those of the stem.
    """

    def __init__(
        self, sizes: DartsSizes, genotype: Sequence[int], norm: Norm | None = None, frame_norm: Norm | None = None
    ) -> None:
        super().__init__()
        norm = norm or plain_norm()
        self.stem = make_stem(sizes, frame_norm or norm)
        shapes = cell_shapes(sizes)
        self.cells = nn.ModuleList(
            Cell(genotype[12:] if shape.reduction else genotype[:12], shape, norm, sizes.pool_norm) for shape in shapes
        )
        self.auxiliary_at = sizes.reductions[1]
        self.auxiliary = (
            AuxiliaryHead(NODES * shapes[self.auxiliary_at].channels, sizes.classes, sizes.stem, norm)
            if sizes.auxiliary
            else None
        )
        self.classifier = nn.Linear(NODES * shapes[-1].channels, sizes.classes)

    def set_drop_path(self, p: float) -> None:
        """Set how often what an edge gives is dropped in training."""
        for module in self.modules():
            if isinstance(module, DropPath):
                module.p = float(p)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, classes)."""
        return self.with_auxiliary(x)[0]

    def with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both heads' answers; the second is ``None`` without one, and in eval mode."""
        before, last = run_stem(self.stem, x)
        second = None
        for i, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if i == self.auxiliary_at and self.auxiliary is not None and self.training:
                second = self.auxiliary(last)
        return self.classifier(pooled(last)), second
