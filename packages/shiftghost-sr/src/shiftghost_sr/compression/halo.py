"""What a tile needs beyond its edges to equal the whole."""

from __future__ import annotations

from torch import nn

from effkit.errors import UserError
from shiftghost_sr.compression.deploy import Deployed, check_ready
from shiftghost_sr.compression.deployment.reach import Halo, reach_of
from shiftghost_sr.compression.deployment.tracing import NotTraceable, trace

__all__ = ["halo"]


def halo(model: nn.Module) -> Halo:
    """How many pixels of the input an output pixel depends on beyond the one it lies in.

    A tile that has these pixels around it gives, inside, what the whole picture gives. The four sides differ, because
    shifts look one way.

    Args:
        model: In evaluation mode; one of ours, deployed or not, or another made of convolutions.

    Returns:
        Pixels above, below, left and right.

    Raises:
        UserError: If the network looks at the whole frame (IMDN's attention does), or it cannot be told how far.
    """
    if isinstance(model, Deployed):
        if isinstance(model.halo, str):
            raise UserError(model.halo)
        return model.halo
    check_ready(model)
    channels = getattr(model, "channels", None)
    if not isinstance(channels, int):
        raise UserError("channels of the network's pictures are not known")
    try:
        traced = trace(model, channels)
    except NotTraceable as error:
        raise UserError(f"how far this network looks is not known: {error}; give a tile that holds all") from error
    return reach_of(traced)
