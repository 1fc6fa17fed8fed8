"""Which modules of a network are its transformer blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from augshortcut.injection.joining import Augmented
from augshortcut.injection.registry import LEFT_ALONE, REASONS, augmented_class, blocklike, type_name
from effkit.errors import UserError

__all__ = ["block_names"]


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
