"""The two halves of a TNT block for inference: gains of norms folded into the linears that read them.

On a CPU the words' attention takes the bilinear form of
:mod:`tnt_vit.inference.folding`; a fused kernel takes the projection as it is.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnt_vit.inference.folding import fold_attention, fold_norm, of_unit_words
from tnt_vit.inference.norms import Normalize, UnitNormalize
from tnt_vit.inference.packed import PackedLinear
from tnt_vit.layers import TNTBlock
from tnt_vit.ops import InnerParams, inner_block

__all__ = ["InnerHalf", "OuterHalf"]

# Up to so many sentences attention in bfloat16 is spelled out on a CPU: at 197 that takes half as long as torch's fused
# kernel, which multiplies small blocks one by one. In float32 the fused kernel was the faster one.
FEW = 256


def _exact(block: TNTBlock) -> TNTBlock:
    """The block in a type in which folding its weights does not round them a second time."""
    return copy.deepcopy(block).float() if block.attn_out.v.weight.dtype.itemsize < 4 else block


class InnerHalf(nn.Module):
    """The inner half of a block with folded weights."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor

    def __init__(self, block: TNTBlock, num_words: int) -> None:
        super().__init__()
        like, self.project_norm = block.attn_in.v.weight, block.norm2_proj
        block = _exact(block)
        attention, width = block.attn_in, block.attn_in.dim
        self.num_heads, self.num_words, self.width, self.eps = attention.num_heads, num_words, width, block.norm_in.eps
        self.normalize = Normalize(width, like, block.norm_in.eps)
        bilinear = fold_attention(attention, block.norm_in)
        fc1_weight, fc1_bias = fold_norm(block.norm_mlp_in, block.mlp_in.fc1.weight, block.mlp_in.fc1.bias)
        kind = like.dtype
        self.score = PackedLinear(bilinear.score_weight, bilinear.score_bias, dtype=kind)
        self.mix = PackedLinear(bilinear.out_weight, bilinear.out_bias, dtype=kind)
        self.fc1 = PackedLinear(fc1_weight, fc1_bias, gelu=True, dtype=kind)
        self.fc2 = PackedLinear(block.mlp_in.fc2.weight, block.mlp_in.fc2.bias, dtype=kind)
        # The same three for words of length one.
        unit = bilinear.of_unit_words()
        self.unit_normalize = UnitNormalize(width, like, block.norm_in.eps)
        self.unit_score = PackedLinear(unit.score_weight, unit.score_bias, dtype=kind)
        self.unit_mix = PackedLinear(unit.out_weight, unit.out_bias, dtype=kind)
        self.unit_fc1 = PackedLinear(of_unit_words(fc1_weight), fc1_bias, gelu=True, dtype=kind)
        # The fused kernel takes the projection as it is and spells the heads out itself.
        qkv_weight, qkv_bias = fold_norm(block.norm_in, attention.qkv_weight(), attention.qkv_bias())
        self.register_buffer("qkv_weight", qkv_weight.to(kind))
        self.register_buffer("qkv_bias", qkv_bias.to(kind))
        self.register_buffer("proj_weight", attention.proj.weight.detach().to(kind, copy=True))
        self.register_buffer("proj_bias", attention.proj.bias.detach().to(kind, copy=True))
        self.legacy = block.legacy
        flat = width * num_words
        repeats = num_words if block.legacy else 1
        weight, bias = fold_norm(block.norm1_proj, block.proj.weight, block.proj.bias, repeats=repeats)
        self.flat_normalize = Normalize(width if block.legacy else flat, like, block.norm1_proj.eps)
        self.project = PackedLinear(weight, bias, dtype=kind)

    @property
    def fc1_bias(self) -> Tensor:
        assert self.fc1.bias is not None
        return self.fc1.bias

    @property
    def fc2_bias(self) -> Tensor:
        assert self.fc2.bias is not None
        return self.fc2.bias

    def params(self) -> InnerParams:
        return InnerParams(
            norm1_weight=None,
            norm1_bias=None,
            qkv_weight=self.qkv_weight,
            qkv_bias=self.qkv_bias,
            proj_weight=self.proj_weight,
            proj_bias=self.proj_bias,
            norm2_weight=None,
            norm2_bias=None,
            fc1_weight=self.fc1.weight,
            fc1_bias=self.fc1_bias,
            fc2_weight=self.fc2.weight,
            fc2_bias=self.fc2_bias,
            eps=self.eps,
        )

    def words(self, words: Tensor, fused: str | None) -> Tensor:
        """New words ``(S, m, c)``; may overwrite its input."""
        if fused is not None:
            return inner_block(words, self.params(), self.num_heads, backend=fused)
        m, c, h = self.num_words, self.width, self.num_heads
        unit = self.unit_normalize.runs(words)
        normalize = self.unit_normalize if unit else self.normalize
        score, mix, fc1 = (self.unit_score, self.unit_mix, self.unit_fc1) if unit else (self.score, self.mix, self.fc1)
        x = normalize(words.view(-1, c)).view(-1, m, c)
        rows = score(x.view(-1, c)).view(-1, m * h, c)  # row = word and head
        # Keys by rows: the softmax then runs down columns, which vectorises over all words and heads at once.
        weights = torch.bmm(x, rows.transpose(1, 2)).softmax(1)
        mixed = torch.bmm(weights.transpose(1, 2), x)
        words = words.add_(mix(mixed.view(-1, h * c)).view_as(words))
        hidden = fc1(normalize(words.view(-1, c)))
        return words.add_(self.fc2(hidden).view_as(words))

    def update(self, words: Tensor) -> Tensor:
        """What the sentences of ``(S, m, c)`` receive, ``(S, d)``."""
        flat = self.num_words * self.width
        x = self.flat_normalize(words).view(-1, flat) if self.legacy else self.flat_normalize(words.view(-1, flat))
        x = self.project(x)
        return x if self.project_norm is None else self.project_norm(x)


class OuterHalf(nn.Module):
    """The outer half of a block with folded weights; the scale of the scores is inside the queries' weights."""

    def __init__(self, block: TNTBlock, *, read_class: bool) -> None:
        super().__init__()
        like, kind = block.attn_out.v.weight, block.attn_out.v.weight.dtype
        self.se_layer = block.se_layer
        block = _exact(block)
        attention = block.attn_out
        self.num_heads, self.dim = attention.num_heads, attention.dim
        self.normalize = Normalize(self.dim, like, block.norm_out.eps)
        weight, bias = fold_norm(block.norm_out, attention.qkv_weight(), attention.qkv_bias())
        weight[: self.dim] *= attention.scale
        bias[: self.dim] *= attention.scale
        self.qkv = PackedLinear(weight, bias, dtype=kind)
        if read_class:
            self.query = PackedLinear(weight[: self.dim], bias[: self.dim], dtype=kind)
            self.key_value = PackedLinear(weight[self.dim :], bias[self.dim :], dtype=kind)
        self.proj = PackedLinear(attention.proj.weight, attention.proj.bias, dtype=kind)
        fc1_weight, fc1_bias = fold_norm(block.norm_mlp, block.mlp.fc1.weight, block.mlp.fc1.bias)
        self.fc1 = PackedLinear(fc1_weight, fc1_bias, gelu=True, dtype=kind)
        self.fc2 = PackedLinear(block.mlp.fc2.weight, block.mlp.fc2.bias, dtype=kind)

    def forward(self, z: Tensor) -> Tensor:
        """New sentences ``(B, N, d)``; may overwrite its input."""
        batch, tokens, dim = z.shape
        qkv = self.qkv(self.normalize(z).view(-1, dim)).view(batch, tokens, 3, self.num_heads, -1)
        z = z.add_(self.proj(_attend(qkv)).view_as(z))
        update = self.fc2(self.fc1(self.normalize(z).view(-1, dim))).view_as(z)
        if self.se_layer is not None:
            update = update + self.se_layer(update)
        return z.add_(update)

    def class_token(self, z: Tensor) -> Tensor:
        """The new class token ``(B, d)`` alone: all that a classifier of the class token reads of the last block."""
        batch, tokens, dim = z.shape
        x = self.normalize(z)
        q = self.query(x[:, 0]).view(batch, self.num_heads, 1, -1)
        kv = self.key_value(x.view(-1, dim)).view(batch, tokens, 2, self.num_heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        token = z[:, 0] + self.proj(F.scaled_dot_product_attention(q, k, v, scale=1.0).reshape(batch, dim))
        return token + self.fc2(self.fc1(self.normalize(token)))


def _attend(qkv: Tensor) -> Tensor:
    """Attention of ``(B, N, 3, h, d / h)`` with scaled queries, as rows ``(B * N, d)``."""
    batch, tokens, _, heads, width = qkv.shape
    cpu = qkv.device.type == "cpu" and not torch.compiler.is_compiling()
    if cpu and qkv.dtype == torch.bfloat16 and tokens <= FEW:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, tokens, width).unbind(0)
        mixed = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v).view(batch, heads, tokens, width)
    else:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return mixed.transpose(1, 2).reshape(batch * tokens, heads * width)
