"""From a trained ghost network to its deployed form: plain convolutions, no moved copies."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError, choose
from shiftghost_sr.compression.deployment.convs import Decision
from shiftghost_sr.compression.deployment.pieces import deploy_pieces
from shiftghost_sr.compression.deployment.reach import Halo, reach_of
from shiftghost_sr.compression.deployment.rewrite import Rewriter, Settings
from shiftghost_sr.compression.deployment.tracing import NotTraceable, trace
from shiftghost_sr.layers.ghost_conv import GhostConv2d
from shiftghost_sr.ops.dispatch import BACKENDS

__all__ = ["Deployed", "deploy"]

_log = logging.getLogger(__name__)


class Deployed(nn.Module):
    """A network for inference alone, equal to the one it was made from.

    Attributes:
        decisions: What became of each layer.
        halo: See :func:`~shiftghost_sr.compression.halo.halo`; or why it is not known.
        scale: As of the network it was made from; likewise ``channels``, ``grid`` and ``identity``.
    """

    def __init__(
        self, network: nn.Module, source: nn.Module, decisions: Sequence[Decision], reach: Halo | str = ""
    ) -> None:
        super().__init__()
        self.network, self.decisions, self.halo = network, list(decisions), reach
        for name in ("scale", "channels", "grid", "identity"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Deployed:
        """Only ``eval()``.

        Raises:
            UserError: For training mode.
        """
        if mode:
            raise UserError("a deployed network cannot be trained; train the ghost network it was made from")
        return self

    def forward(self, x: Tensor) -> Tensor:
        """A batch of pictures, as the network it was made from takes it.

        Raises:
            UserError: If a gradient is asked for.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise UserError("a deployed network has no gradient; use the ghost network it was made from")
        return self.network(x)


def ghost_convs(model: nn.Module) -> dict[str, GhostConv2d]:
    """Names and ghost convolutions of a network, each once."""
    return {name: m for name, m in model.named_modules() if isinstance(m, GhostConv2d)}


def check_ready(model: Any) -> None:
    """Check that a network is decided: in evaluation mode, with finite logits.

    Raises:
        UserError: If not.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, Deployed):
        raise UserError("model is deployed already")
    training = [name or "the network" for name, m in model.named_modules() if m.training]
    if training:
        raise UserError(f"{training[0]} is in training mode, where directions change from call to call; eval() first")


def deploy(
    model: nn.Module,
    *,
    diagonal: str = "auto",
    portable: bool = False,
    channels: int | None = None,
    backend: str = "auto",
) -> Deployed:
    """Fold every shift into the convolutions that read it, and residual sums into slices.

    A convolution that cannot take moved maps gets them written out, by copies of slices; `Deployed.decisions` names
    each with the reason. Results equal those of ``model`` up to rounding, on frames of every size.

    Args:
        model: In evaluation mode; it stays as it is.
        diagonal: Of a diagonal move: ``box``, a 4 x 4 kernel with two zero taps; ``taps``, three kernels without; or
            ``auto``, a box unless it is far larger.
        portable: Nothing in place, for exporters.
        channels: Of its pictures, for a network that does not say it.
        backend: Of folded convolutions: ``torch``; ``triton``, one kernel for each, with the sum it goes into; or
            ``auto``, the kernel on NVIDIA GPUs for layers that it is written for.

    Raises:
        UserError: If it is in training mode, deployed already, or no module.
    """
    check_ready(model)
    choose("diagonal", diagonal, ("auto", "box", "taps"))
    count = channels if channels is not None else getattr(model, "channels", None)
    if not isinstance(count, int) or isinstance(count, bool):
        raise UserError("channels of the network's pictures are not known, give channels=")
    choose("backend", backend, BACKENDS)
    if backend == "triton" and portable:
        raise UserError("backend='triton' is not for portable=true, which is of plain operators")
    settings = Settings(diagonal, portable, backend)
    try:
        traced = trace(model, count)
    except NotTraceable as error:
        _log.warning("%s; it is deployed in the pieces that are", error)
        pieces = copy.deepcopy(model)
        return Deployed(pieces, model, deploy_pieces(pieces, count, settings, str(error)), str(error))
    rewriter = Rewriter(traced, settings)
    try:
        reach: Halo | str = reach_of(traced)
    except UserError as error:
        reach = str(error)
    network = rewriter.run()
    return Deployed(network, model, rewriter.decisions, reach)
