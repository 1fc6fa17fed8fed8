"""How far a training is, and schedules over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effkit.errors import UserError, written
from ws_nas.families.numbers import number

__all__ = ["Progress", "Stage", "check_rates", "linear", "ramp"]


@dataclass(frozen=True)
class Progress:
    """Where a training stands at the beginning of an epoch.

    Args:
        epoch: Counting from 0.
        epochs: Of the whole run.
        steps: Steps of an epoch.
    """

    epoch: int = 0
    epochs: int = 1
    steps: int = 1

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps

    @property
    def share(self) -> float:
        """Share of the run that lies behind, from 0 in the first epoch to 1 in the last."""
        return 0.0 if self.epochs <= 1 else self.epoch / (self.epochs - 1)


@dataclass(frozen=True)
class Stage:
    """Epochs with a learning rate and a schedule of their own.

    Args:
        first: Epoch, counting from 0.
        epochs: Of the stage.
        rate: Share of the optimizer's learning rate.
        warms: Whether the schedule's warm-up is gone through here too.
    """

    first: int
    epochs: int
    rate: float
    warms: bool = True


def check_rates(rates: Sequence[float] | None, count: int) -> tuple[float, ...] | None:
    """Learning rates of stages, as shares of the optimizer's.

    Raises:
        UserError: If they are not one a stage, each above 0.
    """
    if rates is None:
        return None
    if len(rates) != count:
        raise UserError(f"family.rates={written(list(rates))} needs {count} values, one a stage, or null")
    return tuple(float(number(rate, "family.rates", above=0)) for rate in rates)


def linear(start: float, end: float, share: float) -> float:
    """The value at a share of the way from ``start`` to ``end``."""
    return start + (end - start) * share


def ramp(epoch: int, first: int, epochs: int) -> float:
    """0 before epoch ``first``, then linearly up to 1 in the last one.

    Args:
        epoch: Counting from 0.
        first: The last epoch with 0.
        epochs: Of the whole run.
    """
    if epoch <= first:
        return 0.0
    return min(1.0, (epoch - first) / max(1, epochs - 1 - first))
