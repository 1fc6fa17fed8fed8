"""The small digits set of the laptop claim: 400 of scikit-learn's handwritten digits to learn from, 1,397 to test on.

Little to learn from is the point: with the usual 1,437 pictures a network is right without any augmentation.
"""

from __future__ import annotations

from typing import Any

from effkit.data import Digits

__all__ = ["DigitsSmall"]


class DigitsSmall(Digits):
    """The small digits set in memory. Validation and test are the same pictures.

    Args:
        batch_size: Images per batch.
        image_size: Side in pixels; 8 is the pictures' own.
        in_chans: How often the grey channel is repeated.
        train_size: Pictures to learn from, drawn with the classes in proportion.
        split_seed: Seed of the draw; ``None`` takes ``seed``.
        **options: Those of every data set, see ``effkit.data.base.OPTIONS``.

    Raises:
        UserError: If a value is out of range.
    """

    def __init__(
        self,
        batch_size: int = 64,
        image_size: int = 8,
        in_chans: int = 1,
        train_size: int = 400,
        split_seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            batch_size, image_size, in_chans, train_size=train_size, split_seed=split_seed, name="digits_small",
            **options,
        )  # fmt: skip
