"""What every family of weight sharing is made of: one step of training, its state, and the network it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.data.sampling import mix_seed
from effkit.errors import UserError
from ws_nas.families.numbers import number
from ws_nas.families.progress import Progress, Stage
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.norm import Collecting

__all__ = ["Batch", "Family", "NotFinite", "Scorer", "generator_of"]

PROBES = 4
"""Sub-networks by which a training is followed."""

Scorer = Callable[[list[Genotype]], list[float]]
"""Scores genotypes, the higher the better."""


@dataclass(frozen=True)
class Batch:
    """Pictures of one step.

    Args:
        images: ``(B, C, H, W)``, for the weights.
        labels: ``(B,)``.
        val_images: ``(B, C, H, W)``, for the architecture; ``None`` where the family asks for none.
        val_labels: ``(B,)``.
    """

    images: Tensor
    labels: Tensor
    val_images: Tensor | None = None
    val_labels: Tensor | None = None

    @property
    def validation(self) -> tuple[Tensor, Tensor]:
        """The pictures for the architecture."""
        assert self.val_images is not None
        assert self.val_labels is not None
        return self.val_images, self.val_labels


class NotFinite(UserError):
    """A loss became infinite or NaN; names the genotype. Nothing has been updated with it."""


def generator_of(*parts: int) -> torch.Generator:
    """A generator on the CPU for one draw, the same in every process and after a resume.

    Args:
        *parts: Seed, step and number of the draw, or what else tells draws apart.
    """
    return torch.Generator().manual_seed(mix_seed(*parts))


class Family:
    """Trains a super-network in one way, and derives a genotype from it.

    A family knows no trainer: whoever trains it calls :meth:`training_step`, which leaves gradients in
    ``network.parameters()``, and then steps the weights' optimizer. Everything that is drawn is a function of
    ``(seed, step, k)``, so that all processes of a job draw the same, and a resumed run what an uninterrupted one does.

    Args:
        space: The space.
        supernet: Its super-network.
        seed: Of all that is drawn.
        label_smoothing: Weight of the uniform distribution in the targets of the weights' loss.

    Attributes:
        name: The name it is known by.
        needs_validation: Whether a step reads validation pictures.
        columns: What steps and ends of epochs return besides ``loss``.
        inherits: Whether sub-networks have weights to be scored by.
        network: What the weights' optimizer trains.
        architecture: What is learnt about architectures; ``None`` where nothing is.
        progress: How far the training is.
        scorer: Scores genotypes by inherited weights; set by whoever has pictures.
        average: Averages tensors over the processes of a job, in place; one process has nothing to average.
        weight_optimizer: That of ``network``, for families that look one step ahead.

    Raises:
        UserError: If a value is out of range.
    """

    name: ClassVar[str]
    needs_validation: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ()
    inherits: ClassVar[bool] = True

    def __init__(self, space: Space, supernet: nn.Module, seed: int = 0, *, label_smoothing: float = 0.0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(f"seed={seed!r} must be a whole number of at least 0")
        number(label_smoothing, "label_smoothing", least=0, below=1)
        self.space, self.supernet, self.seed, self.label_smoothing = space, supernet, seed, float(label_smoothing)
        self.network: nn.Module = supernet
        self.architecture: nn.Module | None = None
        self.progress = Progress()
        self.scorer: Scorer | None = None
        self.average: Callable[[Sequence[Tensor]], None] = lambda tensors: None
        self.weight_optimizer: torch.optim.Optimizer | None = None

    # --- training -------------------------------------------------------------------------------------------------

    def begin_epoch(self, progress: Progress) -> None:
        """Learn how far the training is; called before the first step of every epoch, after a resume too."""
        self.progress = progress

    def stages(self, epochs: int) -> list[Stage]:
        """The stages of a run, where each has a learning rate of its own; none where one schedule is over the run.

        Args:
            epochs: Of the run.
        """
        return []

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Leave the gradients of one step in ``network.parameters()``, and update the architecture.

        Args:
            batch: The pictures.
            step: Number of the step, from 0 over the whole run.

        Returns:
            ``loss`` and what else is worth a column, detached.

        Raises:
            NotFinite: If a loss is not finite; the weights have not been touched.
        """
        raise AssertionError(f"{type(self).__name__} must define training_step()")

    def end_epoch(self, validation: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Do what follows an epoch's steps.

        Args:
            validation: Endless batches for the architecture, the same in all processes' order.

        Returns:
            What is worth a column.
        """
        return {}

    def paths(self, step: int) -> list[Genotype]:
        """The genotypes that a step trains, one a pass; empty where a step trains a mixture."""
        return []

    # --- what comes of it -----------------------------------------------------------------------------------------

    def derive(self) -> Genotype:
        """The genotype that the family has come to."""
        raise AssertionError(f"{type(self).__name__} must define derive()")

    def derived(self) -> Genotype:
        """:meth:`derive`, checked.

        Raises:
            UserError: If it is none of the space.
        """
        return self.space.check(self.derive())

    def net_of(self, genotype: Genotype) -> nn.Module:
        """The super-network that holds a genotype's weights."""
        return self.supernet

    def score(self, genotypes: Sequence[Genotype]) -> list[float]:
        """Score genotypes by the weights that they inherit.

        Raises:
            UserError: If there are no pictures to score on.
        """
        if self.scorer is None:
            raise UserError(f"family={self.name} scores genotypes on pictures: set family.scorer first")
        return self.scorer([self.space.check(g) for g in genotypes])

    @torch.no_grad()
    def shown(self, images: Tensor) -> list[Tensor]:
        """Logits by which to follow the training: those of a few sub-networks, always the same ones.

        Batch normalisation takes the statistics of these pictures, and nothing in the network changes.

        Args:
            images: ``(B, C, H, W)`` with B at least 2.
        """
        found = []
        for genotype in self._probes:
            with Collecting():  # one each: elastic layers have other channels in each
                found.append(self.net_of(genotype)(images, genotype))
        return found

    @cached_property
    def _probes(self) -> list[Genotype]:
        return self.space.sample_many(min(PROBES, self.space.size()), mix_seed(self.seed, PROBES), distinct=False)

    # --- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs besides the weights: plain containers and tensors."""
        found: dict[str, Any] = {"family": self.name, "space": self.space.hash}
        if self.architecture is not None:
            found["architecture"] = {k: v.detach().clone() for k, v in self.architecture.state_dict().items()}
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over :meth:`state_dict`.

        Raises:
            UserError: If it is of another family or another space.
        """
        if state.get("family") != self.name:
            raise UserError(f"the checkpoint is of family={state.get('family')}, not of family={self.name}")
        if state.get("space") != self.space.hash:
            raise UserError(
                f"the checkpoint is of another space: its hash is {str(state.get('space'))[:12]}, that of "
                f"space={self.space.name} with these sizes is {self.space.hash[:12]}"
            )
        if self.architecture is not None:
            self.architecture.load_state_dict(state["architecture"])

    # --- helpers of subclasses ------------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, in float32 at least."""
        return F.cross_entropy(wide(logits), labels, label_smoothing=self.label_smoothing)

    def path_loss(self, genotype: Genotype, batch: Batch) -> Tensor:
        """The loss of one sub-network on the weights' pictures.

        Raises:
            NotFinite: If it is not finite.
        """
        return self.finite(self.loss(self.net_of(genotype)(batch.images, genotype), batch.labels), genotype)

    def finite(self, loss: Tensor, genotype: Genotype | None, what: str = "the training loss") -> Tensor:
        """The loss itself, if it is finite in all processes: they stop together, or not at all.

        Raises:
            NotFinite: If it is not.
        """
        mean = loss.detach().clone()
        self.average([mean])
        if not bool(torch.isfinite(mean)):
            where = "of the whole super-network" if genotype is None else f"of {self.space.str(genotype)}"
            raise NotFinite(
                f"{what} {where} became {float(mean):g}: lower optimizer.lr, or set trainer.gradient_clip_val=1.0"
            )
        return loss

    def mean_over_processes(self, values: Sequence[float]) -> list[float]:
        """Mean of each value over the processes of the job."""
        found = torch.tensor(list(values), dtype=torch.float64)
        self.average([found])
        return [float(v) for v in found]


def wide(logits: Tensor) -> Tensor:
    """Logits in float32, or in float64 where they are."""
    return logits if logits.dtype == torch.float64 else logits.float()
