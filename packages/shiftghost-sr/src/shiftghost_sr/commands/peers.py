"""The same ghost network run the official way: a depthwise convolution with one-hot kernels, then a concatenation."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftghost_sr.layers.ghost_conv import GhostConv2d
from shiftghost_sr.models.foreign import replace_module

__all__ = ["OfficialGhost", "official_form"]


class OfficialGhost(nn.Module):
    """A ghost convolution in evaluation, as the official code runs it: the kernel is tiled anew at every call.

    Args:
        conv: With moved maps as ghosts, in order ``concat``, one direction for all.
    """

    kernel: Tensor

    def __init__(self, conv: GhostConv2d) -> None:
        super().__init__()
        assert conv.shift is not None
        self.conv = nn.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding, groups=conv.groups,  # type: ignore[arg-type]
            bias=conv.bias is not None,
        )  # fmt: skip
        self.conv.load_state_dict({k: v for k, v in conv.state_dict().items() if k in ("weight", "bias")})
        self.ghosts, self.reach = len(conv.ghosts), conv.shift.max_shift
        side = 2 * self.reach + 1
        kernel = torch.zeros(1, 1, side, side)
        a, b = conv.shift.chosen_directions()[0]
        kernel[0, 0, self.reach + a, self.reach + b] = 1
        self.register_buffer("kernel", kernel.to(conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to all channels."""
        f = self.conv(x)
        weight = self.kernel.repeat(self.ghosts, 1, 1, 1)
        moved = F.conv2d(f[:, : self.ghosts], weight, padding=self.reach, groups=self.ghosts)
        return torch.cat([f, moved], dim=1)


def official_form(model: nn.Module) -> nn.Module:
    """A copy of a ghost network that runs the official way.

    Args:
        model: With one direction a layer, ghosts behind the maps they come from, one for one.
    """
    made = copy.deepcopy(model)
    for name, module in list(made.named_modules()):
        if isinstance(module, GhostConv2d) and module.shift is not None:
            replace_module(made, name, OfficialGhost(module).to(module.weight.device))
    return made.eval()
