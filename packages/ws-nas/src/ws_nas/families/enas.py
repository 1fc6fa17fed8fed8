"""Sharing with a learned controller (ENAS): paths are drawn by a policy that REINFORCE trains between epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ws_nas.families.base import Batch, Family, generator_of, wide
from ws_nas.families.controller import Controller
from ws_nas.families.numbers import number
from ws_nas.spaces.space import Genotype, Space

__all__ = ["ENAS"]

CONTROL = 1 << 20
"""Tells the draws of controller updates from those of training steps."""


class ENAS(Family):
    """ENAS (Pham et al. 2018), in the form of the NAS-Bench-201 reference search.

    A step trains one path that the controller writes. After an epoch the controller is updated: each update draws
    ``samples`` genotypes, each rewarded by the accuracy of one validation batch plus ``entropy_weight`` times the
    policy's entropy; the baseline moves by ``b <- b - (1 - decay) * (b - reward)`` after each of them.

    Args:
        space: The space.
        supernet: Its super-network.
        seed: Of all that is drawn.
        updates: Of the controller after every epoch.
        samples: Genotypes of an update.
        lr: Of the controller's Adam.
        eps: Of the controller's Adam.
        clip: Largest norm of the controller's gradient.
        entropy_weight: In the reward.
        decay: Of the baseline.
        hidden: Width of the controller's LSTM.
        layers: Of the controller's LSTM.
        temperature: See :class:`Controller`.
        tanh: Likewise.
        candidates: Genotypes that :meth:`derive` draws to choose from, besides the likeliest.
        **options: As for :class:`Family`.

    Raises:
        UserError: If a value is out of range.
    """

    name: ClassVar[str] = "enas"
    needs_validation: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("reward", "entropy")

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        updates: int = 50,
        samples: int = 20,
        lr: float = 1e-3,
        eps: float = 1e-3,
        clip: float = 5.0,
        entropy_weight: float = 1e-4,
        decay: float = 0.99,
        hidden: int = 32,
        layers: int = 2,
        temperature: float = 5.0,
        tanh: float = 2.5,
        candidates: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        for field, value in (("updates", updates), ("candidates", candidates)):
            number(value, f"family.{field}", least=0, whole=True)
        for field, value in (("samples", samples), ("hidden", hidden), ("layers", layers)):
            number(value, f"family.{field}", least=1, whole=True)
        for field, share in (("lr", lr), ("eps", eps), ("clip", clip), ("temperature", temperature), ("tanh", tanh)):
            number(share, f"family.{field}", above=0)
        number(entropy_weight, "family.entropy_weight", least=0)
        number(decay, "family.decay", least=0, below=1)
        self.updates, self.samples, self.clip, self.candidates = updates, samples, clip, candidates
        self.entropy_weight, self.decay = entropy_weight, decay
        self.controller = Controller(space.choices, hidden, layers, temperature, tanh, seed)
        self.architecture = self.controller
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=lr, eps=eps)
        self.baseline: float | None = None

    def paths(self, step: int) -> list[Genotype]:
        """One genotype that the controller writes, as it stands."""
        return self.controller.valid(self.space, 1, generator_of(self.seed, step, 0))

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Train one path."""
        (genotype,) = self.paths(step)
        loss = self.path_loss(genotype, batch)
        loss.backward()
        return {"loss": loss.detach()}

    def end_epoch(self, validation: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Update the controller."""
        batches, rewards, entropies = iter(validation), [], []
        for update in range(self.updates):
            generator = generator_of(self.seed, CONTROL, self.progress.epoch, update)
            genotypes = self.controller.valid(self.space, self.samples, generator)
            accuracies = self.mean_over_processes([self._accuracy(g, *next(batches)) for g in genotypes])
            device = self.controller.start.device
            logs, entropy = self.controller.log_probabilities(torch.tensor(genotypes, device=device))
            loss = logs.new_zeros(())
            for i, accuracy in enumerate(accuracies):
                reward = accuracy + self.entropy_weight * float(entropy[i].detach())
                self.baseline = reward if self.baseline is None else self.baseline
                self.baseline -= (1 - self.decay) * (self.baseline - reward)
                loss = loss - logs[i] * (reward - self.baseline) / len(genotypes)
                rewards.append(reward)
            self.optimizer.zero_grad()
            self.finite(loss, None, "the controller's loss").backward()
            nn.utils.clip_grad_norm_(self.controller.parameters(), self.clip)
            self.optimizer.step()
            entropies.append(float(entropy.detach().mean()))
        if not rewards:
            return {}
        return {"reward": sum(rewards) / len(rewards), "entropy": sum(entropies) / len(entropies)}

    @torch.no_grad()
    def _accuracy(self, genotype: Genotype, images: Tensor, labels: Tensor) -> float:
        """Share of a batch that a sub-network gets right, in the mode that training left it in."""
        logits = wide(self.net_of(genotype)(images, genotype))
        return float((logits.argmax(1) == labels).double().mean())

    def derive(self) -> Genotype:
        """The best scored of some that the controller writes and of the likeliest; the earliest of equal ones."""
        likeliest = tuple(self.controller.write(1, None)[0].tolist())
        drawn = [likeliest] if self.space.is_valid(likeliest) else []
        if self.candidates:
            drawn += self.controller.valid(self.space, self.candidates, generator_of(self.seed, CONTROL, 0))
        distinct = list(dict.fromkeys(drawn)) or self.controller.valid(
            self.space, 1, generator_of(self.seed, CONTROL, 0)
        )
        if len(distinct) == 1:
            return distinct[0]
        scores = self.score(distinct)
        return distinct[max(range(len(distinct)), key=lambda i: (scores[i], -i))]

    def state_dict(self) -> dict[str, Any]:
        """Also the controller's optimizer and the baseline."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict(), "baseline": self.baseline}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take all of it over."""
        super().load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.baseline = state["baseline"]
