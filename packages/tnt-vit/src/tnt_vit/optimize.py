"""A trained TNT rewritten for inference: the same function to rounding, with fewer passes over memory.

What changes (each step exact, checked in float64): the stem is one convolution (R2); queries, keys and values are one
projection (R3); gains of norms are folded into the linears after them (R4); the sentences live in one buffer and the
words are added to its rows in place (R5); the sentences use torch's fused attention (R6); after the keys and values of
the last block only the class token is computed, where the classifier reads nothing else; the words can run ahead of
the sentences through all layers, tile by tile (R1), because nothing flows back from sentences to words. On a CPU the
words' attention takes the bilinear form of :mod:`tnt_vit.folding` and the linears run on prepacked weights
(:mod:`tnt_vit.packed`); on CUDA the fused kernel of :mod:`tnt_vit.ops` runs the whole inner block.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError, choose
from tnt_vit.checks import check_input
from tnt_vit.dispatch import resolve_backend
from tnt_vit.folding import fold_attention, fold_norm, fold_stem
from tnt_vit.layers import TNTBlock
from tnt_vit.model import TNT
from tnt_vit.ops import InnerParams, inner_block, inner_stack
from tnt_vit.packed import PackedLinear
from tnt_vit.stem import patchify

__all__ = ["InferenceTNT", "optimize_for_inference"]


def _settle_allocator() -> None:
    """Let glibc keep freed blocks of up to 31 MiB instead of handing them back to the system after every layer.

    Its threshold follows the largest block that was ever freed. Below it, each activation of about a megabyte may be
    mapped and unmapped anew, which doubled the time of whole layers in some processes. Nothing is touched here, so it
    costs nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


class _Normalize(nn.Module):
    """Layer norm without gain and offset."""

    ones: Tensor
    zeros: Tensor

    def __init__(self, width: int, like: Tensor, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        # torch's CPU kernel is a third slower without gain and offset than with ones and zeros (measured, 24 wide).
        self.register_buffer("ones", like.new_ones(width), persistent=False)
        self.register_buffer("zeros", like.new_zeros(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return F.layer_norm(x, (self.width,), self.ones, self.zeros, self.eps)
        return F.layer_norm(x, (self.width,), None, None, self.eps)


class _Inner(nn.Module):
    """The inner half of a block with folded weights."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor

    def __init__(self, block: TNTBlock, num_words: int) -> None:
        super().__init__()
        attention, width = block.attn_in, block.attn_in.dim
        like = attention.qkv.weight
        self.num_heads, self.num_words, self.width, self.eps = attention.num_heads, num_words, width, block.norm_in.eps
        self.normalize = _Normalize(width, like, block.norm_in.eps)
        bilinear = fold_attention(attention, block.norm_in)
        self.score = PackedLinear(bilinear.score_weight, bilinear.score_bias)
        self.mix = PackedLinear(bilinear.out_weight, bilinear.out_bias)
        fc1_weight, fc1_bias = fold_norm(block.norm_mlp_in, block.mlp_in.fc1.weight, block.mlp_in.fc1.bias)
        self.fc1 = PackedLinear(fc1_weight, fc1_bias, gelu=True)
        self.fc2 = PackedLinear(block.mlp_in.fc2.weight, block.mlp_in.fc2.bias)
        # The fused kernel takes the projection as it is and spells the heads out itself.
        qkv_weight, qkv_bias = fold_norm(block.norm_in, attention.qkv.weight, attention.qkv.bias)
        self.register_buffer("qkv_weight", qkv_weight)
        self.register_buffer("qkv_bias", qkv_bias)
        self.register_buffer("proj_weight", attention.proj.weight.detach().clone())
        self.register_buffer("proj_bias", attention.proj.bias.detach().clone())
        self.legacy = block.legacy
        flat = width * num_words
        repeats = num_words if block.legacy else 1
        weight, bias = fold_norm(block.norm1_proj, block.proj.weight, block.proj.bias, repeats=repeats)
        self.flat_normalize = _Normalize(width if block.legacy else flat, like, block.norm1_proj.eps)
        self.project = PackedLinear(weight, bias)
        self.project_norm = block.norm2_proj

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
        x = self.normalize(words)
        rows = self.score(x.view(-1, c)).view(-1, m * h, c)  # row = word and head
        # Keys by rows: the softmax then runs down columns, which vectorises over all words and heads at once.
        weights = torch.bmm(x, rows.transpose(1, 2)).softmax(1)
        mixed = torch.bmm(weights.transpose(1, 2), x)
        words = words.add_(self.mix(mixed.view(-1, h * c)).view_as(words))
        hidden = self.fc1(self.normalize(words).view(-1, c))
        return words.add_(self.fc2(hidden).view_as(words))

    def update(self, words: Tensor) -> Tensor:
        """What the sentences of ``(S, m, c)`` receive, ``(S, d)``."""
        flat = self.num_words * self.width
        x = self.flat_normalize(words).view(-1, flat) if self.legacy else self.flat_normalize(words.view(-1, flat))
        x = self.project(x)
        return x if self.project_norm is None else self.project_norm(x)


class _Outer(nn.Module):
    """The outer half of a block with folded weights."""

    def __init__(self, block: TNTBlock, *, read_class: bool) -> None:
        super().__init__()
        attention = block.attn_out
        self.num_heads, self.dim = attention.num_heads, attention.dim
        self.normalize = _Normalize(self.dim, attention.qkv.weight, block.norm_out.eps)
        weight, bias = fold_norm(block.norm_out, attention.qkv.weight, attention.qkv.bias)
        self.qkv = PackedLinear(weight, bias)
        if read_class:
            self.query = PackedLinear(weight[: self.dim], bias[: self.dim])
            self.key_value = PackedLinear(weight[self.dim :], bias[self.dim :])
        self.proj = PackedLinear(attention.proj.weight, attention.proj.bias)
        self.fc1 = PackedLinear(*fold_norm(block.norm_mlp, block.mlp.fc1.weight, block.mlp.fc1.bias), gelu=True)
        self.fc2 = PackedLinear(block.mlp.fc2.weight, block.mlp.fc2.bias)
        self.se_layer = block.se_layer

    def forward(self, z: Tensor) -> Tensor:
        """New sentences ``(B, N, d)``; may overwrite its input."""
        batch, tokens, dim = z.shape
        qkv = self.qkv(self.normalize(z).view(-1, dim)).view(batch, tokens, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, dim)
        z = z.add_(self.proj(mixed).view_as(z))
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
        token = z[:, 0] + self.proj(F.scaled_dot_product_attention(q, k, v).reshape(batch, dim))
        return token + self.fc2(self.fc1(self.normalize(token)))


class InferenceTNT(nn.Module):
    """What :func:`optimize_for_inference` returns: a TNT that only predicts.

    Args:
        model: The trained model; its weights are copied.
        order: ``layers`` runs words and sentences block by block; ``words_first`` runs the words through all layers,
            one tile of sentences at a time, and the sentences after that (R1); ``auto`` chooses by device.
        tile: Sentences a tile of the words' stream.
        images: Pictures that run together on a CPU, so that their activations stay in its cache.
    """

    inner: Any  # nn.ModuleLists of _Inner and _Outer, and the stem, which is one of two modules
    outer: Any
    stem: Any
    first: Tensor
    sentence_pos: Tensor

    def __init__(self, model: TNT, order: str, tile: int, images: int) -> None:
        super().__init__()
        self.order, self.tile, self.images, self.backend = order, tile, images, model.backend
        self.in_chans, self.img_size, self.patch_size = model.in_chans, model.img_size, model.patch_size
        self.inner_dim, self.num_words = model.inner_dim, model.pixel_embed.num_words
        self.global_pool, self.num_classes = model.global_pool, model.num_classes
        self.legacy, self.grid_size = model.legacy, model.grid_size
        like = model.cls_token
        if model.legacy:
            self.stem, self.pixel_pos = model.pixel_embed, model.pixel_pos
        else:
            weight, bias = fold_stem(model.pixel_embed, model.pixel_pos)
            self.stem = PackedLinear(weight.flatten(1), bias)  # stride = kernel: a convolution that is a plain product
        self.flat_normalize = _Normalize(model.proj.in_features, like, model.norm1_proj.eps)
        self.project = PackedLinear(*fold_norm(model.norm1_proj, model.proj.weight, model.proj.bias))
        self.project_norm = model.norm2_proj
        self.register_buffer("first", (model.cls_token + model.patch_pos[:, :1]).detach().clone())
        self.register_buffer("sentence_pos", model.patch_pos[:, 1:].detach().clone())
        inner = [_Inner(b, self.num_words) if b.has_inner else None for b in model.blocks]
        self.inner = nn.ModuleList([i if i is not None else nn.Identity() for i in inner])
        self.has_inner = [i is not None for i in inner]
        # Nothing after the last block looks at the sentences then; a channel gate averages over them, so it needs all.
        self.read_class = model.global_pool == "token" and model.blocks[-1].se_layer is None
        last = len(model.blocks) - 1
        self.outer = nn.ModuleList(
            [_Outer(b, read_class=self.read_class and i == last) for i, b in enumerate(model.blocks)]
        )
        self.norm, self.head = model.norm, model.head
        self.requires_grad_(False)
        self.eval()
        _settle_allocator()

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, n = x.shape[0], self.sentence_pos.shape[1]
        if self.legacy:
            words = self.stem(x, self.pixel_pos).contiguous()
        else:
            words = self.stem(patchify(x, self.patch_size).flatten(1)).view(-1, self.num_words, self.inner_dim)
        z = torch.empty(batch, n + 1, self.first.shape[-1], dtype=words.dtype, device=x.device)
        z[:, :1] = self.first
        update = self.project_norm(
            self.project(self.flat_normalize(words.view(batch * n, self.num_words * self.inner_dim)))
        )
        z[:, 1:] = update.view(batch, n, z.shape[2]).add_(self.sentence_pos)
        return words, z

    def _by_layers(self, words: Tensor, z: Tensor, fused: str | None) -> Tensor:
        """Sentences as the last outer half reads them, block by block."""
        for i, (inner, outer) in enumerate(zip(self.inner, self.outer, strict=True)):
            if self.has_inner[i]:
                if fused is not None or words.shape[0] <= self.tile:
                    words = inner.words(words, fused)
                else:
                    for tile in words.split(self.tile):
                        inner.words(tile, None)  # in place
                z[:, 1:] += inner.update(words).view(z.shape[0], z.shape[1] - 1, z.shape[2])
            if i + 1 < len(self.outer):
                z = outer(z)
        return z

    def _words_first(self, words: Tensor, z: Tensor, fused: str | None) -> Tensor:
        """Sentences as the last outer half reads them, after the words have run through all layers."""
        updates: list[list[Tensor]] = [[] for _ in self.outer]
        stack = [(i, inner) for i, inner in enumerate(self.inner) if self.has_inner[i]]
        if fused is not None and stack:  # one kernel keeps the words in registers through all layers
            params = InnerParams.stack([inner.params() for _, inner in stack])
            layers = inner_stack(words, params, stack[0][1].num_heads, backend=fused)
            for (i, inner), after in zip(stack, layers, strict=True):
                updates[i].append(inner.update(after))
        else:
            for tile in words.split(self.tile):
                for i, inner in stack:
                    tile = inner.words(tile, None)
                    updates[i].append(inner.update(tile))
        for i, (update, outer) in enumerate(zip(updates, self.outer, strict=True)):
            if update:
                z[:, 1:] += torch.cat(update).view(z.shape[0], z.shape[1] - 1, z.shape[2])
            if i + 1 < len(self.outer):
                z = outer(z)
        return z

    def _run(self, x: Tensor, *, read_class: bool) -> Tensor:
        """Class tokens ``(B, d)`` or all tokens ``(B, n + 1, d)`` of a chunk of pictures, before the final norm."""
        fused = resolve_backend("auto" if self.backend == "reference" else self.backend, x, training=False)
        words_first = self.order == "words_first" or (self.order == "auto" and x.device.type == "cpu")
        z = (self._words_first if words_first else self._by_layers)(*self._embed(x), fused)
        return self.outer[-1].class_token(z) if read_class else self.outer[-1](z)

    def _features(self, x: Tensor, *, read_class: bool) -> Tensor:
        check_input(x, self.in_chans, self.img_size, self.patch_size, dynamic=False)
        if x.shape[0] == 0:
            _, tokens, dim = self.sentence_pos.shape
            return x.new_empty((0, dim) if read_class else (0, tokens + 1, dim))
        if x.device.type == "cpu" and x.shape[0] > self.images:
            return self.norm(torch.cat([self._run(chunk, read_class=read_class) for chunk in x.split(self.images)]))
        return self.norm(self._run(x, read_class=read_class))

    @torch.no_grad()
    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised tokens after the last block: ``(B, in_chans, H, W) -> (B, n + 1, d)``."""
        return self._features(x, read_class=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Logits of pictures: ``(B, in_chans, H, W) -> (B, num_classes)``."""
        if self.read_class:
            return self.head(self._features(x, read_class=True))
        tokens = self.forward_features(x)
        if self.global_pool:
            tokens = tokens[:, 1:].mean(dim=1) if self.global_pool == "avg" else tokens[:, 0]
        return self.head(tokens)


def optimize_for_inference(
    model: TNT, *, order: Literal["auto", "layers", "words_first"] = "auto", tile: int = 784, images: int = 8
) -> InferenceTNT:
    """Rewrite a trained model for inference; exact up to rounding.

    Args:
        model: The model; stays as it is.
        order: ``layers``, ``words_first`` to run all inner blocks before the outer ones, or ``auto``: words first on a
            CPU, where it was the faster one, layer by layer elsewhere.
        tile: Sentences that run through the inner blocks together on a CPU.
        images: Pictures that run together on a CPU.

    Returns:
        A module with the same ``forward`` for the model's picture size.

    Raises:
        ValueError: If an argument is out of range or the model is not a TNT.
    """
    if not isinstance(model, TNT):
        raise UserError(
            f"optimize_for_inference takes a tnt_vit.TNT, got {type(model).__name__}; "
            "load timm weights with create_model"
        )
    choose("order", order, ["auto", "layers", "words_first"])
    for name, value in (("tile", tile), ("images", images)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    return InferenceTNT(copy.deepcopy(model).eval(), order, tile, images)
