"""The numbers a family's layers are listed from: of one network, or of a population as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Net"]


@dataclass
class Net:
    """One network, or many of one kind.

    Attributes:
        depths: Per stage, a number or an array ``(N,)``.
        widths: Likewise.
        side: Picture side, likewise.
        stem: Channels of the stem, likewise.
        head: Channels before the classifier, likewise; 0 where the family derives it.
        classes: Outputs.
        in_chans: Channels of the picture.
        blocks: The family's template, one entry a stage.
    """

    depths: Sequence[Any]
    widths: Sequence[Any]
    side: Any
    stem: Any
    head: Any
    classes: int
    in_chans: int
    blocks: tuple[Any, ...]
