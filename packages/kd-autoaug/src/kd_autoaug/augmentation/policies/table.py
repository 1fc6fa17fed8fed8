"""The table of a policy: which operators, how strongly, with what probability. Data; nothing is drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from effkit.errors import UserError
from kd_autoaug.augmentation.policies.entries import Entry, check_probability, entry
from kd_autoaug.augmentation.policies.mixture import Mixture
from kd_autoaug.augmentation.policies.options import Noise, checked, look_of, noise_of, weights_of
from kd_autoaug.augmentation.policies.space import Fill, Space
from kd_autoaug.augmentation.policies.spaces import space as find_space
from kd_autoaug.ops.operators import Op, operator

__all__ = ["PolicyTable"]


class PolicyTable:
    """Sub-policies (one is drawn, its slots are applied in order) or operators (one is drawn per layer).

    Attributes:
        name: Its name.
        num_layers: Operators per picture.
        rows: The sub-policies, or rows of one operator.
        draws: 0: one row is drawn per picture. Otherwise: this many rows, one per layer.
        weights: Of the rows, or ``None``.
        noise: Of the levels, or ``None``.
        random_bin: Whether the level is drawn from all bins of the space.
        fill: Colour of what an affine operator leaves empty.
        cutout_fill: Colour of cutout; ``None``: ``fill``.
        interpolation: Pillow's numbers, one of which is drawn per operation.
        space: The space of the levels.
        mixture: How the layers are chains that are mixed (AugMix); ``None``: they are one chain.
    """

    def __init__(
        self,
        name: str,
        rows: Sequence[Sequence[Entry]],
        *,
        space: Space,
        draws: int = 0,
        weights: Sequence[float] | None = None,
        noise: Noise | None = None,
        random_bin: bool = False,
        fill: Fill | None = None,
        cutout_fill: Fill | None = None,
        interpolation: Sequence[int] | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        """Hold a checked table; the class methods make one from what a user writes.

        Args:
            name: Its name.
            rows: Sub-policies; with ``draws``, rows of one entry, the operators to draw from.
            space: The space of the levels.
            draws: 0: one row is drawn per picture. Otherwise: this many rows, one per layer.
            weights: Of the rows; with weights, rows are drawn without replacement (timm's rule).
            noise: Of the levels.
            random_bin: Draw the level uniformly from all bins of the space (TrivialAugment).
            fill: Instead of the space's.
            cutout_fill: Instead of the space's.
            interpolation: Pillow's numbers, one of which is drawn per operation; instead of the space's.
            mixture: Mix chains of layers, with ``draws`` as many as they have operators in all.
        """
        self.name, self.mixture = name, mixture
        self.space = space
        self.rows = tuple(tuple(row) for row in rows)
        self.draws, self.weights, self.noise, self.random_bin = draws, weights, noise, random_bin
        self.num_layers = draws or max((len(row) for row in self.rows), default=0)
        self.fill = space.fill if fill is None else fill
        self.cutout_fill = space.cutout_fill if cutout_fill is None else cutout_fill
        self.interpolation = tuple(space.interpolation if interpolation is None else interpolation)

    @classmethod
    def from_subpolicies(
        cls,
        subpolicies: Sequence[Sequence[Sequence[object]]],
        *,
        name: str = "subpolicies",
        space: str | Space = "torchvision",
        bins: int | None = None,
        extrapolate: bool = False,
        mstd: float = 0.0,
        mmax: float | None = None,
        **look: Any,
    ) -> Self:
        """A policy of your own sub-policies.

        Args:
            subpolicies: Rows of ``(operator, probability, level)``; the level may be left out where there is none.
            name: Its name.
            space: Space of the levels.
            bins: Number of bins, in a space with bins.
            extrapolate: Allow levels above the space's maximum.
            mstd: Standard deviation of the levels, in levels; infinity: uniform from 0 to the level.
            mmax: Upper bound of levels with noise.
            **look: ``fill``, ``cutout_fill``, ``interpolation``.

        Returns:
            The policy.

        Raises:
            UserError: If there is no sub-policy, or an entry is wrong.
        """
        found = find_space(space, bins=bins)
        if not subpolicies or not all(len(row) for row in subpolicies):
            raise UserError(
                f"subpolicies={subpolicies!r} must be a list of sub-policies with at least one operator each"
            )
        rows = []
        for i, row in enumerate(subpolicies):
            entries = [entry(f"subpolicies[{i}][{j}]", given) for j, given in enumerate(row)]
            rows.append([checked(f"subpolicies[{i}][{j}]", e, found, extrapolate) for j, e in enumerate(entries)])
        noise = noise_of(found, mstd, mmax, extrapolate)
        return cls(name, rows, space=found, noise=noise, **look_of(look))

    @classmethod
    def random(
        cls,
        *,
        n: int = 2,
        m: float | None = None,
        space: str | Space = "tf_tpu",
        ops: str | Sequence[str | Op] | None = None,
        prob: float | None = None,
        weights: Sequence[float] | None = None,
        mstd: float = 0.0,
        mmax: float | None = None,
        bins: int | None = None,
        extrapolate: bool = False,
        name: str = "randaugment",
        **look: Any,
    ) -> Self:
        """RandAugment: n operators drawn uniformly with replacement, all at level m.

        Args:
            n: Operators per picture.
            m: Level in the space; ``None``: drawn uniformly from the bins of the space (TrivialAugment).
            space: Space of the level.
            ops: Operators to draw from, a list or names joined by plus signs; ``None``: the space's own list.
            prob: Probability with which each layer is applied; ``None``: the space's (1, in timm's 0.5).
            weights: Of the operators; with weights they are drawn without replacement.
            mstd: Standard deviation of the level, in levels; infinity: uniform from 0 to m.
            mmax: Upper bound of levels with noise.
            bins: Number of bins, in a space with bins.
            extrapolate: Allow a level above the space's maximum.
            name: Its name.
            **look: ``fill``, ``cutout_fill``, ``interpolation``.

        Returns:
            The policy.

        Raises:
            UserError: If a value is out of range.
        """
        found = find_space(space, bins=bins)
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 64:
            raise UserError(f"n={n!r} must be an integer from 1 to 64: the operators per picture")
        ops = ops.split("+") if isinstance(ops, str) else ops
        given = found.operators if ops is None else [o if isinstance(o, Op) else operator(o) for o in ops]
        if not given:
            raise UserError("ops=[] must name at least one operator")
        if m is None and not hasattr(found, "bins"):
            raise UserError(f"m=None draws from the bins of a space, but {found.name} has none: give a level")
        p = found.prob if prob is None else check_probability("prob", prob)
        level = 0.0 if m is None else found.check_level("m", m, extrapolate=extrapolate)
        rows = [[Entry(found.check_operator("ops", op), p, level)] for op in given]
        return cls(
            name,
            rows,
            space=found,
            draws=n,
            weights=weights_of(weights, len(rows), n),
            noise=noise_of(found, mstd, mmax, extrapolate),
            random_bin=m is None,
            **look_of(look),
        )

    def operators(self) -> list[str]:
        """Names of the operators that occur with a probability above 0, in the order of their numbers."""
        return [op.name.lower() for op in sorted({e.op for row in self.rows for e in row if e.prob > 0})]

    def __repr__(self) -> str:
        facts = f"space={self.space.name!r}, rows={len(self.rows)}, num_layers={self.num_layers}"
        return f"{type(self).__name__}({self.name!r}, {facts})"
