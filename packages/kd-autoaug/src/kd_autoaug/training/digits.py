"""The small digits set of the laptop claim: 400 of scikit-learn's handwritten digits to learn from, 1,397 to test on.

Little to learn from is the point: with the usual 1,437 pictures a network is right without any augmentation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effkit.data import MemoryDataModule, load_digits
from effkit.data.sampling import mix_seed
from effkit.errors import UserError

__all__ = ["DigitsSmall", "load_digits_small"]

PICTURES = 1797


def load_digits_small(
    split_seed: int = 0, train_size: int = 400, image_size: int = 8, in_chans: int = 1
) -> dict[str, tuple[Tensor, Tensor]]:
    """Load the digits and draw a stratified training part; all other pictures are the test part.

    Args:
        split_seed: Which pictures are drawn; runs of several seeds also differ in their split.
        train_size: Pictures of the training part.
        image_size: Side in pixels; other than 8 is bilinear interpolation.
        in_chans: The grey channel is repeated this many times.

    Returns:
        ``train`` and ``test``: images ``(N, in_chans, image_size, image_size)`` in -1..1, labels ``(N,)``.

    Raises:
        UserError: If the parts would not hold every class.
    """
    if not 10 <= train_size <= PICTURES - 10:
        raise UserError(
            f"data.train_size={train_size!r} must be in 10..{PICTURES - 10}: both parts need all 10 classes"
        )
    parts = load_digits(image_size, in_chans)
    images, labels = (torch.cat([parts[split][i] for split in ("train", "test")]) for i in (0, 1))
    chosen = _stratified(labels, train_size, split_seed)
    return {"train": (images[chosen], labels[chosen]), "test": (images[~chosen], labels[~chosen])}


def _stratified(labels: Tensor, size: int, seed: int) -> Tensor:
    """Draw ``size`` samples with the classes in proportion: bool ``(N,)``."""
    counts = torch.bincount(labels)
    shares = counts.double() * size / len(labels)
    wanted = shares.floor().long()
    short = size - int(wanted.sum())
    wanted[(shares - wanted).argsort(descending=True, stable=True)[:short]] += 1  # the largest remainders
    generator = torch.Generator().manual_seed(mix_seed(seed))
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in enumerate(wanted.tolist()):
        members = (labels == label).nonzero()[:, 0]
        chosen[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return chosen


class DigitsSmall(MemoryDataModule):
    """The small digits set in memory. Validation and test are the same pictures.

    Args:
        batch_size: Images per batch.
        image_size: Side in pixels; 8 is the pictures' own.
        in_chans: How often the grey channel is repeated.
        split_seed: Seed of the split; ``None`` takes ``seed``.
        train_size: Pictures to learn from.
        seed: Seed of the training order.
        limit: At most this many pictures of each split.
        drop_last: Leave an incomplete last training batch out.
        repeats: Copies of a picture per epoch, each augmented differently.
        num_workers: Accepted for uniformity; tensors in memory need no loader processes.

    Raises:
        UserError: If a value is out of range.
    """

    def __init__(
        self,
        batch_size: int = 64,
        image_size: int = 8,
        in_chans: int = 1,
        split_seed: int | None = None,
        train_size: int = 400,
        seed: int = 0,
        limit: int | None = None,
        drop_last: bool = False,
        repeats: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            "digits_small",
            augment="none",
            class_names=[str(d) for d in range(10)],
            image_size=image_size,
            in_chans=in_chans,
            mean=0.5,
            std=0.5,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            limit=limit,
            drop_last=drop_last,
            repeats=repeats,
        )
        self.split_seed = seed if split_seed is None else split_seed
        self.train_size = train_size

    def arrays(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Load and split at this module's size."""
        return load_digits_small(self.split_seed, self.train_size, self.image_size, self.in_chans)
