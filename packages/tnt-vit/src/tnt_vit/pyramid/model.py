"""PyramidTNT: a convolutional stem and four stages of TNT blocks (Han et al., 2022, arXiv 2201.00978).

Made after the facts of the official code. Where it is fixed to one picture size, position tables are resampled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.layers import calculate_drop_path_rates, to_2tuple, trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.fx import Proxy

from effkit.errors import UserError
from tnt_vit.layers.graphs import check_traced_size, graph_of
from tnt_vit.pyramid.checks import STEM_STRIDE, check_pyramid, check_pyramid_input, grids_of, side_step
from tnt_vit.pyramid.positions import resample_table
from tnt_vit.pyramid.stage import Stage, pooled
from tnt_vit.pyramid.stem import WORDS, PyramidStem, SentenceAggregation, WordAggregation, init_conv

__all__ = ["PyramidTNT"]

Pool = Literal["", "avg"]


class PyramidTNT(nn.Module):
    """PyramidTNT.

    Args:
        img_size: Height and width of the picture in pixels (one number for a square); multiples of 32 with the usual
            ``sr_ratios``.
        in_chans: Channels of the picture.
        num_classes: Classes; 0 leaves the classifier out.
        global_pool: What the classifier reads: the ``avg`` of the last sentences, or all of them (``""``).
        embed_dims: Sentence width ``d`` of each stage.
        inner_dims: Word width ``c`` of each stage.
        depths: Blocks of each stage.
        num_heads: Heads among sentences; must divide ``embed_dims``.
        inner_num_heads: Heads among words; must divide ``inner_dims``.
        sr_ratios: Side of the cells that the keys of each stage are pooled over.
        mlp_ratio: Hidden over outer width of the MLPs.
        qkv_bias: Bias of query, key and value projections (never in the published models).
        drop_rate: Dropout before the classifier.
        pos_drop_rate: Dropout on the sentences' position code, not on the sentences (as in the official code).
        proj_drop_rate: Dropout after projections and in MLPs.
        attn_drop_rate: Dropout on attention weights.
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0.
        se_ratio: Hidden fraction of the channel gates, 0 for none (as published).
        dynamic_img_size: Accept any picture whose sides are multiples of what ``img_size`` must be; position tables are
            resampled on the fly.
        device: Where to put the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: If sizes do not divide, or stages are described by lists of different lengths.

    Example:
        >>> PyramidTNT(img_size=32, embed_dims=(16, 32), inner_dims=(4, 8), depths=(1, 1), num_heads=(2, 2),
        ...     inner_num_heads=(1, 2), sr_ratios=(2, 1), num_classes=10)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    norm: nn.Module
    stages: Any  # nn.ModuleLists of Stage, SentenceAggregation and WordAggregation
    sentence_merges: Any
    word_merges: Any

    def __init__(
        self,
        img_size: int | tuple[int, int] = 256,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: Pool = "avg",
        embed_dims: Sequence[int] = (128, 256, 512, 512),
        inner_dims: Sequence[int] = (8, 16, 32, 32),
        depths: Sequence[int] = (2, 8, 4, 2),
        num_heads: Sequence[int] = (4, 8, 16, 16),
        inner_num_heads: Sequence[int] = (2, 4, 8, 8),
        sr_ratios: Sequence[int] = (4, 2, 1, 1),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        se_ratio: float = 0.0,
        dynamic_img_size: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        size: tuple[int, int] = to_2tuple(img_size)
        check_pyramid(
            img_size=size,
            sr_ratios=sr_ratios,
            depths=depths,
            embed_dims=embed_dims,
            inner_dims=inner_dims,
            num_heads=num_heads,
            inner_num_heads=inner_num_heads,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            mlp_ratio=mlp_ratio,
            drop_rate=drop_rate,
            pos_drop_rate=pos_drop_rate,
            proj_drop_rate=proj_drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            se_ratio=se_ratio,
        )
        self.img_size, self.in_chans, self.num_classes, self.global_pool = size, in_chans, num_classes, global_pool
        self.embed_dims, self.inner_dims, self.depths = tuple(embed_dims), tuple(inner_dims), tuple(depths)
        self.num_heads, self.inner_num_heads = tuple(num_heads), tuple(inner_num_heads)
        self.sr_ratios, self.mlp_ratio, self.dynamic_img_size = tuple(sr_ratios), mlp_ratio, dynamic_img_size
        self.num_features = self.head_hidden_size = self.embed_dims[-1]  # timm's names for the same thing
        self.grad_checkpointing = False
        count, grids, words = len(self.depths), self.grids, WORDS[0] * WORDS[1]
        rates: Any = calculate_drop_path_rates(drop_path_rate, sum(self.depths))
        starts = [sum(self.depths[:i]) for i in range(count)]

        self.patch_embed = PyramidStem(in_chans, self.embed_dims[0], self.inner_dims[0], **dd)
        self.outer_pos = nn.Parameter(torch.zeros(1, grids[0][0] * grids[0][1], self.embed_dims[0], **dd))
        self.inner_pos = nn.Parameter(torch.zeros(1, words, self.inner_dims[0], **dd))
        self.pos_drop = nn.Dropout(pos_drop_rate)
        pairs = range(count - 1)
        self.word_merges = nn.ModuleList(
            WordAggregation(self.inner_dims[i], self.inner_dims[i + 1], **dd) for i in pairs
        )
        self.sentence_merges = nn.ModuleList(
            SentenceAggregation(self.embed_dims[i], self.embed_dims[i + 1], **dd) for i in pairs
        )
        self.stages = nn.ModuleList(
            Stage(
                self.depths[i],
                grids[i],
                self.embed_dims[i],
                self.num_heads[i],
                self.inner_dims[i],
                inner_num_heads=self.inner_num_heads[i],
                num_words=words,
                sr_ratio=self.sr_ratios[i],
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                proj_drop=proj_drop_rate,
                attn_drop=attn_drop_rate,
                drop_path=rates[starts[i] : starts[i] + self.depths[i]],
                se_ratio=se_ratio,
                **dd,
            )
            for i in range(count)
        )
        self.feature_info = [
            {"module": f"stages.{i}", "num_chs": dim, "reduction": STEM_STRIDE * 2**i}
            for i, dim in enumerate(self.embed_dims)
        ]
        self.norm = nn.LayerNorm(self.num_features, **dd)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, num_classes, **dd) if num_classes > 0 else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the official code; the attention's bias tables are standard normal there, too."""
        if self.outer_pos.is_meta:
            return
        for table in (self.outer_pos, self.inner_pos):
            trunc_normal_(table, std=0.02)
        for stage in self.stages:
            nn.init.normal_(stage.relative_pos)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                init_conv(module)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Sentences down and across in every stage, for pictures of the model's own size."""
        return grids_of(self.img_size, len(self.depths))

    @property
    def grid_size(self) -> tuple[int, int]:
        """Sentences down and across in the first stage, which the position table is for."""
        return self.grids[0]

    @property
    def size_step(self) -> int:
        """What both sides of a picture must be multiples of."""
        return side_step(self.sr_ratios)

    # --- what timm asks of a model ---

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay must leave alone; not the attention's biases, as in the official code."""
        return {"outer_pos", "inner_pos"}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups for layer-wise learning rates, in timm's format."""
        blocks = r"^stages\.(\d+)" if coarse else [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^stages\.(\d+)", (0,))]
        merges = r"^(?:word|sentence)_merges\.(\d+)"
        blocks_and_norm = blocks if coarse else [*blocks, (merges, (0,)), (r"^norm", (99999,))]
        return {"stem": r"^outer_pos|inner_pos|patch_embed", "blocks": blocks_and_norm}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The classifier layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: Pool | None = None) -> None:
        """Replace the classifier by a fresh one.

        Args:
            num_classes: New number of classes; 0 leaves it out.
            global_pool: New pooling, unchanged if not given.

        Raises:
            ValueError: If the number is negative or the pooling unknown; nothing has changed then.
        """
        pooling = {} if global_pool is None else {"global_pool": global_pool}
        check_pyramid(img_size=self.img_size, sr_ratios=self.sr_ratios, num_classes=num_classes, **pooling)
        if global_pool is not None:
            self.global_pool = global_pool
        self.num_classes = num_classes
        like = self.outer_pos
        self.head = nn.Identity()
        if num_classes > 0:
            self.head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        self.head.train(self.training)

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Change the picture size for good: all tables of sentences are resampled (bicubic), the words' stays.

        The tables become new parameters, which an optimizer that was made before does not know; the model's own size
        changes nothing.

        Args:
            img_size: New height and width.

        Raises:
            ValueError: If a side is not a multiple of :attr:`size_step`.
        """
        size: tuple[int, int] = to_2tuple(img_size)
        check_pyramid(img_size=size, sr_ratios=self.sr_ratios)
        if size == self.img_size:
            return
        old, new = self.grids, grids_of(size, len(self.depths))
        self.outer_pos = nn.Parameter(resample_table(self.outer_pos, old[0], new[0]).detach().clone())
        for stage, own, grid in zip(self.stages, old, new, strict=True):
            stage.relative_pos = nn.Parameter(stage.bias(own, grid).detach().clone())
        self.img_size = size

    # --- forward ---

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` compiles: a graph for pictures of the model's own size."""
        return graph_of(self)

    def _grids_for(self, x: Tensor) -> list[tuple[int, int]]:
        """Sentences down and across in every stage for these pictures; graphs of torch.fx take one size only."""
        if isinstance(x, Proxy):
            check_traced_size(x, self.img_size, dynamic=self.dynamic_img_size)
            return self.grids
        check_pyramid_input(x, self.in_chans, self.img_size, self.sr_ratios, dynamic=self.dynamic_img_size)
        return grids_of((x.shape[2], x.shape[3]), len(self.depths))

    def _stages(self, x: Tensor, last: int) -> list[Tensor]:
        """Sentences after each stage up to the last one asked for, ``(B, n, d)``."""
        grids = self._grids_for(x)
        words, sentences = self.patch_embed(x)
        words = words + self.inner_pos
        sentences = sentences + self.pos_drop(resample_table(self.outer_pos, self.grids[0], grids[0]))
        found = []
        # Stages that were cut off (features_only) leave grids over.
        for i, (stage, own, grid) in enumerate(zip(self.stages, self.grids, grids, strict=False)):
            if i > last:
                break
            if i > 0:
                words = self.word_merges[i - 1](words, grids[i - 1])
                sentences = self.sentence_merges[i - 1](sentences, grids[i - 1])
            words, sentences = stage(words, sentences, own, grid, checkpointing=self.grad_checkpointing)
            found.append(sentences)
        return found

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised sentences after the last stage: ``(B, in_chans, H, W) -> (B, n, d)``."""
        return self.norm(self._stages(x, len(self.stages))[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool sentences ``(B, n, d)`` and classify them; ``pre_logits`` stops before the classifier."""
        x = self.head_drop(x.mean(dim=1) if self.global_pool else x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of pictures: ``(B, in_chans, H, W) -> (B, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Sentences after chosen stages, with timm's arguments.

        Args:
            x: Pictures ``(B, in_chans, H, W)``.
            indices: Stages to return: the last so many, a list of 0-based numbers, or all.
            norm: Apply the final norm to the last stage's; the others have another width.
            stop_early: Do not run stages after the last one asked for.
            output_fmt: ``NCHW`` maps ``(B, d, rows, columns)`` or ``NLC`` tokens ``(B, n, d)``.
            intermediates_only: Leave the final tokens out.

        Returns:
            The maps, or the final tokens ``(B, n, d)`` and the maps.

        Raises:
            ValueError: If ``output_fmt`` is unknown, or the final tokens are asked for from a model whose last stages
                were stopped early or cut off.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        wanted, last = feature_take_indices(len(self.stages), indices)
        found = self._stages(x, last if stop_early else len(self.stages))
        final = len(self.depths) - 1
        taken = [self.norm(found[i]) if norm and i == final else found[i] for i in wanted]
        if output_fmt == "NCHW":
            grids = grids_of((x.shape[2], x.shape[3]), len(self.depths))
            taken = [t.transpose(1, 2).unflatten(2, grids[i]).contiguous() for i, t in zip(wanted, taken, strict=True)]
        if intermediates_only:
            return taken
        return (self.norm(found[-1]) if len(found) == final + 1 else found[-1]), taken

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one asked for, and the norm and head if told to.

        Returns:
            The 0-based numbers of the stages that were asked for.
        """
        wanted, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        self.word_merges, self.sentence_merges = self.word_merges[:last], self.sentence_merges[:last]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return wanted

    # --- what pictures need ---

    @torch.no_grad()
    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """Attention among the sentences in the last block of each stage.

        Args:
            x: Pictures ``(B, in_chans, H, W)``.

        Returns:
            One tensor a stage, ``(B, h, n, k)``: ``n`` queries row by row, ``k`` pooled keys row by row.
        """
        check_pyramid_input(x, self.in_chans, self.img_size, self.sr_ratios, dynamic=self.dynamic_img_size)
        seen: list[Tensor] = []

        def keep(attention: Any, given: tuple[Any, ...]) -> None:
            seen.append(attention.weights(*given))

        handles = [stage.blocks[-1].outer_attn.register_forward_pre_hook(keep) for stage in self.stages]
        try:
            self._stages(x, len(self.stages))
        finally:
            for handle in handles:
                handle.remove()
        return seen

    def keys_grid(self, stage: int) -> tuple[int, int]:
        """Rows and columns of the pooled keys of a stage, from 0, for pictures of the model's own size."""
        return pooled(self.grids[stage], self.sr_ratios[stage])


# As for TNT: graphs of torch.fx carry these over, and torch.jit.script wants types there and not their names.
PyramidTNT.forward.__annotations__.update(x=Tensor, **{"return": Tensor})
