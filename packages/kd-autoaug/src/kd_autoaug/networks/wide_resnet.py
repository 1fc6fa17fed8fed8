"""Wide residual networks for 32x32 pictures (Zagoruyko and Komodakis, 2016), and the form Fast AutoAugment trained."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError
from kd_autoaug.networks.layers import he_init

__all__ = ["WideResNet"]


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int, dropout: float, fastaa: bool) -> None:
        super().__init__()
        momentum = 0.9 if fastaa else 0.1
        first, second = (1, stride) if fastaa else (stride, 1)
        self.bn1 = nn.BatchNorm2d(before, momentum=momentum)
        self.conv1 = nn.Conv2d(before, after, 3, stride=first, padding=1, bias=fastaa)
        self.bn2 = nn.BatchNorm2d(after, momentum=momentum)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, stride=second, padding=1, bias=fastaa)
        changes = before != after or stride != 1
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=fastaa) if changes else None
        self.raw_shortcut = fastaa

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        out = self.conv1(active)
        # Dropout follows the first convolution directly in one code, the activation after it in the other.
        out = F.relu(self.bn2(self.dropout(out))) if self.raw_shortcut else self.dropout(F.relu(self.bn2(out)))
        out = self.conv2(out)
        if self.shortcut is None:
            return out + x
        return out + self.shortcut(x if self.raw_shortcut else active)


class WideResNet(nn.Module):
    """WRN-depth-width: a convolution, three groups of pre-activated blocks, batch norm, ReLU, average, classifier.

    Args:
        depth: ``6 n + 4`` for n blocks in a group.
        width: Widening factor; the groups have 16, 32 and 64 times as many channels.
        num_classes: Number of classes.
        in_chans: Channels of the pictures.
        dropout: Probability of dropout between the two convolutions of a block.
        fastaa: The form of the Fast AutoAugment code: convolutions with bias, the stride in a block's second
            convolution, shortcuts from the raw input, batch norm that forgets at 0.9. Otherwise the original's.

    Raises:
        UserError: If ``depth`` is not ``6 n + 4``.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int = 10,
        in_chans: int = 3,
        dropout: float = 0.0,
        fastaa: bool = False,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"depth={depth!r} of a wide ResNet must be 6 n + 4: 10, 16, 22, 28, 34, 40, ...")
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=fastaa)
        groups: list[nn.Module] = []
        for before, after in pairwise(channels):
            blocks = [_Block(before, after, 2 if groups else 1, dropout, fastaa)]
            blocks += [_Block(after, after, 1, dropout, fastaa) for _ in range((depth - 4) // 6 - 1)]
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.Sequential(*groups)
        self.bn = nn.BatchNorm2d(channels[3], momentum=0.9 if fastaa else 0.1)
        self.linear = nn.Linear(channels[3], num_classes)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` of ``(B, in_chans, H, W)``."""
        out = self.groups(self.conv1(images))
        return self.linear(F.relu(self.bn(out)).mean((2, 3)))
