"""A policy: which operator, how strongly, with what probability, drawn for every picture by its own numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from effkit.arguments import check_arguments, named_below
from effkit.errors import UserError, written
from kd_autoaug.augmentation.policies.entries import Entry
from kd_autoaug.augmentation.policies.names import named_table
from kd_autoaug.augmentation.policies.sampling import Sampler
from kd_autoaug.augmentation.policies.sampling_single import SingleSampler
from kd_autoaug.augmentation.policies.space import LawSpace
from kd_autoaug.augmentation.policies.table import PolicyTable
from kd_autoaug.augmentation.policies.timm_strings import timm_table
from kd_autoaug.augmentation.rng import VERSION
from kd_autoaug.ops.layers import Layer

__all__ = ["Policy"]


class Policy(PolicyTable):
    """A policy of sub-policies (one is drawn, its slots are applied in order) or of random operators (one per layer).

    Make one by :meth:`from_name`, :meth:`from_config`, :meth:`from_timm`, :meth:`from_subpolicies` or :meth:`random`.

    Attributes:
        name: Its name.
        num_layers: Operators per picture.
        fill: Colour of what an affine operator leaves empty.
        cutout_fill: Colour of cutout; ``None``: ``fill``.
        space: The space of its levels.
    """

    def __init__(self, name: str, rows: Sequence[Sequence[Entry]], **options: Any) -> None:
        """Hold a checked table; the class methods make one from what a user writes.

        Args:
            name: Its name.
            rows: See :class:`PolicyTable`.
            **options: Of :class:`PolicyTable`.
        """
        super().__init__(name, rows, **options)
        self._sampler = Sampler(self)

    @classmethod
    def of(cls, table: PolicyTable) -> Self:
        """The policy of a table."""
        return cls(
            table.name,
            table.rows,
            space=table.space,
            draws=table.draws,
            weights=table.weights,
            noise=table.noise,
            random_bin=table.random_bin,
            fill=table.fill,
            cutout_fill=table.cutout_fill,
            interpolation=table.interpolation,
            mixture=table.mixture,
        )

    @classmethod
    def from_name(cls, text: str, **options: Any) -> Self:
        """A policy by name, such as ``"autoaugment-imagenet"`` or ``"randaugment(n=2,m=9,space=tf_tpu)"``.

        Args:
            text: A name of :mod:`~kd_autoaug.augmentation.policies.names`, with options in brackets if wanted, or a
                timm string.
            **options: The same options as keywords.

        Returns:
            The policy.

        Raises:
            UserError: If the name or an option is not known, or a value is out of range.
        """
        return cls.of(named_table(text, **options))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A policy of a mapping with ``name`` and the options of :meth:`from_name`; ``None`` is not given.

        Raises:
            UserError: As :meth:`from_name`, and if there is no ``name``.
        """
        given = {str(k): v for k, v in config.items() if v is not None}
        if not isinstance(given.get("name"), str):
            name = written(given.get("name"))
            raise UserError(f"policy.name={name} must be the name of a policy, such as 'randaugment'")
        check_arguments(PolicyTable.random, given, "policy.")
        with named_below("policy.", given):
            return cls.from_name(given.pop("name"), **given)

    @classmethod
    def from_timm(cls, text: str, hparams: Mapping[str, Any] | None = None) -> Self:
        """A policy of one of timm's strings, such as ``"rand-m9-mstd0.5-inc1"``.

        Args:
            text: The string.
            hparams: timm's; see :func:`~kd_autoaug.augmentation.policies.timm_strings.timm_table`.

        Raises:
            UserError: If the string has a part timm does not know, or needs what is no operator here.
        """
        return cls.of(timm_table(text, hparams))

    def sample(
        self, seed: int, index: Tensor, view: Tensor | int, size: tuple[int, int], *, backend: str = "auto"
    ) -> list[Layer]:
        """What is done to each picture: a function of (seed, index, view) alone.

        Args:
            seed: 0 to 2^64 - 1.
            index: The samples' numbers, int64 ``(B,)``; its device is where the work is done.
            view: The view's number, one for all or int64 ``(B,)``.
            size: Height and width of the pictures.
            backend: ``"triton"`` draws in one launch, others by tensor operations; ``"auto"`` takes what suits the
                device. The bits are the same.

        Returns:
            ``num_layers`` layers of B operators; of a mixture, chain after chain.

        Raises:
            UserError: If ``seed`` is no seed, or the backend is not known or cannot run.
        """
        return self._sampler.sample(seed, index, view, size, backend)

    @cached_property
    def single(self) -> SingleSampler:
        """Draws for one picture at a time what :meth:`sample` draws for many."""
        return SingleSampler(self._sampler)

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
            # Only where there is one: what was kept under earlier fingerprints stays valid.
            **({"blur_from": self.space.blur_from} if self._sampler.has_blur else {}),
            **({"mixture": [self.mixture.width, self.mixture.depth]} if self.mixture is not None else {}),
        }

    def fingerprint(self) -> str:
        """SHA-256 over everything that decides about the pictures, as 64 hexadecimal digits; the name does not."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        # Tables of a device stay on this side.
        return {k: v for k, v in self.__dict__.items() if k not in ("_sampler", "single")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._sampler = Sampler(self)
