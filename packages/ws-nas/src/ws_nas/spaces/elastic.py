"""The once-for-all space: depth of each stage, kernel and expansion of each block (Cai et al., ICLR 2020)."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from typing import Any

import torch
from torch import nn

from effkit.errors import UserError
from ws_nas.spaces.space import Cost, Genotype, Graph, Layout, Space, as_generator, path_graph
from ws_nas.supernets.mobile import ElasticSupernet, chosen_blocks
from ws_nas.supernets.networks.mobile import BlockShape, MobileNetwork, MobileSizes, Stage, blocks_of, divisible

__all__ = ["OFASpace", "ofa", "ofa_tiny"]


class OFASpace(Space):
    """An elastic MobileNet. Genes: depths of the stages, kernels of all places, expansions of all places.

    Places beyond a stage's depth hold 0, so that every network is one genotype; operators bring genes into this form.

    Args:
        name: The space's name.
        sizes: Sizes of its networks, and what may be chosen.
        resolution: Side of the pictures.
    """

    def __init__(self, name: str, sizes: MobileSizes, resolution: int) -> None:
        if resolution < 1:
            raise UserError(f"space.resolution={resolution} must be at least 1")
        self.network, self.most = sizes, max(sizes.depths)
        places = len(sizes.stages) * self.most
        choices = (
            [len(sizes.depths)] * len(sizes.stages) + [len(sizes.kernels)] * places + [len(sizes.expands)] * places
        )
        described = {k: v for k, v in asdict(sizes).items() if k not in ("in_channels", "classes")}
        super().__init__(name, choices, Layout(sizes.in_channels, resolution, sizes.classes), described)
        one = len(sizes.kernels) * len(sizes.expands)
        self._counts = [one**depth for depth in sizes.depths]
        ends = {"max": tuple(m - 1 for m in choices), "min": (0,) * len(choices)}
        self.named = {key: self.canonical(genes) for key, genes in ends.items()}

    def canonical(self, genotype: Genotype) -> Genotype:
        """Zeros at places beyond the depth of their stage."""
        genes = tuple(genotype)
        if not self._fits(genes):
            return self.check(genes)
        found, stages = list(genes), len(self.network.stages)
        for s in range(stages):
            for i in range(self.network.depths[genes[s]], self.most):
                found[stages + s * self.most + i] = 0
                found[stages + (stages + s) * self.most + i] = 0
        return tuple(found)

    def is_valid(self, genotype: Genotype) -> bool:
        """Whether it is a genotype in its canonical form."""
        return self._fits(genotype) and self.canonical(genotype) == tuple(genotype)

    def repaired(self, genotype: Genotype) -> Genotype | None:
        """Mixed genes in their canonical form."""
        return self.canonical(genotype)

    def size(self) -> int:
        """How many networks there are."""
        return sum(self._counts) ** len(self.network.stages)

    def sample(self, generator: torch.Generator | int) -> Genotype:
        """Draw uniformly over the networks; deep ones are by far the most."""
        source = as_generator(generator)
        total = sum(self._counts)
        codes = torch.randint(total, (len(self.network.stages),), generator=source).tolist()
        return self._from_codes(codes)

    def index(self, genotype: Genotype) -> int:
        """The place in the order of :meth:`__iter__`."""
        number, chosen = 0, self.check(genotype)
        stages, kernels, expands = len(self.network.stages), len(self.network.kernels), len(self.network.expands)
        for s in range(stages):
            code = 0
            for i in range(self.network.depths[chosen[s]]):
                kernel = chosen[stages + s * self.most + i]
                code = code * kernels * expands + kernel * expands + chosen[stages + (stages + s) * self.most + i]
            number = number * sum(self._counts) + sum(self._counts[: chosen[s]]) + code
        return number

    def from_index(self, index: int) -> Genotype:
        """The genotype at a place."""
        left, codes = self._check_index(index), []
        for _ in self.network.stages:
            left, code = divmod(left, sum(self._counts))
            codes.append(code)
        return self._from_codes(codes[::-1])

    def _from_codes(self, codes: list[int]) -> Genotype:
        """From one number a stage."""
        depths, kernels, expands = [], [], []
        one, width = len(self.network.kernels) * len(self.network.expands), len(self.network.expands)
        for code in codes:
            depth = 0
            while code >= self._counts[depth]:
                code -= self._counts[depth]
                depth += 1
            digits = []
            for _ in range(self.network.depths[depth]):
                code, digit = divmod(code, one)
                digits.append(digit)
            digits = digits[::-1] + [0] * (self.most - len(digits))
            depths.append(depth)
            kernels += [d // width for d in digits]
            expands += [d % width for d in digits]
        return (*depths, *kernels, *expands)

    def format(self, genotype: Genotype) -> str:
        """Kernel and expansion of each block, stages apart: ``k7e6-k7e6_k3e4-k5e3_...``."""
        chosen = chosen_blocks(self.network, genotype)
        return "_".join("-".join(f"k{kernel}e{expand}" for kernel, expand in stage) for stage in chosen)

    def graphs(self, genotype: Genotype) -> dict[str, Graph]:
        """A chain of blocks a stage."""
        stages = chosen_blocks(self.network, self.check(genotype))
        return {
            f"stage {i}": path_graph([f"k{kernel}e{expand}" for kernel, expand in stage])
            for i, stage in enumerate(stages, 1)
        }

    def read(self, text: str) -> Genotype:
        """Read what :meth:`format` writes."""
        stages = [stage.split("-") for stage in text.split("_")]
        if len(stages) != len(self.network.stages):
            raise ValueError(f"it needs {len(self.network.stages)} stages, not {len(stages)}")
        known = {
            f"k{kernel}e{expand}": (i, j)
            for (i, kernel), (j, expand) in product(enumerate(self.network.kernels), enumerate(self.network.expands))
        }
        depths, kernels, expands = [], [], []
        for number, stage in enumerate(stages):
            if len(stage) not in self.network.depths:
                raise ValueError(f"stage {number} has {len(stage)} blocks, depths are {self.network.depths}")
            for word in stage:
                if word not in known:
                    raise ValueError(f"{word!r} is no block, choose from {', '.join(known)}")
            pairs = [known[word] for word in stage] + [(0, 0)] * (self.most - len(stage))
            depths.append(self.network.depths.index(len(stage)))
            kernels += [pair[0] for pair in pairs]
            expands += [pair[1] for pair in pairs]
        return (*depths, *kernels, *expands)

    def cost(self, genotype: Genotype) -> Cost:
        """Parameters and MACs in closed form."""
        chosen, sizes = chosen_blocks(self.network, self.check(genotype)), self.network
        side = -(-self.layout.resolution // sizes.stem_stride)
        parts = [_conv(sizes.in_channels, sizes.stem, 3, side)]
        parts += [_conv(sizes.stem, sizes.stem, 3, side, sizes.stem), _conv(sizes.stem, sizes.stem, 1, side)]
        for shapes, blocks in zip(blocks_of(sizes), chosen, strict=True):
            for shape, (kernel, expand) in zip(shapes, blocks, strict=False):
                parts.append(_block(shape, kernel, expand, side))
                side = -(-side // shape.stride)
        parts.append(_conv(sizes.stages[-1].width, sizes.final, 1, side))
        for source, target, bias in ((sizes.final, sizes.features, 0), (sizes.features, sizes.classes, sizes.classes)):
            parts.append(Cost(source * target + bias, source * target))
        return Cost(sum(part.params for part in parts), sum(part.macs for part in parts))

    def build(self, genotype: Genotype) -> nn.Module:
        """The stand-alone network."""
        return MobileNetwork(self.network, chosen_blocks(self.network, self.check(genotype)))

    def supernet(self, **options: Any) -> ElasticSupernet:
        """The super-network; options as of :class:`ElasticSupernet`."""
        return ElasticSupernet(self.network, self.space_id, **options)

    def _why_invalid(self, genotype: Genotype) -> str:
        return ": places beyond the depth of a stage must hold 0; canonical() brings them there"


def _conv(source: int, target: int, kernel: int, side: int, groups: int = 1) -> Cost:
    weights = source // groups * target * kernel**2
    return Cost(weights + 2 * target, weights * side**2)


def _block(shape: BlockShape, kernel: int, expand: int, side: int) -> Cost:
    wide, after = shape.wide(expand), -(-side // shape.stride)
    parts = [
        _conv(shape.source, wide, 1, side),
        _conv(wide, wide, kernel, after, wide),
        _conv(wide, shape.target, 1, after),
    ]
    if shape.squeeze:
        middle = divisible(wide // 4)
        parts.append(Cost(2 * wide * middle + wide + middle, 2 * wide * middle))
    return Cost(sum(part.params for part in parts), sum(part.macs for part in parts))


def ofa(in_channels: int = 3, resolution: int = 224, classes: int = 1000) -> OFASpace:
    """The once-for-all space of MobileNetV3: 7,371^5 networks at each resolution."""
    stages = (
        Stage(24, 2, "relu", False),
        Stage(40, 2, "relu", True),
        Stage(80, 2, "hswish", False),
        Stage(112, 1, "hswish", True),
        Stage(160, 2, "hswish", True),
    )
    sizes = MobileSizes(in_channels, classes, 16, 2, stages, (2, 3, 4), (3, 5, 7), (3, 4, 6), 960, 1280, 0.1)
    return OFASpace("ofa", sizes, resolution)


def ofa_tiny(in_channels: int = 1, resolution: int = 8, classes: int = 10) -> OFASpace:
    """The same in small, for 8 x 8 digits: 2 stages of 1 or 2 blocks, kernels 3 and 5; 1,764 networks."""
    stages = (Stage(8, 2, "relu", False), Stage(16, 2, "hswish", True))
    sizes = MobileSizes(in_channels, classes, 8, 1, stages, (1, 2), (3, 5), (2, 4, 6), 48, 64)
    return OFASpace("ofa_tiny", sizes, resolution)
