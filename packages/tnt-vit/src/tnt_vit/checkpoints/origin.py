"""Whether weights are trained or random, and what to call them in a caption."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

__all__ = ["RANDOM", "is_untrained", "weights_note"]

RANDOM = "random weights"


def is_untrained(model: nn.Module) -> bool:
    """Whether every layer norm still has gain one and offset zero, as no trained network has."""
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm) and m.elementwise_affine]
    return bool(norms) and all(bool((n.weight == 1).all()) and bool((n.bias == 0).all()) for n in norms)


def weights_note(model: nn.Module, pretrained: bool | str | os.PathLike[str] | None) -> str:
    """Name a model's weights for a caption.

    Args:
        model: The model; asked whether it is trained if ``pretrained`` is ``None``.
        pretrained: As given to ``create_model``: false for random weights, a path, or true for the published ones.
    """
    if pretrained is None:
        return RANDOM if is_untrained(model) else "trained weights"
    if isinstance(pretrained, bool):
        return "pretrained weights" if pretrained else RANDOM
    return f"weights: {Path(pretrained).name}"
