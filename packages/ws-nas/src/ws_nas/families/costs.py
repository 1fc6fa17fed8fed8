"""Costs of operations one by one, for the expected cost of a mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effkit.errors import UserError, choose
from ws_nas.spaces.space import Space

__all__ = ["expected_cost", "operation_costs"]


def operation_costs(space: Space, name: str = "macs") -> tuple[float, Tensor]:
    """What each option of each gene costs, where the costs of genes add up.

    Args:
        space: Its genes have equally many choices.
        name: ``macs`` or ``params``.

    Returns:
        The cost of the rest of the network, and float64 ``(genes, choices)``.

    Raises:
        UserError: If the costs of genes do not add up.
    """
    choose("family.cost", name, ["macs", "params"])
    base = next(g for g in iter(space))
    costs = [
        [float(getattr(space.cost((*base[:i], k, *base[i + 1 :])), name)) for k in range(count)]
        for i, count in enumerate(space.choices)
    ]
    start = float(getattr(space.cost(base), name))
    table = torch.tensor(costs, dtype=torch.float64) - start
    least = table.min(1, keepdim=True).values
    rest, table = start + float(least.sum()), table - least
    for genotype in space.sample_many(5, 0, distinct=False):
        total = rest + sum(float(table[i, k]) for i, k in enumerate(genotype))
        if abs(total - getattr(space.cost(genotype), name)) > 0.5:
            raise UserError(f"space={space.name}: {name} of its genes do not add up to those of its networks")
    return rest, table


def expected_cost(probabilities: Sequence[Tensor], rest: float, table: Tensor) -> Tensor:
    """``rest`` plus the sum of probabilities times costs.

    Args:
        probabilities: One ``(edges, operations)``.
        rest: Of the network around the edges.
        table: ``(edges, operations)``.
    """
    (p,) = probabilities
    return rest + (p.double() * table.to(p.device)).sum()
