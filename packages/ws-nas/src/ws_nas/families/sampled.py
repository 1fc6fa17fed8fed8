"""Mixtures whose gates are drawn: GDAS (one operation an edge, straight through) and SNAS (soft, one loss for all)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ws_nas.families.alphas import gumbel, mean_entropy, straight_through
from ws_nas.families.base import Batch, generator_of
from ws_nas.families.costs import expected_cost, operation_costs
from ws_nas.families.numbers import number
from ws_nas.families.progress import linear
from ws_nas.families.relaxed import Relaxed
from ws_nas.spaces.space import Space
from ws_nas.supernets.mixed import Run

__all__ = ["GDAS", "SNAS"]


class GDAS(Relaxed):
    """GDAS (Dong and Yang 2019): hard Gumbel samples.

    Only the drawn operation of an edge runs; the gates of the others stay in the graph with the value zero, so that
    they get the gradient of the competition.

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        start: Temperature in the first epoch.
        end: In the last; linear between.
        **options: As for :class:`Relaxed`.

    Raises:
        UserError: If a temperature is not above 0.
    """

    name: ClassVar[str] = "gdas"
    columns: ClassVar[tuple[str, ...]] = (*Relaxed.columns, "temperature")

    def __init__(
        self, space: Space, supernet: nn.Module, seed: int = 0, *, start: float = 10.0, end: float = 0.1, **options: Any
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        self.start = float(number(start, "family.start", above=0))
        self.end = float(number(end, "family.end", above=0))

    @property
    def temperature(self) -> float:
        """Of the present epoch."""
        return linear(self.start, self.end, self.progress.share)

    def soft(self, values: Sequence[Tensor], step: int, k: int) -> list[Tensor]:
        """Probabilities with noise and temperature."""
        drawn = [gumbel(v, generator_of(self.seed, step, k, t)) for t, v in enumerate(values)]
        logits = [(v.log_softmax(-1) + g) / self.temperature for v, g in zip(values, drawn, strict=True)]
        return [x.softmax(-1) for x in logits]

    def gates(self, values: Sequence[Tensor], step: int, k: int) -> tuple[list[Tensor], Run | None]:
        """One-hot gates with soft gradients; only the ones run."""
        found, run = [], []
        for p in self.soft(values, step, k):
            hard, index = straight_through(p)
            found.append(hard)
            run.append([[j == i for j in range(p.shape[1])] for i in index.tolist()])
        return found, run

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """As for every mixture."""
        return {**super().training_step(batch, step), "temperature": torch.tensor(self.temperature)}


class SNAS(GDAS):
    """SNAS (Xie et al. 2019): soft Gumbel samples; weights and architecture follow one training loss.

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        start: Temperature in the first epoch.
        end: In the last; linear between.
        resource: Weight of the drawn gates' cost, relative to that of the dearest network; 0 for none.
        cost: ``macs`` or ``params``.
        **options: As for :class:`Relaxed`.

    Raises:
        UserError: If a value is out of range.
    """

    name: ClassVar[str] = "snas"
    needs_validation: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ("alpha_entropy", "temperature")

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        start: float = 1.0,
        end: float = 0.03,
        resource: float = 0.0,
        cost: str = "macs",
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, start=start, end=end, **options)
        self.resource = float(number(resource, "family.resource", least=0))
        self.costs = operation_costs(space, cost) if self.resource else None

    def gates(self, values: Sequence[Tensor], step: int, k: int) -> tuple[list[Tensor], Run | None]:
        """Soft gates; everything runs."""
        return self.soft(values, step, k), None

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One pass, one loss, both updates."""
        values = list(self.alphas.values)
        gates, _ = self.gates(values, step, 1)
        logits = self.mixture(batch.images, [g.to(batch.images.dtype) for g in gates])
        loss = self.finite(self.loss(logits, batch.labels), None)
        total = loss
        if self.costs is not None:
            rest, table = self.costs
            most = rest + float(table.max(1).values.sum())
            total = loss + self.resource * (expected_cost(gates, rest, table) / most).to(loss.dtype)
        total.backward()
        gradients = [torch.zeros_like(v) if v.grad is None else v.grad for v in values]
        if self.progress.epoch >= self.warmup:
            self.apply(gradients)
        for value in values:
            value.grad = None
        entropy = mean_entropy(self.shares()).detach()
        return {"loss": loss.detach(), "alpha_entropy": entropy, "temperature": torch.tensor(self.temperature)}
