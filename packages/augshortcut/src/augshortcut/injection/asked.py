"""What a network was given to us with: the one place that decides whether its blocks can have paths.

A block is known exactly if its class is one of the registry and the class's own ``forward`` is what runs. A block of
another type is tried: if it proves to be pre-norm with additive residuals, its own ``forward`` runs with the paths
around it, which is said once. Whatever hangs on a block's children (adapters, hooks, parametrizations, quantized
layers) is called as it was before, and so keeps working; hooks of the block itself too. Everything else is refused by
name, before anything is changed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from augshortcut.config import AugmentConfig
from augshortcut.injection.generic import generic_class
from augshortcut.injection.joining import Augmented
from augshortcut.injection.probe import Call, prove
from augshortcut.injection.registry import (
    LEFT_ALONE,
    REASONS,
    augmented_class,
    blocklike,
    is_post_norm,
    norm_names,
    supported_blocks,
    type_name,
)
from effkit.errors import UserError
from effkit.notes import say_once
from effkit.watching import evaluating, hooked

__all__ = ["Found", "augmented_blocks", "check_model", "find_blocks"]


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
        if hasattr(module, "_hf_hook") and any(p.is_meta for p in module.parameters(recurse=False)):
            raise UserError(f"{where} is offloaded by accelerate: augment first, then offload or dispatch")
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"{where} is TorchScript: augment the model it was made from")


def augmented_blocks(model: nn.Module) -> list[tuple[str, Augmented]]:
    """All augmented blocks of a model, by name."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Augmented)]


def find_blocks(model: nn.Module, config: AugmentConfig, example: Any = None) -> list[Found]:
    """The blocks of a model that will have paths, in its order.

    Args:
        model: The model.
        config: What will be added.
        example: An input of the model, for blocks of unknown types that take more than tokens.

    Raises:
        UserError: If it has none, is augmented already, or has a block that cannot have them.
    """
    check_model(model)
    already = augmented_blocks(model)
    if already:
        raise UserError(f"the model is augmented already ({len(already)} blocks, first {already[0][0] or 'itself'!r})")
    found: list[Found] = []
    left: dict[str, list[str]] = {}
    tried: dict[str, list[str]] = {}
    calls = {} if example is None else _calls(model, example)
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
            found.append(_tried(name, module, config, calls))
            tried.setdefault(label, []).append(name or "the model")
            inside = (*inside, f"{name}." if name else "")
    if not found:
        raise UserError(
            f"{type(model).__name__} has no block that can have paths; known are {', '.join(supported_blocks())}"
        )
    for label, names in tried.items():
        say_once(
            f"{', '.join(names)} ({label}) is of no known type: its residuals were tried and add up, so its own "
            "forward runs with the paths around it"
        )
    for what, names in left.items():
        say_once(f"left as they are: {', '.join(names)} ({what})")
    return found


def _check_forward(where: str, block: nn.Module) -> None:
    if "forward" in vars(block):
        raise UserError(
            f"{where} carries a forward of its own (set by a hook library or by hand), which paths would not reach; "
            "remove it, augment, and set it again"
        )


def _known(name: str, block: nn.Module, kind: type[Augmented], config: AugmentConfig) -> Found:
    where = name or "the model"
    _check_forward(where, block)
    if is_post_norm(type(block)) and config.tap == "norm":
        raise UserError(
            f"{where} ({type_name(type(block))}) has its norms after attention and MLP, so tap='norm' would read "
            "another tensor than the sub-layer does; use tap='input'"
        )
    return _found(name, block, kind, getattr(block, kind.norms[0]))


def _found(name: str, block: nn.Module, kind: type[Augmented], norm: Any) -> Found:
    like = next((t for t in [*block.parameters(), *block.buffers()] if t.is_floating_point()), None)
    for tensor in [*norm.parameters(), *norm.buffers()]:  # never quantized, so of the type that activations have
        if tensor.is_floating_point():
            like = tensor
    shape = getattr(norm, "normalized_shape", None) or tuple(like.shape[-1:] if like is not None else ())
    if like is None or not shape:
        raise UserError(
            f"{name or 'the model'} ({type_name(type(block))}) does not tell its width: its norm has no parameters"
        )
    return Found(name, block, kind, int(shape[-1]), like.device, like.dtype)


def _tried(name: str, block: nn.Module, config: AugmentConfig, calls: dict[str, Call]) -> Found:
    """A block of an unknown type, if it can be proven to be one that paths can be put around."""
    where, label = name or "the model", type_name(type(block))
    _check_forward(where, block)
    if parametrize.is_parametrized(block):
        raise UserError(f"{where} is parametrized itself: augment first, or remove the parametrization")
    if config.drop_path_paths:
        raise UserError(
            f"{where} ({label}) is of no known type, so what it drops is not known: leave drop_path_paths at false"
        )
    first = _found(name, block, Augmented, getattr(block, norm_names(block)[0]))
    like = torch.empty(0, device=first.device, dtype=first.dtype)
    reason, norms = prove(block, like, first.dim, calls.get(name))
    if reason:
        parent = next((c for c in type(block).__mro__[1:] if augmented_class(c) is not None), None)
        kind = f"a subclass of {type_name(parent)}" if parent else "of no known type"
        raise UserError(f"{where} ({label}) is {kind}, and {reason}; known are {', '.join(supported_blocks())}")
    return dataclasses.replace(first, kind=generic_class(type(block), norms))


def _calls(model: nn.Module, example: Any) -> dict[str, Call]:
    """Arguments that each block of an unknown type is called with, when the model runs on an example."""
    calls: dict[str, Call] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.setdefault(name, (args, dict(kwargs)))

        return hook

    names = [n for n, m in model.named_modules() if augmented_class(type(m)) is None and blocklike(m)]
    with evaluating(model), hooked(model, names, keep, before=True):
        model(**example) if isinstance(example, dict) else model(example)
    return calls
