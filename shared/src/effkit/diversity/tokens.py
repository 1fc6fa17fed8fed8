"""What a block puts out, as a matrix of tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from effkit.errors import UserError

__all__ = ["as_tokens"]

_CONVOLUTIONAL = (nn.Conv2d, nn.BatchNorm2d)


def _width(module: nn.Module) -> int | None:
    norms = (child for name, child in module.named_children() if "norm" in name)
    sizes = {int(p.shape[-1]) for norm in norms for p in norm.parameters(recurse=False) if p.ndim == 1}
    return sizes.pop() if len(sizes) == 1 else None


def _channels_first(module: nn.Module, output: Tensor, name: str) -> bool:
    """Whether four axes are ``(B, d, H, W)``: by the width of the block's norms, else by what it is made of."""
    width = _width(module)
    if width is not None and (output.shape[1] == width) != (output.shape[-1] == width):
        return bool(output.shape[1] == width)
    children = list(module.children())
    if children and all(isinstance(child, _CONVOLUTIONAL) or not list(child.parameters()) for child in children):
        return True  # a residual block of convolutions
    if any(isinstance(child, nn.BatchNorm2d) for child in module.modules()):
        return True  # torch's batch norm of pictures takes no other layout
    if output.shape[1] == output.shape[2]:
        return False  # two equal sides before the channels
    raise UserError(f"{name} puts out {tuple(output.shape)}, and which axis holds the channels is not known")


def as_tokens(module: nn.Module, output: Any, name: str) -> Tensor:
    """A block's output as ``(B, N, d)``.

    Args:
        module: The block.
        output: ``(B, N, d)``, ``(B, H, W, d)``, ``(B, d, H, W)``, or a tuple that ends with one of these.
        name: Of the block, for messages.

    Raises:
        UserError: If it is nothing of the kind, or which axis holds the channels cannot be told.
    """
    while isinstance(output, tuple | list) and output:
        output = output[-1] if isinstance(output[-1], Tensor | tuple | list) else output[0]
    if isinstance(output, Tensor) and output.ndim == 3:
        return output
    if isinstance(output, Tensor) and output.ndim == 4:
        return output.flatten(2).transpose(1, 2) if _channels_first(module, output, name) else output.flatten(1, 2)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UserError(f"{name} does not put out tokens: {shape}")
