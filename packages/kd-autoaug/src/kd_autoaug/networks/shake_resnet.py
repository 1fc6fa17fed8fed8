"""Shake-Shake ResNet for 32x32 pictures: two residual branches per block, mixed at random (Gastaldi, 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError
from kd_autoaug.networks.layers import ShakeShake, he_init

__all__ = ["ShakeResNet"]


def _branch(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
    )


class _Shortcut(nn.Module):
    """Changes channels and size: every stride-th pixel, and the same one pixel further, each through its own 1x1."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(before, after // 2, 1, bias=False)
        self.conv2 = nn.Conv2d(before, after - after // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))  # zeros come in at the right and the bottom
        step = slice(None, None, self.stride)
        return self.bn(torch.cat([self.conv1(x[:, :, step, step]), self.conv2(shifted[:, :, step, step])], 1))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.branch1, self.branch2 = _branch(before, after, stride), _branch(before, after, stride)
        self.shake = ShakeShake()
        self.shortcut = _Shortcut(before, after, stride) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.shake(self.branch1(x), self.branch2(x))


class ShakeResNet(nn.Module):
    """Shake-Shake ``depth`` ``2x(base)d``.

    The Fast AutoAugment code builds a shortcut for every block and uses it only where channels change; its count of
    parameters (2,989,002 for 26 2x32d with 10 classes) includes the idle ones, ours (2,923,146) has none.

    Args:
        depth: ``6 n + 2`` for n blocks in each of three stages.
        base: Channels of the first stage; the others have 2 and 4 times as many.
        num_classes: Number of classes.
        in_chans: Channels of the pictures.

    Raises:
        UserError: If ``depth`` is not ``6 n + 2``.
    """

    def __init__(self, depth: int, base: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise UserError(f"depth={depth!r} of a Shake-Shake ResNet must be 6 n + 2: 8, 14, 20, 26, ...")
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1)
        channels, blocks = 16, []
        for stage in range(3):
            for number in range((depth - 2) // 6):
                blocks.append(_Block(channels, base * 2**stage, 2 if stage and not number else 1))
                channels = base * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(channels, num_classes)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` of ``(B, in_chans, H, W)``."""
        return self.linear(F.relu(self.blocks(self.conv1(images))).mean((2, 3)))
