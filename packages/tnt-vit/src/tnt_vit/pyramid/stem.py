"""From pixels to words and sentences by convolutions, and from one stage's grid to the next one's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["WORDS", "PyramidStem", "SentenceAggregation", "WordAggregation", "cut_words", "init_conv", "join_words"]

WORDS = (4, 4)  # rows and columns of words in every sentence of every stage


def cut_words(image: Tensor, words: tuple[int, int] = WORDS) -> Tensor:
    """Cut a map ``(B, c, R * r, C * s)`` into the words ``(B * n, m, c)`` of its sentences, both row by row."""
    batch, chans, height, width = image.shape
    rows, columns = words
    cells = image.reshape(batch, chans, height // rows, rows, width // columns, columns)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, chans)


def join_words(words: Tensor, grid: tuple[int, int], shape: tuple[int, int] = WORDS) -> Tensor:
    """The map ``(B, c, R * r, C * s)`` that words ``(B * n, m, c)`` of a grid of sentences were cut from."""
    rows, columns = grid
    cells = words.reshape(-1, rows, columns, *shape, words.shape[-1])
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(-1, words.shape[-1], rows * shape[0], columns * shape[1])


def _unit(chans_in: int, chans_out: int, stride: int, dd: dict[str, Any]) -> list[nn.Module]:
    conv = nn.Conv2d(chans_in, chans_out, 3, stride=stride, padding=1, **dd)
    return [conv, nn.BatchNorm2d(chans_out, **dd), nn.ReLU()]


class PyramidStem(nn.Module):
    """Pictures to words (a map at half the size, cut into 4x4) and sentences (a map at an eighth of the size).

    Args:
        in_chans: Channels of the picture.
        embed_dim: Width ``d`` of the first stage's sentences.
        inner_dim: Width ``c`` of its words.
        device: Where to put the parameters.
        dtype: Type of the parameters.
    """

    def __init__(self, in_chans: int, embed_dim: int, inner_dim: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.common_conv = nn.Sequential(*_unit(in_chans, 2 * inner_dim, 2, dd))
        self.inner_convs = nn.Sequential(*_unit(2 * inner_dim, inner_dim, 1, dd))
        self.outer_convs = nn.Sequential(
            *_unit(2 * inner_dim, 4 * inner_dim, 2, dd),
            *_unit(4 * inner_dim, 8 * inner_dim, 2, dd),
            *_unit(8 * inner_dim, embed_dim, 1, dd),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embed pictures ``(B, in_chans, H, W)``.

        Returns:
            Words ``(B * n, 16, c)`` and sentences ``(B, n, d)``, without position codes.
        """
        x = self.common_conv(x)
        return cut_words(self.inner_convs(x)), self.outer_convs(x).flatten(2).transpose(1, 2)


class SentenceAggregation(nn.Module):
    """Halve the grid of sentences: norm, then a 3x3 convolution of stride 2; an odd side is rounded up.

    Args:
        dim: Width before.
        out_dim: Width after.
        device: Where to put the parameters.
        dtype: Type of the parameters.
    """

    def __init__(self, dim: int, out_dim: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.norm = nn.LayerNorm(dim, **dd)
        # A sequence of one, as in the official code, whose names are the contract.
        self.conv = nn.Sequential(nn.Conv2d(dim, out_dim, 3, stride=2, padding=1, **dd))

    def forward(self, sentences: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(B, R * C, d)`` to ``(B, ceil(R / 2) * ceil(C / 2), d')``."""
        image = self.norm(sentences).transpose(1, 2).unflatten(2, grid)
        return self.conv(image).flatten(2).transpose(1, 2)


class WordAggregation(nn.Module):
    """Join the words of 2x2 sentences to one 8x8 map and convolve it to 4x4 with stride 2.

    Sentences that an odd grid lacks are zero (after the norm), as in the official code.

    Args:
        dim: Width before.
        out_dim: Width after.
        device: Where to put the parameters.
        dtype: Type of the parameters.
    """

    def __init__(self, dim: int, out_dim: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.norm = nn.LayerNorm(dim, **dd)
        self.conv = nn.Sequential(nn.Conv2d(dim, out_dim, 3, stride=2, padding=1, **dd))

    def forward(self, words: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(B * R * C, 16, c)`` to ``(B * ceil(R / 2) * ceil(C / 2), 16, c')``."""
        image = join_words(self.norm(words), grid)
        rows, columns = grid[0] + grid[0] % 2, grid[1] + grid[1] % 2
        if (rows, columns) != grid:
            image = F.pad(image, (0, (columns - grid[1]) * WORDS[1], 0, (rows - grid[0]) * WORDS[0]))
        # Each 8x8 map has a border of its own: words do not see those of the next group.
        groups = cut_words(image, (2 * WORDS[0], 2 * WORDS[1])).transpose(1, 2).unflatten(2, (2 * WORDS[0], -1))
        return self.conv(groups).flatten(2).transpose(1, 2)


def init_conv(conv: nn.Conv2d) -> None:
    """Normal with variance 2 over the fan-out, no bias, as in the official code."""
    fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
    torch.nn.init.normal_(conv.weight, std=(2.0 / fan_out) ** 0.5)
    if conv.bias is not None:
        torch.nn.init.zeros_(conv.bias)
