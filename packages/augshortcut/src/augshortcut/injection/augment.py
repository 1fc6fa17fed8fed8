"""Paths for the blocks of any known transformer: :func:`augment`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from timm.models import register_notrace_module
from torch import Tensor, nn

from augshortcut.config import LOCATIONS, AugmentConfig, resolve_config
from augshortcut.injection.asked import augmented_blocks, find_blocks
from augshortcut.injection.generic import GenericBlock
from augshortcut.injection.registry import augmented_class, base_class
from augshortcut.injection.rules import attach_rules, is_path, path_parameters
from augshortcut.layers.shortcut import AugmentedShortcut
from effkit.errors import UserError

__all__ = ["augment", "config_of", "freeze_base", "path_state", "remove_paths"]

M = TypeVar("M", bound=nn.Module)
register_notrace_module(AugmentedShortcut)  # one node where timm traces models with torch.fx


def augment(model: M, config: str | AugmentConfig | Mapping[str, Any] = "paper", *, example: Any = None) -> M:
    """Add learnable paths to every transformer block of a model, in place.

    The model keeps all its parameters under their names, so pretrained weights are loaded before; new names are
    ``<block>.aug_attn.*`` and ``<block>.aug_mlp.*``. Each block's class becomes a subclass of its own. With
    ``num_paths=0`` the model stays as it is, bit for bit. Blocks of types that are not known are tried with numbers
    (:mod:`~augshortcut.injection.probe`): if they are pre-norm and their residuals add up, their own ``forward`` runs
    with the paths around it.

    Everything is checked before anything changes: a model that is refused is as it was.

    Args:
        model: A timm model, or any module that contains timm's blocks.
        config: A preset's name (``paper``, ``official``, ``retrofit``, ``mindspore``, ``pangu``), an
            :class:`~augshortcut.config.AugmentConfig`, or a mapping of its fields.
        example: An input of the model (a dictionary gives arguments by name), for blocks of unknown types whose
            ``forward`` needs more than tokens; the model then runs on it once, in evaluation mode.

    Returns:
        The model.

    Raises:
        UserError: If there is no block, one of them cannot have paths, the model is augmented already, or the config
            does not fit its widths.

    Example:
        >>> import timm
        >>> model = augment(timm.create_model("deit_tiny_patch16_224"), "retrofit")
        >>> sum(p.numel() for name, p in model.named_parameters() if "aug_" in name)
        46128
    """
    config = resolve_config(config)
    found = find_blocks(model, config, example)
    if config.num_paths == 0:
        return model
    made = []
    for one in found:
        shortcuts = {
            location: AugmentedShortcut(one.dim, config, device=one.device, dtype=one.dtype)
            for location in LOCATIONS
            if location in config.location and getattr(one.block, "mlp", True) is not None
        }
        made.append(shortcuts)
    for one, shortcuts in zip(found, made, strict=True):
        block: Any = one.block
        block.__class__ = one.kind
        block.aug_config = config
        for location in LOCATIONS:
            shortcut = shortcuts.get(location)
            setattr(block, f"aug_{location}", shortcut if shortcut is None else shortcut.train(block.training))
    attach_rules(model)
    attributes: Any = model
    attributes.aug_config = config
    return model


def remove_paths(model: M) -> M:
    """Undo :func:`augment`, in place: the model it was before, with its present weights.

    Raises:
        UserError: If a block was changed since, so that its class is another.
    """
    blocks = augmented_blocks(model)
    for name, found in blocks:
        kind, base = type(found), base_class(type(found))
        ours = "block_type" in vars(kind) if isinstance(found, GenericBlock) else augmented_class(base) is kind
        if not ours:
            raise UserError(f"{name} is a {type(found).__name__} now; undo what changed its class first")
    for _, found in blocks:
        block: Any = found
        block.__class__ = base_class(type(found))
        for name in ("aug_attn", "aug_mlp", "aug_config"):
            delattr(block, name)
    for name in ("aug_config", "no_weight_decay", "group_matcher"):
        vars(model).pop(name, None)
    return model


def config_of(model: nn.Module) -> AugmentConfig | None:
    """What a model was augmented with; ``None`` if it was not, or if its paths have been folded."""
    for _, block in augmented_blocks(model):
        for shortcut in (block.aug_attn, block.aug_mlp):  # perhaps inside what another library has put around it
            if shortcut is not None and any(isinstance(part, AugmentedShortcut) for part in shortcut.modules()):
                return block.aug_config
    return None


def freeze_base(model: M) -> M:
    """Let only the paths learn: all other parameters get ``requires_grad=False``.

    Raises:
        UserError: If the model has no paths.
    """
    if not path_parameters(model):
        raise UserError(f"{type(model).__name__} has no paths to train; augment it first")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_path(name))
    return model


def path_state(model: nn.Module) -> dict[str, Tensor]:
    """The added parameters alone, as a state dict: what a checkpoint of paths holds.

    Raises:
        UserError: If the model has no paths.
    """
    state = {name: value for name, value in model.state_dict().items() if is_path(name)}
    if not state:
        raise UserError(f"{type(model).__name__} has no paths; augment it first")
    return state
