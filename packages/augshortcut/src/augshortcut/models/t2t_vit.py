"""T2T-ViT (Yuan et al., ICCV 2021) for the T2T rows of Table 2; from the paper, with its Performer layers.

Three soft splits (overlapping patches), with a layer of linear attention after the first two, and a plain deep-narrow
transformer over the tokens that come out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm, Mlp, trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from augshortcut.models.images import ImageClassifier, drop_rates

__all__ = ["SIZES", "T2TViT", "TokenPerformer"]

TOKEN_DIM = 64
SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))  # kernel, stride, padding
SIZES = {14: {"dim": 384, "num_heads": 6}, 19: {"dim": 448, "num_heads": 7}, 24: {"dim": 512, "num_heads": 8}}
"""Width and heads by depth."""


class TokenPerformer(nn.Module):
    """One layer of single-head linear attention with random positive features, and an MLP; narrows ``dim`` to 64.

    Features of x: ``exp(w x - |x|^2 / 2) / sqrt(m)`` with m orthogonal rows w, which stay as they were drawn. The
    shortcut starts at the values, since the input is wider.
    """

    def __init__(self, dim: int, features: int = TOKEN_DIM // 2) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(TOKEN_DIM)
        self.kqv = nn.Linear(dim, 3 * TOKEN_DIM)
        self.proj = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        self.mlp = nn.Sequential(nn.Linear(TOKEN_DIM, TOKEN_DIM), nn.GELU(), nn.Linear(TOKEN_DIM, TOKEN_DIM))
        self.w = nn.Parameter(torch.empty(features, TOKEN_DIM), requires_grad=False)
        self.reset_features()

    def reset_features(self) -> None:
        """Draw orthogonal directions of length sqrt(m)."""
        nn.init.orthogonal_(self.w)
        with torch.no_grad():
            self.w.mul_(math.sqrt(self.w.shape[0]))

    def _features(self, x: Tensor) -> Tensor:
        half = x.square().sum(dim=-1, keepdim=True) / 2
        return torch.exp(x @ self.w.t() - half) / math.sqrt(self.w.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, dim)`` to ``(B, N, 64)``."""
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        k, q = self._features(k), self._features(q)
        weight = q @ k.sum(dim=1).unsqueeze(-1)
        attended = q @ (k.transpose(1, 2) @ v) / (weight + 1e-8)
        x = v + self.proj(attended)
        return x + self.mlp(self.norm2(x))


def sinusoid(tokens: int, dim: int) -> Tensor:
    """Sines and cosines of positions, ``(1, tokens, dim)``."""
    place = torch.arange(tokens, dtype=torch.float64, device="cpu").unsqueeze(1)
    channel = torch.arange(dim, device="cpu")
    angle = place / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float().unsqueeze(0)


class T2TViT(ImageClassifier):
    """T2T-ViT with Performer layers.

    Args:
        depth: Blocks.
        dim: Width.
        num_heads: Heads.
        drop_path_rate: Stochastic depth of the last block; rises from 0.
        img_size: Side of the pictures, a multiple of 16.
        in_chans: See the base class, and so for the rest.
        num_classes: Likewise.
        global_pool: Likewise.

    Raises:
        UserError: If an argument does not fit.
    """

    def __init__(
        self,
        depth: int = 14,
        dim: int = 384,
        num_heads: int = 6,
        drop_path_rate: float = 0.0,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
    ) -> None:
        kept: dict[str, Any] = {"in_chans": in_chans, "num_classes": num_classes, "global_pool": global_pool}
        super().__init__(dim, img_size=img_size, multiple=16, **kept)
        self.narrow = nn.ModuleList([TokenPerformer(in_chans * 49), TokenPerformer(TOKEN_DIM * 9)])
        self.project = nn.Linear(TOKEN_DIM * 9, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        tokens = (self.img_size // 16) ** 2 + 1
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim), requires_grad=False)
        self.blocks = nn.Sequential(
            *[
                Block(dim, num_heads, 3.0, qkv_bias=False, drop_path=rate, norm_layer=nn.LayerNorm, mlp_layer=Mlp)
                for rate in drop_rates(drop_path_rate, depth)
            ]
        )
        self.feature_info = [{"num_chs": dim, "reduction": 16, "module": f"blocks.{index}"} for index in range(depth)]
        self.finish(LayerNorm(dim, eps=1e-5))
        trunc_normal_(self.cls_token, std=0.02)
        with torch.no_grad():
            self.pos_embed.copy_(sinusoid(tokens, dim))

    def no_weight_decay(self) -> set[str]:
        """The class token."""
        return {"cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for layer-wise decay."""
        return {"stem": r"^narrow|project|cls_token|pos_embed", "blocks": [(r"^blocks\.(\d+)", None)]}

    def tokens(self, x: Tensor, keep: list[Tensor] | None = None) -> Tensor:
        """See the base class."""
        self.check_images(x)
        side = self.img_size
        for index, (kernel, stride, padding) in enumerate(SPLITS):
            tokens = F.unfold(x, kernel, stride=stride, padding=padding).transpose(1, 2)
            side = (side + 2 * padding - kernel) // stride + 1
            if index < 2:
                x = self.narrow[index](tokens).transpose(1, 2).reshape(len(x), TOKEN_DIM, side, side)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.project(tokens)], dim=1) + self.pos_embed
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing and self.training else block(x)
            if keep is not None:
                keep.append(x)
        return x
