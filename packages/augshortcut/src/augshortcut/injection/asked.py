"""What a network was given to us with: the one place that decides whether its blocks are known exactly.

A block is known if its class is exactly one of the registry and the class's own ``forward`` is what runs. Whatever
hangs on its children (adapters, hooks, parametrizations, quantized layers) is called as it was before, and so keeps
working; hooks of the block itself too. What replaces the block or its ``forward`` is refused by name, before anything
is changed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from augshortcut.config import AugmentConfig
from augshortcut.injection.joining import Augmented
from augshortcut.injection.registry import (
    LEFT_ALONE,
    REASONS,
    augmented_class,
    blocklike,
    is_post_norm,
    supported_blocks,
    type_name,
)
from effkit.errors import UserError

__all__ = ["Found", "augmented_blocks", "check_model", "find_blocks", "say_once"]

_log = logging.getLogger(__name__)
_said: set[str] = set()


@dataclass(frozen=True)
class Found:
    """A block that can have paths.

    Attributes:
        name: Its dotted name in the model.
        block: The block.
        kind: Its augmented class.
        dim: Its width.
        device: Where its parameters are.
        dtype: Their type.
    """

    name: str
    block: nn.Module
    kind: type[Augmented]
    dim: int
    device: torch.device
    dtype: torch.dtype


def check_model(model: Any) -> None:
    """Refuse what is no network, or one that others have wrapped: its new parameters would go unnoticed.

    Raises:
        UserError: Saying what it is and what to do first.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for module_name, module in model.named_modules():
        kind, where = type(module).__name__, module_name or "the model"
        if kind == "OptimizedModule":
            raise UserError(f"{where} is compiled: augment first, then torch.compile")
        if kind in ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"):
            raise UserError(f"{where} is wrapped in {kind}: augment first, then wrap")
        if any(base.__name__ == "FSDPModule" for base in type(module).__mro__):
            raise UserError(f"{where} is sharded by fully_shard: augment first, then shard")
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"{where} is TorchScript: augment the model it was made from")


def augmented_blocks(model: nn.Module) -> list[tuple[str, Augmented]]:
    """All augmented blocks of a model, by name."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Augmented)]


def find_blocks(model: nn.Module, config: AugmentConfig) -> list[Found]:
    """The blocks of a model that will have paths, in its order.

    Args:
        model: The model.
        config: What will be added.

    Raises:
        UserError: If it has none, is augmented already, or has a block that cannot have them.
    """
    check_model(model)
    already = augmented_blocks(model)
    if already:
        raise UserError(f"the model is augmented already ({len(already)} blocks, first {already[0][0] or 'itself'!r})")
    found: list[Found] = []
    left: dict[str, list[str]] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        kind = augmented_class(type(module))
        if kind is not None:
            found.append(_known(name, module, kind, config))
            inside = (*inside, f"{name}." if name else "")
            continue
        label = type_name(type(module))
        if label in REASONS:
            raise UserError(f"{name or 'the model'} ({label}) cannot have paths: {REASONS[label]}")
        if label in LEFT_ALONE:
            left.setdefault(f"{label}, {LEFT_ALONE[label]}", []).append(name)
            inside = (*inside, f"{name}.")
        elif blocklike(module):
            raise UserError(f"{name or 'the model'} {_unknown(module)}; known are {', '.join(supported_blocks())}")
    if not found:
        raise UserError(
            f"{type(model).__name__} has no block that can have paths; known are {', '.join(supported_blocks())}"
        )
    for what, names in left.items():
        say_once(f"left as they are: {', '.join(names)} ({what})")
    return found


def _known(name: str, block: nn.Module, kind: type[Augmented], config: AugmentConfig) -> Found:
    where = name or "the model"
    if "forward" in vars(block):
        raise UserError(
            f"{where} carries a forward of its own (set by a hook library or by hand), which paths would not reach; "
            "remove it, augment, and set it again"
        )
    if is_post_norm(type(block)) and config.tap == "norm":
        raise UserError(
            f"{where} ({type_name(type(block))}) has its norms after attention and MLP, so tap='norm' would read "
            "another tensor than the sub-layer does; use tap='input'"
        )
    norm: Any = getattr(block, kind.norms[0])
    like = next((t for t in [*block.parameters(), *block.buffers()] if t.is_floating_point()), None)
    for tensor in [*norm.parameters(), *norm.buffers()]:  # never quantized, so of the type that activations have
        if tensor.is_floating_point():
            like = tensor
    shape = getattr(norm, "normalized_shape", None) or tuple(like.shape[-1:] if like is not None else ())
    if like is None or not shape:
        raise UserError(f"{where} ({type_name(type(block))}) does not tell its width: its norm has no parameters")
    return Found(name, block, kind, int(shape[-1]), like.device, like.dtype)


def _unknown(module: nn.Module) -> str:
    """Why a block-like module is not one of those that are known."""
    if parametrize.is_parametrized(module):
        return "is parametrized itself: augment first, or remove the parametrization"
    parent = next((c for c in type(module).__mro__[1:] if augmented_class(c) is not None), None)
    if parent is not None:
        return f"({type_name(type(module))}) is a subclass of {type_name(parent)} whose forward may be another"
    return f"({type_name(type(module))}) is of no known type"


def say_once(line: str) -> None:
    """Log a line, the first time it is said in this process."""
    if line not in _said:
        _said.add(line)
        _log.info(line)
