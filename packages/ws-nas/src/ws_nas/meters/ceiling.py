"""What a rank correlation is held against: seed noise above, counting parameters and MACs below."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from effkit.errors import UserError
from ws_nas.ops.ranks import kendall_tau
from ws_nas.spaces.space import Genotype, Space

__all__ = ["noise_ceiling", "structural_baselines"]


def noise_ceiling(seeds: Any) -> float:
    """Tau-b between independent seeds of the same stand-alone trainings; of more than two, the mean over all pairs.

    It bounds from above what a score can be expected to reach against a single seed: the truth itself, trained again,
    reaches no more.

    Args:
        seeds: ``[seeds, n]``, one row a seed.

    Raises:
        UserError: If there are fewer than two seeds, or a figure is not finite.
    """
    array = np.asarray(seeds, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise UserError(f"seeds has shape {list(array.shape)}: a noise ceiling needs at least two seeds, [seeds, n]")
    for i, row in enumerate(array):
        for j in range(i):
            if np.array_equal(row, array[j]):
                raise UserError(f"seeds {j} and {i} hold the same figures: the ceiling needs independent trainings")
    return math.fsum(pairs := [kendall_tau(a, b) for a, b in itertools.combinations(array, 2)]) / len(pairs)


def structural_baselines(space: Space, genotypes: Sequence[Genotype], s: Any) -> dict[str, float]:
    """Tau-b of what costs nothing: the number of parameters, and of MACs.

    Args:
        space: Counts them.
        genotypes: ``n`` of its genotypes.
        s: Their stand-alone accuracies, ``[n]``.

    Returns:
        By name: ``params`` and ``macs``; larger networks are taken for better.
    """
    costs = [space.cost(g) for g in genotypes]
    return {
        "params": kendall_tau([c.params for c in costs], s),
        "macs": kendall_tau([c.macs for c in costs], s),
    }
