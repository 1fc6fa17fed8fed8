"""The token tensors that a network's blocks put out, without changing the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from augshortcut.injection.joining import Augmented
from augshortcut.injection.registry import LEFT_ALONE, REASONS, augmented_class, blocklike, type_name
from effkit.errors import UserError

__all__ = ["as_tokens", "block_names"]


def _is_block(module: nn.Module) -> bool:
    kind = type(module)
    label = type_name(kind)
    known = isinstance(module, Augmented) or augmented_class(kind) is not None
    return known or label in REASONS or label in LEFT_ALONE or blocklike(module)


def block_names(model: nn.Module, layers: Sequence[str] | None = None) -> list[str]:
    """Names of a model's transformer blocks, the outermost of nested ones; or those of ``layers``, checked.

    Raises:
        UserError: If it has none, or one of ``layers`` is none of its modules.
    """
    modules = dict(model.named_modules())
    if layers is not None:
        absent = [name for name in layers if name not in modules]
        if absent or not layers:
            near = [name for name in modules if _is_block(modules[name])][:8]
            raise UserError(f"layers={list(layers)} must be names of modules, e.g. {', '.join(near) or 'blocks.0'}")
        return list(layers)
    found: list[str] = []
    for name, module in modules.items():
        if name and _is_block(module) and not (found and name.startswith(f"{found[-1]}.")):
            found.append(name)
    if not found:
        raise UserError(
            f"{type(model).__name__} has no transformer blocks that are known; name modules with layers=[...]"
        )
    return found


def _width(module: nn.Module) -> int | None:
    norms = (child for name, child in module.named_children() if "norm" in name)
    sizes = {int(p.shape[-1]) for norm in norms for p in norm.parameters(recurse=False) if p.ndim == 1}
    return sizes.pop() if len(sizes) == 1 else None


def as_tokens(module: nn.Module, output: Any, name: str) -> Tensor:
    """A block's output as ``(B, N, d)``.

    Args:
        module: The block.
        output: ``(B, N, d)``, ``(B, H, W, d)``, ``(B, d, H, W)``, or a tuple that ends with one of these.
        name: Of the block, for messages.

    Raises:
        UserError: If it is nothing of the kind.
    """
    while isinstance(output, tuple | list) and output:
        output = output[-1] if isinstance(output[-1], Tensor | tuple | list) else output[0]
    if isinstance(output, Tensor) and output.ndim == 3:
        return output
    if isinstance(output, Tensor) and output.ndim == 4:
        width = _width(module)
        channels_first = output.shape[1] == width and output.shape[-1] != width
        return output.flatten(2).transpose(1, 2) if channels_first else output.flatten(1, 2)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UserError(f"{name} does not put out tokens: {shape}")
