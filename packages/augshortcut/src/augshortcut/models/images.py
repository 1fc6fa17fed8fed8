"""What our own image models share: the classifier's interface of timm, and the check of a picture's size."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from effkit.errors import UserError, choose

__all__ = ["ImageClassifier", "drop_rates", "init_linear", "square_side"]

POOLS = ("token", "avg", "")


def _classes(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"num_classes must be a whole number of at least 0, got {value!r}")
    return value


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


def drop_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth of each block: rises from 0 to that of the last one."""
    return torch.linspace(0, last, depth, device="cpu").tolist()


class ImageClassifier(nn.Module):
    """A network of square pictures whose class token, or mean of other tokens, is classified.

    Subclasses compute ``tokens`` (the class token first), say in ``feature_info`` after which units they can be had,
    and call :meth:`finish` when all that comes before the classifier has been made.

    Args:
        width: Of the last tokens.
        img_size: Side of the pictures.
        multiple: What it must be a multiple of.
        in_chans: Channels of the pictures.
        num_classes: Classes; 0 leaves the classifier out.
        global_pool: ``token`` (the class token), ``avg`` (the mean of the others), or an empty string for all tokens.

    Raises:
        UserError: If the pictures' side does not fit, or an argument is out of range.
    """

    norm: nn.Module
    head: nn.Module
    feature_info: list[dict[str, Any]]

    def __init__(
        self,
        width: int,
        *,
        img_size: int | tuple[int, int],
        multiple: int,
        in_chans: int,
        num_classes: int,
        global_pool: str,
    ) -> None:
        super().__init__()
        self.img_size, self.in_chans = square_side(img_size, multiple), in_chans
        self.num_features = self.head_hidden_size = width
        self.num_classes, self.global_pool = _classes(num_classes), choose("global_pool", global_pool, POOLS)
        self.grad_checkpointing = False

    def finish(self, norm: nn.Module) -> None:
        """Add the last norm and the classifier, and draw all linear layers.

        Args:
            norm: The last norm.
        """
        self.norm, self.head = norm, self._classifier()
        self.apply(init_linear)

    def _classifier(self, **made: Any) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes, **made) if self.num_classes else nn.Identity()

    def check_images(self, x: Tensor) -> None:
        """Refuse pictures of another size than the position tables'.

        Raises:
            UserError: If they are.
        """
        expected = (self.in_chans, self.img_size, self.img_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise UserError(f"x must have the shape (B, {', '.join(map(str, expected))}), got {tuple(x.shape)}")

    def tokens(self, x: Tensor, keep: list[Tensor] | None = None) -> Tensor:
        """``(B, in_chans, H, W)`` to tokens before the last norm.

        Args:
            x: Pictures.
            keep: Gets the tokens after each unit of ``feature_info``.
        """
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` to normalised tokens ``(B, N + 1, num_features)``."""
        return self.norm(self.tokens(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """What the units of ``feature_info`` put out, by timm's rules.

        Args:
            x: Pictures.
            indices: Which units: so many last ones, their numbers, or all of them.
            norm: Whether the last norm is applied, where the width is its own.
            stop_early: Taken for the interface; all units run.
            output_fmt: ``NCHW`` or ``NLC``; without the class token.
            intermediates_only: Leave the normalised last tokens out.

        Returns:
            The tokens and a list, or the list alone.

        Raises:
            UserError: If the format is not known.
        """
        choose("output_fmt", output_fmt, ["NCHW", "NLC"])
        chosen, _ = feature_take_indices(len(self.feature_info), indices)
        kept: list[Tensor] = []
        last = self.tokens(x, kept)
        maps = []
        for index in chosen:
            info, found = self.feature_info[index], kept[index]
            if norm and found.shape[-1] == self.num_features:
                found = self.norm(found)
            side = self.img_size // info["reduction"]
            found = found[:, -side * side :]
            if output_fmt == "NCHW":
                found = found.transpose(1, 2).reshape(len(x), -1, side, side)
            maps.append(found)
        return maps if intermediates_only else (self.norm(last), maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave the classifier out, by timm's rules; the numbers of the units that stay of interest.

        Args:
            indices: As for :meth:`forward_intermediates`.
            prune_norm: Whether the last norm goes too.
            prune_head: Whether the classifier goes.
        """
        chosen, _ = feature_take_indices(len(self.feature_info), indices)
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return chosen

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens to logits, or to what is classified with ``pre_logits``."""
        if self.global_pool:
            x = x[:, 0] if self.global_pool == "token" else x[:, 1:].mean(dim=1)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` to ``(B, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer, for other classes.

        Args:
            num_classes: Classes; 0 leaves it out.
            global_pool: See the class; ``None`` leaves it as it is.

        Raises:
            UserError: If an argument is out of range.
        """
        classes = _classes(num_classes)
        if global_pool is not None:
            self.global_pool = choose("global_pool", global_pool, POOLS)
        like = next(self.parameters())
        self.num_classes = classes
        self.head = self._classifier(device=like.device, dtype=like.dtype)
        init_linear(self.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass, or not."""
        self.grad_checkpointing = enable
