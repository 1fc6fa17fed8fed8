"""TNT, Transformer in Transformer (Han et al., NeurIPS 2021): sentences of 16x16 pixels, words of 4x4 pixels in them.

Follows the official code where it differs from the text (the published weights need it): a 7x7 convolution inside each
patch, the first sentence tokens made from the words, two layer norms around the word-to-sentence projection.
``legacy=True`` is the first public variant. Weight names are timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.layers import calculate_drop_path_rates, to_2tuple, trunc_normal_
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from torch import Tensor, nn
from torch.fx import Proxy

from tnt_vit.layers import Attention, TNTBlock, resample_positions
from tnt_vit.layers.checks import check_architecture, check_input, parse_blocks
from tnt_vit.layers.graphs import check_traced_size, graph_of
from tnt_vit.layers.maps import AttentionMaps, attention_maps, word_features
from tnt_vit.layers.stem import WordEmbed
from tnt_vit.ops import resolve_backend

__all__ = ["TNT", "AttentionMaps"]

Backend = Literal["auto", "reference", "torch", "fused"]


class TNT(nn.Module):
    """Transformer in Transformer.

    Args:
        img_size: Height and width of the picture in pixels (one number for a square).
        patch_size: Height and width of a sentence; must divide ``img_size``.
        in_chans: Channels of the picture.
        num_classes: Classes; 0 leaves the classifier out.
        global_pool: What the classifier reads: the class ``token``, the ``avg`` of the sentences, or everything
            (``""``).
        embed_dim: Sentence width ``d``.
        inner_dim: Word width ``c``.
        depth: Blocks ``L``.
        num_heads: Heads among sentences; must divide ``embed_dim``.
        inner_num_heads: Heads among words; must divide ``inner_dim``.
        inner_stride: Distance between words in pixels; must divide ``patch_size``.
        mlp_ratio: Hidden over outer width of the sentence MLPs.
        qkv_bias: Bias of query, key and value projections (never in the published models).
        drop_rate: Dropout before the classifier.
        pos_drop_rate: Dropout after the position code.
        proj_drop_rate: Dropout after projections and in MLPs.
        attn_drop_rate: Dropout on attention weights.
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0.
        se_ratio: Hidden fraction of the channel gates of the SE variants (Table 12: 0.25), 0 for none.
        tnt_blocks: Which blocks have an inner part, 1-based as in Table 5; ``"all"`` or a list. The others are plain
            ViT blocks.
        positions: Which position codes are learnt (Table 6): ``both``, ``sentence``, ``word`` or ``none``.
        legacy: The first public variant (whole-picture stem, per-word norm before the projection).
        dynamic_img_size: Accept any picture whose sides are multiples of the patch; the position table is resampled on
            the fly.
        backend: ``auto`` (fused kernel on CUDA outside training, torch otherwise), ``torch``, ``fused`` (raises where
            it cannot run) or ``reference`` (everything spelled out as the official code does).
        device: Where to put the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: If sizes do not divide, or block numbers are out of range or repeated; names the argument and the
            fix.

    Example:
        >>> TNT(img_size=32, patch_size=8, embed_dim=48, inner_dim=12, depth=2, num_heads=3, inner_num_heads=2,
        ...     num_classes=10)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    norm: nn.Module
    blocks: Any  # an nn.ModuleList of TNTBlock, which type checkers cannot say

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: Literal["", "token", "avg"] = "token",
        embed_dim: int = 384,
        inner_dim: int = 24,
        depth: int = 12,
        num_heads: int = 6,
        inner_num_heads: int = 4,
        inner_stride: int = 4,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        se_ratio: float = 0.0,
        tnt_blocks: Literal["all"] | Sequence[int] = "all",
        positions: Literal["both", "sentence", "word", "none"] = "both",
        legacy: bool = False,
        dynamic_img_size: bool = False,
        backend: Backend = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        size, patch = to_2tuple(img_size), to_2tuple(patch_size)
        check_architecture(
            img_size=size,
            patch_size=patch,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            embed_dim=embed_dim,
            inner_dim=inner_dim,
            depth=depth,
            num_heads=num_heads,
            inner_num_heads=inner_num_heads,
            inner_stride=inner_stride,
            mlp_ratio=mlp_ratio,
            drop_rate=drop_rate,
            pos_drop_rate=pos_drop_rate,
            proj_drop_rate=proj_drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            se_ratio=se_ratio,
            positions=positions,
            backend=backend,
        )
        self.img_size: tuple[int, int] = size
        self.patch_size: tuple[int, int] = patch
        self.in_chans, self.num_classes, self.global_pool = in_chans, num_classes, global_pool
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim  # timm's names for the same thing
        self.inner_dim, self.depth, self.legacy, self.positions = inner_dim, depth, legacy, positions
        self.dynamic_img_size, self.backend = dynamic_img_size, backend
        self.tnt_blocks = parse_blocks(tnt_blocks, depth)
        self.num_prefix_tokens, self.grad_checkpointing = 1, False

        self.pixel_embed = WordEmbed(patch, inner_stride, in_chans, inner_dim, legacy=legacy, **dd)
        flat = self.pixel_embed.num_words * inner_dim
        self.norm1_proj = nn.LayerNorm(flat, **dd)
        self.proj = nn.Linear(flat, embed_dim, **dd)
        self.norm2_proj = nn.LayerNorm(embed_dim, **dd)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim, **dd))
        learn_sentence, learn_word = positions in ("both", "sentence"), positions in ("both", "word")
        self.patch_pos = nn.Parameter(
            torch.zeros(1, self.num_patches + 1, embed_dim, **dd), requires_grad=learn_sentence
        )
        self.pixel_pos = nn.Parameter(
            torch.zeros(1, inner_dim, *self.pixel_embed.word_grid, **dd), requires_grad=learn_word
        )
        self.pos_drop = nn.Dropout(pos_drop_rate)
        rates: Any = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.ModuleList(
            TNTBlock(
                embed_dim,
                num_heads,
                inner_dim=inner_dim if i + 1 in self.tnt_blocks else None,
                inner_num_heads=inner_num_heads,
                num_words=self.pixel_embed.num_words,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                proj_drop=proj_drop_rate,
                attn_drop=attn_drop_rate,
                drop_path=rates[i],
                se_ratio=se_ratio,
                legacy=legacy,
                **dd,
            )
            for i in range(depth)
        )
        self.feature_info = [
            {"module": f"blocks.{i}", "num_chs": embed_dim, "reduction": max(patch)} for i in range(depth)
        ]
        self.norm = nn.LayerNorm(embed_dim, **dd)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(embed_dim, num_classes, **dd) if num_classes > 0 else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the official code: linears, class token and position tables truncated normal, conv as torch."""
        if self.cls_token.is_meta:  # nothing to fill, and torch takes a third of a second to find out
            return
        trunc_normal_(self.cls_token, std=0.02)
        for table in (self.patch_pos, self.pixel_pos):
            if table.requires_grad:  # a table that is not learnt stays zero (Table 6)
                trunc_normal_(table, std=0.02)
        joined = {m for a in self.modules() if isinstance(a, Attention) for m in (a.qk, a.v)}
        for module in self.modules():
            if isinstance(module, Attention):  # in one draw, as one projection, which seeds of older runs had
                drawn = trunc_normal_(torch.empty_like(module.qkv_weight()), std=0.02)
                with torch.no_grad():
                    module.qk.weight.copy_(drawn[: 2 * module.dim])
                    module.v.weight.copy_(drawn[2 * module.dim :])
            if isinstance(module, nn.Linear):
                if module not in joined:
                    trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Sentences down and across the picture."""
        return self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        """Sentences ``n``."""
        return self.grid_size[0] * self.grid_size[1]

    # --- what timm asks of a model ---

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay must leave alone."""
        return {"patch_pos", "pixel_pos", "cls_token"}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups for layer-wise learning rates, in timm's format."""
        stem = r"^cls_token|patch_pos|pixel_pos|pixel_embed|norm[12]_proj|proj"
        return {"stem": stem, "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The classifier layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: Literal["", "token", "avg"] | None = None) -> None:
        """Replace the classifier by a fresh one.

        Args:
            num_classes: New number of classes; 0 leaves it out.
            global_pool: New pooling, unchanged if not given.

        Raises:
            ValueError: If the number is negative or the pooling unknown; nothing has changed then.
        """
        pooling = {} if global_pool is None else {"global_pool": global_pool}
        check_architecture(num_classes=num_classes, **pooling)
        if global_pool is not None:
            self.global_pool = global_pool
        self.num_classes = num_classes
        like = self.cls_token
        self.head = nn.Identity()
        if num_classes > 0:
            self.head = nn.Linear(self.embed_dim, num_classes, device=like.device, dtype=like.dtype)
            trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        self.head.train(self.training)

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Change the picture size for good: the sentence positions are resampled (bicubic), the word positions stay.

        The table becomes a new parameter, which an optimizer that was made before does not know; the model's own size
        changes nothing.

        Args:
            img_size: New height and width; multiples of the patch.

        Raises:
            ValueError: If a side is not a multiple of the patch.
        """
        size = to_2tuple(img_size)
        check_architecture(img_size=size, patch_size=self.patch_size)
        if size == self.img_size:
            return  # an optimizer that was made before goes on training this very table
        table = self._sentence_positions((size[0] // self.patch_size[0], size[1] // self.patch_size[1]))
        self.patch_pos = nn.Parameter(table.detach().clone(), requires_grad=self.patch_pos.requires_grad)
        self.img_size = size

    # --- forward ---

    def _sentence_positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table for a grid of sentences, resampled as timm does; the class token's row stays."""
        return resample_positions(self.patch_pos, self.grid_size, grid)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Words and first sentence tokens of pictures, before block 1.

        Args:
            x: Pictures ``(B, in_chans, H, W)``.

        Returns:
            Words ``(B * n, m, c)`` and sentences ``(B, n + 1, d)``.
        """
        if isinstance(x, Proxy):
            return self._embed_traced(x)
        check_input(x, self.in_chans, self.img_size, self.patch_size, dynamic=self.dynamic_img_size)
        words = self.pixel_embed(x, self.pixel_pos, naive=self.backend == "reference")
        grid = (x.shape[2] // self.patch_size[0], x.shape[3] // self.patch_size[1])
        flat = words.reshape(x.shape[0], grid[0] * grid[1], self.proj.in_features)
        sentences = self.norm2_proj(self.proj(self.norm1_proj(flat)))
        sentences = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), sentences], dim=1)
        return words, self.pos_drop(sentences + self._sentence_positions(grid))

    def _embed_traced(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`embed` for torch.fx, whose graphs hold no decisions: pictures of the model's own size only."""
        check_traced_size(x, self.img_size, dynamic=self.dynamic_img_size)
        words = self.pixel_embed(x, self.pixel_pos, naive=self.backend == "reference")
        flat = words.reshape(-1, self.num_patches, self.proj.in_features)
        sentences = self.norm2_proj(self.proj(self.norm1_proj(flat)))
        sentences = torch.cat([self.cls_token.expand(flat.shape[0], -1, -1), sentences], dim=1)
        return words, self.pos_drop(sentences + self.patch_pos)

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` compiles in place of a module that chooses its path as it runs: its plain graph."""
        return graph_of(self)

    def _modes(self, x: Tensor) -> dict[str, Any]:
        """How the blocks run for this input: which fused kernel, and whether attention is spelled out."""
        if isinstance(x, Proxy):
            return {"fused": None, "explicit": self.backend == "reference"}
        return {
            "fused": resolve_backend(self.backend, x.device, training=self.training),
            "explicit": self.backend == "reference",
        }

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised tokens after the last block: ``(B, in_chans, H, W) -> (B, n + 1, d)``."""
        words, sentences = self.embed(x)
        modes = self._modes(x)
        for block in self.blocks:
            words, sentences = self._run(block, words, sentences, modes)
        return self.norm(sentences)

    def _run(self, block: Any, words: Tensor, sentences: Tensor, modes: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """One block; with checkpointing its activations are computed again in the backward pass, if there will be one.

        As in timm, evaluation mode makes no difference: frozen dropout is no reason to keep activations.
        """
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, words, sentences, **modes)
        return block(words, sentences, **modes)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool tokens ``(B, n + 1, d)`` and classify them; ``pre_logits`` stops before the classifier."""
        if self.global_pool:
            x = x[:, self.num_prefix_tokens :].mean(dim=1) if self.global_pool == "avg" else x[:, 0]
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of pictures: ``(B, in_chans, H, W) -> (B, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Tokens after chosen blocks, with timm's arguments.

        Args:
            x: Pictures ``(B, in_chans, H, W)``.
            indices: Blocks to return: the last so many, a list of 0-based numbers, or all.
            return_prefix_tokens: Return pairs of the map and the class token.
            norm: Apply the final norm to every map.
            stop_early: Do not run blocks after the last one asked for.
            output_fmt: ``NCHW`` maps ``(B, d, rows, columns)`` or ``NLC`` tokens ``(B, n, d)``.
            intermediates_only: Leave the final tokens out.

        Returns:
            The maps, or the final tokens ``(B, n + 1, d)`` and the maps.

        Raises:
            ValueError: If ``output_fmt`` is unknown.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        wanted, last = feature_take_indices(len(self.blocks), indices)
        words, sentences = self.embed(x)
        modes = self._modes(x)
        taken: list[Tensor] = []
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            words, sentences = self._run(block, words, sentences, modes)
            if i in wanted:
                taken.append(self.norm(sentences) if norm else sentences)
        prefix = [t[:, 0:1] for t in taken]
        maps = [t[:, 1:] for t in taken]
        if output_fmt == "NCHW":
            rows, cols = x.shape[2] // self.patch_size[0], x.shape[3] // self.patch_size[1]
            maps = [t.transpose(1, 2).reshape(x.shape[0], -1, rows, cols).contiguous() for t in maps]
        result: Any = list(zip(maps, prefix, strict=True)) if return_prefix_tokens else maps
        return result if intermediates_only else (self.norm(sentences), result)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the blocks after the last one asked for, and the norm and head if told to.

        Returns:
            The 0-based numbers of the blocks that were asked for.
        """
        wanted, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return wanted

    # --- what the pictures of the paper need ---

    @torch.no_grad()
    def word_features(self, x: Tensor, *, as_map: bool = False) -> list[Tensor]:
        """Words after every block (Figure 4).

        Args:
            x: Pictures ``(B, in_chans, H, W)``.
            as_map: Put the words back where they came from.

        Returns:
            One tensor a block: ``(B, n, m, c)``, or ``(B, c, H / stride, W / stride)`` as a map.
        """
        return word_features(self, x, as_map=as_map)

    @torch.no_grad()
    def attention_maps(self, x: Tensor) -> list[AttentionMaps]:
        """Attention weights of every block (Figures 5 to 7); see :class:`AttentionMaps`.

        Args:
            x: Pictures ``(B, in_chans, H, W)``.

        Returns:
            One :class:`AttentionMaps` a block.
        """
        return attention_maps(self, x)


# Graphs of torch.fx carry these over, and torch.jit.script wants types there and not their names.
TNT.forward.__annotations__.update(x=Tensor, **{"return": Tensor})
