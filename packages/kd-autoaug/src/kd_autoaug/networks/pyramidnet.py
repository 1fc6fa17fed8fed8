"""PyramidNet with ShakeDrop for 32x32 pictures: channels grow in every block (Han et al. 2017, Yamada et al. 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError
from kd_autoaug.networks.layers import ShakeDrop, he_init

__all__ = ["PyramidNet"]

EXPANSION = 4


class _Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, stride: int, survival: float) -> None:
        super().__init__()
        after = width * EXPANSION
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, width, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, after, 1, bias=False)
        self.bn4 = nn.BatchNorm2d(after)
        self.shake = ShakeDrop(survival)
        self.stride, self.new_channels = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.bn1(x))  # no ReLU before the first convolution: the paper's best block
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.conv3(F.relu(self.bn3(out)))
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        # The shortcut has no weights: channels it lacks are zeros.
        return self.shake(self.bn4(out)) + F.pad(x, (0, 0, 0, 0, 0, self.new_channels))


class PyramidNet(nn.Module):
    """PyramidNet of bottleneck blocks with ShakeDrop on every residual branch.

    Args:
        depth: ``9 n + 2`` for n blocks in each of three stages.
        alpha: By how many the width grows from the first block to the last, evenly, from 16.
        num_classes: Number of classes.
        in_chans: Channels of the pictures.
        last_survival: Probability that the last block's branch is kept; falls evenly from 1 at the input.

    Raises:
        UserError: If ``depth`` is not ``9 n + 2`` or an argument is out of range.
    """

    def __init__(
        self,
        depth: int = 272,
        alpha: float = 200.0,
        num_classes: int = 10,
        in_chans: int = 3,
        last_survival: float = 0.5,
    ) -> None:
        super().__init__()
        if depth < 11 or (depth - 2) % 9:
            raise UserError(f"depth={depth!r} of a PyramidNet with bottlenecks must be 9 n + 2: 11, 20, ..., 110, 272")
        if alpha < 0 or not 0 <= last_survival <= 1:
            raise UserError(
                f"alpha={alpha!r} must be at least 0 and last_survival={last_survival!r} in [0, 1], of a PyramidNet"
            )
        count = (depth - 2) // 3
        self.conv1, self.bn1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        channels, width, blocks = 16, 16.0, []
        for number in range(count):
            width += alpha / count  # added up step by step as in the code it was published with: rounding depends on it
            stride = 2 if number in (count // 3, 2 * count // 3) else 1
            survival = 1 - (number + 1) / count * (1 - last_survival)
            blocks.append(_Bottleneck(channels, round(width), stride, survival))
            channels = round(width) * EXPANSION
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` of ``(B, in_chans, H, W)``."""
        out = self.blocks(self.bn1(self.conv1(images)))
        return self.linear(F.relu(self.bn(out)).mean((2, 3)))
