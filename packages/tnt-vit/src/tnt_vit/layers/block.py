"""The two attention levels, the MLPs and the TNT block (paper section 2.2, equations 6 to 10).

Parameter names in a ``state_dict`` are timm's, so weights travel both ways. Shape legend of this package:
``B`` images, ``n`` sentences (patches), ``m`` words a sentence, ``c`` word width, ``N = n + 1`` tokens, ``d`` sentence
width, ``h`` heads.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.fx import Proxy

from effkit.notes import say_once
from tnt_vit.layers.given import foreign, plain_linear, touched
from tnt_vit.ops import InnerParams, inner_block

__all__ = ["KINDS", "Attention", "SqueezeExcite", "TNTBlock", "resample_positions"]


def resample_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A position table for another grid of sentences: bicubic with antialiasing in float32, as timm does it.

    Grids are compared, not how many sentences they have: from 2x8 to 4x4 every row changes. (timm's own function, in
    its older versions, returns a table of equal count as it is.)

    Args:
        table: ``(1, 1 + rows * columns, d)``; the first row is the class token's and stays.
        old: Rows and columns.
        new: Rows and columns wanted.

    Returns:
        The table itself if the grids are equal, else a new one in its dtype, with a gradient.
    """
    # Sizes that torch.export leaves open are no numbers to compare; at its own grid a table stays as it is anyway.
    if not any(isinstance(side, torch.SymInt) for side in new) and old == new:
        return table
    image = table[:, 1:].float().unflatten(1, old).movedim(-1, 1)
    image = F.interpolate(image, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:, :1], image.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def _split_qkv_on_load(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    """Read one projection ``qkv`` (timm's ViT layout) into the two of TNT; timm's TNT layout passes unchanged."""
    for kind in ("weight", "bias"):
        qkv = state.pop(f"{prefix}qkv.{kind}", None)
        if qkv is not None:
            state[f"{prefix}qk.{kind}"], state[f"{prefix}v.{kind}"] = qkv[: 2 * module.dim], qkv[2 * module.dim :]  # type: ignore[operator, misc]


class Attention(nn.Module):
    """Multi-head self-attention.

    Parameters are those of the official code and of timm: one linear ``qk``, one ``v``. They are multiplied as one
    matrix where that pays (joined anew in each call, which costs little beside the tokens and never holds an old
    value), one by one where somebody has put something else in their place, or a hook on them.

    Args:
        dim: Width of the tokens.
        num_heads: Heads; must divide ``dim``.
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
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qk = nn.Linear(dim, 2 * dim, bias=qkv_bias, device=device, dtype=dtype)
        self.v = nn.Linear(dim, dim, bias=qkv_bias, device=device, dtype=dtype)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.proj_drop = nn.Dropout(proj_drop)
        self.register_load_state_dict_pre_hook(_split_qkv_on_load)

    def qkv_weight(self) -> Tensor:
        """Both projections as one matrix ``(3 * dim, dim)``; rows are queries, keys, values, each head after head."""
        return torch.cat([self.qk.weight, self.v.weight])

    def qkv_bias(self) -> Tensor | None:
        """Its bias ``(3 * dim,)``, or ``None``."""
        return None if self.qk.bias is None else torch.cat([self.qk.bias, self.v.bias])

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens ``(B, N, dim)`` to queries, keys and values, each ``(B, h, N, head_dim)``."""
        batch, tokens, _ = x.shape
        joined = not isinstance(x, Proxy) and plain_linear(self.qk) and plain_linear(self.v)
        # Products narrower than a vector register round differently when joined, and graphs of torch.fx, which keep
        # both modules, shall give the same bits.
        if joined and self.dim >= 8 and batch * tokens >= 3 * self.dim:
            one = F.linear(x, self.qkv_weight(), self.qkv_bias())
            q, k, v = one.view(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        # As many numbers in the matrix as in the tokens, or more: joining it would cost as much as it saves.
        q, k = self.qk(x).view(batch, tokens, 2, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, self.v(x).view(batch, tokens, self.num_heads, self.head_dim).transpose(1, 2)

    def weights(self, x: Tensor) -> Tensor:
        """Attention weights ``(B, h, N, N)``, rows sum to one; for pictures and the reference path."""
        q, k, _ = self.heads(x)
        return ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)

    def forward(self, x: Tensor, *, explicit: bool = False) -> Tensor:
        """Attend over axis 1.

        Args:
            x: Tokens ``(B, N, dim)``.
            explicit: Spell out scores and softmax. For the words this is the faster form on a CPU (16 tokens, heads 6
                wide) and the safe one on a GPU (``B * n`` sequences pass the grid limit of fused kernels).

        Returns:
            Tokens ``(B, N, dim)``.
        """
        q, k, v = self.heads(x)
        drop, traced = self.attn_drop, isinstance(x, Proxy)
        # Whoever hangs a hook on the dropout of the weights wants to see them.
        explicit = explicit or type(drop) is not nn.Dropout or bool(touched(drop))
        weights = None
        if explicit or traced:
            # A graph shows the weights to whoever asks for that node; nothing depends on it where none are dropped.
            weights = drop(((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1))
        if weights is not None and (explicit or drop.p > 0):
            out = weights @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=drop.p if self.training else 0.0)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


KINDS = (nn.LayerNorm, nn.Linear, nn.Dropout, nn.Identity, nn.GELU, Mlp, DropPath, Attention)
"""Classes that fast paths know: what a block is made of besides itself and the channel gate."""


class SqueezeExcite(nn.Module):
    """Channel gate of the SE variants (Table 12): ``u -> u * tanh(W2 relu(W1 LN(mean_tokens u)))``.

    Args:
        dim: Width of the tokens.
        ratio: Hidden width as a fraction of ``dim``; a quarter in the official code.
        device: Where to put the parameters.
        dtype: Type of the parameters.
    """

    def __init__(self, dim: int, ratio: float = 0.25, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.fc = nn.Sequential(
            nn.LayerNorm(dim, device=device, dtype=dtype),
            nn.Linear(dim, hidden, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(hidden, dim, device=device, dtype=dtype),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times its gate; ``(B, N, dim)`` in and out."""
        return x * self.fc(x.mean(dim=1, keepdim=True))


class TNTBlock(nn.Module):
    """One TNT block: words attend inside their sentence, feed it, and sentences attend to each other.

    Args:
        dim: Sentence width ``d``.
        num_heads: Heads among sentences.
        inner_dim: Word width ``c``; ``None`` leaves the inner part out, which makes an ordinary ViT block (Table 5).
        inner_num_heads: Heads among words.
        num_words: Words a sentence, ``m``.
        mlp_ratio: Hidden width of the sentence MLP over ``dim``; the words' MLP is always 4 times ``c``, as in the
            official code.
        qkv_bias: Bias of the query, key and value projections.
        proj_drop: Dropout after projections and in the MLPs.
        attn_drop: Dropout on attention weights.
        drop_path: Stochastic depth; drops single sentences in the inner residuals and whole images in the outer ones.
        se_ratio: Hidden fraction of the channel gate, 0 for none.
        legacy: The first public variant: per-word norm before the projection, none after it, projection with bias.
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
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        se_ratio: float = 0.0,
        legacy: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        drops: dict[str, Any] = {"qkv_bias": qkv_bias, "attn_drop": attn_drop, "proj_drop": proj_drop, **dd}
        self.has_inner = inner_dim is not None
        self.legacy = legacy
        if inner_dim is not None:
            self.norm_in = nn.LayerNorm(inner_dim, **dd)
            self.attn_in = Attention(inner_dim, inner_num_heads, **drops)
            self.norm_mlp_in = nn.LayerNorm(inner_dim, **dd)
            self.mlp_in = Mlp(inner_dim, 4 * inner_dim, drop=proj_drop, **dd)
            self.norm1_proj = nn.LayerNorm(inner_dim if legacy else num_words * inner_dim, **dd)
            self.proj = nn.Linear(num_words * inner_dim, dim, bias=legacy, **dd)
            self.norm2_proj = None if legacy else nn.LayerNorm(dim, **dd)
        self.norm_out = nn.LayerNorm(dim, **dd)
        self.attn_out = Attention(dim, num_heads, **drops)
        # One module for all four residuals: the leading axis decides what is dropped (sentences inside, images
        # outside).
        self.drop_path: Any = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm_mlp = nn.LayerNorm(dim, **dd)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop, **dd)
        self.se_layer = SqueezeExcite(dim, se_ratio, **dd) if se_ratio > 0 else None

    mlp_in: Any  # timm's Mlp, whose biases its types call optional

    def inner_params(self) -> InnerParams:
        """The inner block's weights in the form the fused kernels take."""
        return InnerParams(
            norm1_weight=self.norm_in.weight,
            norm1_bias=self.norm_in.bias,
            qkv_weight=self.attn_in.qkv_weight(),
            qkv_bias=self.attn_in.qkv_bias(),
            proj_weight=self.attn_in.proj.weight,
            proj_bias=self.attn_in.proj.bias,
            norm2_weight=self.norm_mlp_in.weight,
            norm2_bias=self.norm_mlp_in.bias,
            fc1_weight=self.mlp_in.fc1.weight,
            fc1_bias=self.mlp_in.fc1.bias,
            fc2_weight=self.mlp_in.fc2.weight,
            fc2_bias=self.mlp_in.fc2.bias,
            eps=self.norm_in.eps,
        )

    def forward_words(self, words: Tensor, *, fused: str | None = None) -> Tensor:
        """Equations 6 and 7: the inner transformer.

        Args:
            words: Words of all sentences, ``(B * n, m, c)``.
            fused: Backend of ``tnt_vit.ops.inner_block``; ``None`` runs the modules one by one, as do training with
                dropout, which the fused block does not have, and parts that somebody replaced or hung a hook on.

        Returns:
            Words ``(B * n, m, c)``.
        """
        if fused is not None and not self._drops() and self._inner_is_plain():
            scale = self._branch_scale(words) if self.training and isinstance(self.drop_path, DropPath) else None
            return inner_block(words, self.inner_params(), self.attn_in.num_heads, fused, scale)
        words = words + self.drop_path(self.attn_in(self.norm_in(words), explicit=True))
        return words + self.drop_path(self.mlp_in(self.norm_mlp_in(words)))

    def _drops(self) -> bool:
        """Whether the inner part drops single values now."""
        parts = (self.attn_in.attn_drop, self.attn_in.proj_drop, self.mlp_in.drop1, self.mlp_in.drop2)
        return self.training and any(getattr(part, "p", 0) > 0 for part in parts)

    def _inner_is_plain(self) -> bool:
        """Whether the fused block computes what the modules of the inner part would."""
        for name in ("norm_in", "attn_in", "norm_mlp_in", "mlp_in"):
            if found := foreign(getattr(self, name), KINDS):
                where = ".".join(part for part in (name, found[0]) if part)
                say_once(f"{where} {found[1]}: the words' part of such blocks runs module by module", __name__)
                return False
        return self.norm_in.eps == self.norm_mlp_in.eps

    def _branch_scale(self, words: Tensor) -> Tensor:
        """Stochastic depth of both inner residuals as factors ``(2, B * n)``: 0, or 1 over the share that is kept."""
        keep = 1 - self.drop_path.drop_prob
        kept = torch.rand(2, words.shape[0], device=words.device) < keep
        return kept.to(words.dtype) / keep

    def inject(self, words: Tensor, sentences: Tensor) -> Tensor:
        """Equation 8, with the two norms of the official code: add the projected words to their sentences.

        Args:
            words: ``(B * n, m, c)``.
            sentences: ``(B, n + 1, d)``; the class token in row 0 receives nothing.

        Returns:
            New sentences ``(B, n + 1, d)``.
        """
        batch, tokens, _ = sentences.shape
        flat = (batch, tokens - 1, self.proj.in_features)
        if self.norm2_proj is None:
            update = self.proj(self.norm1_proj(words).reshape(flat))
        else:
            update = self.norm2_proj(self.proj(self.norm1_proj(words.reshape(flat))))
        # Padding with a zero row keeps this out of place without a concatenation.
        return sentences + F.pad(update, (0, 0, 1, 0))

    def forward_sentences(self, sentences: Tensor, *, explicit: bool = False) -> Tensor:
        """Equations 9 and 10: the outer transformer, ``(B, n + 1, d)`` in and out."""
        sentences = sentences + self.drop_path(self.attn_out(self.norm_out(sentences), explicit=explicit))
        update = self.mlp(self.norm_mlp(sentences))
        if self.se_layer is not None:
            update = update + self.se_layer(update)
        return sentences + self.drop_path(update)

    def forward(
        self, words: Tensor, sentences: Tensor, *, fused: str | None = None, explicit: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run the block.

        Args:
            words: ``(B * n, m, c)``.
            sentences: ``(B, n + 1, d)``, the class token first.
            fused: See :meth:`forward_words`.
            explicit: Spell out the outer attention instead of the fused torch kernel.

        Returns:
            The new words and sentences. A block without inner part passes the words on unchanged.
        """
        if self.has_inner:
            words = self.forward_words(words, fused=fused)
            sentences = self.inject(words, sentences)
        return words, self.forward_sentences(sentences, explicit=explicit)
