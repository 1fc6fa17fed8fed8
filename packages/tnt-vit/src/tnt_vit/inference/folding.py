"""Exact rewritings of trained weights for inference: same function, fewer passes over memory.

Every function here is checked against :mod:`tnt_vit.reference` in float64. The letters are those of the package's
README: R2 one convolution for the stem, R3 one projection for queries, keys and values, R4 norm gains folded into the
next linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tnt_vit.layers import Attention
from tnt_vit.layers.stem import WordEmbed, fold_word_filters

__all__ = ["BilinearAttention", "fold_attention", "fold_norm", "fold_stem", "of_unit_words"]


@torch.no_grad()
def fold_norm(
    norm: nn.LayerNorm | nn.Module, weight: Tensor, bias: Tensor | None, *, repeats: int = 1
) -> tuple[Tensor, Tensor]:
    """Fold a layer norm's gain and offset into the linear that reads it (R4).

    Args:
        norm: The norm before the linear; its normalisation itself stays.
        weight: The linear's weight ``(out, in)``.
        bias: The linear's bias ``(out,)``, or ``None``.
        repeats: How often the norm's width repeats along ``in`` (the legacy projection reads ``m`` words that share
            one norm).

    Returns:
        ``W diag(g)`` and ``b + W beta`` for the linear after a norm without gain and offset.
    """
    gain, offset = norm.weight.repeat(repeats), norm.bias.repeat(repeats)  # type: ignore[operator, union-attr]
    shift = weight @ offset
    return weight * gain, shift if bias is None else bias + shift


@torch.no_grad()
def fold_stem(stem: WordEmbed, word_pos: Tensor) -> tuple[Tensor, Tensor]:
    """Filters ``(m * c, in_chans, ph, pw)`` and bias ``(m * c,)`` of the one convolution that makes the words (R2).

    Args:
        stem: The official stem (the legacy one looks across patch borders and cannot be folded).
        word_pos: Position code ``(1, c, rows, columns)``; goes into the bias.
    """
    weight = fold_word_filters(stem.proj.weight, stem.patch_size, stem.stride)
    pos = word_pos.flatten(2).transpose(1, 2)
    bias = pos if stem.proj.bias is None else pos + stem.proj.bias
    return weight.contiguous(), bias.flatten().contiguous()


def of_unit_words(weight: Tensor) -> Tensor:
    """A weight ``(..., c)`` that reads normalised words, for words of length one that have kept an offset.

    The length is made up for, and the offset, equal in all channels, falls out: without it nothing changes, because
    normalised words have the mean zero.
    """
    return weight.shape[-1] ** 0.5 * (weight - weight.mean(-1, keepdim=True))


@dataclass(frozen=True)
class BilinearAttention:
    """Attention over few tokens as two linears and two products, with nothing to permute in between.

    With ``x`` the normalised words of a sentence, the scores of head ``h`` are ``x_i^T A_h x_j`` up to terms that the
    softmax cancels, and the output is ``sum_h U_h sum_j p_hij x_j``: keys and values are the words themselves, all
    heads of a word lie in neighbouring rows, and the copies that split heads apart are gone. It multiplies more (``h *
    c`` instead of ``3c`` columns), which pays while heads are few and narrow.

    Attributes:
        score_weight: ``(h * c, c)``, the stacked ``A_h^T`` with the scale inside.
        score_bias: ``(h * c,)``.
        out_weight: ``(c, h * c)``, the ``U_h`` side by side.
        out_bias: ``(c,)``.
    """

    score_weight: Tensor
    score_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def of_unit_words(self) -> BilinearAttention:
        """The same for words as :class:`tnt_vit.inference.norms.UnitNormalize` leaves them."""
        width = self.out_weight.shape[0]
        score, bias = self.score_weight.view(-1, width, width), self.score_bias.view(-1, width, 1)
        return BilinearAttention(
            of_unit_words(of_unit_words(score).mT).mT.flatten(0, 1),
            of_unit_words(bias.mT).flatten(),
            of_unit_words(self.out_weight.view(width, -1, width)).flatten(1),
            self.out_bias,
        )


@torch.no_grad()
def fold_attention(attention: Attention, norm: nn.LayerNorm) -> BilinearAttention:
    """Rewrite an attention layer and the norm before it as :class:`BilinearAttention`.

    Args:
        attention: The layer; parts of it that were replaced are not seen.
        norm: The norm before it.

    Returns:
        Weights for words that are normalised without gain and offset.
    """
    dim, heads = attention.dim, attention.num_heads
    weight, bias = fold_norm(norm, attention.qkv_weight(), attention.qkv_bias())
    q_w, k_w, v_w = weight.view(3, heads, -1, dim)
    q_b, _, v_b = bias.view(3, heads, -1)
    # Key offsets add the same number to all scores of a query, so the softmax does not see them.
    score_weight = attention.scale * k_w.transpose(1, 2) @ q_w  # (h, c, c): rows of A_h^T
    score_bias = attention.scale * (k_w.transpose(1, 2) @ q_b[..., None])[..., 0]
    out = attention.proj.weight.view(dim, heads, -1).transpose(0, 1)  # (h, c, head_dim)
    out_weight = (out @ v_w).transpose(0, 1).reshape(dim, heads * dim)
    out_bias = (out @ v_b[..., None])[..., 0].sum(0) + attention.proj.bias
    return BilinearAttention(
        score_weight.reshape(heads * dim, dim).contiguous(), score_bias.flatten(), out_weight.contiguous(), out_bias
    )
