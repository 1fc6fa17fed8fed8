"""scikit-learn's handwritten digits: 1,797 real 8 x 8 grey pictures that ship with the library, no download."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effkit.data.facts import FACTS
from effkit.data.memory import MemoryDataModule, to_bytes
from effkit.data.sampling import mix_seed
from effkit.errors import UserError

__all__ = ["Digits", "load_digits"]

PICTURES = 1797
TEST_SIZE = 360
SPLIT_SEED = 0  # of the fixed split only: it never changes, whatever the seed of the run


def load_digits(
    image_size: int | tuple[int, int] = 32, in_chans: int = 3, *, train_size: int | None = None, split_seed: int = 0
) -> dict[str, tuple[Tensor, Tensor]]:
    """Load the digits with a stratified split.

    Args:
        image_size: Side in pixels (or height and width), reached from 8 by bilinear interpolation.
        in_chans: The grey channel is repeated this many times.
        train_size: Pictures to learn from, drawn by ``split_seed``; all others are for the test. ``None`` takes the
            fixed split of 1,437 and 360 pictures.
        split_seed: Of the draw.

    Returns:
        ``train`` and ``test``: images ``(N, in_chans, image_size, image_size)`` in bytes (grey value x 255 / 16,
        rounded once, after the interpolation), labels ``(N,)``.

    Raises:
        UserError: If the parts would not hold every class.
    """
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    data = sklearn_digits()
    grey = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    images = to_bytes(F.interpolate(grey, size=size, mode="bilinear", align_corners=False)).repeat(1, in_chans, 1, 1)
    labels = torch.from_numpy(data.target).long()
    train, test = train_test_split(
        range(len(labels)), test_size=TEST_SIZE, stratify=data.target, random_state=SPLIT_SEED
    )
    if train_size is not None:
        order = torch.tensor([*train, *test])
        images, labels = images[order], labels[order]
        train = _stratified(labels, check_train_size(train_size), split_seed)
        test = ~train
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}


def check_train_size(train_size: int) -> int:
    """Return a number of training pictures that leaves both parts all classes.

    Raises:
        UserError: If it does not.
    """
    if isinstance(train_size, bool) or not isinstance(train_size, int) or not 10 <= train_size <= PICTURES - 10:
        raise UserError(
            f"data.train_size={train_size!r} must be in 10..{PICTURES - 10}: both parts need all 10 classes"
        )
    return train_size


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


class Digits(MemoryDataModule):
    """The digits in memory, for training in seconds on a CPU. Validation and test are the same pictures.

    Args:
        batch_size: Images per batch.
        image_size: Side in pixels; the pictures are enlarged from 8.
        in_chans: How often the grey channel is repeated.
        augment: ``"none"`` or ``"shift"``.
        train_size: Pictures to learn from; ``None`` for the fixed split, 1,437 of 1,797.
        split_seed: Which ones, where ``train_size`` is given; ``None`` takes ``seed``.
        name: The data set's name in reports.
        **options: Those of every data set, see ``effkit.data.base.OPTIONS``.

    Raises:
        UserError: If a value is out of range.
    """

    kind = "digits"

    def __init__(
        self,
        batch_size: int = 32,
        image_size: int = 32,
        in_chans: int = 3,
        augment: str | None = "none",
        train_size: int | None = None,
        split_seed: int | None = None,
        name: str = "digits",
        **options: Any,
    ) -> None:
        super().__init__(
            name,
            class_names=FACTS[self.kind].class_names,
            batch_size=batch_size,
            image_size=image_size,
            in_chans=in_chans,
            augment=augment,
            **options,
        )
        self.train_size = None if train_size is None else check_train_size(train_size)
        self.split_seed = self.seed if split_seed is None else split_seed

    def arrays(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Load the two splits at this module's size."""
        return load_digits(
            self.preprocessing.size, self.in_chans, train_size=self.train_size, split_seed=self.split_seed
        )
