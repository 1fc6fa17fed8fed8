"""P-DARTS: search in stages, of ever deeper super-networks with ever fewer operations an edge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effkit.errors import UserError, written
from ws_nas.families.alphas import Alphas
from ws_nas.families.base import Batch
from ws_nas.families.numbers import number
from ws_nas.families.progress import Progress, Stage, check_rates
from ws_nas.families.relaxed import Relaxed
from ws_nas.spaces.darts import DARTSSpace
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.darts import EDGES, DartsSupernet
from ws_nas.supernets.mixed import Run
from ws_nas.supernets.mixtures import DartsMixture, darts_genes
from ws_nas.supernets.networks.darts import NODES, PAIRS
from ws_nas.supernets.networks.darts_parts import OPERATIONS

__all__ = ["PDARTS", "limit_skips", "strongest"]

SKIP = 1 + OPERATIONS.index("skip_connect")


def strongest(p: Tensor, kept: Tensor, count: int) -> Tensor:
    """The ``count`` likeliest of the operations that an edge still has; of equal ones the first.

    Args:
        p: ``(edges, operations)``.
        kept: Which ones are left, bool of the same shape.
        count: How many to leave.
    """
    masked = torch.where(kept, p, -1.0)
    order = masked.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(kept).scatter_(1, order, True)


def limit_skips(strengths: Tensor, most: int) -> Tensor:
    """Zero the weakest skip connection of a cell until what is derived holds no more than so many.

    Args:
        strengths: ``(14, 8)`` of the normal cell, ``none`` first.
        most: Skip connections that may stay.

    Returns:
        The strengths with some entries of skip connections zeroed.
    """
    found = strengths.clone()
    while True:
        genes = darts_genes(found)
        if sum(gene + 1 == SKIP for k, gene in enumerate(genes) if k % 3) <= most:
            return found
        column = found[:, SKIP]
        alive = torch.where(column > 0, column, math.inf)
        found[int(alive.argmin()), SKIP] = 0.0


class PDARTS(Relaxed):
    """P-DARTS (Chen et al. 2019), from its description.

    The epochs are shared out equally among the stages. Each stage has a super-network and an architecture of its own;
    between two stages every edge loses its least likely operations. The last ``kept`` is what an edge has in the end:
    ``none`` is dropped first, then each node keeps two edges, then skip connections of the normal cell are limited.

    Args:
        space: A space of DARTS cells.
        supernet: Not used: stages have their own.
        seed: Of all that is drawn.
        cells: Of the super-network of each stage.
        kept: Operations an edge has in each stage, and in the end: one more than there are stages.
        warmup: Epochs of each stage in which only weights are trained.
        dropout: After skip connections, at the beginning of each stage; in the warm-up it falls linearly, by the share
            of the stage that is done, then it is ``dropout * exp(-0.2 * (epoch - warmup))`` of the stage's epoch.
        most_skips: Skip connections that the normal cell may hold.
        rates: Learning rate of each stage as a share of the optimizer's, each with the schedule from its beginning to
            its end, as its weights are new; ``None``: one schedule over the run.
        lr: Of the architecture's Adam.
        **options: As for :class:`Relaxed`.

    Raises:
        UserError: If a value is out of range, or the space has no such cells.
    """

    name: ClassVar[str] = "p_darts"
    columns: ClassVar[tuple[str, ...]] = (*Relaxed.columns, "stage")

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        cells: Sequence[int] = (5, 11, 17),
        kept: Sequence[int] = (8, 5, 3, 1),
        warmup: int = 10,
        dropout: Sequence[float] = (0.0, 0.4, 0.7),
        most_skips: int = 2,
        rates: Sequence[float] | None = (1, 1, 1),
        lr: float = 6e-4,
        **options: Any,
    ) -> None:
        if not isinstance(space, DARTSSpace):
            raise UserError(f"family=p_darts needs cells of DARTS, space={space.name} has none: use space=darts")
        for field, values, least in (("cells", cells, 3), ("kept", kept, 1)):
            for value in values:
                number(value, f"family.{field}", least=least, whole=True)
        for share in dropout:
            number(share, "family.dropout", least=0, below=1)
        falls = all(a > b for a, b in pairwise(kept))
        if not falls or kept[0] != len(OPERATIONS) + 1 or kept[-1] != 1:
            raise UserError(f"family.kept={written(list(kept))} must fall from {len(OPERATIONS) + 1} to 1")
        if not len(cells) == len(dropout) == len(kept) - 1:
            raise UserError(
                f"family.cells={written(list(cells))} and family.dropout={written(list(dropout))} need one value a "
                f"stage, and family.kept={written(list(kept))} one more"
            )
        number(most_skips, "family.most_skips", least=0, whole=True)
        self.rates = check_rates(rates, len(cells))
        told = {"affine": getattr(supernet, "affine", False), "track_running_stats": getattr(supernet, "track", True)}
        dtype = next(supernet.parameters()).dtype
        nets = [DartsSupernet(replace(space.search, layers=n), space.space_id, **told).to(dtype) for n in cells]
        super().__init__(space, nets[0], seed, warmup=warmup, lr=lr, **options)
        self.kept, self.dropout, self.most_skips = tuple(kept), tuple(dropout), most_skips
        self.mixtures = nn.ModuleList(DartsMixture(net, recompute=self.recompute) for net in nets)
        self.network = nn.ModuleList(nets)
        self.of_stages = nn.ModuleList(Alphas(self.mixture.tables, seed + i) for i in range(len(nets)))
        self.architecture = self.of_stages
        self.masks = [[torch.ones(t.shape, dtype=torch.bool) for t in self.mixture.tables] for _ in nets]
        self.stage = -1
        self._enter(0)

    def _enter(self, stage: int) -> None:
        """Go to a stage, whose operations are known."""
        self.stage = stage
        self.mixture = self.mixtures[stage]  # type: ignore[assignment]
        self.supernet = self.mixture.supernet
        self.alphas = self.of_stages[stage]  # type: ignore[assignment]
        self.optimizer = torch.optim.Adam(self.alphas.parameters(), **self.adam)  # type: ignore[arg-type]

    def lengths(self, epochs: int) -> list[int]:
        """Epochs of each stage: as many for each, and what is over for the last."""
        count = len(self.mixtures)
        return [epochs // count] * (count - 1) + [epochs - epochs // count * (count - 1)]

    def stages(self, epochs: int) -> list[Stage]:
        """Each with the schedule from its beginning."""
        if self.rates is None:
            return []
        lengths = self.lengths(epochs)
        return [Stage(sum(lengths[:i]), lengths[i], rate) for i, rate in enumerate(self.rates)]

    def begin_epoch(self, progress: Progress) -> None:
        """Go to the stage of the epoch, and set its dropout."""
        if progress.epochs < len(self.mixtures):
            raise UserError(
                f"trainer.max_epochs={progress.epochs} is fewer than the {len(self.mixtures)} stages of family=p_darts"
            )
        length = progress.epochs // len(self.mixtures)
        stage = min(progress.epoch // length, len(self.mixtures) - 1)
        while self.stage < stage:
            kept = [
                strongest(p, m.to(p.device), self.kept[self.stage + 1]).cpu()
                for p, m in zip(self.probabilities(), self.masks[self.stage], strict=True)
            ]
            self.masks[self.stage + 1] = kept
            self._enter(self.stage + 1)
        epoch = progress.epoch - stage * length  # of the stage
        long = self.lengths(progress.epochs)[stage]
        super().begin_epoch(Progress(epoch, long, progress.steps))
        start = self.dropout[stage]
        early = start * (1 - epoch / long)
        self.mixture.skip_dropout = early if epoch < self.warmup else start * math.exp(-0.2 * (epoch - self.warmup))  # type: ignore[assignment]

    def probabilities(self, values: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Over the operations that an edge still has."""
        given = self.alphas.values if values is None else values
        masks = self.masks[self.stage]
        return [torch.where(m.to(v.device), v, -torch.inf).softmax(-1) for v, m in zip(given, masks, strict=True)]

    def gates(self, values: Sequence[Tensor], step: int, k: int) -> tuple[list[Tensor], Run | None]:
        """What is dropped does not run."""
        return self.probabilities(values), [m.tolist() for m in self.masks[self.stage]]

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """As for every mixture."""
        return {**super().training_step(batch, step), "stage": torch.tensor(float(self.stage))}

    @torch.no_grad()
    def strengths(self) -> list[Tensor]:
        """Probabilities, in the normal cell without the skip connections that are too many."""
        normal, reduction = self.probabilities()
        return [limit_skips(normal, self.most_skips), reduction]

    def derive(self) -> Genotype:
        """What is left after the last stage."""
        return self.mixture.genotype(self.strengths())

    def net_of(self, genotype: Genotype) -> nn.Module:
        """The super-network of the stage.

        Raises:
            UserError: If an operation of the genotype was dropped: its weights were not trained.
        """
        for t, mask in enumerate(self.masks[self.stage]):
            for node in range(NODES):
                pair, *chosen = genotype[12 * t + 3 * node : 12 * t + 3 * node + 3]
                for source, operation in zip(PAIRS[node][pair], chosen, strict=True):
                    if not mask[EDGES.index((source, node)), 1 + operation]:
                        raise UserError(
                            f"genotype={self.space.str(genotype)}: {OPERATIONS[operation]} from {source} was dropped "
                            f"at node {node}, and has no trained weights"
                        )
        return self.supernet

    def soft_logits(self, images: Tensor) -> Tensor:
        """Logits of the mixture of the stage; what is dropped does not run."""
        return self.logits(images, list(self.alphas.values), 0, 0)

    def state_dict(self) -> dict[str, Any]:
        """Also the stage, and what its edges have left."""
        masks = [[m.clone() for m in stage] for stage in self.masks]
        return {**super().state_dict(), "stage": self.stage, "masks": masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        if "stage" in state:
            self.masks = [[m.cpu() for m in stage] for stage in state["masks"]]
            self._enter(int(state["stage"]))
        super().load_state_dict(state)
