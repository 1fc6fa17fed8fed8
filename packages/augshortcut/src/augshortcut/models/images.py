"""What our own image models share: the classifier's interface of timm, and the check of a picture's size."""

from __future__ import annotations

from typing import Any

from timm.layers import trunc_normal_
from torch import Tensor, nn

from effkit.errors import UserError

__all__ = ["ImageClassifier", "init_linear", "square_side"]


def init_linear(module: nn.Module) -> None:
    """Linear layers: truncated normal of 0.02 without bias; norms: the identity."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def square_side(img_size: int | tuple[int, int], multiple: int) -> int:
    """The side of square pictures, whole multiples of a number of pixels.

    Raises:
        UserError: If they are not square, or of another size.
    """
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(sides) != 2 or sides[0] != sides[1] or sides[0] < multiple or sides[0] % multiple:
        raise UserError(f"img_size must be a multiple of {multiple} (square pictures), got {img_size}")
    return sides[0]


class ImageClassifier(nn.Module):
    """A network of pictures whose class token is classified.

    Subclasses set ``img_size``, ``in_chans``, ``num_features``, ``num_classes`` and ``head``, and compute
    ``forward_features``: normalised tokens, the class token first.
    """

    img_size: int
    in_chans: int
    num_features: int
    num_classes: int
    head: nn.Module

    def check_images(self, x: Tensor) -> None:
        """Refuse pictures of another size than the position tables'.

        Raises:
            UserError: If they are.
        """
        expected = (self.in_chans, self.img_size, self.img_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise UserError(f"x must have the shape (B, {', '.join(map(str, expected))}), got {tuple(x.shape)}")

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` to tokens ``(B, N + 1, num_features)``."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens to logits, or to the class token with ``pre_logits``."""
        return x[:, 0] if pre_logits else self.head(x[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` to ``(B, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer, for other classes.

        Raises:
            UserError: If another pooling than the class token is asked for.
        """
        if global_pool not in (None, "token"):
            raise UserError(f"global_pool must be 'token', got {global_pool!r}")
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
            raise UserError(f"num_classes must be a whole number of at least 0, got {num_classes!r}")
        like = next(self.parameters())
        self.num_classes = num_classes
        made: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        self.head = nn.Linear(self.num_features, num_classes, **made) if num_classes else nn.Identity()
        init_linear(self.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass, or not."""
        self.grad_checkpointing = enable
