"""ResNet-20/32/44/56 for 32x32 pictures (He et al., 2016, section 4.2), with shortcuts that have no weights (option A).

Names of parameters are those of the common PyTorch checkpoints, so that they load as they are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError
from kd_autoaug.networks.layers import he_init

__all__ = ["CifarResNet"]


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.new_channels = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.new_channels:
            # Every second pixel, and zeros for the new channels, half of them before and half after the old ones.
            half = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))
        return F.relu(out + x)


def _stage(before: int, after: int, stride: int, count: int) -> nn.Sequential:
    return nn.Sequential(_Block(before, after, stride), *(_Block(after, after, 1) for _ in range(count - 1)))


class CifarResNet(nn.Module):
    """Residual network of basic blocks: a convolution, three stages of 16, 32 and 64 channels, average, classifier.

    Args:
        depth: ``6 n + 2`` for n blocks in a stage.
        num_classes: Number of classes.
        in_chans: Channels of the pictures.

    Raises:
        UserError: If ``depth`` is not ``6 n + 2``.
    """

    def __init__(self, depth: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise UserError(f"depth={depth!r} of a CIFAR ResNet must be 6 n + 2: 20, 32, 44, 56, 110, ...")
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        count = (depth - 2) // 6
        self.layer1 = _stage(16, 16, 1, count)
        self.layer2 = _stage(16, 32, 2, count)
        self.layer3 = _stage(32, 64, 2, count)
        self.linear = nn.Linear(64, num_classes)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` of ``(B, in_chans, H, W)``."""
        out = F.relu(self.bn1(self.conv1(images)))
        return self.linear(self.layer3(self.layer2(self.layer1(out))).mean((2, 3)))
