"""Where the time of an optimized network goes: every operator of a forward pass clocked and given to a part."""

from __future__ import annotations

import copy
import statistics
import time
from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tnt_vit.inference.optimize import InferenceTNT
from tnt_vit.inference.packed import PackedLinear

__all__ = ["CALLS", "seconds_by_part"]

CALLS = "calls"
"""The part that is no operator: Python, and torch's way to its kernels."""
_KINDS = {
    "attention": ("bmm", "softmax", "scaled_dot_product_attention"),
    "norms": ("_weight_norm_interface",),
}
"""Operators that no module stands for, by the names of inference mode, which shows them whole."""
_FLAT = ("flat_normalize", "project", "project_norm")


class _Place:
    """Which part of the network is running, as its modules are called."""

    def __init__(self, model: InferenceTNT) -> None:
        self.region, self.kind = "stem and head", ""
        for name, module in model.named_modules():
            if any(module.children()) or not name:
                continue
            kind = "norms" if "norm" in name else "products" if isinstance(module, PackedLinear) else ""
            module.register_forward_pre_hook(partial(self._enter, _region(name), kind))
            module.register_forward_hook(lambda *_: self._enter(self.region, ""))

    def _enter(self, region: str, kind: str, *_: Any) -> None:
        self.region, self.kind = region, kind

    def part(self, operator: str) -> str:
        """Name of the part that an operator belongs to; between two modules it belongs to the earlier one's region."""
        if self.region == "stem and head":
            return self.region
        kind = next((kind for kind, names in _KINDS.items() if operator in names), "sums and copies")
        return f"{self.region}: {self.kind or kind}"


def _region(name: str) -> str:
    half, _, rest = name.partition(".")
    if half == "inner":
        return "words to sentences" if any(part in _FLAT for part in rest.split(".")) else "words"
    return "sentences" if half == "outer" else "stem and head"


class _Clock(TorchDispatchMode):
    """Runs every operator and adds its seconds to the part that is running."""

    def __init__(self, place: _Place) -> None:
        super().__init__()
        self.place = place
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begin = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        self.seconds[self.place.part(func._schema.name.partition("::")[2])] += time.perf_counter() - begin
        return out


def seconds_by_part(model: InferenceTNT, x: Tensor, *, rounds: int = 10, seconds: float = 0.0) -> dict[str, float]:
    """Seconds that each part of a forward pass takes on a CPU.

    Operators are clocked one by one as they run, in their place, with what the caches hold then. What a forward pass
    takes beyond them when nothing is clocked is the part :data:`CALLS`.

    Args:
        model: What :func:`tnt_vit.optimize_for_inference` made.
        x: Pictures.
        rounds: How often at least; the median of each part counts.
        seconds: Go on for so long at least.

    Returns:
        Part to seconds, the largest first; together they are the time of a forward pass.
    """
    clocked = copy.deepcopy(model)
    place = _Place(clocked)
    samples: list[dict[str, float]] = []
    whole: list[float] = []
    with torch.inference_mode():
        start = time.perf_counter()
        while len(samples) <= rounds or time.perf_counter() - start < seconds:
            begin = time.perf_counter()
            model(x)
            took = time.perf_counter() - begin
            place.region = "stem and head"
            with _Clock(place) as clock:
                clocked(x)
            whole.append(took)
            samples.append(clock.seconds)
    # The first round packs and warms up.
    parts = {name: statistics.median(sample[name] for sample in samples[1:]) for name in samples[0]}
    parts[CALLS] = max(0.0, statistics.median(whole[1:]) - sum(parts.values()))
    return dict(sorted(parts.items(), key=lambda item: -item[1]))
