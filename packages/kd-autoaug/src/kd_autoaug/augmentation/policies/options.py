"""The options of a policy, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError, choose
from kd_autoaug.augmentation.policies.entries import Entry
from kd_autoaug.augmentation.policies.space import LawSpace, Space
from kd_autoaug.ops.operators import INTERPOLATIONS

__all__ = ["Noise", "checked", "look_of", "noise_of", "weights_of"]


@dataclass(frozen=True)
class Noise:
    """How levels vary from picture to picture, as in timm.

    Attributes:
        std: Standard deviation of a normal level about the entry's; infinity: uniform from 0 to the entry's.
        upper: The level drawn is clamped to 0..upper.
    """

    std: float
    upper: float


def checked(what: str, e: Entry, space: Space, extrapolate: bool) -> Entry:
    """The entry, if the space has its operator and level.

    Raises:
        UserError: If it has not.
    """
    space.check_operator(f"{what}: operator", e.op)
    return e._replace(level=space.check_level(f"{what}: level", e.level, extrapolate=extrapolate))


def weights_of(weights: Sequence[float] | None, rows: int, n: int) -> tuple[float, ...] | None:
    """The weights of ``rows`` operators, if n of them can be drawn without replacement.

    Raises:
        UserError: If there are too few, or one is negative.
    """
    if weights is None:
        return None
    values = tuple(float(w) for w in weights)
    if len(values) != rows or not all(0 <= w < math.inf for w in values) or sum(w > 0 for w in values) < n:
        raise UserError(
            f"weights={list(weights)!r} must be {rows} numbers of 0 or more, one per operator, at least n={n} above 0"
        )
    return values


def noise_of(space: Space, mstd: float, mmax: float | None, extrapolate: bool) -> Noise | None:
    """The noise of levels; ``None`` if ``mstd`` is 0.

    Raises:
        UserError: If a number is negative, or the space has no levels between its bins.
    """
    for what, value in (("mstd", mstd), ("mmax", mmax)):
        if value is not None and not (isinstance(value, int | float) and value >= 0):
            raise UserError(f"{what}={value!r} must be a number of 0 or more")
    if not mstd:
        return None
    if not isinstance(space, LawSpace):
        raise UserError(f"mstd={mstd!r} needs a space with levels in between, but {space.name} has bins")
    upper = mmax if mmax is not None else math.inf if extrapolate else space.maximum
    return Noise(float(mstd), float(upper))


def look_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check ``fill``, ``cutout_fill`` and ``interpolation``, and leave out what is ``None``.

    Raises:
        UserError: If another option is given, or a value is none.
    """
    allowed = ("fill", "cutout_fill", "interpolation")
    for key in given:
        choose("option", key, allowed)
    out: dict[str, Any] = {}
    for key in ("fill", "cutout_fill"):
        if given.get(key) is not None:
            value = given[key]
            values = [value] if isinstance(value, int) else list(value) if isinstance(value, Sequence) else [None]
            if len(values) not in (1, 3) or not all(type(v) is int and 0 <= v <= 255 for v in values):
                raise UserError(f"{key}={value!r} must be an integer from 0 to 255, or three of them")
            out[key] = value if isinstance(value, int) else tuple(values)
    names = given.get("interpolation")
    if names is not None:
        names = list(names) if isinstance(names, list | tuple) else [names]
        known: dict[Any, int] = dict(INTERPOLATIONS)
        known.update((number, number) for number in INTERPOLATIONS.values())
        if not names or not all(
            isinstance(name, str | int) and not isinstance(name, bool) and name in known for name in names
        ):
            raise UserError(
                f"interpolation={given['interpolation']!r} must be one or several of {', '.join(INTERPOLATIONS)}"
            )
        out["interpolation"] = tuple(known[name] for name in names)
    return out
