"""How paths join a block: the part that all families share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from augshortcut.config import AugmentConfig
from augshortcut.ops.activations import unobserved

__all__ = ["Augmented", "InsideBranch"]


class InsideBranch(nn.Module):
    """Stands where paths were that have been folded into the branch: nothing to add, but the scale still holds."""


class Augmented(nn.Module):
    """A block with paths: ``x <- s (x + drop(branch) + paths)`` after attention and after the MLP.

    Base of the families' classes, each of which is also the block's own class. Adds the children ``aug_attn`` and
    ``aug_mlp``; no name of the block's own changes.
    """

    aug_attn: Any
    aug_mlp: Any
    aug_config: AugmentConfig

    # The block's own children, which its own class sets.
    norm1: Any
    attn: Any
    drop_path1: Any
    norm2: Any
    mlp: Any
    drop_path2: Any

    norms: tuple[str, str] = ("norm1", "norm2")
    """Names of the norms before attention and before the MLP, which know the width."""

    def join(self, location: str, x: Tensor, branch: Tensor, y: Tensor, drop: Any) -> Tensor:
        """Put a branch and the paths beside it back onto the residual stream.

        Args:
            location: ``attn`` or ``mlp``.
            x: The residual stream.
            branch: The sub-layer's output, before stochastic depth.
            y: The sub-layer's normalised input.
            drop: Stochastic depth.
        """
        shortcut = self.aug_attn if location == "attn" else self.aug_mlp
        if shortcut is None:
            return x + drop(branch)
        config = self.aug_config
        if isinstance(shortcut, InsideBranch):
            out = x + drop(branch)
        else:
            paths = shortcut(x if config.tap == "input" else y)
            if config.drop_path_paths:
                out = x + drop(branch + paths)
            else:
                out = x + drop(branch)
                out = out.add_(paths) if unobserved(out) else out + paths  # the sum is ours to write to
        return out if config.residual_scale == 1.0 else out * config.residual_scale
