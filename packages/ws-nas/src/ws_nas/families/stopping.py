"""Regularise and stop early: R-DARTS' eigenvalue, DARTS+'s count of skip connections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from ws_nas.families.darts import DARTS
from ws_nas.families.hypergradient import largest_eigenvalue
from ws_nas.families.numbers import number
from ws_nas.families.progress import Progress, linear
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.norm import Collecting

__all__ = ["RDARTS", "eigenvalue_stop"]


def eigenvalue_stop(
    values: Sequence[float],
    epochs: Sequence[int],
    *,
    window: int = 5,
    back: int = 4,
    factor: float = 1.3,
    first: int = 10,
) -> int | None:
    """When a series of largest eigenvalues says that a search has gone on too long.

    Args:
        values: Of the evaluations so far, in order.
        epochs: Theirs.
        window: Evaluations that a local average takes in, up to the one it is of.
        back: Evaluations between the two averages that are compared.
        factor: How many times larger the present one may be.
        first: Epoch before which nothing stops.

    Returns:
        The number of the evaluation whose genotype to take, the earlier of the two; ``None`` to go on.
    """

    def mean(i: int) -> float:
        part = values[max(0, i - window + 1) : i + 1]
        return sum(part) / len(part)

    now = len(values) - 1
    if now < back or epochs[now] < first:
        return None
    return now - back if mean(now) / mean(now - back) > factor else None


class RDARTS(DARTS):
    """R-DARTS (Zela et al. 2020) and DARTS+ (Liang et al. 2019): DARTS that ends where it begins to fail.

    After every ``every`` epochs the largest eigenvalue of the Hessian of the validation loss in the architecture is
    taken; where its local average has grown by ``factor``, the architecture of the earlier evaluation is what is
    derived, and only weights are trained from there on. With ``skips`` the architecture also stops where the derived
    normal cell holds so many skip connections. L2 is ``optimizer.weight_decay`` (3e-4 * 3 ** k in the paper's grid).

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        every: Epochs between two evaluations.
        window: See :func:`eigenvalue_stop`.
        back: Likewise.
        factor: Likewise.
        first: Likewise.
        pictures: Validation batches of one evaluation.
        skips: Skip connections of the normal cell at which to stop; ``None`` for never.
        drop_path: How often an operation other than a skip connection is left out of a weights' pass in the last epoch;
            linear from 0.
        **options: As for :class:`DARTS`.

    Raises:
        UserError: If a value is out of range.
    """

    name: ClassVar[str] = "r_darts"
    columns: ClassVar[tuple[str, ...]] = (*DARTS.columns, "eigenvalue", "skips", "stopped")

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        every: int = 2,
        window: int = 5,
        back: int = 4,
        factor: float = 1.3,
        first: int = 10,
        pictures: int = 4,
        skips: int | None = None,
        drop_path: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        if self.select != "strength":
            raise UserError(
                f"family.select={self.select} does not fit family=r_darts, which derives what was strongest where it "
                "stopped: use family=darts"
            )
        for field, value in (("every", every), ("window", window), ("back", back), ("pictures", pictures)):
            number(value, f"family.{field}", least=1, whole=True)
        number(first, "family.first", least=0, whole=True)
        number(factor, "family.factor", above=0)
        number(drop_path, "family.drop_path", least=0, below=1)
        if skips is not None:
            number(skips, "family.skips", least=1, whole=True)
        self.every, self.pictures, self.skips, self.drop_path = every, pictures, skips, float(drop_path)
        self.rule = {"window": window, "back": back, "factor": float(factor), "first": first}
        self.eigenvalues: list[float] = []
        self.epochs: list[int] = []
        self.genotypes: list[Genotype] = []
        self.final: Genotype | None = None

    def begin_epoch(self, progress: Progress) -> None:
        """Set how often operations are left out."""
        super().begin_epoch(progress)
        self.mixture.drop_path = linear(0.0, self.drop_path, progress.share)

    def due(self, step: int) -> bool:
        """The architecture is learnt until it stops."""
        return self.final is None

    def end_epoch(self, validation: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Evaluate, and stop where that is due."""
        epoch = self.progress.epoch
        genotype = super().derive()
        count = self.mixture.skips(genotype)
        found = {"skips": float(count)}
        if self.final is None and (epoch + 1) % self.every == 0 and epoch >= self.warmup:
            batches = [batch for batch, _ in zip(validation, range(self.pictures), strict=False)]
            self.eigenvalues.append(self.mean_over_processes([self._eigenvalue(batches)])[0])
            self.epochs.append(epoch)
            self.genotypes.append(genotype)
            found["eigenvalue"] = self.eigenvalues[-1]
            at = eigenvalue_stop(self.eigenvalues, self.epochs, **self.rule)  # type: ignore[arg-type]
            self.final = None if at is None else self.genotypes[at]
        if self.final is None and self.skips is not None and count >= self.skips:
            self.final = genotype
        return {**found, "stopped": float(self.final is not None)}

    def _eigenvalue(self, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
        """Of largest magnitude, of the Hessian of the validation loss in the architecture's parameters."""

        def loss(values: Sequence[Tensor]) -> Tensor:
            losses = [self.loss(self.logits(images, values, 0, 0), labels) for images, labels in batches]
            return torch.stack(losses).mean()

        dropped, self.mixture.drop_path = self.mixture.drop_path, 0.0
        try:
            with Collecting():  # statistics of the pictures, and nothing of the network changes
                return largest_eigenvalue(loss, list(self.alphas.values), seed=self.seed)
        finally:
            self.mixture.drop_path = dropped

    def derive(self) -> Genotype:
        """Where the search stopped, the genotype that the rule names; else that of the end."""
        return super().derive() if self.final is None else self.final

    def state_dict(self) -> dict[str, Any]:
        """Also the evaluations so far."""
        return {
            **super().state_dict(),
            "eigenvalues": list(self.eigenvalues),
            "epochs": list(self.epochs),
            "genotypes": [list(g) for g in self.genotypes],
            "final": None if self.final is None else list(self.final),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        super().load_state_dict(state)
        self.eigenvalues, self.epochs = list(state["eigenvalues"]), list(state["epochs"])
        self.genotypes = [tuple(g) for g in state["genotypes"]]
        self.final = None if state["final"] is None else tuple(state["final"])
