"""What a space of magnitudes is: one frozen table from operator and level to argument, and how it is applied."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from kd_autoaug.augmentation.policies.law import HEIGHT, WIDTH, Law, evaluate, stack
from kd_autoaug.ops.operators import NEAREST, Op

__all__ = ["Fill", "LawSpace", "Space"]

Fill = int | tuple[int, ...]


@dataclass(frozen=True)
class Space(ABC):
    """A named space of magnitudes.

    Attributes:
        name: Its name.
        source: Where its figures are from.
        operators: RandAugment's choice in this space, in the source's order.
        maximum: The largest level; the smallest is 0.
        interpolation: Pillow's numbers of the interpolations from which each operation draws one.
        fill: Colour of what an affine operator leaves empty.
        cutout_fill: Colour of cutout; ``None``: ``fill``.
        cutout: How a cutout's box comes about (:mod:`~kd_autoaug.augmentation.policies.boxes`).
        prob: Probability with which RandAugment applies each layer in this space.
        blur_from: Narrowest Gaussian blur; the width is drawn uniformly from it to the argument.
    """

    name: str
    source: str
    operators: tuple[Op, ...]
    maximum: float
    interpolation: tuple[int, ...] = (NEAREST,)
    fill: Fill = 0
    cutout_fill: Fill | None = None
    cutout: str = "none"
    prob: float = 1.0
    blur_from: float = 0.1

    @abstractmethod
    def knows(self, op: Op) -> bool:
        """Whether the space has a law for the operator."""

    @abstractmethod
    def check_level(self, what: str, level: float, *, extrapolate: bool = False) -> float:
        """The level, if it is in the space.

        Raises:
            UserError: If it is not.
        """

    def check_operator(self, what: str, op: Op) -> Op:
        """The operator, if the space has it.

        Raises:
            UserError: If it has not; names those it has.
        """
        if not self.knows(op):
            known = ", ".join(o.name.lower() for o in Op if self.knows(o))
            raise UserError(f"{what}={op.name.lower()!r} has no magnitude in space {self.name}, which has {known}")
        return op

    @abstractmethod
    def base(self, ops: Sequence[Op], levels: Tensor) -> Tensor:
        """Arguments up to what depends on the size of the picture.

        Args:
            ops: E operators.
            levels: J levels of each, float64 ``(E, J)``.

        Returns:
            With the sign plus and minus, float64 ``(E, J, 2)``.
        """

    @abstractmethod
    def at_size(self, ops: Sequence[Op], base: Tensor, size: tuple[int, int]) -> Tensor:
        """Arguments for pictures of a size (height, width), float64 ``(E, J, 2)``; affine translations in pixels."""

    def argument(self, op: Op, level: float, size: tuple[int, int], *, negative: bool = False) -> float:
        """One argument in the units of ``ops.operators.ARGUMENTS``.

        Args:
            op: The operator.
            level: Level of this space.
            size: Height and width of the picture.
            negative: Whether the sign drawn is minus.

        Returns:
            The argument; of cutout its extent in pixels.
        """
        base = self.base([op], torch.tensor([[float(level)]], dtype=torch.float64))
        return float(self.at_size([op], base, size)[0, 0, int(negative)])


@dataclass(frozen=True)
class LawSpace(Space):
    """A space with a law per operator; levels are real numbers, noise may be added to them.

    Attributes:
        laws: The law of each operator.
        denominator: What the source divides a level by.
    """

    laws: Mapping[Op, Law] = field(default_factory=lambda: MappingProxyType({}))
    denominator: float = 10.0

    def __post_init__(self) -> None:
        """Freeze the laws; the identity, which fills short sub-policies, is in every space."""
        object.__setattr__(self, "laws", MappingProxyType({Op.IDENTITY: Law(), **self.laws}))

    def __reduce__(self) -> tuple[object, ...]:
        """Read-only mappings cannot be pickled: send the laws as a dict."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return _rebuild, (type(self), {**values, "laws": dict(self.laws)})

    def knows(self, op: Op) -> bool:
        """Whether the space has a law for the operator."""
        return op in self.laws

    def check_level(self, what: str, level: float, *, extrapolate: bool = False) -> float:
        """The level, if it is in the space.

        Raises:
            UserError: If it is negative, no number, or above the space's maximum without ``extrapolate``.
        """
        number = isinstance(level, int | float) and not isinstance(level, bool)
        if number and level >= 0 and (level <= self.maximum or (extrapolate and level < float("inf"))):
            return float(level)
        more = "" if extrapolate else " (extrapolate=true allows more)"
        raise UserError(f"{what}={level!r} is outside space {self.name}, which has 0 to {self.maximum:g}{more}")

    def base(self, ops: Sequence[Op], levels: Tensor) -> Tensor:
        """See :meth:`Space.base`."""
        coefficients = stack([self.laws[op] for op in ops])[:, :, None, None]
        negative = torch.tensor([False, True])
        return evaluate(coefficients, (levels / self.denominator)[..., None].expand(-1, -1, 2), negative)

    def sides(self, ops: Sequence[Op], size: tuple[int, int]) -> Tensor:
        """What the arguments of E operators are multiplied by at a size (height, width), float64 ``(E,)``."""
        factor = {WIDTH: size[1], HEIGHT: size[0]}
        return torch.tensor([float(factor.get(self.laws[op].side, 1)) for op in ops], dtype=torch.float64)

    def at_size(self, ops: Sequence[Op], base: Tensor, size: tuple[int, int]) -> Tensor:
        """See :meth:`Space.at_size`."""
        return base * self.sides(ops, size)[:, None, None]


def _rebuild(kind: type[LawSpace], values: dict[str, Any]) -> LawSpace:
    return kind(**values)
