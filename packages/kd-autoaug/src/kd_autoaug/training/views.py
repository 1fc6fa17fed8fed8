"""What the student sees of a batch and what the teacher is asked about: the same view, or on purpose another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from effkit.errors import choose
from kd_autoaug.distillation.views import ViewKey

__all__ = ["INDEPENDENT", "TEACHER_VIEWS", "BatchViews"]

TEACHER_VIEWS = ("same", "clean", "independent")
INDEPENDENT = 1 << 30
"""Added to the view number for the teacher's own view: far beyond any epoch."""

Augment = Callable[[Tensor, Tensor, Tensor], Tensor]


class BatchViews:
    """Makes the student's and the teacher's pictures of a batch.

    Args:
        augment: The student's ``BatchAugment``; ``None`` shows the pictures as they are.
        plain: The same padded crop and flip (same seed, so the same offsets) without policy and cutout: what the
            student sees once the policy is off, and the teacher with ``clean``. ``None`` shows the pictures as they
            are.
        teacher_view: ``"same"``: the very pictures of the student. ``"clean"``: the student's crop and flip without
            policy and cutout. ``"independent"``: another draw of everything that happens on the batch.
    """

    def __init__(self, augment: Any = None, plain: Any = None, teacher_view: str = "same") -> None:
        self.augment, self.plain = augment, plain
        self.teacher_view = choose("teacher_view", teacher_view, TEACHER_VIEWS)

    def _made(self, by: Any, images: Tensor, index: Tensor, view: Tensor) -> tuple[Tensor, ViewKey]:
        if by is None:
            return images, ViewKey(index, view, "none")
        return by(images, index, view), ViewKey(index, view, by.fingerprint())

    def student(self, images: Tensor, index: Tensor, view: Tensor, *, policy: bool = True) -> tuple[Tensor, ViewKey]:
        """The student's pictures and the key of their views.

        Args:
            images: uint8 ``(B, C, H, W)`` from the loader.
            index: Sample numbers, ``(B,)``.
            view: View numbers, ``(B,)``.
            policy: False once the policy is switched off.
        """
        return self._made(self.augment if policy else self.plain, images, index, view)

    def teacher(self, images: Tensor, shown: Tensor, key: ViewKey, *, policy: bool = True) -> tuple[Tensor, ViewKey]:
        """The teacher's pictures and the key of their views.

        Args:
            images: uint8 ``(B, C, H, W)`` from the loader.
            shown: What :meth:`student` gave, mixed or not.
            key: Its key.
            policy: As for the student.
        """
        if self.teacher_view == "same":
            return shown, key
        if self.teacher_view == "clean":
            return self._made(self.plain, images, key.index, key.view)
        return self._made(self.augment if policy else self.plain, images, key.index, key.view + INDEPENDENT)
