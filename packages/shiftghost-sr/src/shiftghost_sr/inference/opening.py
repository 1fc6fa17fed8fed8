"""A file of weights to a network that is ready for pictures: ghosts are folded away where there are any."""

from __future__ import annotations

import os

import torch
from torch import nn

from shiftghost_sr.compression.deploy import deploy
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.models.files import load_model

__all__ = ["open_network"]


def open_network(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", *, scale: int | None = None
) -> nn.Module:
    """Load a network and make it fast.

    Args:
        path: A file that ``load_model`` reads.
        device: Where to.
        scale: For weights that are of several scales.

    Returns:
        The network in eval mode; a ghost network in its deployed form, which computes the same.

    Raises:
        UserError: If the file cannot be used.
    """
    model = load_model(path, scale=scale).eval()
    if any(True for _ in shifts(model)):
        model = deploy(model)
    return model.to(device).eval()
