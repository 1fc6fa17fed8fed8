"""From pixels to visual words (paper equation 5, as the official code does it).

The official stem cuts the picture into patches and runs a 7x7 convolution inside EACH patch, zero-padded at the
patch's border. That equals one convolution whose kernel is as large as the patch and whose stride is the patch (each
word has its own copy of the 7x7 filter, shifted and clipped at the border): no copies of overlapping windows, and its
output already has the words' layout.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from effkit.notes import say_once
from tnt_vit.layers.given import foreign

__all__ = ["WordEmbed", "fold_word_filters", "patchify"]

KERNEL, PADDING = 7, 3


def patchify(x: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cut pictures ``(B, C, H, W)`` into patches ``(B * n, C, ph, pw)``, row by row."""
    batch, chans, height, width = x.shape
    ph, pw = patch
    x = x.reshape(batch, chans, height // ph, ph, width // pw, pw)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, chans, ph, pw)


def _filter_index(patch: tuple[int, int], stride: int) -> Tensor:
    """Which of the 49 filter taps each word reads at each pixel of the patch, ``(m, ph * pw)``; 49 stands for none."""
    rows, cols = patch[0] // stride, patch[1] // stride
    y, x = torch.arange(patch[0]), torch.arange(patch[1])
    tap_y = y[None, :] - torch.arange(rows)[:, None] * stride + PADDING
    tap_x = x[None, :] - torch.arange(cols)[:, None] * stride + PADDING
    tap = tap_y[:, None, :, None] * KERNEL + tap_x[None, :, None, :]
    inside = ((tap_y >= 0) & (tap_y < KERNEL))[:, None, :, None] & ((tap_x >= 0) & (tap_x < KERNEL))[None, :, None, :]
    return torch.where(inside, tap, KERNEL * KERNEL).reshape(rows * cols, -1)


def fold_word_filters(weight: Tensor, patch: tuple[int, int], stride: int) -> Tensor:
    """Scatter the 7x7 filters into one patch-sized filter per word and channel; differentiable.

    Args:
        weight: Filters ``(c, in_chans, 7, 7)``.
        patch: Height and width of a patch in pixels.
        stride: Distance between words in pixels.

    Returns:
        Filters ``(m * c, in_chans, ph, pw)``, word-major, for a convolution with stride ``patch``.
    """
    chans = weight.shape[1]
    taps = F.pad(weight.flatten(2), (0, 1))  # the 50th tap is the zero outside the filter
    index = _filter_index(patch, stride).to(weight.device)
    return taps[:, :, index].permute(2, 0, 1, 3).reshape(-1, chans, *patch)


def _fold_in_graph(weight: Tensor, patch: tuple[int, int], stride: int) -> Tensor:
    """:func:`fold_word_filters` without a table of places, which a graph of torch.fx would carry as a buffer.

    Each word's filter is the part of the 7x7 filters that lies inside the patch, with zeros around it.
    """
    filters = []
    for top in range(-PADDING, patch[0] - PADDING, stride):
        for left in range(-PADDING, patch[1] - PADDING, stride):
            down, right = top + KERNEL - patch[0], left + KERNEL - patch[1]
            part = weight[:, :, max(0, -top) : KERNEL - max(0, down), max(0, -left) : KERNEL - max(0, right)]
            filters.append(F.pad(part, (max(0, left), max(0, -right), max(0, top), max(0, -down))))
    return torch.stack(filters).flatten(0, 1)


class WordEmbed(nn.Module):
    """Stem: pictures to words with their position code.

    Args:
        patch_size: Height and width of a patch (sentence) in pixels.
        stride: Distance between words in pixels; must divide both.
        in_chans: Channels of the picture.
        inner_dim: Width ``c`` of a word.
        legacy: Convolve the whole picture, so that words see across patch borders (the first public variant).
        device: Where to put the parameters.
        dtype: Type of the parameters.
    """

    def __init__(
        self,
        patch_size: tuple[int, int],
        stride: int,
        in_chans: int,
        inner_dim: int,
        *,
        legacy: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.patch_size, self.stride, self.legacy = patch_size, stride, legacy
        self.word_grid = (patch_size[0] // stride, patch_size[1] // stride)
        self.proj = nn.Conv2d(in_chans, inner_dim, KERNEL, stride=stride, padding=PADDING, device=device, dtype=dtype)

    @property
    def num_words(self) -> int:
        """Words a sentence, ``m``."""
        return self.word_grid[0] * self.word_grid[1]

    def forward(self, x: Tensor, word_pos: Tensor, *, naive: bool = False) -> Tensor:
        """Embed pictures.

        Args:
            x: Pictures ``(B, in_chans, H, W)``.
            word_pos: Position code of the words, ``(1, c, rows, columns)``, shared by all sentences.
            naive: Convolve patch by patch as the official code does instead of once with folded filters. So does a
                convolution that somebody replaced or hung a hook on, which has to be called.

        Returns:
            Words ``(B * n, m, c)``; sentences row by row over the picture, words row by row over the sentence.
        """
        inner_dim = self.proj.out_channels
        if self.legacy:
            words = patchify(self.proj(x), self.word_grid) + word_pos
            return words.flatten(2).transpose(1, 2)
        if not naive and (found := foreign(self.proj, (nn.Conv2d,))):
            say_once(f"pixel_embed.proj {found[1]}: the stem convolves patch by patch", __name__)
            naive = True
        if naive:
            words = self.proj(patchify(x, self.patch_size)) + word_pos
            return words.flatten(2).transpose(1, 2)
        fold = _fold_in_graph if isinstance(x, Proxy) else fold_word_filters
        weight = fold(self.proj.weight, self.patch_size, self.stride)
        pos = word_pos.flatten(2).transpose(1, 2)  # (1, m, c)
        bias = pos if self.proj.bias is None else pos + self.proj.bias
        out = F.conv2d(x, weight.to(x.dtype), bias.flatten().to(x.dtype), stride=self.patch_size)
        return out.permute(0, 2, 3, 1).reshape(-1, self.num_words, inner_dim)
