"""The slow and obviously right twins: counting by running the network, and the search's step by walking every move.

Nothing here shares code with the closed forms or with the vectorised search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from greedy_enlarge.spec import ArchSpec

__all__ = ["candidates", "macs", "params"]


def macs(model: nn.Module, resolution: int, in_chans: int = 3) -> int:
    """Multiply-adds of convolutions and linear maps for one square picture, from a forward pass.

    Args:
        model: On the meta device nothing is computed, only shapes.
        resolution: Side of the picture.
        in_chans: Channels of the picture.
    """
    weight = next(model.parameters())
    picture = torch.zeros(1, in_chans, resolution, resolution, device=weight.device, dtype=weight.dtype)
    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(picture)
    model.train(was_training)
    return counter.get_total_flops() // 2  # it counts a multiply and an add


def params(model: nn.Module) -> int:
    """Elements of all parameters."""
    return sum(p.numel() for p in model.parameters())


def candidates(
    spec: ArchSpec, target: int, count: Callable[[ArchSpec], int], steps: dict[str, int], delta: float
) -> dict[str, tuple[ArchSpec, int]]:
    """Candidates of one step without caps: every coordinate walked upward by its step, one network at a time.

    Args:
        spec: Where the step starts.
        target: MACs to come to.
        count: MACs of a network.
        steps: Step of ``depth``, ``width`` and ``resolution``.
        delta: Largest allowed ``|MACs - target| / target``.

    Returns:
        Move name to network and MACs, in the order depths, widths, resolution.
    """
    found: dict[str, tuple[ArchSpec, int]] = {}
    for kind, index in _coordinates(spec):
        best: tuple[ArchSpec, int] | None = None
        current = spec
        while True:
            current = _raised(current, kind, index, steps[kind])
            cost = count(current)
            if best is None or (abs(cost - target), cost) < (abs(best[1] - target), best[1]):
                best = current, cost
            if cost > target:
                break
        if abs(best[1] - target) <= delta * target:
            found[kind if kind == "resolution" else f"{kind}_{index + 1}"] = best
    return found


def _coordinates(spec: ArchSpec) -> list[tuple[str, int]]:
    stages = range(len(spec.depths))
    return [*(("depth", i) for i in stages), *(("width", i) for i in stages), ("resolution", 0)]


def _raised(spec: ArchSpec, kind: str, index: int, step: int) -> ArchSpec:
    if kind == "resolution":
        return spec.replace(resolution=spec.resolution + step)
    field = f"{kind}s"
    values: list[Any] = list(getattr(spec, field))
    values[index] += step
    return spec.replace(**{field: tuple(values)})
