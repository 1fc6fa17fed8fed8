"""DaViT's two blocks: their tokens lie in a grid, and attention comes between convolutions."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import davit
from torch import Tensor

from augshortcut.injection.joining import Augmented

__all__ = ["DAVIT"]


class _Davit(Augmented):
    """A DaViT block: ``(B, C, H, W)`` in and out."""

    cpe1: Any
    cpe2: Any

    def _attend(self, y: Tensor, height: int, width: int) -> Tensor:
        """Attention of each of the two kinds: over windows, or over channels."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """See the base class of timm."""
        batch, channels, height, width = x.shape
        x = self.cpe1(x).flatten(2).transpose(1, 2)
        y = self.norm1(x)
        x = self.join("attn", x, self._attend(y, height, width), y, self.drop_path1)
        x = self.cpe2(x.transpose(1, 2).view(batch, channels, height, width))
        if self.mlp is not None:
            x = x.flatten(2).transpose(1, 2)
            y = self.norm2(x)
            x = self.join("mlp", x, self.mlp(y), y, self.drop_path2)
            x = x.transpose(1, 2).view(batch, channels, height, width)
        return x


class AugDavitChannelBlock(_Davit, davit.ChannelBlock):
    """``davit.ChannelBlock``."""

    def _attend(self, y: Tensor, height: int, width: int) -> Tensor:
        return self.attn(y)


class AugDavitSpatialBlock(_Davit, davit.SpatialBlock):
    """``davit.SpatialBlock``."""

    def _attend(self, y: Tensor, height: int, width: int) -> Tensor:
        batch, _, channels = y.shape
        rows, columns = self.window_size
        grid = y.view(batch, height, width, channels)
        grid = F.pad(grid, (0, 0, 0, -width % columns, 0, -height % rows))
        padded = grid.shape[1], grid.shape[2]
        windows = davit.window_partition(grid, self.window_size).view(-1, rows * columns, channels)
        windows = self.attn(windows).view(-1, rows, columns, channels)
        grid = davit.window_reverse(windows, self.window_size, *padded)[:, :height, :width]
        return grid.reshape(batch, height * width, channels)


DAVIT: list[type[Augmented]] = [AugDavitChannelBlock, AugDavitSpatialBlock]
