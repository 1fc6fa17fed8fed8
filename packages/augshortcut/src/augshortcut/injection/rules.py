"""What optimizers are told about paths: which parameters are not decayed, and that layer decay does not reach them.

timm's factories ask a model for ``no_weight_decay()`` and ``group_matcher()``. An augmented model answers with its own
answers and the paths added: layer-wise decay (0.75 per block) would leave a path of the first block 3 % of the learning
rate, though paths are new in every block. They are in the last group, at the full rate.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from timm.models import group_parameters
from timm.optim import auto_group_layers
from torch import nn

from augshortcut.injection.asked import augmented_blocks

__all__ = ["GroupMatcher", "NoWeightDecay", "attach_rules", "is_path", "path_parameters"]


def is_path(name: str) -> bool:
    """Whether a name is one of a path's."""
    return any(part in ("aug_attn", "aug_mlp") for part in name.split(".")[:-1])


def path_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The added parameters of an augmented model, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if is_path(name)}


class NoWeightDecay:
    """Stands for a model's ``no_weight_decay``.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self) -> set[str]:
        """Names that are not decayed: the model's own, and those of paths."""
        own: Any = getattr(type(self.model), "no_weight_decay", None)
        names = set() if own is None else set(own(self.model))
        for block, module in augmented_blocks(self.model):
            for part in ("aug_attn", "aug_mlp"):
                shortcut = getattr(module, part)
                if shortcut is not None and hasattr(shortcut, "undecayed"):
                    prefix = f"{block}.{part}" if block else part
                    names |= {f"{prefix}.{name}" for name in shortcut.undecayed()}
        return names


class GroupMatcher:
    """Stands for a model's ``group_matcher``.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, coarse: bool = False) -> Any:
        """Layer of a parameter (or of a module with parameters) by name: the model's own; of paths, the last one."""
        own: Any = getattr(type(self.model), "group_matcher", None)
        names = [(n, p) for n, p in self.model.named_parameters() if not is_path(n)]
        plain: Any = SimpleNamespace(
            named_parameters=lambda: names, pretrained_cfg=getattr(self.model, "pretrained_cfg", None) or {}
        )
        if own is None:
            layers: dict[str, int] = auto_group_layers(plain)
        else:
            layers = group_parameters(plain, own(self.model, coarse=coarse), reverse=True)  # type: ignore[assignment]
        last = max(layers.values(), default=0)

        def layer(name: str) -> int:
            if name in layers:
                return layers[name]
            inside = [] if is_path(f"{name}.") else [i for n, i in layers.items() if n.startswith(f"{name}.")]
            return min(inside, default=last)

        return layer


def attach_rules(model: nn.Module) -> None:
    """Let a model answer timm's questions for its paths too; travels with copies and pickles of the model."""
    attributes: Any = model
    attributes.no_weight_decay = NoWeightDecay(model)
    attributes.group_matcher = GroupMatcher(model)
