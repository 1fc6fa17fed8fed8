"""How far a training is, and schedules over it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress", "linear", "ramp"]


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
