"""Networks of NAS-Bench-201: one cell of four nodes and six edges in three stages (Dong and Yang, ICLR 2020)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from ws_nas.supernets.networks.parts import Norm, plain_norm, pooled

__all__ = ["EDGES", "OPERATIONS", "Cell", "Network201", "Reduction", "Sizes201", "average", "make_convolution"]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From which node to which, in the order of the genes."""


@dataclass(frozen=True)
class Sizes201:
    """All sizes.

    Attributes:
        in_channels: Of the picture.
        classes: Of the answer.
        channels: Of the first stage; each further stage has twice as many at half the side.
        cells: A stage.
    """

    in_channels: int
    classes: int
    channels: int
    cells: int

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        return [self.channels << i for i in range(3)]


def average(x: Tensor) -> Tensor:
    """The pooling operation: 3 x 3 averages of what is there; what lies outside is not counted."""
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _conv(source: int, target: int, kernel: int, norm: Norm, stride: int = 1, bias: bool = False) -> nn.Sequential:
    conv = nn.Conv2d(source, target, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(nn.ReLU(), conv, norm(target))


def make_convolution(gene: int, channels: int, norm: Norm) -> nn.Module:
    """What an edge computes with weights: gene 2 or 3."""
    affine = norm(1).affine  # a convolution has a bias where its norm has none, as the benchmark's networks
    return _conv(channels, channels, 1 if gene == 2 else 3, norm, bias=not affine)


class Cell(nn.Module):
    """Six edges with an operation each; a node is the sum of its edges, the last one is the output."""

    def __init__(self, genotype: Sequence[int], channels: int, norm: Norm) -> None:
        super().__init__()
        self.genotype = tuple(genotype)
        self.edges = nn.ModuleList(
            make_convolution(gene, channels, norm) if gene in (2, 3) else nn.Identity() for gene in genotype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return run_cell(x, self.genotype, self.edges)


def run_cell(x: Tensor, genotype: Sequence[int], modules: Sequence[nn.Module] | nn.ModuleList) -> Tensor:
    """Run a cell.

    Args:
        x: (B, C, H, W).
        genotype: The operation of each edge.
        modules: What edges with weights run; others are not asked.
    """
    nodes: list[Tensor | None] = [x, None, None, None]
    for (source, target), gene, module in zip(EDGES, genotype, modules, strict=True):
        given = nodes[source]
        if gene == 0 or (given is None and gene in (1, 4)):
            continue  # zeros, not 0 * x: NaN stays where it is
        given = x.new_zeros(x.shape) if given is None else given
        y = given if gene == 1 else average(given) if gene == 4 else module(given)
        so_far = nodes[target]
        nodes[target] = y if so_far is None else so_far + y
    return x.new_zeros(x.shape) if nodes[3] is None else nodes[3]


class Reduction(nn.Module):
    """A residual block of stride 2 between stages."""

    def __init__(self, source: int, target: int, norm: Norm) -> None:
        super().__init__()
        self.first = _conv(source, target, 3, norm, stride=2)
        self.second = _conv(target, target, 3, norm)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(source, target, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 2C, H / 2, W / 2)."""
        return self.shortcut(x) + self.second(self.first(x))


def make_frame(sizes: Sizes201, norm: Norm, last_norm: Norm) -> dict[str, nn.Module]:
    """All but the cells: stem, reductions, the last norm, the classifier."""
    widths = sizes.widths
    stem = nn.Sequential(nn.Conv2d(sizes.in_channels, widths[0], 3, 1, 1, bias=False), norm(widths[0]))
    return {
        "stem": stem,
        "reductions": nn.ModuleList(Reduction(a, b, norm) for a, b in itertools.pairwise(widths)),
        "last": nn.Sequential(last_norm(widths[-1]), nn.ReLU()),
        "classifier": nn.Linear(widths[-1], sizes.classes),
    }


class Network201(nn.Module):
    """A stand-alone network.

    Args:
        sizes: All sizes.
        genotype: The operation of each edge.
        norm: Makes the norms in the cells.
        frame_norm: Makes all others but the last.
        last_norm: Makes the last one.
    """

    def __init__(
        self,
        sizes: Sizes201,
        genotype: Sequence[int],
        norm: Norm | None = None,
        frame_norm: Norm | None = None,
        last_norm: Norm | None = None,
    ) -> None:
        super().__init__()
        norm = norm or plain_norm()
        self.cells = nn.ModuleList(Cell(genotype, width, norm) for width in sizes.widths for _ in range(sizes.cells))
        for name, module in make_frame(sizes, frame_norm or norm, last_norm or norm).items():
            self.add_module(name, module)
        self.per_stage = sizes.cells

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, classes)."""
        x = self.get_submodule("stem")(x)
        for i, cell in enumerate(self.cells):
            if i and i % self.per_stage == 0:
                x = self.get_submodule(f"reductions.{i // self.per_stage - 1}")(x)
            x = cell(x)
        return self.get_submodule("classifier")(pooled(self.get_submodule("last")(x)))
