"""Which view of which picture a batch holds: student, teacher and cache must speak of the same one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["ViewKey"]


@dataclass(frozen=True, eq=False)
class ViewKey:
    """Names the augmented pictures of a batch: equal keys mean equal pixels.

    Attributes:
        index: Numbers of the pictures in the data set, int64 ``(B,)``.
        view: Which view of each, int64 ``(B,)``.
        augment: ``BatchAugment.fingerprint()`` of what made the views.
    """

    index: Tensor
    view: Tensor
    augment: str

    def __post_init__(self) -> None:
        for field in ("index", "view"):
            value = getattr(self, field)
            if value.ndim != 1 or value.dtype != torch.int64:
                raise UserError(f"{field} must be int64 of shape (B,), got {value.dtype} of shape {tuple(value.shape)}")
        if len(self.index) != len(self.view):
            raise UserError(
                f"index has {len(self.index)} entries and view {len(self.view)}: give one of each a picture"
            )

    def __len__(self) -> int:
        return len(self.index)

    def check(self, other: ViewKey, what: str) -> None:
        """Refuse a key of other views.

        The tensors of one key used twice are recognised without looking at them; others are compared, which on a GPU
        waits for the device.

        Args:
            other: The key that must be the same.
            what: Whose key ``other`` is, for the message, e.g. ``"teacher"``.

        Raises:
            UserError: For the first of ``augment``, ``index`` and ``view`` that differs, with both values.
        """
        if self.augment != other.augment:
            raise UserError(
                f"augment of the {what} is {other.augment[:12]}, expected {self.augment[:12]}: its views were made by "
                "another augmentation (seed, policy, crop, flip or cutout differ)"
            )
        for field in ("index", "view"):
            ours, theirs = getattr(self, field), getattr(other, field)
            if ours is theirs:
                continue
            if len(ours) != len(theirs):
                raise UserError(f"{field} of the {what} has {len(theirs)} entries, expected {len(ours)}")
            theirs = theirs.to(ours.device)
            if torch.equal(ours, theirs):
                continue
            place = int((ours != theirs).nonzero()[0])
            raise UserError(
                f"{field} of the {what} is {int(theirs[place])} at place {place}, expected {int(ours[place])}: "
                "it looks at another view than the student"
            )
