"""PC-DARTS: operations see a part of the channels, and edges compete by weights of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from ws_nas.families.alphas import Alphas
from ws_nas.families.numbers import number
from ws_nas.families.soft import Soft
from ws_nas.spaces.darts import DARTSSpace
from ws_nas.spaces.space import Space
from ws_nas.supernets.darts import EDGES
from ws_nas.supernets.mixed import Table
from ws_nas.supernets.partial import PartialDartsSupernet

__all__ = ["PCDARTS", "edge_weights"]


def edge_weights(values: Tensor) -> Tensor:
    """Softmax over the incoming edges of each node (2, 3, 4 and 5 of them): ``(14,)``."""
    parts, start = [], 0
    for node in range(4):
        count = sum(target == node for _, target in EDGES)
        parts.append(values[start : start + count].softmax(0))
        start += count
    return torch.cat(parts)


class PCDARTS(Soft):
    """PC-DARTS (Xu et al. 2020), from its formulas.

    Derivation compares operation probabilities times edge weights.

    Args:
        space: A space of DARTS cells.
        supernet: Not used: this family's has narrower operations.
        seed: Of all that is drawn.
        partial: K, of which parts of the channels one goes through the operations.
        lr: Of the architecture's Adam.
        warmup: Epochs in which only weights are trained.
        **options: As for :class:`Soft`.

    Raises:
        UserError: If the space has no such cells, or K does not divide the channels.
    """

    name: ClassVar[str] = "pc_darts"
    inherits: ClassVar[bool] = False

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        partial: int = 4,
        lr: float = 6e-4,
        warmup: int = 15,
        **options: Any,
    ) -> None:
        if not isinstance(space, DARTSSpace):
            raise UserError(f"family=pc_darts needs cells of DARTS, space={space.name} has none: use space=darts")
        number(partial, "family.partial", least=1, whole=True)
        told = {"affine": getattr(supernet, "affine", False), "track_running_stats": getattr(supernet, "track", True)}
        own = PartialDartsSupernet(space.search, space.space_id, partial=partial, **told)
        own.to(next(supernet.parameters()).dtype)
        super().__init__(space, own, seed, lr=lr, warmup=warmup, **options)
        edges = [Table("normal", 1, tuple(map(str, EDGES))), Table("reduce", 1, tuple(map(str, EDGES)))]
        self.betas = Alphas(edges, seed + 1)
        self.alphas.values.extend(self.betas.values)
        self.optimizer = self.new_optimizer()

    def probabilities(self, values: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Those of operations; the last two parameters are of edges."""
        return [v.softmax(-1) for v in self._all(values)[:2]]

    def weights(self, values: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Weights of edges, ``(14,)`` of normal cells and of reductions; 0 of those that are left out."""
        found = [edge_weights(v[0]) for v in self._all(values)[2:]]
        return [w.masked_fill(torch.tensor(self.left_out(t), device=w.device), 0) for t, w in enumerate(found)]

    def _all(self, values: Sequence[Tensor] | None) -> list[Tensor]:
        return list(self.alphas.values if values is None else values)

    def logits(self, images: Tensor, values: Sequence[Tensor], step: int, k: int) -> Tensor:
        """The mixture's answer, edges weighted."""
        gates, run = self.gates(values, step, k)
        edges = [w.to(images.dtype) for w in self.weights(values)]
        return self.mixture(images, [g.to(images.dtype) for g in gates], run, edges)

    @torch.no_grad()
    def strengths(self) -> list[Tensor]:
        """Probabilities times edge weights, with what is decided."""
        return [p * w[:, None] for p, w in zip(super().strengths(), self.weights(), strict=True)]
