"""Blocks whose norms come after attention and MLP: paths can only read the block's input there (``tap=input``)."""

from __future__ import annotations

from typing import Any

from timm.models import eva, swin_transformer_v2, vision_transformer, vision_transformer_relpos
from torch import Tensor

from augshortcut.injection.joining import Augmented

__all__ = ["POST_NORM"]


class AugResPostBlock(Augmented, vision_transformer.ResPostBlock):
    """``vision_transformer.ResPostBlock``."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See the base class of timm; further arguments go to the attention."""
        x = self.join("attn", x, self.norm1(self.attn(x, *args, **kwargs)), x, self.drop_path1)
        return self.join("mlp", x, self.norm2(self.mlp(x)), x, self.drop_path2)


class AugResPostRelPosBlock(Augmented, vision_transformer_relpos.ResPostRelPosBlock):
    """``vision_transformer_relpos.ResPostRelPosBlock``."""

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """See the base class of timm."""
        x = self.join("attn", x, self.norm1(self.attn(x, shared_rel_pos=shared_rel_pos)), x, self.drop_path1)
        return self.join("mlp", x, self.norm2(self.mlp(x)), x, self.drop_path2)


class AugEvaBlockPostNorm(Augmented, eva.EvaBlockPostNorm):
    """``eva.EvaBlockPostNorm``."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See the base class of timm; rotary tables and masks go to the attention."""
        kwargs = {**dict(zip(("rope", "attn_mask", "is_causal"), args, strict=False)), **kwargs}
        x = self.join("attn", x, self.norm1(self.attn(x, **kwargs)), x, self.drop_path1)
        return self.join("mlp", x, self.norm2(self.mlp(x)), x, self.drop_path2)


class AugSwinV2Block(Augmented, swin_transformer_v2.SwinTransformerV2Block):
    """``swin_transformer_v2.SwinTransformerV2Block``, tokens as ``(B, H, W, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """See the base class of timm."""
        x = self.join("attn", x, self.norm1(self._attn(x)), x, self.drop_path1)
        shape = x.shape
        x = x.reshape(shape[0], -1, shape[-1])
        return self.join("mlp", x, self.norm2(self.mlp(x)), x, self.drop_path2).reshape(shape)


POST_NORM: list[type[Augmented]] = [AugResPostBlock, AugResPostRelPosBlock, AugEvaBlockPostNorm, AugSwinV2Block]
