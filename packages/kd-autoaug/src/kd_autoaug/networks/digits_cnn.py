"""The network of the digits experiment: three convolutions, small enough that a training takes about a second."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from effkit.errors import UserError

__all__ = ["DigitsCNN"]


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions with batch norm and ReLU, global average pooling, a linear classifier.

    The second convolution is followed by 2x2 max pooling; for pictures of more than 8 pixels a side the first is too.
    Weights begin as torch's layers do: on 400 pictures of 8x8 and 40 epochs He's larger ones cost two points.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the pictures.
        widths: Channels of the three convolutions.
        image_size: Side of the pictures in pixels.

    Raises:
        UserError: If ``widths`` are not three positive numbers.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        widths: Sequence[int] = (12, 24, 24),
        image_size: int = 8,
    ) -> None:
        super().__init__()
        if len(widths) != 3 or min(widths) < 1:
            raise UserError(f"widths={list(widths)!r} of digits_cnn must be three numbers of at least 1")
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(zip([in_chans, *widths[:2]], widths, strict=True)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            if place == 1 or (place == 0 and image_size > 8):
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` of ``(B, in_chans, H, W)``."""
        return self.linear(self.features(images).mean((2, 3)))
