"""The space of DARTS: a normal and a reduction cell of four nodes with two inputs each (Liu et al., ICLR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from torch import nn

from effkit.errors import UserError
from ws_nas.spaces.space import Cost, Genotype, Graph, Layout, Space
from ws_nas.supernets.darts import DartsSupernet
from ws_nas.supernets.networks.darts import NODES, PAIRS, DartsNetwork, DartsSizes, cell_edges, cell_shapes
from ws_nas.supernets.networks.darts_parts import OPERATIONS

__all__ = ["DARTSSpace", "darts", "darts_tiny"]

SHORT = ("max", "avg", "skip", "sep3", "sep5", "dil3", "dil5")
"""How operations are written, in the order of :data:`OPERATIONS`."""

NAMED = {
    "DARTS_V1": (
        "normal sep3:1 sep3:0 | skip:0 sep3:1 | skip:0 sep3:1 | sep3:0 skip:2; "
        "reduce max:0 max:1 | skip:2 max:0 | max:0 skip:2 | skip:2 avg:0"
    ),
    "DARTS_V2": (
        "normal sep3:0 sep3:1 | sep3:0 sep3:1 | sep3:1 skip:0 | skip:0 dil3:2; "
        "reduce max:0 max:1 | skip:2 max:1 | max:0 skip:2 | skip:2 max:1"
    ),
    "PC_DARTS_cifar": (
        "normal sep3:1 skip:0 | sep3:0 dil3:1 | sep5:0 sep3:1 | avg:0 dil3:1; "
        "reduce sep5:1 max:0 | sep5:1 sep5:2 | sep3:0 sep3:3 | sep3:1 sep3:2"
    ),
    "P_DARTS": (
        "normal skip:0 dil3:1 | skip:0 sep3:1 | sep3:1 sep3:3 | sep3:0 dil5:4; "
        "reduce avg:0 sep5:1 | sep3:0 dil5:2 | max:0 dil3:1 | dil3:1 dil5:3"
    ),
}


class DARTSSpace(Space):
    """DARTS cells.

    Args:
        name: The space's name.
        sizes: Sizes of its stand-alone networks.
        search: Sizes of its supernet.
        resolution: Side of the pictures.
    """

    def __init__(self, name: str, sizes: DartsSizes, search: DartsSizes, resolution: int) -> None:
        for key, value in (("channels", sizes.channels), ("search_channels", search.channels)):
            if value < 2 or value % 2:
                raise UserError(f"space.{key}={value} must be even and at least 2")
        for key, value in (("layers", sizes.layers), ("search_layers", search.layers)):
            if value < 3:
                raise UserError(f"space.{key}={value} must be at least 3: two of the cells reduce")
        self.side = resolution if sizes.stem == "cifar" else resolution // 8
        if resolution % (4 if sizes.stem == "cifar" else 32):
            raise UserError(f"space.resolution={resolution} must be divisible by {4 if sizes.stem == 'cifar' else 32}")
        needed = 32 if sizes.stem == "cifar" else 224
        if sizes.auxiliary and resolution != needed:
            raise UserError(f"space.auxiliary=true needs space.resolution={needed}, not {resolution}")
        self.network, self.search = sizes, search
        described = {
            **{k: v for k, v in asdict(sizes).items() if k not in ("in_channels", "classes", "pool_norm")},
            "search_channels": search.channels,
            "search_layers": search.layers,
        }
        choices = [len(pairs) if k == 0 else len(OPERATIONS) for pairs in PAIRS for k in range(3)] * 2
        super().__init__(name, choices, Layout(sizes.in_channels, resolution, sizes.classes), described)
        self.named = {key: self.read(text) for key, text in NAMED.items()}

    def format(self, genotype: Genotype) -> str:
        """``normal sep3:0 sep3:1 | ... ; reduce max:0 max:1 | ...``: operation and input, two a node."""

        def cell(genes: Sequence[int]) -> str:
            return " | ".join(" ".join(f"{SHORT[op]}:{source}" for source, op in node) for node in cell_edges(genes))

        return f"normal {cell(genotype[:12])}; reduce {cell(genotype[12:])}"

    def graphs(self, genotype: Genotype) -> dict[str, Graph]:
        """Both cells; the output is the concatenation of nodes 2 to 5, and not drawn."""
        genes, found = self.check(genotype), {}
        for name, own in (("normal", genes[:12]), ("reduce", genes[12:])):
            edges = tuple(
                (source, 2 + node, SHORT[op]) for node, pair in enumerate(cell_edges(own)) for source, op in pair
            )
            found[name] = Graph(("c(k-2)", "c(k-1)", *map(str, range(2, 2 + NODES))), edges)
        return found

    def read(self, text: str) -> Genotype:
        """Read what :meth:`format` writes; the two edges of a node in any order."""
        cells = [part.split(maxsplit=1) for part in text.split(";")]
        if [cell[0] if cell else "" for cell in cells] != ["normal", "reduce"] or any(len(cell) < 2 for cell in cells):
            raise ValueError("it needs 'normal ... ; reduce ...'")
        return tuple(gene for _, body in cells for gene in _read_cell(body))

    def cost(self, genotype: Genotype) -> Cost:
        """Parameters and MACs in closed form, without the auxiliary head."""
        genes = self.check(genotype)
        return _cost(self.network, genes, self.layout.resolution)

    def build(self, genotype: Genotype) -> nn.Module:
        """The stand-alone network."""
        return DartsNetwork(self.network, self.check(genotype))

    def supernet(self, **options: Any) -> DartsSupernet:
        """The super-network at search scale; options as of :class:`DartsSupernet`."""
        return DartsSupernet(self.search, self.space_id, **options)


def _read_cell(text: str) -> list[int]:
    nodes = [node.split() for node in text.split("|")]
    if len(nodes) != NODES:
        raise ValueError(f"a cell needs {NODES} nodes, not {len(nodes)}")
    genes = []
    for number, words in enumerate(nodes):
        if len(words) != 2:
            raise ValueError(f"node {number} needs two edges, not {len(words)}")
        edges = []
        for word in words:
            operation, _, source = word.partition(":")
            if operation not in SHORT:
                raise ValueError(f"{operation!r} is no operation, choose from {', '.join(SHORT)}")
            if not source.isdecimal() or int(source) > number + 1:
                raise ValueError(f"{word!r} is no edge: node {number} has inputs 0 to {number + 1}")
            edges.append((int(source), SHORT.index(operation)))
        (low, first), (high, second) = sorted(edges, key=lambda edge: edge[0])
        if low == high:
            raise ValueError(f"node {number} takes input {low} twice")
        genes += [PAIRS[number].index((low, high)), first, second]
    return genes


def _cost(sizes: DartsSizes, genotype: Genotype, resolution: int) -> Cost:
    params = macs = 0

    def conv(source: int, target: int, kernel: int, side: int, groups: int = 1, norm: bool = True) -> None:
        nonlocal params, macs
        weights = source // groups * target * kernel**2
        params += weights + (2 * target if norm else 0)
        macs += weights * side**2

    c, channels = sizes.in_channels, sizes.channels
    if sizes.stem == "cifar":
        side = resolution
        conv(c, 3 * channels, 3, side)
    else:
        side = resolution // 8
        conv(c, channels // 2, 3, resolution // 2)
        conv(channels // 2, channels, 3, resolution // 4)
        conv(channels, channels, 3, side)
    for shape in cell_shapes(sizes):
        c = shape.channels
        conv(shape.before_last, c, 1, side)  # a factorised reduction has as many weights and products
        conv(shape.last, c, 1, side)
        after = side // 2 if shape.reduction else side
        genes = genotype[12:] if shape.reduction else genotype[:12]
        for node in cell_edges(genes):
            for source, op in node:
                name, reduces = OPERATIONS[op], shape.reduction and source < 2
                if name == "skip_connect" and reduces:
                    conv(c, c, 1, after)
                elif name[:3] in ("sep", "dil"):
                    for _ in range(2 if name[:3] == "sep" else 1):
                        conv(c, c, int(name[-1]), after, c, norm=False)
                        conv(c, c, 1, after)
        side = after
    last = NODES * cell_shapes(sizes)[-1].channels * sizes.classes
    return Cost(params + last + sizes.classes, macs + last)


Stem = Literal["cifar", "imagenet"]


def darts(
    in_channels: int = 3,
    resolution: int = 32,
    classes: int = 10,
    channels: int = 36,
    layers: int = 20,
    stem: Stem = "cifar",
    auxiliary: bool = False,
    search_channels: int = 16,
    search_layers: int = 8,
) -> DARTSSpace:
    """DARTS cells; stand-alone networks of 20 cells and 36 channels, a supernet of 8 cells and 16 channels.

    For ImageNet: ``channels=48, layers=14, stem="imagenet", resolution=224, classes=1000``.
    """
    sizes = DartsSizes(in_channels, classes, channels, layers, stem, False, auxiliary)
    search = DartsSizes(in_channels, classes, search_channels, search_layers, "cifar", True)
    return DARTSSpace("darts", sizes, search, resolution)


def darts_tiny(
    in_channels: int = 1,
    resolution: int = 8,
    classes: int = 10,
    channels: int = 4,
    layers: int = 3,
    search_channels: int = 4,
    search_layers: int = 3,
) -> DARTSSpace:
    """DARTS cells in small, for 8 x 8 digits: 3 cells, 4 channels."""
    sizes = DartsSizes(in_channels, classes, channels, layers, "cifar")
    search = DartsSizes(in_channels, classes, search_channels, search_layers, "cifar", True)
    return DARTSSpace("darts_tiny", sizes, search, resolution)
