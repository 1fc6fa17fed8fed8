"""What a run keeps in memory, and what challenges count beside MACs; on the meta device, so at any size.

Peak memory is that of tensors that are alive at once, inputs and results included, weights not: what an allocator that
wastes nothing needs. It is taken for the whole, and for the body: all before the convolution that is enlarged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

__all__ = ["Activity", "activity"]


@dataclass(frozen=True)
class Activity:
    """Of one run.

    Args:
        peak: Bytes alive at most.
        body_peak: The same before the upsampler, which rules the whole in every form.
        activations: Numbers that convolutions gave out.
        convolutions: Calls of convolutions; one that runs in bands of rows is one.
    """

    peak: int
    body_peak: int
    activations: int
    convolutions: int


class _Watch(TorchDispatchMode):
    def __init__(self, side: int, weights: set[int]) -> None:
        super().__init__()
        self.side, self.weights = side, weights
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = self.activations = self.convolutions = 0
        self.before: int | None = None  # peak before the convolution that ran last
        self.body_peak: int | None = None

    def hold(self, value: Any) -> None:
        """Note a tensor's memory, unless it is a weight's."""
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if storage._cdata in self.weights:
            return
        self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        convolves = func.overloadpacket is torch.ops.aten.convolution
        if convolves:
            self.before = self.peak
        result = func(*args, **(kwargs or {}))
        self.alive = {k: v for k, v in self.alive.items() if not v[0].expired()}
        for value in tree_iter(result):
            self.hold(value)
            large = isinstance(value, Tensor) and value.dim() == 4 and value.shape[-1] >= 2 * self.side
            if large and self.body_peak is None:
                self.body_peak = self.before  # the convolution before belongs to the upsampler
        now = sum(size for _, size in self.alive.values())
        self.peak = max(self.peak, now)
        if convolves:
            self.convolutions += 1
            self.activations += result.numel()
        return result


def activity(model: nn.Module, height: int, width: int, channels: int, dtype: torch.dtype = torch.float32) -> Activity:
    """Count for one picture.

    Args:
        model: In evaluation mode, on the meta device (see :func:`~shiftghost_sr.compression.forms.without_numbers`).
        height: Of the input.
        width: Of the input.
        channels: Of the input.
        dtype: Of the maps.
    """
    weights = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    watch = _Watch(width, weights)
    with torch.no_grad(), watch:
        x = torch.empty(1, channels, height, width, device="meta", dtype=dtype)
        model(x)
    # A frame as small as this has one band, so that calls are layers.
    few = _Watch(width, weights)
    with torch.no_grad(), few:
        model(torch.empty(1, channels, 16, 16, device="meta", dtype=dtype))
    body = watch.peak if watch.body_peak is None else watch.body_peak
    return Activity(watch.peak, body, watch.activations, few.convolutions)
