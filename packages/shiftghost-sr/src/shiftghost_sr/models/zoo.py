"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose
from shiftghost_sr.layers.config import GhostConfig, read_ghost
from shiftghost_sr.models.carn import CARN
from shiftghost_sr.models.edsr import EDSR
from shiftghost_sr.models.imdn import IMDN
from shiftghost_sr.models.rdn import RDN
from shiftghost_sr.models.vdsr import VDSR

__all__ = [
    "MODELS",
    "Identity",
    "carn",
    "carn_m",
    "create_model",
    "edsr",
    "edsr_baseline",
    "identity_of",
    "imdn",
    "rdn",
    "vdsr",
]

_BUILDERS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "edsr": (EDSR, {}),
    "edsr_baseline": (EDSR, {"blocks": 16, "features": 64, "res_scale": 1.0}),
    "rdn": (RDN, {}),
    "carn": (CARN, {}),
    "carn_m": (CARN, {"groups": 4, "shared": True}),
    "imdn": (IMDN, {}),
    "imdn_ntire": (IMDN, {"blocks": 8, "attention": False, "fusion": False}),
    "vdsr": (VDSR, {}),
}

MODELS = tuple(_BUILDERS)
"""Names that :func:`create_model` knows."""


@dataclass(frozen=True)
class Identity:
    """What a network was made from, and can be made from again.

    Args:
        name: Of :data:`MODELS`.
        scale: 2, 3, 4 or 8.
        ghost: Kind of ghosts; ``None``: dense.
        size: Arguments of the class that differ from the name's own.
    """

    name: str
    scale: int
    ghost: GhostConfig | None
    size: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as :func:`create_model` takes them."""
        ghost = None if self.ghost is None else self.ghost.to_dict()
        return {"name": self.name, "scale": self.scale, "ghost": ghost, "size": dict(self.size)}


def create_model(name: str, scale: int, ghost: Any = None, **size: Any) -> nn.Module:
    """Make a network.

    It has the attributes ``scale``, ``channels`` (of its pictures) and ``grid``: ``"lr"``, or ``"hr"`` for one that
    takes pictures already upscaled.

    Args:
        name: One of :data:`MODELS`.
        scale: 2, 3, 4 or 8, as far as the network exists for it.
        ghost: ``None`` for a dense network, a name or fields of :class:`~shiftghost_sr.layers.config.GhostConfig`.
        **size: Other sizes than the name's: arguments of its class, e.g. ``blocks=8``.

    Raises:
        UserError: If a value is not allowed.
    """
    build, own = _BUILDERS[choose("model", name, MODELS)]
    allowed = [p.name for p in inspect.signature(build).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key, value in size.items():
        choose("size", key, allowed)
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise UserError(f"{key}={value} must be 1 or more")
    check_arguments(build, size)
    config = read_ghost(ghost)
    model = build(scale, config, **{**own, **size})
    model.identity = Identity(name, scale, config, dict(size))  # type: ignore[assignment]
    return model


def identity_of(model: nn.Module) -> Identity | None:
    """What a network was made from; ``None`` for one that :func:`create_model` did not make."""
    found = getattr(model, "identity", None)
    return found if isinstance(found, Identity) else None


edsr = partial(create_model, "edsr")
edsr_baseline = partial(create_model, "edsr_baseline")
rdn = partial(create_model, "rdn")
carn = partial(create_model, "carn")
carn_m = partial(create_model, "carn_m")
imdn = partial(create_model, "imdn")
vdsr = partial(create_model, "vdsr")
