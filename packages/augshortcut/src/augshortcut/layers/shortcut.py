"""The augmented shortcut: learnable paths beside the identity, and how they join the residual stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from augshortcut.config import AugmentConfig, resolve_config
from augshortcut.layers.projections import make_paths
from effkit.errors import UserError

__all__ = ["AugmentedShortcut"]


class AugmentedShortcut(nn.Module):
    r"""The sum of T learnable paths over each token: :math:`\sum_t \gamma_t T_t(y)` (equations 4 and 5 of the paper).

    A path never mixes tokens, so it does not depend on their number or order; leading sizes are free.

    Args:
        dim: d, the width of a token.
        config: A preset's name, an :class:`~augshortcut.config.AugmentConfig`, or a mapping of its fields.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        UserError: If the config has no paths, or its projections do not fit the width.

    Example:
        >>> AugmentedShortcut(384, "paper")(torch.zeros(2, 197, 384)).shape
        torch.Size([2, 197, 384])
    """

    gate: Tensor | None

    def __init__(
        self, dim: int, config: str | AugmentConfig = "paper", *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.dim, self.config = dim, resolve_config(config)
        if self.config.num_paths == 0:
            raise UserError("num_paths=0 leaves an AugmentedShortcut without paths; give at least 1")
        self.paths = make_paths(dim, self.config, device, dtype)
        if self.config.gate == "none":
            self.register_parameter("gate", None)
        else:
            shape = (self.config.num_paths, dim if self.config.gate == "channel" else 1)
            self.gate = nn.Parameter(torch.full(shape, self.config.gate_init, device=device, dtype=dtype))

    def redraw(self) -> None:
        """Draw weights anew and put gates back to their start.

        (Not called ``reset_parameters``: model-wide initialisation, run after paths were added, must leave them alone.)
        """
        self.paths.redraw()
        if self.gate is not None:
            nn.init.constant_(self.gate, self.config.gate_init)

    def forward(self, y: Tensor) -> Tensor:
        """The paths' sum: ``(..., d) -> (..., d)``."""
        return self.paths(y, self.gate)

    def lipschitz(self) -> Tensor:
        """How much the sum can stretch a difference of tokens, at most: a number; differentiable."""
        each = self.paths.lipschitz()
        return (each if self.gate is None else each * self.gate.abs().amax(dim=1).to(each.dtype)).sum()

    def undecayed(self) -> list[str]:
        """Names of parameters that weight decay leaves alone: biases and gates, and matrices unless asked for."""
        weights = {f"paths.{name}" for name in self.paths.weight_names} if self.config.weight_decay else set()
        return [name for name, _ in self.named_parameters() if name not in weights]

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        c = self.config
        return f"dim={self.dim}, num_paths={c.num_paths}, projection={c.projection!r}, act={c.act!r}, gate={c.gate!r}"
