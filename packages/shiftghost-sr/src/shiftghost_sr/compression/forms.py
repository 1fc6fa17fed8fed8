"""A network in all its forms: dense, with ghosts, deployed with shifts of every kind; made without memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effkit.errors import choose
from shiftghost_sr.compression.deploy import deploy
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.layers.shift import LearnableShift2d
from shiftghost_sr.models.zoo import create_model

__all__ = ["DIRECTIONS", "build_form", "set_direction", "without_numbers"]

DIRECTIONS = {"stay": (0, 0), "axis": (0, 1), "diagonal": (1, 1)}
"""Kinds of direction that a deployed network's cost depends on, with one of each."""


def set_direction(model: nn.Module, direction: str) -> None:
    """Point every shift of a network one way.

    Args:
        model: With ghosts.
        direction: A key of :data:`DIRECTIONS`.
    """
    v = DIRECTIONS[choose("direction", direction, DIRECTIONS)]
    for _, shift in shifts(model):
        shift.set_directions([v] * len(shift.logits))


def without_numbers(model: nn.Module) -> nn.Module:
    """Move a network to the meta device, but for what decides where its ghosts come from; in place."""
    indices = {"intrinsic", "ghosts", "source", "logits", "epoch_steps"}

    def move(module: nn.Module) -> None:
        keep = isinstance(module, LearnableShift2d)
        for name, p in list(module._parameters.items()):
            if p is not None and not keep:
                module._parameters[name] = nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad)
        for name, b in list(module._buffers.items()):
            if isinstance(b, Tensor) and not (keep or name in indices):
                module._buffers[name] = b.to("meta")
        for child in module.children():
            move(child)

    move(model)
    return model


def build_form(
    name: str,
    scale: int,
    ghost: Any,
    form: str,
    direction: str | None = None,
    *,
    diagonal: str = "auto",
    size: dict[str, Any] | None = None,
) -> nn.Module:
    """A network in one form, on the meta device.

    Args:
        name: Of the network.
        scale: Of the network.
        ghost: Kind of ghosts.
        form: ``dense``, ``ghost`` or ``deployed``.
        direction: Where all its shifts point, a key of :data:`DIRECTIONS`; where they are, if not given.
        diagonal: See :func:`~shiftghost_sr.compression.deploy.deploy`.
        size: Other sizes than the name's.
    """
    choose("form", form, ("dense", "ghost", "deployed"))
    with torch.device("meta"):
        model = create_model(name, scale, None if form == "dense" else ghost, **(size or {})).eval()
    if direction is not None:
        set_direction(model, direction)
    return deploy(model, diagonal=diagonal) if form == "deployed" else model
