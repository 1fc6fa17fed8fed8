"""Uniform scaling, the baselines of the search: one factor for all stages, solved for an exact budget.

A method spreads a factor s of MACs over depth, width and resolution with weights a, b, c of sum A, as pycls does:
depths by s^(a/A), widths (stem and head among them, where the family has any) by s^(b/2A), resolution by s^(c/2A).
Rounding makes that miss the budget: EfficientNet-B0 asked for twice its MACs by ``fast`` comes to 2.03 times them.
:func:`scale_by_factor` is that, number for number; :func:`scale` solves for the budget.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from effkit.errors import UserError, choose
from greedy_enlarge.families.counting import macs
from greedy_enlarge.families.registry import family_of
from greedy_enlarge.spec import ArchSpec

__all__ = ["METHODS", "scale", "scale_by_factor"]

METHODS: dict[str, tuple[float, float, float]] = {
    "compound": (1, 1, 1),
    "fast": (1, 8, 1),
    "depth": (1, 0, 0),
    "width": (0, 1, 0),
    "resolution": (0, 0, 1),
}
"""Weights of depth, width and resolution; pycls calls the first two d1_w1_r1 and d1_w8_r1."""

_FLIPS = 10  # coordinates whose rounding may change at one factor, looked at in every combination
_DEPTH = 4  # how often one coordinate is held while the others go on


def scale_by_factor(
    spec: ArchSpec, factor: float, method: str = "compound", *, width_step: int | None = None, resolution_step: int = 4
) -> ArchSpec:
    """Scale by a factor of MACs with pycls' rounding, whatever MACs that gives.

    Args:
        spec: The start.
        factor: What the MACs would be multiplied by without rounding.
        method: One of :data:`METHODS`.
        width_step: Multiples that widths are rounded to; the family's if not given.
        resolution_step: Likewise for the picture side.

    Raises:
        UserError: If a value is out of range.

    Example:
        >>> from greedy_enlarge.families import base
        >>> macs(scale_by_factor(base("efficientnet_b0"), 2.0, "fast"))
        781816464
    """
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < 1e6:
        raise UserError(f"factor={factor!r} must be a number above 0 and below 1e6")
    return _Grid.of(spec, method, width_step, resolution_step).at(float(factor), {})


def scale(
    spec: ArchSpec,
    budget: int,
    method: str = "compound",
    *,
    tolerance: float = 0.01,
    width_step: int | None = None,
    resolution_step: int = 4,
) -> ArchSpec:
    """Scale to a MACs budget.

    The factor is solved for. Where the roundings of several coordinates change at the same factor, the combination
    closest to the budget is taken; where one coordinate alone jumps over the budget (the picture side does at
    a multiple of the total stride), it is held on one side of its jump while the others go on.

    Args:
        spec: The start.
        budget: MACs to come to, above or below the start's.
        method: One of :data:`METHODS`.
        tolerance: Largest allowed ``|MACs - budget| / budget``.
        width_step: Multiples that widths are rounded to; the family's if not given.
        resolution_step: Likewise for the picture side.

    Returns:
        The network.

    Raises:
        UserError: If no network of the method comes so close; names the nearest.

    Example:
        >>> from greedy_enlarge.families import base
        >>> abs(macs(scale(base("efficientnet_b0"), 686_802_832, "fast")) / 686_802_832 - 1) < 0.01
        True
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise UserError(f"budget={budget!r} must be a whole number of MACs")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < 0.5:
        raise UserError(f"tolerance={tolerance!r} must be above 0 and below 0.5, e.g. 0.01")
    grid = _Grid.of(spec, method, width_step, resolution_step)
    best = _solve(grid, budget, tolerance, {}, _DEPTH)
    cost = macs(best)
    if abs(cost - budget) > tolerance * budget:
        raise UserError(
            f"budget={budget:,}: {method} scaling of this network comes no closer than {cost:,} MACs "
            f"({100 * (cost / budget - 1):+.2f} %); take that budget, another method, or a larger tolerance"
        )
    return best


@dataclass(frozen=True)
class _Grid:
    """The networks of a method: coordinates are depths, widths, resolution, stem, head."""

    spec: ArchSpec
    start: tuple[int, ...]
    powers: tuple[float, ...]
    steps: tuple[int, ...]
    least: tuple[int, ...]

    @classmethod
    def of(cls, spec: ArchSpec, method: str, width_step: int | None, resolution_step: int) -> _Grid:
        family = family_of(spec)
        if not family.grows:
            raise UserError(f"spec.family={spec.family} is fixed and cannot be scaled; ghostnet_large is what scales")
        a, b, c = METHODS[choose("method", method, list(METHODS))]
        grain = family.width_grain(spec)
        step = grain * max(1, -(-family.width_step // grain)) if width_step is None else width_step
        for name, value in (("width_step", step), ("resolution_step", resolution_step)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name}={value!r} must be a whole number of at least 1")
        if step % grain:
            raise UserError(f"width_step={step} must be a multiple of {grain}, as widths of {spec.family} are")
        # Stem and head scale where they can be chosen: in EfficientNets.
        ends = (spec.stem or family.stem, spec.head or family.head) if family.head else ()
        total, s = a + b + c, spec.stages
        return cls(
            spec,
            (*spec.coordinates(), *ends),
            (*[a / total] * s, *[b / total / 2] * s, c / total / 2, *[b / total / 2] * len(ends)),
            (*[1] * s, *[step] * s, resolution_step, *[step] * len(ends)),
            (*[1] * s, *[step] * s, family.total_stride(spec), *[step] * len(ends)),
        )

    def values(self, factor: float, held: Mapping[int, int]) -> tuple[int, ...]:
        """Coordinates at a factor, some of them held; what the method does not touch stays as it is."""
        row = []
        for i, (value, power, step, least) in enumerate(
            zip(self.start, self.powers, self.steps, self.least, strict=True)
        ):
            scaled = round(value * factor**power / step) * step if power else value
            row.append(held.get(i, max(least, scaled) if power else value))
        return tuple(row)

    def network(self, values: tuple[int, ...]) -> ArchSpec:
        n = 2 * self.spec.stages + 1
        found = self.spec.with_coordinates(values[:n])
        return found.replace(stem=values[n], head=values[n + 1]) if len(values) > n else found

    def at(self, factor: float, held: Mapping[int, int]) -> ArchSpec:
        return self.network(self.values(factor, held))


def _solve(grid: _Grid, budget: int, tolerance: float, held: dict[int, int], depth: int) -> ArchSpec:
    """The network closest to the budget, or the first within the tolerance."""
    low, high = 1e-3, 1e-3
    while macs(grid.at(high, held)) <= budget and high < 1e5:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low * high) ** 0.5
        if macs(grid.at(middle, held)) <= budget:
            low = middle
        else:
            high = middle
    below, above = grid.values(low, held), grid.values(high, held)
    flips = [i for i, (a, b) in enumerate(zip(below, above, strict=True)) if a != b]
    combinations = itertools.product((0, 1), repeat=len(flips)) if len(flips) <= _FLIPS else _prefixes(len(flips))
    tried = []
    for chosen in combinations:
        row = list(below)
        for i, up in zip(flips, chosen, strict=True):
            row[i] = above[i] if up else below[i]
        tried.append(grid.network(tuple(row)))
    best = min(tried, key=lambda net: (abs(macs(net) - budget), macs(net)))
    if abs(macs(best) - budget) <= tolerance * budget or depth == 0:
        return best
    for i in flips:
        for side in (below, above):
            found = _solve(grid, budget, tolerance, {**held, i: side[i]}, depth - 1)
            if abs(macs(found) - budget) < abs(macs(best) - budget):
                best = found
            if abs(macs(best) - budget) <= tolerance * budget:
                return best
    return best


def _prefixes(number: int) -> list[tuple[int, ...]]:
    return [(1,) * i + (0,) * (number - i) for i in range(number + 1)]
