"""A trained TNT rewritten for inference: the same function to rounding, with fewer passes over memory.

What changes (each step exact, checked in float64): the stem is one convolution (R2); queries, keys and values are one
projection (R3); gains of norms are folded into the linears after them (R4); the sentences live in one buffer and the
words are added to its rows in place (R5); the sentences use torch's fused attention (R6); after the keys and values of
the last block only the class token is computed, where the classifier reads nothing else; the words can run ahead of
the sentences through all layers, tile by tile (R1), because nothing flows back from sentences to words. On a CPU the
words' attention takes the bilinear form of :mod:`tnt_vit.inference.folding` and the linears run on prepacked weights
(:mod:`tnt_vit.inference.packed`); on CUDA the fused kernel of :mod:`tnt_vit.ops` runs the whole inner block.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from timm.layers import to_2tuple
from torch import Tensor, nn

from effkit.errors import UserError, choose
from tnt_vit.inference.folding import fold_norm, fold_stem
from tnt_vit.inference.halves import InnerHalf, OuterHalf
from tnt_vit.inference.norms import Normalize
from tnt_vit.inference.packed import PackedLinear
from tnt_vit.layers import KINDS, TNTBlock, resample_positions
from tnt_vit.layers.checks import check_architecture, check_input
from tnt_vit.layers.given import foreign, touched
from tnt_vit.layers.stem import WordEmbed, patchify
from tnt_vit.model import TNT
from tnt_vit.ops import InnerParams, inner_stack, resolve_backend

__all__ = ["InferenceTNT", "optimize_for_inference"]


def _settle_allocator() -> None:
    """Let glibc keep freed blocks of up to 31 MiB instead of handing them back to the system after every layer.

    Its threshold follows the largest block that was ever freed. Below it, each activation of about a megabyte may be
    mapped and unmapped anew, which doubled the time of whole layers in some processes. Nothing is touched here, so it
    costs nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


class InferenceTNT(nn.Module):
    """What :func:`optimize_for_inference` returns: a TNT that only predicts.

    Args:
        model: The trained model; its weights are copied.
        order: ``layers`` runs words and sentences block by block; ``words_first`` runs the words through all layers,
            one tile of sentences at a time, and the sentences after that (R1); ``auto`` chooses by device.
        tile: Sentences a tile of the words' stream.
        images: Pictures that run together on a CPU, so that their activations stay in its cache.
    """

    inner: Any  # nn.ModuleLists of InnerHalf and OuterHalf, and the stem, which is one of two modules
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
        self.dynamic_img_size = model.dynamic_img_size
        like = model.cls_token
        if model.legacy:
            self.stem, self.pixel_pos = model.pixel_embed, model.pixel_pos
        else:
            weight, bias = fold_stem(model.pixel_embed, model.pixel_pos)
            self.stem = PackedLinear(weight.flatten(1), bias)  # stride = kernel: a convolution that is a plain product
        self.flat_normalize = Normalize(model.proj.in_features, like, model.norm1_proj.eps)
        self.project = PackedLinear(*fold_norm(model.norm1_proj, model.proj.weight, model.proj.bias))
        self.project_norm = model.norm2_proj
        self.register_buffer("first", (model.cls_token + model.patch_pos[:, :1]).detach().clone())
        self.register_buffer("sentence_pos", model.patch_pos[:, 1:].detach().clone())
        self._resampled: tuple[tuple[int, int], Tensor] | None = None
        inner = [InnerHalf(b, self.num_words) if b.has_inner else None for b in model.blocks]
        self.inner = nn.ModuleList([i if i is not None else nn.Identity() for i in inner])
        self.has_inner = [i is not None for i in inner]
        # Nothing after the last block looks at the sentences then; a channel gate averages over them, so it needs all.
        self.read_class = model.global_pool == "token" and model.blocks[-1].se_layer is None
        last = len(model.blocks) - 1
        self.outer = nn.ModuleList(
            [OuterHalf(b, read_class=self.read_class and i == last) for i, b in enumerate(model.blocks)]
        )
        self.norm, self.head = model.norm, model.head
        self.requires_grad_(False)
        self.eval()
        _settle_allocator()

    def _positions(self, x: Tensor) -> Tensor:
        """Position codes of the sentences of pictures of this size, ``(1, n, d)``."""
        grid = (x.shape[2] // self.patch_size[0], x.shape[3] // self.patch_size[1])
        if grid == self.grid_size:
            return self.sentence_pos
        table = torch.cat([self.first, self.sentence_pos], dim=1)
        if torch.compiler.is_compiling():  # which must not see a tensor that an earlier call has left
            return resample_positions(table, self.grid_size, grid)[:, 1:]
        kept = self._resampled
        if kept is None or kept[0] != grid or kept[1].device != x.device or kept[1].dtype != self.sentence_pos.dtype:
            kept = self._resampled = (grid, resample_positions(table, self.grid_size, grid)[:, 1:])
        return kept[1]

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Change the picture size for good, as :meth:`tnt_vit.TNT.set_input_size` does.

        Args:
            img_size: New height and width; multiples of the patch.

        Raises:
            ValueError: If a side is not a multiple of the patch.
        """
        size = to_2tuple(img_size)
        check_architecture(img_size=size, patch_size=self.patch_size)
        grid = (size[0] // self.patch_size[0], size[1] // self.patch_size[1])
        table = torch.cat([self.first, self.sentence_pos], dim=1)
        self.sentence_pos = resample_positions(table, self.grid_size, grid)[:, 1:].clone()
        self.img_size, self.grid_size, self._resampled = size, grid, None

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        positions = self._positions(x)
        batch, n = x.shape[0], positions.shape[1]
        if self.legacy:
            words = self.stem(x, self.pixel_pos).contiguous()
        else:
            words = self.stem(patchify(x, self.patch_size).flatten(1)).view(-1, self.num_words, self.inner_dim)
        z = torch.empty(batch, n + 1, self.first.shape[-1], dtype=words.dtype, device=x.device)
        z[:, :1] = self.first
        update = self.project_norm(
            self.project(self.flat_normalize(words.view(batch * n, self.num_words * self.inner_dim)))
        )
        z[:, 1:] = update.view(batch, n, z.shape[2]).add_(positions)
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
        fused = resolve_backend("auto" if self.backend == "reference" else self.backend, x.device, training=False)
        words_first = self.order == "words_first" or (self.order == "auto" and x.device.type == "cpu")
        z = (self._words_first if words_first else self._by_layers)(*self._embed(x), fused)
        return self.outer[-1].class_token(z) if read_class else self.outer[-1](z)

    def _features(self, x: Tensor, *, read_class: bool) -> Tensor:
        check_input(x, self.in_chans, self.img_size, self.patch_size, dynamic=self.dynamic_img_size)
        if x.shape[0] == 0:
            _, tokens, dim = self._positions(x).shape
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
        A module with the same ``forward``, for the picture sizes of the model.

    Raises:
        ValueError: If an argument is out of range, or the model is not a TNT as this package makes it: parts that were
            replaced, wrapped (adapters), quantized or parametrized, or have hooks, would be passed over.
    """
    if not isinstance(model, TNT):
        raise UserError(
            f"optimize_for_inference takes a tnt_vit.TNT, got {type(model).__name__}; "
            "load timm weights with create_model"
        )
    _check_known(model)
    choose("order", order, ["auto", "layers", "words_first"])
    for name, value in (("tile", tile), ("images", images)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    return InferenceTNT(copy.deepcopy(model).eval(), order, tile, images)


def _check_known(model: TNT) -> None:
    """Refuse a model whose weights do not say all that it computes; norm, head and gates are called as they are.

    Raises:
        ValueError: For the first part that is not known, by name.
    """
    if type(model) is not TNT:
        raise UserError(f"optimize_for_inference knows tnt_vit.TNT itself, not its subclass {type(model).__name__}")
    parts: dict[str, nn.Module] = {
        name: getattr(model, name) for name in ("pixel_embed", "norm1_proj", "proj", "norm2_proj")
    }
    found = [("the model", touched(model))] if touched(model) else []
    for i, block in enumerate(model.blocks):
        if type(block) is not TNTBlock or touched(block):
            found.append((f"blocks.{i}", touched(block) or f"is a {type(block).__name__}"))
        parts |= {f"blocks.{i}.{name}": part for name, part in block.named_children() if name != "se_layer"}
    for name, part in parts.items():
        if not found and (other := foreign(part, (*KINDS, WordEmbed, nn.Conv2d))):
            found.append((f"{name}.{other[0]}".rstrip("."), other[1]))
    if found:
        where, why = found[0]
        raise UserError(
            f"optimize_for_inference: {where} {why}, which an optimized model would pass over: merge adapters, remove "
            "hooks and parametrizations first, or predict with the model itself"
        )
