"""What kind of ghosts a network has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose

__all__ = ["PRESETS", "GhostConfig", "intrinsic_count", "read_ghost"]

ORDERS = ("concat", "index")
SHIFTS = ("learned", "fixed", "random", "copy", "depthwise")
GRANULARITIES = ("layer", "group", "channel")
DIRECTIONS = ("all9", "axis5", "all")
ESTIMATORS = ("st_gumbel_softmax", "official")


def intrinsic_count(channels: int, ghost_ratio: float) -> int:
    """Channels that are computed: the official ``ceil(channels (1 - ghost_ratio))``, safe against 28.999...

    Raises:
        UserError: If the ratio is not in [0, 1).
    """
    ratio = ghost_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
        raise UserError(f"ghost_ratio={ratio!r} must be a number from 0 to below 1")
    return channels - math.floor(ratio * channels + 1e-9)


@dataclass(frozen=True)
class GhostConfig:
    """How a convolution gets its ghosts.

    Args:
        ghost_ratio: Share of the channels that is not computed, in [0, 1); 0 is a plain convolution.
        shift: ``learned``; ``fixed`` (``direction`` for all); ``random`` (drawn once); ``copy`` (no move); or
            ``depthwise``, a learnt depthwise convolution instead, as a baseline.
        direction: Of ``fixed``: ``(dy, dx)``.
        order: ``concat``: intrinsic maps, then ghosts; ``index``: maps stay at the places they have in a dense layer.
        granularity: Ghosts with one direction: of a ``layer``, a ``group`` of channels, or one ``channel``.
        shift_groups: How many groups of channels, for ``group``.
        max_shift: d: directions go from -d to d.
        directions: ``all9`` (all of them, for any d also called ``all``) or ``axis5``: none, and along one axis.
        estimator: ``st_gumbel_softmax``: largest logit, gradient of the softmax; ``official``: largest magnitude,
            identity.
        tau: Temperature of the softmax that the gradient is of.
        noise_decay: Scale of the noise is ``noise_decay ** (epoch - 1)``.
    """

    ghost_ratio: float = 0.5
    shift: str = "learned"
    direction: tuple[int, int] = (0, 1)
    order: str = "concat"
    granularity: str = "layer"
    shift_groups: int = 4
    max_shift: int = 1
    directions: str = "all9"
    estimator: str = "st_gumbel_softmax"
    tau: float = 1.0
    noise_decay: float = 0.97

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", tuple(self.direction))
        check_arguments(GhostConfig, dataclasses.asdict(self), "ghost.")
        intrinsic_count(1, self.ghost_ratio)
        choose("ghost.shift", self.shift, SHIFTS)
        choose("ghost.order", self.order, ORDERS)
        choose("ghost.granularity", self.granularity, GRANULARITIES)
        choose("ghost.directions", self.directions, DIRECTIONS)
        choose("ghost.estimator", self.estimator, ESTIMATORS)
        if self.max_shift < 0:
            raise UserError(f"ghost.max_shift={self.max_shift} must be 0 or more")
        if self.directions == "all9" and self.max_shift > 1:
            object.__setattr__(self, "directions", "all")
        if self.shift == "fixed" and max(map(abs, self.direction)) > self.max_shift:
            raise UserError(f"ghost.direction={self.direction} must be within ghost.max_shift={self.max_shift}")
        if self.shift_groups < 1:
            raise UserError(f"ghost.shift_groups={self.shift_groups} must be 1 or more")
        if self.tau <= 0:
            raise UserError(f"ghost.tau={self.tau} must be above 0")
        if not 0 < self.noise_decay <= 1:
            raise UserError(f"ghost.noise_decay={self.noise_decay} must be above 0 and at most 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as :func:`read_ghost` takes them."""
        return {**dataclasses.asdict(self), "direction": list(self.direction)}


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "official": {"estimator": "official"},
    "copy": {"shift": "copy"},
    "random": {"shift": "random"},
    "depthwise": {"shift": "depthwise"},
    "learned_group": {"granularity": "group"},
    "learned_channel": {"granularity": "channel"},
}
"""Kinds of ghosts by name."""


def read_ghost(value: Any) -> GhostConfig | None:
    """A kind of ghosts as a user gives it.

    Args:
        value: ``None`` or ``"none"``, a key of :data:`PRESETS`, a mapping of fields (with ``preset``: what the others
            change), or a config.

    Returns:
        ``None`` for a dense network.

    Raises:
        UserError: If it is none of these, or a value is not allowed.
    """
    if value is None or isinstance(value, GhostConfig):
        return value
    if isinstance(value, str):
        if value == "none":
            return None
        return GhostConfig(**PRESETS[choose("ghost", value, ["none", *PRESETS])])
    if not isinstance(value, Mapping):
        raise UserError(f"ghost={value!r} must be a name, a mapping, or null")
    fields = dict(value)
    known = [f.name for f in dataclasses.fields(GhostConfig)]
    preset = fields.pop("preset", None)
    for key in fields:
        choose("key of ghost", key, ["preset", *known])
    if preset == "none":
        return None
    base = {} if preset is None else PRESETS[choose("ghost.preset", preset, ["none", *PRESETS])]
    return GhostConfig(**{**base, **fields})
