"""The block of PyramidTNT: as TNT's, with norms over a sentence's flattened words and pooled keys among sentences."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from tnt_vit.layers import SqueezeExcite

__all__ = ["PooledAttention", "PyramidBlock"]


class PooledAttention(nn.Module):
    """Multi-head attention whose keys and values come from an average-pooled grid (linear spatial reduction).

    Args:
        dim: Width of the tokens.
        num_heads: Heads; must divide ``dim``.
        sr_ratio: Side of the pooling cells; 1 pools nothing.
        qkv_bias: Whether queries, keys and values have a bias (never in the published models).
        attn_drop: Dropout on the attention weights.
        proj_drop: Dropout after the output projection.
        device: Where to put the parameters.
        dtype: Type of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        sr_ratio: int = 1,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_heads, self.sr_ratio = num_heads, sr_ratio
        self.scale = (dim // num_heads) ** -0.5
        self.q = nn.Linear(dim, dim, bias=qkv_bias, **dd)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias, **dd)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)
        if sr_ratio > 1:
            self.pool = nn.AvgPool2d(sr_ratio)
            self.linear = nn.Linear(dim, dim, **dd)
            self.norm = nn.LayerNorm(dim, **dd)

    def heads(self, x: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(B, h, N, dim / h)`` and keys and values ``(B, h, K, dim / h)`` of tokens ``(B, N, dim)``."""
        q = self.q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        if self.sr_ratio > 1:
            assert grid is not None
            x = self.pool(x.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
            x = self.norm(self.linear(x))
        k, v = self.kv(x).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def weights(self, x: Tensor, grid: tuple[int, int] | None = None, bias: Tensor | None = None) -> Tensor:
        """Attention weights ``(B, h, N, K)``, rows sum to one."""
        q, k, _ = self.heads(x, grid)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        return (scores if bias is None else scores + bias).softmax(dim=-1)

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None, bias: Tensor | None = None) -> Tensor:
        """Attend over axis 1.

        Args:
            x: Tokens ``(B, N, dim)``.
            grid: Rows and columns of the tokens; needed where keys are pooled.
            bias: Added to the scores, ``(1, h, N, K)``; with none, scores and softmax are spelled out: the words, where
                that is the faster form and safe for any number of sequences.

        Returns:
            Tokens ``(B, N, dim)``.
        """
        q, k, v = self.heads(x, grid)
        if bias is None:
            out = self.attn_drop(((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)) @ v
        else:
            rate = self.attn_drop.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=rate)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


class PyramidBlock(nn.Module):
    """One block: words attend inside their sentence and feed it, sentences attend to a pooled grid.

    Args:
        dim: Sentence width ``d``.
        num_heads: Heads among sentences.
        inner_dim: Word width ``c``; ``None`` leaves the inner part out.
        inner_num_heads: Heads among words.
        num_words: Words a sentence, ``m``.
        sr_ratio: Side of the cells that keys are pooled over.
        mlp_ratio: Hidden over outer width of both MLPs.
        qkv_bias: Bias of the query, key and value projections.
        proj_drop: Dropout after projections and in the MLPs.
        attn_drop: Dropout on attention weights.
        drop_path: Stochastic depth; drops single sentences in the inner residuals and whole images in the outer ones.
        se_ratio: Hidden fraction of the channel gate, 0 for none.
        device: Where to put the parameters.
        dtype: Type of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        inner_dim: int | None,
        inner_num_heads: int,
        num_words: int,
        sr_ratio: int = 1,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        se_ratio: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        drops: dict[str, Any] = {"qkv_bias": qkv_bias, "attn_drop": attn_drop, "proj_drop": proj_drop, **dd}
        self.has_inner = inner_dim is not None
        if inner_dim is not None:
            flat = num_words * inner_dim
            self.inner_norm1 = nn.LayerNorm(flat, **dd)
            self.inner_attn = PooledAttention(inner_dim, inner_num_heads, **drops)
            self.inner_norm2 = nn.LayerNorm(flat, **dd)
            self.inner_mlp = Mlp(inner_dim, int(inner_dim * mlp_ratio), drop=proj_drop, **dd)
            self.proj_norm1 = nn.LayerNorm(flat, **dd)
            self.proj = nn.Linear(flat, dim, bias=False, **dd)
            self.proj_norm2 = nn.LayerNorm(dim, **dd)
        self.outer_norm1 = nn.LayerNorm(dim, **dd)
        self.outer_attn = PooledAttention(dim, num_heads, sr_ratio=sr_ratio, **drops)
        self.drop_path: Any = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.outer_norm2 = nn.LayerNorm(dim, **dd)
        self.outer_mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop, **dd)
        self.se_layer = SqueezeExcite(dim, se_ratio, **dd) if se_ratio > 0 else None

    def forward(self, words: Tensor, sentences: Tensor, grid: tuple[int, int], bias: Tensor) -> tuple[Tensor, Tensor]:
        """Run the block.

        Args:
            words: ``(B * n, m, c)``.
            sentences: ``(B, n, d)``.
            grid: Rows and columns of the sentences.
            bias: Of the attention among sentences, ``(1, h, n, n / sr_ratio ** 2)``.

        Returns:
            The new words and sentences. A block without inner part passes the words on unchanged.
        """
        if self.has_inner:
            words = words + self.drop_path(self.inner_attn(_flat_norm(self.inner_norm1, words)))
            words = words + self.drop_path(self.inner_mlp(_flat_norm(self.inner_norm2, words)))
            flat = words.reshape(-1, self.proj.in_features)
            sentences = sentences + self.proj_norm2(self.proj(self.proj_norm1(flat))).view_as(sentences)
        sentences = sentences + self.drop_path(self.outer_attn(self.outer_norm1(sentences), grid, bias))
        update = self.outer_mlp(self.outer_norm2(sentences))
        if self.se_layer is not None:
            update = update + self.se_layer(update)
        return words, sentences + self.drop_path(update)


def _flat_norm(norm: nn.Module, words: Tensor) -> Tensor:
    """A norm over all words of a sentence at once, unlike TNT's, which is word by word."""
    return norm(words.flatten(1)).view_as(words)
