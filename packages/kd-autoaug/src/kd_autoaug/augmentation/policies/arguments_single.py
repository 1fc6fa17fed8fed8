"""Arguments of a policy's entries at a size of pictures, one number at a time: what ``Sampler.at`` has as a tensor."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from kd_autoaug.augmentation.policies.bins import BinSpace
from kd_autoaug.augmentation.policies.law import HEIGHT, WIDTH
from kd_autoaug.augmentation.policies.sampling import Sampler
from kd_autoaug.augmentation.policies.space import LawSpace
from kd_autoaug.ops.operators import Op

__all__ = ["arguments_of"]

Size = tuple[int, int]
Read = Callable[[int, int, Size], float]
_SIDES_KEPT = 1024


def arguments_of(table: Sampler) -> Read:
    """What to call with an entry, a place in the flat tensor of arguments, and height and width.

    Pictures that come alone come in many sizes, so for the package's spaces nothing is made for a size but the number
    that is wanted. Of a space of another class only its tensor of a size is known: that is made and read.
    """
    space = table.policy.space
    if type(space) is LawSpace:
        return _of_laws(table, space)
    if type(space) is BinSpace:
        return _of_bins(table, space)

    @lru_cache(maxsize=64)
    def whole(size: Size) -> list[float]:
        return table.at(size, torch.device("cpu")).flatten().tolist()

    return lambda entry, place, size: whole(size)[place]


def _of_laws(table: Sampler, space: LawSpace) -> Read:
    """With noise the factor of the side alone, else it times what the law gives."""
    sides = [space.laws[op].side for op in table.ops]
    base = [1.0] * len(sides) if table.policy.noise is not None else table.base.flatten().tolist()

    def read(entry: int, place: int, size: Size) -> float:
        side = sides[entry]
        return base[place] * size[1] if side == WIDTH else base[place] * size[0] if side == HEIGHT else base[place]

    return read


def _of_bins(table: Sampler, space: BinSpace) -> Read:
    base: list[float] = table.base.flatten().tolist()

    @lru_cache(maxsize=_SIDES_KEPT)
    def pixels(op: Op, side: int) -> list[float]:
        found = space.magnitudes(op, (side, side))
        assert found is not None
        return found.double().trunc().tolist()

    def read(entry: int, place: int, size: Size) -> float:
        op = table.ops[entry]
        if op is not Op.TRANSLATE_X and op is not Op.TRANSLATE_Y:
            return base[place]
        moved = pixels(op, size[1] if op is Op.TRANSLATE_X else size[0])[int(base[place])]
        return moved if place & 1 else -moved  # the places of a level are those of the sign plus and minus

    return read
