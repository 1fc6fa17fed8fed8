"""The elastic super-network: every sub-network is cut from the largest (Cai et al., Once-for-All, ICLR 2020)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ws_nas.supernets.elastic import ElasticBatchNorm, ElasticBlock
from ws_nas.supernets.networks.mobile import Head, MobileNetwork, MobileSizes, blocks_of, make_stem
from ws_nas.supernets.networks.parts import copy_weights, like, plain_norm
from ws_nas.supernets.norm import norm_factory
from ws_nas.supernets.supernet import Step, Supernet

__all__ = ["ElasticSupernet", "chosen_blocks"]


def chosen_blocks(sizes: MobileSizes, genotype: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Of each stage, the (kernel, expansion) of its blocks.

    Args:
        sizes: All sizes.
        genotype: Depths of the stages, then kernels of all places, then expansions, as indices.
    """
    stages, most = len(sizes.stages), max(sizes.depths)
    kernels, expands = genotype[stages : stages + stages * most], genotype[stages + stages * most :]
    return [
        [
            (sizes.kernels[kernels[s * most + i]], sizes.expands[expands[s * most + i]])
            for i in range(sizes.depths[genotype[s]])
        ]
        for s in range(stages)
    ]


class ElasticSupernet(Supernet):
    """All networks of an elastic space.

    Args:
        sizes: All sizes.
        space_id: Name and hash of the space.
        affine: Norms have a learnt scale and shift.
        track_running_stats: Norms keep running statistics.
    """

    def __init__(
        self, sizes: MobileSizes, space_id: str, *, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        places = len(sizes.stages) * max(sizes.depths)
        choices = (
            [len(sizes.depths)] * len(sizes.stages) + [len(sizes.kernels)] * places + [len(sizes.expands)] * places
        )
        super().__init__(choices, space_id)
        self.sizes, self.affine, self.track = sizes, affine, track_running_stats
        norm = norm_factory(affine, track_running_stats)

        def elastic(channels: int) -> nn.BatchNorm2d:
            return ElasticBatchNorm(channels, affine=affine, track_running_stats=track_running_stats)

        self.stem = make_stem(sizes, norm)
        self.stages = nn.ModuleList(
            nn.ModuleList(ElasticBlock(shape, sizes.kernels, sizes.expands, elastic) for shape in places)
            for places in blocks_of(sizes)
        )
        self.head = Head(sizes, norm)

    def run(self, x: Tensor, genotype: tuple[int, ...]) -> Tensor:
        """Run one path; see the base class."""
        for step in self.chain(genotype):
            x = step.run(x)
        return x

    def chain(self, genotype: tuple[int, ...]) -> list[Step]:
        """Stem, one step a block, head."""
        steps = [Step("stem", self.stem)]
        for s, chosen in enumerate(chosen_blocks(self.sizes, genotype)):
            for i, (kernel, expand) in enumerate(chosen):
                block = self.stages[s][i]  # type: ignore[index]
                steps.append(Step((s, i, kernel, expand), functools.partial(block, kernel=kernel, expand=expand)))
        return [*steps, Step("head", self.head)]

    def path_modules(self, genotype: tuple[int, ...]) -> list[nn.Module]:
        """Stem, the blocks that run, head; of a block its whole weights, of which the path may use a part."""
        chosen = chosen_blocks(self.sizes, genotype)
        taken = [self.stages[s][i] for s, blocks in enumerate(chosen) for i in range(len(blocks))]  # type: ignore[index]
        return [self.stem, *taken, self.head]

    def export(self, genotype: Sequence[int]) -> nn.Module:
        """The sub-network as a plain module; see the base class."""
        chosen = chosen_blocks(self.sizes, self.check(genotype))
        norm = plain_norm(self.affine, self.track)
        network = MobileNetwork(self.sizes, chosen, norm)
        like(network, self)
        copy_weights(self.stem, network.stem)
        copy_weights(self.head, network.head)
        made = [
            self.stages[s][i].export(kernel, expand, norm)  # type: ignore[index, union-attr, operator]
            for s, blocks in enumerate(chosen)
            for i, (kernel, expand) in enumerate(blocks)
        ]
        network.blocks = nn.Sequential(*made)
        return network.train(self.training)

    @contextmanager
    def regularised(self, dropout: float, drop_connect: float) -> Iterator[None]:
        """Drop activations before the classifier, and what blocks add to their input, in training passes inside."""
        blocks = [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]
        before = self.head.dropout.p
        self.head.dropout.p = dropout
        for block in blocks:
            block.drop_connect = drop_connect
        try:
            yield
        finally:
            self.head.dropout.p = before
            for block in blocks:
                block.drop_connect = 0.0

    def sort_channels(self) -> None:
        """Order the channels inside all blocks, see :meth:`ElasticBlock.sort_channels`."""
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                block.sort_channels()
