"""Pyramid Vision Transformer, first version (Wang et al., ICCV 2021), for the PVT rows of Table 2; from the paper.

Four stages; each begins with disjoint patches (a strided convolution and a norm) and a position table. Keys and values
are read from a grid that a strided convolution has made ``sr`` times coarser. The last stage has a class token.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from augshortcut.injection.joining import Augmented
from augshortcut.injection.registry import register_family
from augshortcut.models.images import ImageClassifier, drop_rates

__all__ = ["SIZES", "AugPvtV1Block", "Block", "PvtV1"]

DIMS, HEADS, RATIOS, REDUCTIONS = (64, 128, 320, 512), (1, 2, 5, 8), (8, 8, 4, 4), (8, 4, 2, 1)
SIZES = {"small": (3, 4, 6, 3), "medium": (3, 4, 18, 3)}
"""Blocks of each stage."""


class SpatialReductionAttention(nn.Module):
    """Attention of all tokens to a coarser grid of them."""

    def __init__(self, dim: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads, self.reduction = num_heads, reduction
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, reduction, reduction)
            self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens ``(B, N, C)`` of a grid of ``size``; a class token is only there without reduction."""
        batch, tokens, dim = x.shape
        heads = self.num_heads
        q = self.q(x).view(batch, tokens, heads, dim // heads).transpose(1, 2)
        if self.reduction > 1:
            grid = x.transpose(1, 2).reshape(batch, dim, *size)
            x = self.norm(self.sr(grid).flatten(2).transpose(1, 2))
        kv = self.kv(x).view(batch, -1, 2, heads, dim // heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, kv[0], kv[1])
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Attention and MLP, each with a norm before and stochastic depth."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SpatialReductionAttention(dim, num_heads, reduction)
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, dim * mlp_ratio)
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens ``(B, N, C)`` of a grid of ``size``."""
        x = x + self.drop_path1(self.attn(self.norm1(x), size))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class AugPvtV1Block(Augmented, Block):
    """The block with paths."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """See :class:`Block`."""
        y = self.norm1(x)
        x = self.join("attn", x, self.attn(y, size), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, self.mlp(y), y, self.drop_path2)


register_family(AugPvtV1Block)


class Stage(nn.Module):
    """Patches, positions and blocks of one resolution."""

    def __init__(self, index: int, side: int, in_chans: int, drop_path: list[float]) -> None:
        super().__init__()
        dim, last = DIMS[index], index == 3
        self.side = side
        self.patch = nn.Conv2d(in_chans, dim, 4 if index == 0 else 2, 4 if index == 0 else 2)
        self.norm = nn.LayerNorm(dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if last else None
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side + last, dim))
        sizes = (dim, HEADS[index], RATIOS[index], REDUCTIONS[index])
        self.blocks = nn.ModuleList([Block(*sizes, rate) for rate in drop_path])

    def forward(self, x: Tensor, recompute: bool) -> Tensor:
        """``(B, C, H, W)`` to tokens ``(B, N, dim)``, the class token first where there is one."""
        x = self.norm(self.patch(x).flatten(2).transpose(1, 2))
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.pos_embed
        size = (self.side, self.side)
        for block in self.blocks:
            x = checkpoint(block, x, size, use_reentrant=False) if recompute else block(x, size)
        return x


class PvtV1(ImageClassifier):
    """PVT v1.

    Args:
        depths: Blocks of each stage.
        drop_path_rate: Stochastic depth of the last block; rises from 0.
        img_size: Side of the pictures, a multiple of 32.
        in_chans: See the base class, and so for the rest.
        num_classes: Likewise.
        global_pool: Likewise.

    Raises:
        UserError: If an argument does not fit.
    """

    def __init__(
        self,
        depths: tuple[int, ...] = SIZES["small"],
        drop_path_rate: float = 0.0,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
    ) -> None:
        kept: dict[str, Any] = {"in_chans": in_chans, "num_classes": num_classes, "global_pool": global_pool}
        super().__init__(DIMS[-1], img_size=img_size, multiple=32, **kept)
        rates = drop_rates(drop_path_rate, sum(depths))
        self.stages = nn.ModuleList()
        for index, depth in enumerate(depths):
            channels = in_chans if index == 0 else DIMS[index - 1]
            start = sum(depths[:index])
            side = self.img_size // 2 ** (index + 2)
            self.stages.append(Stage(index, side, channels, rates[start : start + depth]))
        self.feature_info = [
            {"num_chs": dim, "reduction": 2 ** (index + 2), "module": f"stages.{index}"}
            for index, dim in enumerate(DIMS)
        ]
        self.finish(nn.LayerNorm(DIMS[-1], eps=1e-6))
        for name, parameter in self.named_parameters():
            if name.endswith(("pos_embed", "cls_token")):
                trunc_normal_(parameter, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Position tables and the class token."""
        return {name for name, _ in self.named_parameters() if name.endswith(("pos_embed", "cls_token"))}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for layer-wise decay: the blocks of all stages in a row."""
        if coarse:
            return {"stages": r"^stages\.(\d+)"}
        begin = r"^stages\.(\d+)\.(?:patch|norm|pos_embed|cls_token)"
        return {"stages": [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (begin, (-1,))]}

    def tokens(self, x: Tensor, keep: list[Tensor] | None = None) -> Tensor:
        """See the base class."""
        self.check_images(x)
        for index, stage in enumerate(self.stages):
            x = stage(x, self.grad_checkpointing and self.training)
            if keep is not None:
                keep.append(x)
            if index < 3:
                side = self.img_size // 2 ** (index + 2)
                x = x.transpose(1, 2).reshape(len(x), -1, side, side)
        return x
