"""A network that is no one graph, deployed in the pieces that are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shiftghost_sr.compression.deployment.convs import Decision
from shiftghost_sr.compression.deployment.rewrite import Rewriter, Settings
from shiftghost_sr.compression.deployment.tracing import NotTraceable, trace
from shiftghost_sr.layers.ghost_conv import GhostConv2d

__all__ = ["deploy_pieces"]


def _shapes(model: nn.Module, channels: int, size: int) -> dict[str, int]:
    """Channels that modules take, of those that are called once or more with one batch of maps and return another."""
    found: dict[str, int] = {}
    others: set[str] = set()

    def hook(name: str) -> Callable[..., None]:
        def look(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            one = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].dim() == 4
            if one and isinstance(output, Tensor) and found.get(name, args[0].shape[1]) == args[0].shape[1]:
                found[name] = int(args[0].shape[1])
            else:
                others.add(name)

        return look

    handles = [m.register_forward_hook(hook(n), with_kwargs=True) for n, m in model.named_modules() if n]
    first = next(model.parameters())
    try:
        with torch.no_grad():
            model(torch.full((1, channels, size, size), 0.5, dtype=first.dtype, device=first.device))
    except Exception:
        return {}
    finally:
        for handle in handles:
            handle.remove()
    return {name: count for name, count in found.items() if name not in others}


def deploy_pieces(model: nn.Module, channels: int, settings: Settings, why: str) -> list[Decision]:
    """Deploy the largest modules of a network that are graphs of their own, in place.

    Args:
        model: A copy that may be changed.
        channels: Of its pictures.
        settings: How.
        why: Why the whole is no graph.

    Returns:
        What became of each layer.
    """
    takes = _shapes(model, channels, 16)
    decisions: list[Decision] = []

    def visit(parent: nn.Module, prefix: str) -> None:
        for key, child in list(parent.named_children()):
            name = f"{prefix}{key}"
            ghosts = [n for n, m in child.named_modules() if isinstance(m, GhostConv2d)]
            if not ghosts:
                continue
            if isinstance(child, GhostConv2d):
                decisions.append(Decision(name, "kept", why))
                continue
            if name in takes:
                try:
                    rewriter = Rewriter(trace(child, takes[name], 16), settings)
                    parent._modules[key] = rewriter.run().eval()
                    decisions.extend(Decision(f"{name}.{d.layer}", d.what, d.why) for d in rewriter.decisions)
                    continue
                except NotTraceable:
                    pass
            visit(child, f"{name}.")

    visit(model, "")
    return decisions
