"""Soft mixtures whose genotype may be chosen by perturbation (DARTS-PT) instead of by the largest gates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError, choose
from ws_nas.families.base import generator_of, wide
from ws_nas.families.numbers import number
from ws_nas.families.progress import Progress
from ws_nas.families.relaxed import Relaxed
from ws_nas.spaces.space import Space
from ws_nas.supernets.mixed import Run
from ws_nas.supernets.norm import Collecting

__all__ = ["SELECTIONS", "Soft", "decisions_due"]

SELECTIONS = ("strength", "perturbation")
ORDER = 0x9E7  # tells the order of decisions from other draws
OPEN = -1


def decisions_due(count: int, progress: Progress, last: int) -> int:
    """How many decisions are to have fallen by the end of an epoch.

    Args:
        count: Of all.
        progress: The epoch.
        last: Epochs of the end over which they are shared out evenly.
    """
    left = progress.epochs - 1 - progress.epoch
    return 0 if left >= last else math.ceil(count * (last - left) / last)


class Soft(Relaxed):
    """A mixture all of whose operations run, in proportion to their gates.

    With ``select="perturbation"`` (Wang et al. 2021, from its description) edges are decided one after the other, in an
    order drawn from the seed: of an edge's operations the one stays without which the mixture's validation accuracy is
    lowest; of equal ones the one without which the loss is highest, then the first. Where a node has more inputs than
    it may keep, its edges are then decided likewise. The architecture is learnt until the first decision, and fixed
    from there on; weights go on training between decisions. What is left out has no gate, and does not run.

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        select: ``strength``: the largest gates are derived; or ``perturbation``.
        select_epochs: Epochs at whose ends decisions fall, the last ones of the run; 1: all of them in the end, with no
            training in between.
        select_batches: Validation batches that a decision is judged by.
        **options: As for :class:`Relaxed`.

    Raises:
        UserError: If a value is out of range, or says something of a perturbation that is not asked for.
    """

    columns: ClassVar[tuple[str, ...]] = (*Relaxed.columns, "decided")

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        select: str = "strength",
        select_epochs: int = 1,
        select_batches: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        self.select = choose("family.select", select, SELECTIONS)
        number(select_epochs, "family.select_epochs", least=1, whole=True)
        number(select_batches, "family.select_batches", least=1, whole=True)
        if select == "strength" and select_epochs != 1:
            raise UserError(f"family.select_epochs={select_epochs} is of family.select=perturbation, not of strength")
        self.select_epochs, self.select_batches = select_epochs, select_batches
        self.decided = 0
        self.chosen = [[OPEN] * table.edges for table in self.mixture.tables]
        self.masked: tuple[int, int, int | None] | None = None

    # --- what is decided ------------------------------------------------------------------------------------------

    @property
    def decisions(self) -> list[tuple[int, list[int], bool]]:
        """Table, edges, and whether it is among them (else among the operations of the only one), in order."""
        operations = [(t, [e], False) for t, table in enumerate(self.mixture.tables) for e in range(table.edges)]
        inputs = [(t, edges, True) for t, edges in self.mixture.inputs()]
        found = []
        for k, some in enumerate((operations, inputs)):
            order = torch.randperm(len(some), generator=generator_of(self.seed, ORDER, k)).tolist()
            found += [some[i] for i in order]
        return found

    def projected(self, gates: Sequence[Tensor]) -> list[Tensor]:
        """Gates with what is decided put in: 1 for what stays, 0 for what goes; and 0 for what is tried without."""
        found = []
        for t, rows in enumerate(gates):
            chosen = torch.tensor(self.chosen[t], device=rows.device)
            onehot = F.one_hot(chosen.clamp_min(0), rows.shape[1]).to(rows.dtype)
            rows = torch.where((chosen == OPEN)[:, None], rows, onehot)
            if self.masked is not None and self.masked[0] == t:
                kept = torch.ones_like(rows)
                _, edge, operation = self.masked
                kept[edge, slice(None) if operation is None else operation] = 0
                rows = rows * kept
            found.append(rows)
        return found

    def left_out(self, table: int) -> list[bool]:
        """Of each edge, whether it gives nothing: it is decided so, or tried so."""
        nothing = self.mixture.tables[table].nothing
        tried = None if self.masked is None or self.masked[2] is not None else self.masked[:2]
        return [(k != OPEN and k == nothing) or (table, e) == tried for e, k in enumerate(self.chosen[table])]

    def gates(self, values: Sequence[Tensor], step: int, k: int) -> tuple[list[Tensor], Run | None]:
        """Gates with what is decided; the operations that lost do not run."""
        if not self.decided and self.masked is None:
            return super().gates(values, step, k)
        run = [
            [[at in (OPEN, k) for k in range(len(table.operations))] for at in chosen]
            for table, chosen in zip(self.mixture.tables, self.chosen, strict=True)
        ]
        return self.projected(self.probabilities(values)), run

    def soft_logits(self, images: Tensor) -> Tensor:
        """Logits of the mixture itself, with what is decided."""
        return self.logits(images, [v.detach() for v in self.alphas.values], 0, 0)

    @torch.no_grad()
    def shares(self) -> list[Tensor]:
        """Shares of the gates, with what is decided."""
        return self.projected([p / p.sum(-1, keepdim=True) for p in self.probabilities()])

    @torch.no_grad()
    def strengths(self) -> list[Tensor]:
        """The gates, with what is decided."""
        return self.projected(self.probabilities())

    # --- deciding -------------------------------------------------------------------------------------------------

    def begin_epoch(self, progress: Progress) -> None:
        """Refuse decisions that begin before the architecture is learnt."""
        super().begin_epoch(progress)
        if self.select == "perturbation" and self.select_epochs > progress.epochs - self.warmup:
            raise UserError(
                f"family.select_epochs={self.select_epochs} leaves no epoch to learn the architecture in: it must be "
                f"at most trainer.max_epochs={progress.epochs} less family.warmup={self.warmup}"
            )

    def due(self, step: int) -> bool:
        """The architecture is learnt until the first decision."""
        return not self.decided

    def end_epoch(self, validation: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Make the decisions that are due."""
        if self.select != "perturbation":
            return {}
        until = decisions_due(len(self.decisions), self.progress, self.select_epochs)
        if until > self.decided:
            batches = [batch for batch, _ in zip(validation, range(self.select_batches), strict=False)]
            self.decide(batches, until)
        return {"decided": float(self.decided)}

    def decide(self, batches: Sequence[tuple[Tensor, Tensor]], until: int | None = None) -> None:
        """Make decisions, one after the other.

        Args:
            batches: Validation pictures to judge by.
            until: So many in all; every one if not given.
        """
        before = self.mixture.training
        self.mixture.eval()  # once: it goes through thousands of modules
        try:
            for decision in self.decisions[self.decided : until]:
                self._decide(*decision, batches)
        finally:
            self.mixture.train(before)

    def _decide(self, table: int, edges: Sequence[int], among: bool, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        of = self.mixture.tables[table]
        if among:
            order = self._by_need([(table, edge, None) for edge in edges], batches)
            assert of.nothing is not None
            for place in order[2:]:
                self.chosen[table][edges[place]] = of.nothing
        else:
            real = [k for k in range(len(of.operations)) if k != of.nothing]
            order = self._by_need([(table, edges[0], k) for k in real], batches)
            self.chosen[table][edges[0]] = real[order[0]]
        self.decided += 1

    def _by_need(
        self, trials: Sequence[tuple[int, int, int | None]], batches: Sequence[tuple[Tensor, Tensor]]
    ) -> list[int]:
        """The places of what is left out by how much the mixture needs it, the most needed first."""
        found: list[float] = []
        for trial in trials:
            self.masked = trial
            try:
                found += self._judged(batches)
            finally:
                self.masked = None
        found = self.mean_over_processes(found)  # so that all of them decide alike
        return sorted(range(len(trials)), key=lambda i: (found[2 * i], -found[2 * i + 1], i))

    @torch.no_grad()
    def _judged(self, batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Accuracy and loss of the mixture, each batch with its own statistics; nothing of the network changes."""
        right = loss = count = 0.0
        for images, labels in batches:
            with Collecting():
                logits = wide(self.soft_logits(images))
            right += float((logits.argmax(1) == labels).sum())
            loss += float(self.finite(F.cross_entropy(logits, labels, reduction="sum"), None, "a trial's loss"))
            count += len(labels)
        return right / count, loss / count

    # --- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Also what is decided."""
        return {**super().state_dict(), "decided": self.decided, "chosen": [list(edges) for edges in self.chosen]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over; older states have decided nothing."""
        super().load_state_dict(state)
        self.decided = int(state.get("decided", 0))
        if "chosen" in state:
            self.chosen = [list(edges) for edges in state["chosen"]]
