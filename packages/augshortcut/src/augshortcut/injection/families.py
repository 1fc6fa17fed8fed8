"""The blocks of timm that are known exactly, each with a class of its own here, at module level (so models pickle).

All compute ``x + drop(scale(attn(norm1 x)))`` and then the same with the MLP; they differ in arguments that are passed
through, in LayerScale, and in the shape of a token grid. Further arguments of ``forward`` go to the attention as they
came.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import (
    beit,
    cait,
    convit,
    eva,
    gcvit,
    nest,
    pvt_v2,
    swin_transformer,
    tnt,
    twins,
    vision_transformer,
    vision_transformer_relpos,
    volo,
    xcit,
)
from torch import Tensor

from augshortcut.injection.joining import Augmented

__all__ = ["PRE_NORM"]


class AugViTBlock(Augmented, vision_transformer.Block):
    """``vision_transformer.Block``: ViT, DeiT, DINOv2, hybrid and CrossViT's inner blocks."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See the base class of timm; further arguments go to the attention."""
        y = self.norm1(x)
        x = self.join("attn", x, self.ls1(self.attn(y, *args, **kwargs)), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, self.ls2(self.mlp(y)), y, self.drop_path2)


class AugRelPosBlock(Augmented, vision_transformer_relpos.RelPosBlock):
    """``vision_transformer_relpos.RelPosBlock``."""

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self.ls1(self.attn(y, shared_rel_pos=shared_rel_pos)), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, self.ls2(self.mlp(y)), y, self.drop_path2)


def _scaled(gamma: Tensor | None, branch: Tensor) -> Tensor:
    return branch if gamma is None else gamma * branch


class AugEvaBlock(Augmented, eva.EvaBlock):
    """``eva.EvaBlock``: EVA, EVA-02, DINOv3, PE."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See the base class of timm; rotary tables and masks go to the attention."""
        y = self.norm1(x)
        names = ("rope", "attn_mask", "is_causal")
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        x = self.join("attn", x, _scaled(self.gamma_1, self.attn(y, **kwargs)), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, _scaled(self.gamma_2, self.mlp(y)), y, self.drop_path2)


class AugBeitBlock(Augmented, beit.Block):
    """``beit.Block``."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        branch = self.attn(y, shared_rel_pos_bias=shared_rel_pos_bias)
        x = self.join("attn", x, _scaled(self.gamma_1, branch), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, _scaled(self.gamma_2, self.mlp(y)), y, self.drop_path2)


class AugSwinBlock(Augmented, swin_transformer.SwinTransformerBlock):
    """``swin_transformer.SwinTransformerBlock``, tokens as ``(B, H, W, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self._attn(y), y, self.drop_path1)
        shape = x.shape
        x = x.reshape(shape[0], -1, shape[-1])
        y = self.norm2(x)
        return self.join("mlp", x, self.mlp(y), y, self.drop_path2).reshape(shape)


class AugPvtV2Block(Augmented, pvt_v2.Block):
    """``pvt_v2.Block``."""

    def forward(self, x: Tensor, feat_size: Any) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self.attn(y, feat_size), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, self.mlp(y, feat_size), y, self.drop_path2)


class AugTwinsBlock(Augmented, twins.Block):
    """``twins.Block``."""

    def forward(self, x: Tensor, size: Any) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self.attn(y, size), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, self.mlp(y), y, self.drop_path2)


class AugCaitBlock(Augmented, cait.LayerScaleBlock):
    """``cait.LayerScaleBlock``; its class-attention blocks stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self.gamma_1 * self.attn(y), y, self.drop_path)
        y = self.norm2(x)
        return self.join("mlp", x, self.gamma_2 * self.mlp(y), y, self.drop_path)


class AugConvitBlock(Augmented, convit.Block):
    """``convit.Block``."""

    def forward(self, x: Tensor) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self.attn(y), y, self.drop_path)
        y = self.norm2(x)
        return self.join("mlp", x, self.mlp(y), y, self.drop_path)


class _TwoDrops(Augmented):
    """Blocks without arguments: attention and MLP, each with its own stochastic depth."""

    def forward(self, x: Tensor) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self.attn(y), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, self.mlp(y), y, self.drop_path2)


class AugVoloBlock(_TwoDrops, volo.Transformer):
    """``volo.Transformer``; outlookers and class blocks stay as they are."""


class AugNestLayer(_TwoDrops, nest.TransformerLayer):
    """``nest.TransformerLayer``."""


class AugXcitBlock(Augmented, xcit.XCABlock):
    """``xcit.XCABlock``; its third residual, the local one, stays as it is."""

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self.gamma1 * self.attn(y), y, self.drop_path1)
        x = x + self.drop_path3(self.gamma3 * self.local_mp(self.norm3(x), H, W))
        y = self.norm2(x)
        return self.join("mlp", x, self.gamma2 * self.mlp(y), y, self.drop_path2)


class AugGcvitBlock(Augmented, gcvit.GlobalContextVitBlock):
    """``gcvit.GlobalContextVitBlock``, tokens as ``(B, H, W, C)``."""

    def forward(self, x: Tensor, q_global: Tensor | None = None) -> Tensor:
        """See the base class of timm."""
        y = self.norm1(x)
        x = self.join("attn", x, self.ls1(self._window_attn(y, q_global)), y, self.drop_path1)
        y = self.norm2(x)
        return self.join("mlp", x, self.ls2(self.mlp(y)), y, self.drop_path2)


class AugTntBlock(Augmented, tnt.Block):
    """``tnt.Block``: paths beside the sub-layers of the sentences; the inner block stays as it is."""

    norms = ("norm_out", "norm_mlp")

    def forward(self, pixel_embed: Tensor, patch_embed: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class of timm."""
        pixel_embed = pixel_embed + self.drop_path(self.attn_in(self.norm_in(pixel_embed)))
        pixel_embed = pixel_embed + self.drop_path(self.mlp_in(self.norm_mlp_in(pixel_embed)))
        batch, tokens, _ = patch_embed.shape
        if self.norm2_proj is None:
            update = self.proj(self.norm1_proj(pixel_embed).reshape(batch, tokens - 1, -1))
        else:
            update = self.norm2_proj(self.proj(self.norm1_proj(pixel_embed.reshape(batch, tokens - 1, -1))))
        x = torch.cat([patch_embed[:, :1], patch_embed[:, 1:] + update], dim=1)
        y = self.norm_out(x)
        x = self.join("attn", x, self.attn_out(y), y, self.drop_path)
        y = self.norm_mlp(x)
        return pixel_embed, self.join("mlp", x, self.mlp(y), y, self.drop_path)


PRE_NORM: list[type[Augmented]] = [
    AugViTBlock,
    AugRelPosBlock,
    AugEvaBlock,
    AugBeitBlock,
    AugSwinBlock,
    AugPvtV2Block,
    AugTwinsBlock,
    AugCaitBlock,
    AugConvitBlock,
    AugVoloBlock,
    AugNestLayer,
    AugXcitBlock,
    AugGcvitBlock,
    AugTntBlock,
]
