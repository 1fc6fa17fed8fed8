r"""Export of augmented models: everything that can be written with the base's own operators, exactly.

- MLP paths with the MLP's own activation are further hidden channels: :math:`W_1' = [W_1; \Theta_1 .. \Theta_T]`,
  :math:`W_2' = [\gamma W_2, \mathrm{diag}(\gamma_1) .. \mathrm{diag}(\gamma_T)]`, hidden width ``h + T d``. (More
  multiply-adds than the split form, but nothing that another runtime does not know.)
- ``bottleneck`` paths beside attention: their first matrices are further rows of qkv, their second ones further columns
  of the output projection.
- Several ``identity`` paths are one: :math:`\Theta = \sum_t \gamma_t \Theta_t`.
- What is left (activated full-width paths beside attention) becomes dense constants split once, for inference.

A scale of the residual stream stays where it is.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from timm.layers import Attention, LayerScale, Mlp
from torch import Tensor, nn
from torch.nn.utils import parametrize

from augshortcut.injection.asked import augmented_blocks, check_model
from augshortcut.injection.families import AugViTBlock
from augshortcut.injection.folded import FoldedAttention, FrozenPaths
from augshortcut.injection.joining import InsideBranch
from augshortcut.injection.registry import base_class
from augshortcut.layers.projections import BottleneckPaths, CirculantPaths, DensePaths
from augshortcut.layers.shortcut import AugmentedShortcut
from effkit.errors import UserError
from effkit.notes import say_once

__all__ = ["fold"]

M = TypeVar("M", bound=nn.Module)
_ACTS = {"relu": nn.ReLU, "silu": nn.SiLU}


def _plain(module: nn.Module, kind: type) -> bool:
    """Whether a module is exactly of a kind, with nothing hanging on it that a fold would lose."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        type(module) is kind
        and not any(getattr(module, name) for name in hooks)
        and not parametrize.is_parametrized(module)
        and "forward" not in vars(module)
    )


def _same_act(act: nn.Module, name: str) -> bool:
    if name in ("gelu", "gelu_tanh"):
        return _plain(act, nn.GELU) and act.approximate == ("none" if name == "gelu" else "tanh")
    return name in _ACTS and _plain(act, _ACTS[name])


def _gates(shortcut: AugmentedShortcut) -> Tensor:
    """``(T, d)``."""
    paths, dim = shortcut.config.num_paths, shortcut.dim
    like = next(shortcut.parameters())
    return (
        torch.ones(paths, dim, dtype=like.dtype, device=like.device)
        if shortcut.gate is None
        else (shortcut.gate.detach().expand(paths, dim))
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


def _bias(layer: Any) -> Tensor:
    return layer.weight.new_zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias


def _layer_scale(module: nn.Module) -> Any:
    """gamma, ``None`` if there is none, or ``False`` if it is something else."""
    if isinstance(module, nn.Identity):
        return None
    return module.gamma if _plain(module, LayerScale) else False


def _fold_mlp(block: Any) -> str:
    """Make MLP paths hidden channels of the MLP; says why not, or nothing."""
    shortcut, mlp = block.aug_mlp, block.mlp
    paths, config = shortcut.paths, shortcut.config
    if not isinstance(paths, CirculantPaths | DensePaths):
        return f"projection={config.projection!r}"
    if config.tap == "input":
        return "tap='input': the MLP reads another tensor"
    if not (_plain(mlp, Mlp) and _plain(mlp.fc1, nn.Linear) and _plain(mlp.fc2, nn.Linear)):
        return "the MLP is not timm's plain one"
    if not isinstance(mlp.norm, nn.Identity) or not _same_act(mlp.act, config.act):
        return f"the MLP has a norm inside, or another activation than {config.act}"
    gamma = _layer_scale(block.ls2)
    if gamma is False:
        return f"ls2 is a {type(block.ls2).__name__}"
    scale = torch.ones_like(_bias(mlp.fc2)) if gamma is None else gamma
    gates, matrices = _gates(shortcut), paths.matrices()
    bias = torch.zeros_like(gates) if paths.bias is None else paths.bias
    mlp.fc1 = _linear(torch.cat([mlp.fc1.weight, matrices.flatten(0, 1)]), torch.cat([_bias(mlp.fc1), bias.flatten()]))
    columns = [scale.unsqueeze(1) * mlp.fc2.weight, *(torch.diag(gate) for gate in gates)]
    mlp.fc2 = _linear(torch.cat(columns, dim=1), scale * _bias(mlp.fc2))
    block.ls2, block.aug_mlp = nn.Identity(), InsideBranch()
    return ""


def _fold_attention(block: Any) -> str:
    """Make bottleneck paths rows of qkv and columns of the projection; says why not, or nothing."""
    shortcut, attn = block.aug_attn, block.attn
    paths, config = shortcut.paths, shortcut.config
    if not isinstance(paths, BottleneckPaths):
        return f"projection={config.projection!r}"
    if config.tap == "input":
        return "tap='input': attention reads another tensor"
    norm = getattr(attn, "norm", nn.Identity())
    if not (_plain(attn, Attention) and _plain(attn.qkv, nn.Linear) and _plain(attn.proj, nn.Linear)):
        return "attention is not timm's plain one"
    if not all(_plain(part, type(part)) for part in attn.modules()):
        return "something inside attention carries hooks or parametrizations"
    gamma = _layer_scale(block.ls1)
    if gamma is False or not isinstance(norm, nn.Identity):
        return "ls1 or a norm inside attention is of no known type"
    scale = torch.ones_like(_bias(attn.proj)) if gamma is None else gamma
    gates = _gates(shortcut)
    down = paths.down.flatten(0, 1)
    down_bias = down.new_zeros(len(down)) if paths.down_bias is None else paths.down_bias.flatten()
    up = torch.cat([gate.unsqueeze(1) * matrix for gate, matrix in zip(gates, paths.up, strict=True)], dim=1)
    up_bias = 0 if paths.up_bias is None else (gates * paths.up_bias).sum(dim=0)
    qkv = _linear(torch.cat([attn.qkv.weight, down]), torch.cat([_bias(attn.qkv), down_bias]))
    proj = torch.cat([scale.unsqueeze(1) * attn.proj.weight, up], dim=1)
    block.attn = FoldedAttention(attn, qkv, _linear(proj, scale * _bias(attn.proj) + up_bias), config.act)
    block.ls1, block.aug_attn = nn.Identity(), InsideBranch()
    return ""


def fold(model: M) -> M:
    """Write an augmented model with plain operators where that is exact, for inference and export.

    Args:
        model: An augmented model; stays as it is.

    Returns:
        A copy in evaluation mode without gradients. Blocks whose paths are all folded are timm's own again.

    Raises:
        UserError: If the model has no paths, or its paths carry hooks or parametrizations that would be lost.
    """
    check_model(model)
    if not augmented_blocks(model):
        raise UserError(f"{type(model).__name__} has no paths to fold; augment it first")
    for name, augmented in augmented_blocks(model):
        for part in ("aug_attn", "aug_mlp"):
            shortcut = getattr(augmented, part)
            for child_name, child in [] if shortcut is None else shortcut.named_modules():
                if not _plain(child, type(child)):
                    raise UserError(
                        f"{name}.{part}{'.' * bool(child_name)}{child_name} carries hooks or parametrizations"
                    )
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad():
        for _, found in augmented_blocks(folded):
            block: Any = found
            for part, rewrite in (("aug_mlp", _fold_mlp), ("aug_attn", _fold_attention)):
                if getattr(block, part) is None:
                    continue
                why = rewrite(block) if isinstance(found, AugViTBlock) else f"the block is a {type(found).__name__}"
                if why:
                    setattr(block, part, FrozenPaths.of(getattr(block, part)))
                    say_once(f"{part} cannot be written into the block ({why}): its matrices become constants")
            done = all(part is None or isinstance(part, InsideBranch) for part in (block.aug_attn, block.aug_mlp))
            if done and block.aug_config.residual_scale == 1.0:
                block.__class__ = base_class(AugViTBlock)
                del block.aug_attn, block.aug_mlp, block.aug_config
    return folded
