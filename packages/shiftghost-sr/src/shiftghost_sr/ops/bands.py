"""Frames in bands of rows, so that what is large for a moment is made for a part of the frame at a time."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["bands", "conv_rows", "padded_rows", "same_size"]

_MOST = 8  # bands a frame: what they save grows slowly beyond
# Pixels a band has at least, so that a convolution keeps its threads busy. A GPU has far more of them to wait for.
_LEAST_ON_HOST = 2048
_LEAST_ON_GPU = 1 << 17


def bands(x: Tensor) -> list[tuple[int, int]]:
    """First row and last (exclusive) of each band of maps ``(N, C, H, W)``; one band for a small frame."""
    images, _, height, width = x.shape
    least = _LEAST_ON_HOST if x.device.type in ("cpu", "meta") else _LEAST_ON_GPU
    count = max(1, min(_MOST, height, images * height * width // least))
    return list(itertools.pairwise([height * i // count for i in range(count + 1)]))


def same_size(conv: nn.Conv2d) -> bool:
    """Whether a convolution gives a frame of its input's size, with zeros around it; the kind that runs in bands."""
    odd = all(k % 2 for k in conv.kernel_size)
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    half = tuple(k // 2 for k in conv.kernel_size)
    return type(conv) is nn.Conv2d and odd and plain and (conv.padding == half or conv.padding == "same")


def padded_rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows ``first`` to ``last`` of maps, with zeros where these lie outside the frame."""
    height = x.shape[2]
    inside = x[:, :, max(first, 0) : min(last, height)]
    if first >= 0 and last <= height:
        return inside
    return F.pad(inside, (0, 0, max(-first, 0), max(last - height, 0)))


def conv_rows(conv: nn.Conv2d, x: Tensor, first: int, last: int) -> Tensor:
    """Some rows of what a convolution that is :func:`same_size` gives: ``(N, outputs, last - first, W)``."""
    up, side = (k // 2 for k in conv.kernel_size)
    rows = padded_rows(x, first - up, last + up)
    return F.conv2d(rows, conv.weight, conv.bias, padding=(0, side), groups=conv.groups)
