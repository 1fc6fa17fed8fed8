"""Parameters of architectures: one number an edge and operation, of which probabilities are made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.mixed import Table

__all__ = ["Alphas", "gumbel", "likeliest_valid", "mean_entropy", "straight_through"]

LISTED = 200_000
"""Genotypes up to which the likeliest valid one is found by looking at all."""


class Alphas(nn.Module):
    """The architecture's parameters, apart from all weights.

    Args:
        tables: Edges with the same operations.
        seed: Of the initial values, normal with a standard deviation of 0.001.
    """

    def __init__(self, tables: Sequence[Table], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.names = [table.name for table in tables]
        self.values = nn.ParameterList(
            nn.Parameter(1e-3 * torch.randn(table.shape, generator=generator)) for table in tables
        )

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.values)


def mean_entropy(probabilities: Sequence[Tensor]) -> Tensor:
    """Mean over edges of the entropy of their probabilities, in nats."""
    rows = torch.cat([-(p * p.clamp_min(1e-30).log()).sum(-1) for p in probabilities])
    return rows.mean()


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise of a tensor's shape; drawn on the CPU, so that it is the same on every device."""
    while True:
        uniform = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        noise = -torch.log(-torch.log(uniform))
        if bool(torch.isfinite(noise).all()):  # a zero was drawn
            return noise.to(like)


def straight_through(p: Tensor) -> tuple[Tensor, Tensor]:
    """One-hot vectors of the largest probabilities with the gradient of the probabilities.

    Args:
        p: ``(edges, operations)``.

    Returns:
        ``onehot - stopgrad(p) + p``, and the index of the one ``(edges,)``.
    """
    index = p.detach().argmax(-1)
    onehot = torch.zeros_like(p).scatter_(-1, index[:, None], 1.0)
    return onehot + (p - p.detach()), index


def likeliest_valid(space: Space, probabilities: Sequence[Tensor]) -> Genotype:
    """The valid genotype with the largest product of probabilities, of equal ones the first.

    Args:
        space: One gene an edge.
        probabilities: One ``(edges, operations)``.

    Raises:
        UserError: If the space is too large to be looked through.
    """
    if space.size() > LISTED:
        raise UserError(f"the strongest operations are no valid genotype of space={space.name}, and it is too large")
    (table,) = probabilities
    logs = table.detach().double().clamp_min(1e-300).log().tolist()
    best, found = -float("inf"), None
    for genotype in product(*(range(count) for count in space.choices)):
        if space.is_valid(genotype):
            value = sum(row[gene] for row, gene in zip(logs, genotype, strict=True))
            if value > best:
                best, found = value, genotype
    if found is None:
        raise UserError(f"space={space.name} has no valid genotype")
    return found
