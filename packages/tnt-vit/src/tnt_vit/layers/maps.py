"""What the pictures of the paper need: words after every block, and attention weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["AttentionMaps", "attention_maps", "word_features"]


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights of one block.

    Attributes:
        inner: Among the words of each sentence, ``(B, n, h_in, m, m)``; ``None`` for a block without inner part.
        outer: Among class token and sentences, ``(B, h_out, n + 1, n + 1)``.
    """

    inner: Tensor | None
    outer: Tensor


def word_features(model: Any, x: Tensor, *, as_map: bool = False) -> list[Tensor]:
    """See :meth:`tnt_vit.TNT.word_features`."""
    words, sentences = model.embed(x)
    rows, cols = x.shape[2] // model.patch_size[0], x.shape[3] // model.patch_size[1]
    height, width = model.pixel_embed.word_grid
    out = []
    for block in model.blocks:
        words, sentences = block(words, sentences)
        if as_map:
            grid = words.reshape(x.shape[0], rows, cols, height, width, -1)
            out.append(grid.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, rows * height, cols * width))
        else:
            out.append(words.reshape(x.shape[0], rows * cols, height * width, -1))
    return out


def attention_maps(model: Any, x: Tensor) -> list[AttentionMaps]:
    """See :meth:`tnt_vit.TNT.attention_maps`."""
    words, sentences = model.embed(x)
    maps = []
    for block in model.blocks:
        inner = None
        if block.has_inner:
            inner = block.attn_in.weights(block.norm_in(words)).unflatten(0, (x.shape[0], sentences.shape[1] - 1))
            words = block.forward_words(words)
            sentences = block.inject(words, sentences)
        maps.append(AttentionMaps(inner, block.attn_out.weights(block.norm_out(sentences))))
        sentences = block.forward_sentences(sentences)
    return maps
