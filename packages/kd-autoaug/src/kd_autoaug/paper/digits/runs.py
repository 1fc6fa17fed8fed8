"""What came of the runs, seed by seed, and the differences that count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_autoaug.paper.digits.ways import MILD, STRONG

__all__ = ["PILOT", "Runs", "Trained"]

PILOT: dict[tuple[str, float], float] = {
    ("CE", 0.3): 98.3,
    ("CE", 1.0): 95.6,
    ("CE", 2.0): 92.9,
    ("label smoothing", 1.0): 95.9,
    ("label smoothing", 2.0): 92.8,
    ("KD", 0.3): 98.4,
    ("KD", 1.0): 98.0,
    ("KD", 2.0): 97.0,
}
"""Mean accuracies of the pilot (its operators were composed into one float sampling; the bits were not Pillow's)."""


@dataclass(frozen=True)
class Trained:
    """What came of one run.

    Attributes:
        method: One of ``WAYS``.
        strength: Magnitude of the augmentation in units of the usual range.
        seed: Of split, start, order and augmentation.
        accuracy: On the clean test pictures, percent.
        outside: Share of the training views on which the teacher's best class is not the label; NaN without a teacher.
    """

    method: str
    strength: float
    seed: int
    accuracy: float
    outside: float


class Runs:
    """The accuracies by method and strength, one per seed in the order of the seeds.

    Args:
        trained: All runs.
        teachers: Test accuracies of the seeds' teachers.
    """

    def __init__(self, trained: Sequence[Trained], teachers: Sequence[float]) -> None:
        self.trained, self.teachers = list(trained), list(teachers)

    @classmethod
    def of_seeds(cls, parts: Sequence[Mapping[str, Any]]) -> Runs:
        """The runs of several seeds, each as ``train_seed`` gives it."""
        runs = [
            Trained(method, strength, seed, accuracy, math.nan if outside is None else outside)
            for seed, part in enumerate(parts)
            for method, strength, accuracy, outside in part["runs"]
        ]
        return cls(runs, [part["teacher"] for part in parts])

    def of(self, method: str, strength: float) -> list[float]:
        """Accuracies, percent; none if there was no such run."""
        return [t.accuracy for t in self.trained if (t.method, t.strength) == (method, strength)]

    def gain(self, method: str, strength: float) -> list[float]:
        """What a method is ahead of cross-entropy, in points, seed by seed."""
        return [a - b for a, b in zip(self.of(method, strength), self.of("CE", strength), strict=True)]

    def cost(self) -> list[float]:
        """What strong augmentation costs cross-entropy against mild augmentation."""
        return [a - b for a, b in zip(self.of("CE", MILD), self.of("CE", STRONG), strict=True)]

    def interaction(self) -> list[float]:
        """How much more distillation gains under strong than under mild augmentation: the paper's claim."""
        return [a - b for a, b in zip(self.gain("KD", STRONG), self.gain("KD", MILD), strict=True)]

    def outside(self, strength: float) -> float:
        """Mean share of training views that the teacher takes for another class."""
        found = [t.outside for t in self.trained if (t.method, t.strength) == ("KD", strength)]
        return sum(found) / len(found)
