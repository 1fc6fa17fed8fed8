"""Parameters and MACs of a network in each of its forms."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from effkit.cost import measure
from effkit.errors import UserError
from shiftghost_sr.compression.activity import Activity, activity
from shiftghost_sr.compression.forms import build_form

__all__ = ["Count", "count", "count_module", "frame_of"]

_BORDER = "_Border"


@dataclass(frozen=True)
class Count:
    """Of one form.

    Args:
        params: Weights; logits of shifts are not among them.
        logits: Of shifts.
        macs: Multiply-adds of convolutions for one HR frame, without what the frame's border costs a deployed network.
        border_macs: What that costs: a few lines along its edges.
        challenge: At 256 x 256 low-resolution pixels.
        challenge_macs: Likewise.
    """

    params: int
    logits: int
    macs: int
    border_macs: int
    challenge: Activity
    challenge_macs: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "params": self.params, "logits": self.logits, "macs": self.macs, "border_macs": self.border_macs,
            "lr256": {"macs": self.challenge_macs, **vars(self.challenge)},
        }  # fmt: skip


def frame_of(hr: Any) -> tuple[int, int]:
    """Height and width of a high-resolution frame.

    Raises:
        UserError: If they are no two whole numbers above 0.
    """
    whole = isinstance(hr, list | tuple) and len(hr) == 2
    if not whole or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in hr):
        raise UserError(f"hr={hr!r} must be two whole numbers above 0: [height, width]")
    return hr[0], hr[1]


def _macs(model: nn.Module, channels: int, height: int, width: int) -> tuple[int, int]:
    cost = measure(model, torch.empty(1, channels, height, width, device="meta"))
    border = sum(layer.macs for layer in cost.layers if layer.kind == _BORDER)
    return cost.macs - border, border


def count_module(model: nn.Module, hr: tuple[int, int] = (720, 1280), *, challenge: bool = True) -> Count:
    """Count a network on the meta device.

    Args:
        model: In evaluation mode, with ``scale``, ``channels`` and ``grid``.
        hr: Height and width of the picture that comes out. Where they are no multiples of the scale, counts are those
            of the nearest smaller frame that is, by pixels.
        challenge: Whether to run it at 256 x 256 pixels too; otherwise these columns are zero.
    """
    scale = 1 if getattr(model, "grid", "lr") == "hr" else int(model.scale)  # type: ignore[arg-type]
    channels = int(model.channels)  # type: ignore[arg-type]
    height, width = max(hr[0] // scale, 1), max(hr[1] // scale, 1)
    share = Fraction(hr[0] * hr[1], height * width * scale**2)
    macs, border = _macs(model, channels, height, width)
    logits = sum(p.numel() for n, p in model.named_parameters() if n.endswith("shift.logits"))
    params = sum(p.numel() for p in model.parameters()) - logits
    if not challenge:
        return Count(params, logits, round(macs * share), round(border * share), Activity(0, 0, 0, 0), 0)
    side = 256 * (int(model.scale) if scale == 1 else 1)  # type: ignore[arg-type]
    small, small_border = _macs(model, channels, side, side)
    ran = activity(model, side, side, channels)
    return Count(params, logits, round(macs * share), round(border * share), ran, small + small_border)


def count(
    name: str,
    scale: int,
    ghost: Any = "default",
    *,
    hr: tuple[int, int] = (720, 1280),
    direction: str = "axis",
    diagonal: str = "taps",
    size: dict[str, Any] | None = None,
) -> dict[str, Count]:
    """Count a network's forms.

    Args:
        name: Of the network.
        scale: Of the network.
        ghost: Kind of ghosts.
        hr: Height and width of the frame that comes out.
        direction: Where the shifts of the deployed form point: ``stay``, ``axis`` or ``diagonal``.
        diagonal: See :func:`~shiftghost_sr.compression.deploy.deploy`.
        size: Other sizes than the name's.

    Returns:
        ``dense``, ``ghost`` and ``deployed``.
    """
    found = {}
    for form in ("dense", "ghost", "deployed"):
        model = build_form(
            name, scale, ghost, form, None if form == "dense" else direction, diagonal=diagonal, size=size
        )
        found[form] = count_module(model, hr)
    return found
