"""A policy: which operator, how strongly, with what probability, drawn for every picture by its own numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from effkit.errors import UserError
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import Op, operator
from kd_autoaug.policies.entries import Entry, check_probability, entry
from kd_autoaug.policies.options import Noise, checked, look_of, noise_of, weights_of
from kd_autoaug.policies.sampling import Sampler
from kd_autoaug.policies.space import Fill, LawSpace, Space
from kd_autoaug.policies.spaces import space as find_space
from kd_autoaug.rng import VERSION

__all__ = ["Policy"]


class Policy:
    """A policy of sub-policies (one is drawn, its slots are applied in order) or of random operators (one per layer).

    Make one by :meth:`from_name`, :meth:`from_config`, :meth:`from_subpolicies` or :meth:`random`.

    Attributes:
        name: Its name.
        num_layers: Operators per picture.
        fill: Colour of what an affine operator leaves empty.
        cutout_fill: Colour of cutout; ``None``: ``fill``.
        space: The space of its levels.
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
        """
        self.name = name
        self.space = space
        self.rows = tuple(tuple(row) for row in rows)
        self.draws, self.weights, self.noise, self.random_bin = draws, weights, noise, random_bin
        self.num_layers = draws or max((len(row) for row in self.rows), default=0)
        self.fill = space.fill if fill is None else fill
        self.cutout_fill = space.cutout_fill if cutout_fill is None else cutout_fill
        self.interpolation = tuple(space.interpolation if interpolation is None else interpolation)
        self._sampler = Sampler(self)

    @classmethod
    def from_name(cls, text: str, **options: Any) -> Policy:
        """A policy by name, such as ``"autoaugment-imagenet"`` or ``"randaugment(n=2,m=9,space=tf_tpu)"``.

        Args:
            text: A name of :mod:`~kd_autoaug.policies.names`, with options in brackets if wanted, or a timm string.
            **options: The same options as keywords.

        Returns:
            The policy.

        Raises:
            UserError: If the name or an option is not known, or a value is out of range.
        """
        from kd_autoaug.policies.names import from_name

        return from_name(text, **options)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Policy:
        """A policy of a mapping with ``name`` and the options of :meth:`from_name`; ``None`` is not given.

        Raises:
            UserError: As :meth:`from_name`, and if there is no ``name``.
        """
        given = {str(k): v for k, v in config.items() if v is not None}
        if not isinstance(given.get("name"), str):
            raise UserError(f"policy.name={given.get('name')!r} must be the name of a policy, such as 'randaugment'")
        return cls.from_name(given.pop("name"), **given)

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
    ) -> Policy:
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
    ) -> Policy:
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

    def sample(self, seed: int, index: Tensor, view: Tensor | int, size: tuple[int, int]) -> list[Layer]:
        """What is done to each picture: a function of (seed, index, view) alone.

        Args:
            seed: 0 to 2^64 - 1.
            index: The samples' numbers, int64 ``(B,)``; its device is where the work is done.
            view: The view's number, one for all or int64 ``(B,)``.
            size: Height and width of the pictures.

        Returns:
            ``num_layers`` layers of B operators.
        """
        return self._sampler.sample(seed, index, view, size)

    def operators(self) -> list[str]:
        """Names of the operators that occur with a probability above 0, in the order of their numbers."""
        return [op.name.lower() for op in sorted({e.op for row in self.rows for e in row if e.prob > 0})]

    def describe(self) -> dict[str, Any]:
        """The whole table, in plain values: what :meth:`fingerprint` hashes."""
        # The laws as what comes of them; two sizes, one of unequal sides, tell pixels, widths and heights apart.
        arguments = [self._sampler.arguments(size).flatten().tolist() for size in ((32, 32), (224, 331))]
        return {
            "rng": VERSION,
            "rows": [[[e.op.name, e.prob, e.level] for e in row] for row in self.rows],
            "space": self.space.name,
            "laws": repr(sorted(self.space.laws.items())) if isinstance(self.space, LawSpace) and self.noise else "",
            "arguments": [[round(v, 9) for v in values] for values in arguments],
            "cutout": self.space.cutout,
            "draws": self.draws,
            "weights": self.weights,
            "noise": None if self.noise is None else [self.noise.std, self.noise.upper],
            "random_bin": self.random_bin,
            "fill": self.fill,
            "cutout_fill": self.cutout_fill,
            "interpolation": self.interpolation,
        }

    def fingerprint(self) -> str:
        """SHA-256 over everything that decides about the pictures, as 64 hexadecimal digits; the name does not."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Policy({self.name!r}, space={self.space.name!r}, rows={len(self.rows)}, num_layers={self.num_layers})"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_sampler"}  # tables of a device stay on this side

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._sampler = Sampler(self)
