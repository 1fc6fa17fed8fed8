"""Elastic super-networks, whose parts need no re-training: progressive shrinking (OFA), sandwich rule (BigNAS)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effkit.errors import UserError, written
from ws_nas.families.base import Batch, generator_of, wide
from ws_nas.families.numbers import number
from ws_nas.families.progress import Progress, Stage, check_rates
from ws_nas.families.uniform import SPOS
from ws_nas.spaces.elastic import OFASpace
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.mobile import ElasticSupernet

__all__ = ["OFA", "BigNAS", "soft_cross_entropy", "stage_of"]

STAGES = ("teacher", "kernel", "depth_1", "depth", "expand_1", "expand")
"""Of progressive shrinking: the largest network; then kernels, depths and expansions, the last two in two parts."""


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against the softmax of other logits, which get no gradient."""
    return -(wide(targets.detach()).softmax(1) * wide(logits).log_softmax(1)).sum(1).mean()


def _elastic(space: Space, name: str) -> OFASpace:
    if not isinstance(space, OFASpace):
        raise UserError(f"family={name} needs an elastic space, space={space.name} is none: use space=ofa or ofa_tiny")
    return space


class BigNAS(SPOS):
    """The sandwich rule with distillation in place (Yu et al. 2020), from its formulas.

    A step trains the largest network on the labels; then ``middle`` random ones and the smallest on the largest one's
    answers to the same pictures. Gradients are summed, one update. Dropout and drop-connect are of the largest one's
    pass alone, whose answers the others learn.

    Args:
        space: An elastic space.
        supernet: Its super-network.
        seed: Of all that is drawn.
        middle: Random networks of a step.
        dropout: Of the largest network, before its classifier.
        drop_connect: Of the largest network: how often a block gives a picture nothing but its input, the same for all
            blocks that have a residual (whether it was to rise with depth could not be found).
        **options: As for :class:`SPOS`.

    Raises:
        UserError: If a value is out of range, or the space is not elastic.
    """

    name: ClassVar[str] = "bignas"

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        middle: int = 2,
        dropout: float = 0.2,
        drop_connect: float = 0.2,
        **options: Any,
    ) -> None:
        _elastic(space, self.name)
        super().__init__(space, supernet, seed, **options)
        self.middle = number(middle, "family.middle", least=0, whole=True)
        self.dropout = float(number(dropout, "family.dropout", least=0, below=1))
        self.drop_connect = float(number(drop_connect, "family.drop_connect", least=0, below=1))

    def paths(self, step: int) -> list[Genotype]:
        """The largest, some drawn ones, the smallest."""
        ends = self.space.named
        drawn = [self.space.sample(generator_of(self.seed, step, k)) for k in range(self.middle)]
        return [ends["max"], *drawn, ends["min"]]

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Train the paths of the step."""
        largest, *others = self.paths(step)
        assert isinstance(self.supernet, ElasticSupernet)
        with self.supernet.regularised(self.dropout, self.drop_connect):
            answers = self.supernet(batch.images, largest)
        loss = self.finite(self.loss(answers, batch.labels), largest)
        loss.backward()
        for genotype in others:
            logits = self.supernet(batch.images, genotype)
            self.finite(soft_cross_entropy(logits, answers), genotype).backward()
        return {"loss": loss.detach()}


def stage_of(shares: Sequence[float], progress: Progress) -> int:
    """The stage of an epoch; the first epoch is always the first stage's, and few epochs leave stages out.

    Args:
        shares: Of the stages, in any unit.
        progress: Where the training stands.
    """
    if progress.epoch == 0:
        return 0
    total, done = sum(shares), 0.0
    place = (progress.epoch + 0.5) / progress.epochs
    for stage, share in enumerate(shares):
        done += share / total
        if place < done:
            return stage
    return len(shares) - 1


class OFA(SPOS):
    """Once-for-all's progressive shrinking (Cai et al. 2020).

    First the largest network alone; it stays as the teacher. Then smaller kernels, depths and expansions are let in,
    and a step trains 1, 2 or 4 drawn networks on ``distill * CE(teacher) + CE(labels)``. Before expansions shrink,
    channels are ordered by how much the next convolution makes of them. Where a stage begins, the weights' optimizer
    forgets its momenta, as one made anew would.

    Args:
        space: An elastic space.
        supernet: Its super-network.
        seed: Of all that is drawn.
        shares: Of the epochs for each of :data:`STAGES`, in any unit; after the teacher those of the paper.
        distill: Weight of the teacher's answers.
        rates: Learning rate of each stage as a share of the optimizer's, each with the schedule from its beginning to
            its end, warm-ups only in stages that let in a whole kind; ``None``: one schedule over the run. Those of the
            paper are shares of 3e-2; that of the teacher could not be found.
        label_smoothing: As for every family.
        **options: As for :class:`SPOS`.

    Raises:
        UserError: If a value is out of range, or the space is not elastic.
    """

    name: ClassVar[str] = "ofa"
    columns: ClassVar[tuple[str, ...]] = ("stage",)

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        shares: Sequence[float] = (180, 120, 25, 120, 25, 120),
        distill: float = 1.0,
        rates: Sequence[float] | None = (1, 1, 1 / 12, 1 / 4, 1 / 12, 1 / 4),
        label_smoothing: float = 0.1,
        **options: Any,
    ) -> None:
        self.elastic = _elastic(space, self.name)
        super().__init__(space, supernet, seed, label_smoothing=label_smoothing, **options)
        if len(shares) != len(STAGES):
            raise UserError(f"family.shares={written(list(shares))} needs {len(STAGES)} values, of {', '.join(STAGES)}")
        for value in shares:
            number(value, "family.shares", above=0)
        self.shares, self.distill = tuple(shares), float(number(distill, "family.distill", least=0))
        self.rates = check_rates(rates, len(STAGES))
        self.stage = 0
        self.teacher: nn.Module | None = None

    def stages(self, epochs: int) -> list[Stage]:
        """The stages that so many epochs have room for, each with a learning rate of its own."""
        if self.rates is None:
            return []
        of = [stage_of(self.shares, Progress(epoch, epochs)) for epoch in range(epochs)]
        return [
            Stage(of.index(stage), of.count(stage), self.rates[stage], STAGES[stage] not in ("depth_1", "expand_1"))
            for stage in sorted(set(of))
        ]

    def begin_epoch(self, progress: Progress) -> None:
        """Go to the stage of the epoch."""
        if progress.epochs < 2:
            raise UserError("trainer.max_epochs=1 trains the teacher only: family=ofa needs at least 2, better many")
        super().begin_epoch(progress)
        stage = stage_of(self.shares, progress)
        if stage == self.stage:
            return
        if self.stage == 0:
            self.teacher = copy.deepcopy(self.supernet).requires_grad_(False).eval()
        if self.stage < STAGES.index("expand_1") <= stage:
            assert isinstance(self.supernet, ElasticSupernet)
            self.supernet.sort_channels()
        if self.weight_optimizer is not None:
            self.weight_optimizer.state.clear()
        self.stage = stage

    def allowed(self) -> list[list[int]]:
        """What each gene may be in the present stage, as indices; the largest is the last."""
        sizes, stage = self.elastic.network, self.stage
        depths, kernels, expands = (list(range(len(v))) for v in (sizes.depths, sizes.kernels, sizes.expands))
        kernels = kernels if stage >= STAGES.index("kernel") else kernels[-1:]
        first = depths[-2:] if stage == STAGES.index("depth_1") else depths
        depths = first if stage >= STAGES.index("depth_1") else depths[-1:]
        second = expands[-2:] if stage == STAGES.index("expand_1") else expands
        expands = second if stage >= STAGES.index("expand_1") else expands[-1:]
        places = len(sizes.stages) * max(sizes.depths)
        return [depths] * len(sizes.stages) + [kernels] * places + [expands] * places

    def paths(self, step: int) -> list[Genotype]:
        """1, 2 or 4 networks, each gene uniform over what the stage allows."""
        count = 1 if self.stage <= STAGES.index("kernel") else 2 if self.stage < STAGES.index("expand_1") else 4
        found = []
        for k in range(count):
            generator = generator_of(self.seed, step, k)
            genes = [v[int(torch.randint(len(v), (), generator=generator))] for v in self.allowed()]
            found.append(self.space.canonical(tuple(genes)))
        return found

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Train the paths of the step."""
        answers = None
        if self.stage:
            if self.teacher is None:
                raise UserError("family=ofa: the largest network is asked as the teacher, and there is none")
            self.teacher.to(batch.images.device)
            with torch.no_grad():
                answers = self.teacher(batch.images, self.space.named["max"])
        losses = []
        for genotype in self.paths(step):
            logits = self.supernet(batch.images, genotype)
            loss = self.loss(logits, batch.labels)
            if answers is not None:
                loss = loss + self.distill * soft_cross_entropy(logits, answers)
            self.finite(loss, genotype).backward()
            losses.append(loss.detach())
        return {"loss": sum(losses[1:], losses[0]) / len(losses), "stage": torch.tensor(float(self.stage))}

    def state_dict(self) -> dict[str, Any]:
        """Also the stage and the teacher."""
        teacher = None if self.teacher is None else {k: v.clone() for k, v in self.teacher.state_dict().items()}
        return {**super().state_dict(), "stage": self.stage, "teacher": teacher}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        super().load_state_dict(state)
        self.stage = int(state["stage"])
        if state["teacher"] is not None:
            self.teacher = copy.deepcopy(self.supernet).requires_grad_(False).eval()
            self.teacher.load_state_dict(state["teacher"])
