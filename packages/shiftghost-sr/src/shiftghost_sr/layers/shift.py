"""A shift whose direction is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError, choose
from shiftghost_sr.layers.config import DIRECTIONS, ESTIMATORS, GRANULARITIES
from shiftghost_sr.ops.ghost import Placing, ghost_maps
from shiftghost_sr.ops.shift import Direction, read_direction

__all__ = ["LearnableShift2d", "direction_set", "gumbel", "home"]

_STEPS = 1_000_000  # an epoch is kept in millionths, as a whole number that no cast to half precision rounds


def direction_set(max_shift: int, directions: str = "all9") -> tuple[Direction, ...]:
    """The displacements that are allowed, row by row, as the official kernel has them.

    Args:
        max_shift: d.
        directions: ``all9``/``all``: the whole square; ``axis5``: those along an axis, and none.
    """
    choose("directions", directions, DIRECTIONS)
    if isinstance(max_shift, bool) or not isinstance(max_shift, int) or max_shift < 0:
        raise UserError(f"max_shift={max_shift!r} must be a whole number, 0 or more")
    span = range(-max_shift, max_shift + 1)
    return tuple((a, b) for a in span for b in span if directions != "axis5" or 0 in (a, b))


def home() -> torch.device:
    """Where indices and logits are made: a network on the meta device, made to be counted, has real ones."""
    device = torch.get_default_device()
    return torch.device("cpu") if device.type == "meta" else device


def gumbel(shape: Sequence[int]) -> Tensor:
    """Standard Gumbel noise in float32, drawn on the CPU from torch's own generator; never infinite.

    On the CPU, so that ranks and devices with one seed draw alike, and that gradient checkpointing, which puts the
    generator back, draws the same again.
    """
    tiny = torch.finfo(torch.float32).tiny
    u = torch.rand(tuple(shape), dtype=torch.float32, device="cpu").clamp_(tiny, 1 - 2**-24)
    return -torch.log(-torch.log(u))


class LearnableShift2d(nn.Module):
    """Moves maps by a direction that is learnt: one-hot in the forward pass, a soft gradient in the backward pass.

    In training every call draws noise whose scale falls with :attr:`epoch`; in evaluation the direction is fixed.
    Where two logits are equal, the one nearer to no move wins.

    Args:
        max_shift: d: from -d to d along both axes.
        channels: Maps that are moved; for granularities other than ``layer``.
        granularity: ``layer``, ``group`` or ``channel``: what shares a direction.
        groups: Number of groups, for ``group``.
        estimator: ``st_gumbel_softmax`` or ``official``; see :class:`~shiftghost_sr.layers.config.GhostConfig`.
        directions: ``all9``, ``axis5``, or ``all``.
        init: ``official`` draws logits as the official code does; ``zeros``; or ``(dy, dx)``: that one leads.
        tau: Temperature of the softmax that the gradient is of.
        noise_decay: Scale of the noise is ``noise_decay ** (epoch - 1)``.
        learned: Whether there is anything to learn; otherwise logits are a buffer and no noise is drawn.
    """

    epoch_steps: Tensor

    def __init__(
        self,
        max_shift: int = 1,
        *,
        channels: int | None = None,
        granularity: str = "layer",
        groups: int = 4,
        estimator: str = "st_gumbel_softmax",
        directions: str = "all9",
        init: Any = "official",
        tau: float = 1.0,
        noise_decay: float = 0.97,
        learned: bool = True,
    ) -> None:
        super().__init__()
        self.max_shift, self.granularity = max_shift, choose("granularity", granularity, GRANULARITIES)
        self.directions = direction_set(max_shift, directions)
        self.estimator = choose("estimator", estimator, ESTIMATORS)
        self.channels, self.tau, self.noise_decay, self.learned = channels, tau, noise_decay, learned
        if granularity != "layer" and channels is None:
            raise UserError(f"granularity={granularity!r} needs channels=")
        count = {"layer": 1, "group": min(groups, channels or 1), "channel": channels or 1}[granularity]
        logits = torch.zeros(count, len(self.directions), dtype=torch.float32, device=home())
        if learned:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)
        self.register_buffer("epoch_steps", torch.tensor(_STEPS, dtype=torch.int64, device=home()))
        self._order = sorted(range(len(self.directions)), key=lambda k: (sum(v * v for v in self.directions[k]), k))
        self.reset_parameters(init)

    def reset_parameters(self, init: Any = "official") -> None:
        """Set the logits anew; see ``init`` of the class."""
        with torch.no_grad():
            if init == "official":
                bound = len(self.directions) ** -0.5  # Kaiming-uniform with a = sqrt(5): 1 / sqrt(fan-in)
                self.logits.uniform_(-bound, bound)
            elif init == "zeros":
                self.logits.zero_()
            else:
                self.set_directions([read_direction(init, "init")] * len(self.logits))

    def set_directions(self, directions: Sequence[Direction]) -> None:
        """Let given directions lead by one, for each group.

        Raises:
            UserError: If their number does not fit, or one is not allowed.
        """
        if len(directions) != len(self.logits):
            raise UserError(f"directions: {len(directions)} were given for {len(self.logits)} groups")
        chosen = [self.directions.index(choose("direction", tuple(v), self.directions)) for v in directions]
        with torch.no_grad():
            self.logits.zero_()
            self.logits[torch.arange(len(chosen)), torch.tensor(chosen)] = 1.0

    @property
    def epoch(self) -> float:
        """Where training stands, from 1 on; fractions are allowed. Kept in checkpoints."""
        return int(self.epoch_steps) / _STEPS

    @epoch.setter
    def epoch(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise UserError(f"epoch={value!r} must be a number, 0 or more")
        self.epoch_steps.fill_(round(value * _STEPS))

    @property
    def noise_scale(self) -> float:
        """By how much noise is multiplied at this epoch."""
        return self.noise_decay ** (self.epoch - 1)

    def _apply(self, fn: Any, recurse: bool = True) -> LearnableShift2d:
        before = self.logits.data
        super()._apply(fn, recurse)
        if self.logits.dtype in (torch.float16, torch.bfloat16):
            self.logits.data = before.to(self.logits.device)  # directions are compared in fp32 whatever the maps are in
        return self

    def _largest(self, values: Tensor) -> list[int]:
        values = values.detach()
        ranked = (values.abs() if self.estimator == "official" else values)[:, self._order]
        if not bool(torch.isfinite(ranked).all()):
            raise UserError("the logits of a shift are not finite; training has diverged")
        return [self._order[k] for k in ranked.argmax(dim=1).tolist()]

    def chosen(self) -> tuple[int, ...]:
        """Index of each group's direction in evaluation."""
        return tuple(self._largest(self.logits))

    def chosen_directions(self) -> list[Direction]:
        """Each group's direction ``(dy, dx)`` in evaluation."""
        return [self.directions[k] for k in self.chosen()]

    def draw(self) -> tuple[Tensor, tuple[int, ...]]:
        """A one-hot kernel ``(groups, directions)`` with the estimator's gradient, and where it is one."""
        w: Tensor = self.logits
        noisy = w
        if self.training and self.learned:
            noisy = w + (gumbel(w.shape) * self.noise_scale).to(w)
        chosen = tuple(self._largest(noisy))
        hard = F.one_hot(torch.tensor(chosen, device=w.device), len(self.directions)).to(w.dtype)
        if not (self.learned and torch.is_grad_enabled() and w.requires_grad):
            return hard, chosen
        soft = w if self.estimator == "official" else torch.softmax(noisy / self.tau, dim=1)
        return hard + (soft - soft.detach()), chosen

    def forward(self, x: Tensor) -> Tensor:
        """Move maps ``(N, C, H, W)``.

        Raises:
            UserError: If the number of channels is not the one given.
        """
        if self.channels is not None and x.shape[1] != self.channels:
            raise UserError(f"x has {x.shape[1]} channels, the shift is for {self.channels}")
        kernel, chosen = self.draw()
        n = x.shape[1]
        both = ghost_maps(x, kernel, Placing(self.directions, chosen, torch.arange(n, device="cpu")))
        return both.narrow(1, n, n)

    def extra_repr(self) -> str:
        return f"max_shift={self.max_shift}, granularity={self.granularity!r}, estimator={self.estimator!r}"
