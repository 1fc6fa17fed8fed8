"""DARTS super-networks whose operations see only a part of the channels (PC-DARTS)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from effkit.errors import UserError
from ws_nas.supernets.darts import DartsSupernet
from ws_nas.supernets.networks.darts import DartsSizes

__all__ = ["PartialDartsSupernet"]


class PartialDartsSupernet(DartsSupernet):
    """DARTS' super-network with operations on one of K parts of the channels; the others go by.

    Args:
        sizes: All sizes.
        space_id: Name and hash of the space.
        partial: K.
        **options: As for :class:`DartsSupernet`.

    Raises:
        UserError: If K does not divide the channels.
    """

    def __init__(self, sizes: DartsSizes, space_id: str, *, partial: int = 4, **options: Any) -> None:
        if isinstance(partial, bool) or not isinstance(partial, int) or partial < 1 or sizes.channels % partial:
            raise UserError(
                f"family.partial={partial!r} must be a whole number that divides the supernet's {sizes.channels} "
                "channels"
            )
        super().__init__(sizes, space_id, partial=partial, **options)

    def run(self, x: Tensor, genotype: tuple[int, ...]) -> Tensor:
        """Refuse: edges that a genotype leaves out would still let their other channels by."""
        raise UserError(
            "a partial supernet mixes channels that no operation sees, so that it has no sub-networks to score: derive "
            "a genotype, and train it by itself"
        )
