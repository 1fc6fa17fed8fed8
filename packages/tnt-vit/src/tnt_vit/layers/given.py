"""What a part of a network is: exactly what its class says, or something that somebody has put there or hung on it.

Fast paths compute with weights and never call the modules that hold them. So they run only where that is the same:
known classes themselves (no subclass, which may compute something else), without hooks, parametrizations, a ``forward``
of their own, or weights of another kind of tensor (quantized, sharded). Adapters replace modules, and are seen so.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

__all__ = ["foreign", "plain_linear", "touched"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_KINDS = (Tensor, nn.Parameter)


def touched(module: nn.Module) -> str:
    """Why calling a module may not be what its class and its weights say; empty if it is.

    Args:
        module: The module itself, not those inside of it.
    """
    own = module.__dict__
    for name in _HOOKS:
        if own[name]:
            return "has hooks"
    if "forward" in own:
        return "has a forward of its own"
    if "parametrizations" in own["_modules"]:
        return "is parametrized"
    for value in own["_parameters"].values():
        if value is not None and type(value) not in _KINDS:
            return f"holds a {type(value).__name__}"
    return ""


def plain_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer and nothing else, so that its weights may be multiplied elsewhere."""
    return type(module) is nn.Linear and not touched(module) and not _everywhere()


def foreign(module: nn.Module, kinds: Collection[type]) -> tuple[str, str] | None:
    """The first module, itself included, that is not exactly of a known kind, and why; ``None`` if all are.

    Args:
        module: Where to look.
        kinds: Known classes.
    """
    if reason := _everywhere():
        return "", reason
    for name, part in module.named_modules():
        if type(part) not in kinds:
            return name, f"is a {type(part).__module__.partition('.')[0]} {type(part).__qualname__}"
        if isinstance(part, nn.GELU) and part.approximate != "none":
            return name, f"is GELU(approximate={part.approximate!r})"
        if reason := touched(part):
            return name, reason
    return None


def _everywhere() -> str:
    """Hooks that torch calls for every module."""
    hooks = torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks
    return "has hooks (registered for all modules)" if any(hooks) and not torch.compiler.is_compiling() else ""
