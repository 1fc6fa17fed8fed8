"""Chain spaces: one gene a layer. NAS-Bench-Macro, the space of FairNAS, and a small one for digits.

NAS-Bench-Macro: Su et al., CVPR 2021. FairNAS: Chu et al., ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from effkit.errors import UserError
from ws_nas.spaces.space import Cost, Genotype, Graph, Layout, Space, path_graph
from ws_nas.supernets.chain import ChainSupernet
from ws_nas.supernets.networks.chain import ChainNetwork, ChainSizes, Layer, Option

__all__ = ["MobileChainSpace", "digits_chain", "fairnas_chain", "nas_bench_macro"]

SMALL = (Option(0, 0), Option(3, 3), Option(6, 5))  # identity, MB e3 k3, MB e6 k5
MOBILE = tuple(Option(expand, kernel) for expand in (3, 6) for kernel in (3, 5, 7))

FAIRNAS_A = "37 33 37 63 67 33 33 67 67 35 63 35 35 63 63 67 63 67 65"
FAIRNAS_B = "35 33 35 33 63 35 37 33 63 35 33 63 37 33 67 65 67 63 65"


class MobileChainSpace(Space):
    """A chain of layers with the same options.

    Args:
        name: The space's name.
        sizes: Sizes of its networks.
        resolution: Side of the pictures.
        named: Genotypes known by name, as they are written.
    """

    def __init__(self, name: str, sizes: ChainSizes, resolution: int, named: Mapping[str, str] | None = None) -> None:
        if sizes.stem < 1:
            raise UserError(f"space.width={sizes.stem} must be at least 1")
        if resolution < 1 or sizes.classes < 1 or sizes.in_channels < 1:
            raise UserError(
                f"space={name}: in_channels={sizes.in_channels}, resolution={resolution} and classes={sizes.classes} "
                "must be at least 1"
            )
        layout = Layout(sizes.in_channels, resolution, sizes.classes)
        self.network = sizes
        self.digits = any(option.expand == 0 for option in sizes.options)
        described = {k: v for k, v in asdict(sizes).items() if k not in ("in_channels", "classes", "layers", "options")}
        described["layers"] = [(layer.source, layer.target, layer.stride) for layer in sizes.layers]
        described["options"] = [(option.expand, option.kernel) for option in sizes.options]
        super().__init__(name, [len(sizes.options)] * len(sizes.layers), layout, described)
        self._base, self._table = _costs(sizes, resolution)
        self.named = {key: self.read(text) for key, text in (named or {}).items()}

    def format(self, genotype: Genotype) -> str:
        """``0121`` where a layer may be the identity, else expansion and kernel of each layer: ``37-33-65``."""
        if self.digits:
            return "".join(map(str, genotype))
        options = [self.network.options[gene] for gene in genotype]
        return "-".join(f"{option.expand}{option.kernel}" for option in options)

    def graphs(self, genotype: Genotype) -> dict[str, Graph]:
        """One chain of layers."""
        options = [self.network.options[gene] for gene in self.check(genotype)]
        return {"layers": path_graph([f"e{o.expand}k{o.kernel}" if o.expand else "identity" for o in options])}

    def read(self, text: str) -> Genotype:
        """Read what :meth:`format` writes; spaces may stand for dashes."""
        if self.digits:
            words = list(text)
            known = [str(i) for i in range(len(self.network.options))]
        else:
            words = text.replace("-", " ").split()
            known = [f"{option.expand}{option.kernel}" for option in self.network.options]
        if len(words) != len(self.choices):
            raise ValueError(f"it needs {len(self.choices)} layers, not {len(words)}")
        for word in words:
            if word not in known:
                raise ValueError(f"{word!r} is no layer, choose from {', '.join(known)}")
        return tuple(known.index(word) for word in words)

    def canonical(self, genotype: Genotype) -> Genotype:
        """Identities at the end of each run of layers that keep the shape: wherever they stand, nothing is there."""
        genes = self.check(genotype)
        nothing = [i for i, option in enumerate(self.network.options) if option.expand == 0]
        found: list[int] = []
        run: list[int] = []

        def close() -> None:
            found.extend([g for g in run if g not in nothing] + [g for g in run if g in nothing])
            run.clear()

        for gene, layer in zip(genes, self.network.layers, strict=True):
            if layer.changes:
                close()
                found.append(gene)
            else:
                run.append(gene)
        close()
        return tuple(found)

    def cost(self, genotype: Genotype) -> Cost:
        """Parameters and MACs in closed form."""
        parts = [self._table[i][gene] for i, gene in enumerate(self.check(genotype))]
        return Cost(
            self._base.params + sum(part.params for part in parts), self._base.macs + sum(part.macs for part in parts)
        )

    def build(self, genotype: Genotype) -> nn.Module:
        """The stand-alone network."""
        return ChainNetwork(self.network, self.check(genotype))

    def supernet(self, **options: Any) -> ChainSupernet:
        """The super-network; options as of :class:`ChainSupernet`."""
        return ChainSupernet(self.network, self.space_id, **options)


def _costs(sizes: ChainSizes, resolution: int) -> tuple[Cost, list[list[Cost]]]:
    """What stem and head cost, and each option of each layer; a norm has two parameters a channel."""

    def conv(source: int, target: int, kernel: int, side: int, groups: int = 1) -> Cost:
        weights = source // groups * target * kernel**2
        return Cost(weights + 2 * target, weights * side**2)

    def add(*parts: Cost) -> Cost:
        return Cost(sum(part.params for part in parts), sum(part.macs for part in parts))

    side = -(-resolution // sizes.stem_stride)
    base = [conv(sizes.in_channels, sizes.stem, 3, side)]
    if sizes.separable:
        base += [conv(sizes.stem, sizes.stem, 3, side, sizes.stem), conv(sizes.stem, sizes.separable, 1, side)]
    table = []
    for layer in sizes.layers:
        after, row = -(-side // layer.stride), []
        for option in sizes.options:
            wide = layer.source * option.expand
            if option.expand:
                row.append(
                    add(
                        conv(layer.source, wide, 1, side),
                        conv(wide, wide, option.kernel, after, wide),
                        conv(wide, layer.target, 1, after),
                    )
                )
            else:
                row.append(conv(layer.source, layer.target, 1, after) if layer.changes else Cost(0, 0))
        table.append(row)
        side = after
    base += [conv(sizes.layers[-1].target, sizes.head, 1, side)]
    linear = sizes.head * sizes.classes
    return add(*base, Cost(linear + sizes.classes, linear)), table


def _layers(source: int, stages: list[tuple[int, int, int]]) -> tuple[Layer, ...]:
    """From (width, layers, stride of the first) a stage."""
    found = []
    for width, count, stride in stages:
        for i in range(count):
            found.append(Layer(source, width, stride if i == 0 else 1))
            source = width
    return tuple(found)


def nas_bench_macro(in_channels: int = 3, resolution: int = 32, classes: int = 10, width: int = 32) -> MobileChainSpace:
    """NAS-Bench-Macro: 8 layers of identity, MB e3 k3 or MB e6 k5 in stages of 2, 3, 3; 6,561 networks."""
    stages = [(2 * width, 2, 2), (4 * width, 3, 2), (8 * width, 3, 2)]
    sizes = ChainSizes(in_channels, classes, width, 1, 0, _layers(width, stages), SMALL, 1280, "relu")
    named = {"all_identity": "00000000", "all_small": "11111111", "all_large": "22222222"}
    return MobileChainSpace("nas_bench_macro", sizes, resolution, named)


def fairnas_chain(in_channels: int = 3, resolution: int = 224, classes: int = 1000) -> MobileChainSpace:
    """The space of FairNAS: 19 layers of expansion 3 or 6 and kernel 3, 5 or 7; 6^19 networks."""
    stages = [(32, 2, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1)]
    sizes = ChainSizes(in_channels, classes, 32, 2, 16, _layers(16, stages), MOBILE, 1280, "relu6", 0.2)
    return MobileChainSpace("fairnas_chain", sizes, resolution, {"FairNAS-A": FAIRNAS_A, "FairNAS-B": FAIRNAS_B})


def digits_chain(in_channels: int = 1, resolution: int = 8, classes: int = 10, width: int = 8) -> MobileChainSpace:
    """NAS-Bench-Macro in small, for 8 x 8 digits: 4 layers in stages of 2, 2; 81 networks."""
    stages = [(2 * width, 2, 2), (4 * width, 2, 2)]
    sizes = ChainSizes(in_channels, classes, width, 1, 0, _layers(width, stages), SMALL, 8 * width, "relu")
    named = {"all_identity": "0000", "all_small": "1111", "all_large": "2222"}
    return MobileChainSpace("digits_chain", sizes, resolution, named)
