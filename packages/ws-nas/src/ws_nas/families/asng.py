"""Adaptive stochastic natural gradient (ASNG): a product of categoricals follows the natural gradient of the rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from ws_nas.families.base import Batch, Family, generator_of
from ws_nas.families.numbers import number
from ws_nas.spaces.space import Genotype, Space

__all__ = ["ASNG", "AdaptiveCategorical", "utilities"]

TRIES = 1000


def utilities(losses: Sequence[float]) -> list[float]:
    """The ranking utility: 1/mu for the best, -1/mu for the worst, 0 between; mu = ceil(lambda / 4).

    Args:
        losses: The lower the better.

    Returns:
        One value a loss; equal losses share their mean.
    """
    count = len(losses)
    mu = math.ceil(count / 4)
    by_rank = [1 / mu] * mu + [0.0] * (count - 2 * mu) + [-1 / mu] * mu
    order = sorted(range(count), key=lambda i: losses[i])
    found = [0.0] * count
    for value in set(losses):
        ranks = [rank for rank, i in enumerate(order) if losses[i] == value]
        mean = sum(by_rank[rank] for rank in ranks) / len(ranks)
        for rank in ranks:
            found[order[rank]] = mean
    return found


class AdaptiveCategorical(nn.Module):
    """Independent categoricals with a trust region whose size adapts (Akimoto et al. 2019).

    Args:
        choices: Options of each variable, at least 2.
        alpha: Threshold of the signal-to-noise ratio at which the step grows.
        delta: Step size at the start.
        most: Largest value of Delta, by which the step at the start is divided.

    Raises:
        UserError: If a value is out of range.
    """

    mask: Tensor
    smoothed: Tensor

    def __init__(self, choices: Sequence[int], alpha: float = 1.5, delta: float = 1.0, most: float = math.inf) -> None:
        super().__init__()
        number(alpha, "family.alpha", above=0)
        number(delta, "family.delta", above=0)
        number(most, "family.most", least=1)
        self.choices = tuple(choices)
        for i, count in enumerate(self.choices):
            if count < 2 or count >= len(self.choices) * (count - 1):
                raise UserError(
                    f"family=asng keeps every probability above 1 / (genes (choices - 1)), which leaves gene {i} with "
                    f"{count} choices of {len(self.choices)} genes nothing to learn: use family=spos"
                )
        self.freedom = sum(count - 1 for count in self.choices)
        self.alpha, self.delta0, self.most = alpha, delta, most
        widest = max(self.choices)
        mask = torch.arange(widest)[None] < torch.tensor(self.choices)[:, None]
        counts = torch.tensor(self.choices, dtype=torch.float64)[:, None]
        self.register_buffer("mask", mask)
        self.register_buffer("theta", torch.where(mask, 1 / counts, 0.0))
        self.register_buffer("smoothed", torch.zeros(self.freedom, dtype=torch.float64))
        self.register_buffer("gamma", torch.zeros((), dtype=torch.float64))
        self.register_buffer("ratio", torch.ones((), dtype=torch.float64))

    theta: Tensor
    gamma: Tensor
    ratio: Tensor

    @property
    def step_size(self) -> float:
        """The present size of a step in the Fisher metric."""
        return self.delta0 / float(self.ratio)

    def sample(self, generator: torch.Generator) -> Genotype:
        """One draw."""
        return tuple(torch.multinomial(self.theta.cpu(), 1, generator=generator)[:, 0].tolist())

    def update(self, samples: Sequence[Genotype], losses: Sequence[float]) -> bool:
        """Follow the natural gradient of the ranking utility.

        Args:
            samples: Genotypes drawn from the distribution as it stands.
            losses: Theirs, the lower the better.

        Returns:
            Whether anything was updated: where all losses are equal there is nothing to learn.
        """
        utility = torch.tensor(utilities(losses), dtype=torch.float64, device=self.theta.device)
        if bool((utility == 0).all()):
            return False
        onehot = torch.zeros(len(samples), *self.theta.shape, dtype=torch.float64, device=self.theta.device)
        onehot.scatter_(2, torch.tensor(samples, device=self.theta.device)[..., None], 1.0)
        weights = (utility - utility.mean())[:, None, None]
        gradient = (weights * (onehot - self.theta)).mean(0)
        # In coordinates where the Fisher matrix is the identity, its square root times the gradient.
        natural = self._whitened(gradient)
        norm = float(natural.norm())
        if norm == 0:
            return False
        self.theta += self.step_size * gradient / norm
        self._keep_from_the_edge()
        self._adapt(natural / norm)
        return True

    def _whitened(self, gradient: Tensor) -> Tensor:
        """The gradient without each variable's last entry, times the root of the Fisher matrix: ``(freedom,)``."""
        parts = []
        for i, count in enumerate(self.choices):
            theta, g = self.theta[i, : count - 1], gradient[i, : count - 1]
            last = self.theta[i, count - 1].sqrt()
            parts.append(g / theta.sqrt() + theta.sqrt() * g.sum() / (last + last**2))
        return torch.cat(parts)

    def _keep_from_the_edge(self) -> None:
        """No probability below 1 / (d (K_i - 1)); what is above gives what is missing."""
        for i, count in enumerate(self.choices):
            least = 1 / (len(self.choices) * (count - 1))
            row = self.theta[i, :count].clamp(min=least)
            excess = row - least
            spare = 1 - least * count
            row = least + excess * (spare / float(excess.sum())) if float(excess.sum()) > 0 else row / row.sum()
            self.theta[i, :count] = row / row.sum()

    def _adapt(self, direction: Tensor) -> None:
        """Grow the step while the direction holds, shrink it while it is noise."""
        b = self.step_size / math.sqrt(self.freedom)
        b = min(b, 1.0)
        self.smoothed.mul_(1 - b).add_(math.sqrt(b * (2 - b)) * direction)
        self.gamma.mul_((1 - b) ** 2).add_(b * (2 - b))
        factor = math.exp(b * (float(self.gamma) - float(self.smoothed.square().sum()) / self.alpha))
        self.ratio.copy_((self.ratio * factor).clamp(max=self.most))

    def likeliest(self) -> Genotype:
        """The mode; the lowest index of equal ones."""
        return tuple(self.theta.argmax(1).tolist())


class ASNG(Family):
    """ASNG-NAS (Akimoto et al. 2019): a distribution follows the validation losses of what is drawn from it.

    Every step draws ``samples`` genotypes, trains the weights on all of them, then moves the distribution.

    Args:
        space: The space.
        supernet: Its super-network.
        seed: Of all that is drawn.
        samples: Genotypes of a step (lambda), at least 2.
        alpha: See :class:`AdaptiveCategorical`.
        delta: Likewise.
        most: Likewise.
        warmup: Epochs in which only weights are trained.
        **options: As for :class:`Family`.

    Raises:
        UserError: If a value is out of range, or a gene has one choice only.
    """

    name: ClassVar[str] = "asng"
    needs_validation: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("step_size",)

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        samples: int = 2,
        alpha: float = 1.5,
        delta: float = 1.0,
        most: float | None = None,
        warmup: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        number(samples, "family.samples", least=2, whole=True)
        number(warmup, "family.warmup", least=0, whole=True)
        self.samples, self.warmup = samples, warmup
        self.distribution = AdaptiveCategorical(space.choices, alpha, delta, math.inf if most is None else most)
        self.architecture = self.distribution

    def paths(self, step: int) -> list[Genotype]:
        """The genotypes of a step, drawn from the distribution as it stands."""
        return [self._valid(generator_of(self.seed, step, k)) for k in range(self.samples)]

    def _valid(self, generator: torch.Generator) -> Genotype:
        for _ in range(TRIES):
            found = self.distribution.sample(generator)
            if self.space.is_valid(found):
                return found
        raise UserError(f"family=asng: no valid genotype of space={self.space.name} in {TRIES} draws")

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Train the paths of the step, then move the distribution by their validation losses."""
        paths, losses = self.paths(step), []
        for genotype in paths:
            loss = self.path_loss(genotype, batch) / len(paths)
            loss.backward()
            losses.append(loss.detach())
        found = {"loss": sum(losses[1:], losses[0])}
        if self.progress.epoch >= self.warmup:
            values = self.mean_over_processes([self._validation_loss(g, batch) for g in paths])
            self.distribution.update(paths, values)
            found["step_size"] = torch.tensor(self.distribution.step_size)
        return found

    @torch.no_grad()
    def _validation_loss(self, genotype: Genotype, batch: Batch) -> float:
        images, labels = batch.validation
        logits = self.net_of(genotype)(images, genotype)
        return float(self.finite(self.loss(logits, labels), genotype, "the validation loss"))

    def derive(self) -> Genotype:
        """The mode of the distribution; the likeliest of its draws where that is not valid."""
        mode = self.distribution.likeliest()
        if self.space.is_valid(mode):
            return mode
        drawn = list(dict.fromkeys(self._valid(generator_of(self.seed, 0, k)) for k in range(100)))
        logs = self.distribution.theta.log()
        weight = [sum(float(logs[i, gene]) for i, gene in enumerate(g)) for g in drawn]
        return drawn[max(range(len(drawn)), key=lambda i: (weight[i], -i))]
