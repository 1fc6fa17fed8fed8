"""The super-network of a chain: every option of every layer, one of them on a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ws_nas.supernets.networks.chain import ChainNetwork, ChainSizes, Head, make_layer, make_stem
from ws_nas.supernets.networks.parts import copy_weights, like, plain_norm
from ws_nas.supernets.norm import norm_factory, rows_of
from ws_nas.supernets.supernet import Step, Supernet

__all__ = ["ChainSupernet"]


class ChainSupernet(Supernet):
    """All networks of a chain space.

    Args:
        sizes: All sizes.
        space_id: Name and hash of the space.
        affine: Norms have a learnt scale and shift.
        track_running_stats: Norms keep running statistics.
    """

    batched = True

    def __init__(
        self, sizes: ChainSizes, space_id: str, *, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        super().__init__([len(sizes.options)] * len(sizes.layers), space_id)
        self.sizes, self.affine, self.track = sizes, affine, track_running_stats
        norm = norm_factory(affine, track_running_stats)
        self.stem = make_stem(sizes, norm)
        self.layers = nn.ModuleList(
            nn.ModuleList(make_layer(layer, option, sizes.activation, norm) for option in sizes.options)
            for layer in sizes.layers
        )
        self.head = Head(sizes, norm)

    def run(self, x: Tensor, genotype: tuple[int, ...]) -> Tensor:
        """Run one path; see the base class."""
        x = self.stem(x)
        for options, gene in zip(self.layers, genotype, strict=True):
            x = options[gene](x)  # type: ignore[index]
        return self.head(x)

    def chain(self, genotype: tuple[int, ...]) -> list[Step]:
        """Stem, one step a layer, head."""
        layers = [Step(gene, options[gene]) for options, gene in zip(self.layers, genotype, strict=True)]  # type: ignore[index]
        return [Step("stem", self.stem), *layers, Step("head", self.head)]

    def run_many(self, x: Tensor, genotypes: Sequence[tuple[int, ...]]) -> Tensor:
        """Run several paths: each option of a layer once, on the pictures of all paths that take it."""
        count = len(genotypes)
        shared, order = self.stem(x), list(range(count))
        stacked = shared.expand(count, *shared.shape)
        for layer, options in enumerate(self.layers):
            parts: list[Tensor] = []
            after: list[int] = []
            for gene, option in enumerate(cast(nn.ModuleList, options)):
                places = [i for i, path in enumerate(order) if genotypes[path][layer] == gene]
                if not places:
                    continue
                paths = [order[i] for i in places]
                rows = stacked if len(places) == count else stacked[torch.tensor(places, device=x.device)]
                with rows_of(paths):
                    parts.append(option(rows.flatten(0, 1)).unflatten(0, (len(places), -1)))
                after += paths
            stacked, order = parts[0] if len(parts) == 1 else torch.cat(parts), after
        with rows_of(order):
            logits = self.head(stacked.flatten(0, 1)).unflatten(0, (count, -1))
        return logits[torch.tensor([order.index(i) for i in range(count)], device=x.device)]

    def path_modules(self, genotype: tuple[int, ...]) -> list[nn.Module]:
        """Stem, the options taken, head."""
        return [self.stem, *(o[g] for o, g in zip(self.layers, genotype, strict=True)), self.head]  # type: ignore[index]

    def export(self, genotype: Sequence[int]) -> nn.Module:
        """The sub-network as a plain module; see the base class."""
        genes = self.check(genotype)
        network = ChainNetwork(self.sizes, genes, plain_norm(self.affine, self.track))
        like(network, self)
        for source, target in zip(self.path_modules(genes), [network.stem, *network.layers, network.head], strict=True):
            copy_weights(source, target)
        return network.train(self.training)
