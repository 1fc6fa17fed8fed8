"""Whether a teacher knows its pictures at all: wrong weights or another normalisation answer, too, and say nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CleanAccuracy", "accuracy_of", "clean_accuracy"]

_Z = 1.959964  # of the 95 % interval


@dataclass(frozen=True)
class CleanAccuracy:
    """How often a teacher is right about pictures that nobody has augmented.

    Attributes:
        right: Pictures whose class it names.
        total: Pictures asked about.
        chance: Share that one and the same answer would get: that of the most frequent class, 1 / classes at least.
    """

    right: int
    total: int
    chance: float

    @property
    def share(self) -> float:
        """``right / total``."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        n, p = self.total, self.share
        centre, spread = p + _Z**2 / (2 * n), _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
        return max(0.0, (centre - spread) / (1 + _Z**2 / n)), min(1.0, (centre + spread) / (1 + _Z**2 / n))

    @property
    def at_chance(self) -> bool:
        """Whether the interval does not lie above chance."""
        return self.interval[0] <= self.chance

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"the teacher names the class of {self.share:.1%} of {self.total} clean pictures ({low:.1%} to {high:.1%}; "
            f"chance is {self.chance:.1%})"
        )


def clean_accuracy(
    teacher: Callable[[Tensor], Tensor],
    pictures: Callable[[Tensor], Tensor],
    labels: Tensor,
    *,
    most: int = 256,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> CleanAccuracy:
    """Ask a teacher about some pictures, evenly spread.

    Args:
        teacher: Who is asked; a ``Teacher``, or whatever gives logits for bytes.
        pictures: From numbers ``(B,)`` to uint8 ``(B, C, H, W)``.
        labels: Of all pictures, int64 ``(N,)``.
        most: How many to ask about.
        batch_size: At once.
        device: Where; where the pictures are if ``None``.
    """
    count = min(most, len(labels))
    index = torch.arange(count) * len(labels) // max(1, count)
    answers = []
    for part in index.split(batch_size):
        images = pictures(part)
        answers.append(teacher(images if device is None else images.to(device)))
    return accuracy_of(torch.cat(answers), labels[index])


def accuracy_of(answers: Tensor, labels: Tensor) -> CleanAccuracy:
    """From a teacher's answers ``(n, classes)`` about clean pictures, and their labels ``(n,)``."""
    labels = labels.cpu()
    right = int((answers.argmax(1).cpu() == labels).sum())
    return CleanAccuracy(right, len(labels), max(int(labels.bincount().max()) / len(labels), 1 / answers.shape[1]))
