"""Launching kernels, and counting launches."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from effkit.triton.loading import interpreted

__all__ = ["count_launches", "launch"]

_counters: list[Counter[str]] = []


def launch(
    kernel: Any,
    grid: tuple[int, ...] | Callable[[dict[str, Any]], tuple[int, ...]],
    *arguments: Any,
    warps: int | None = 4,
    stages: int | None = 2,
    fuse: bool = True,
    **constants: Any,
) -> None:
    """Run a kernel on the device of its first tensor.

    Args:
        kernel: From :func:`effkit.triton.kernels`, or an autotuner around one.
        grid: Numbers of programs, or a function from constants to them.
        *arguments: Its tensors and numbers, in order.
        warps: Warps of a program; ``None`` leaves them to triton or to the autotuner.
        stages: Stages of its software pipeline; ``None`` likewise.
        fuse: Whether a product and a sum may become one operation that rounds once. Always said, because triton 3.9
            warns that its default will change.
        **constants: Its ``constexpr`` arguments.
    """
    import torch

    if interpreted():
        kernel[grid](*arguments, **constants)
    else:
        tensor = next(a for a in arguments if isinstance(a, torch.Tensor))
        if warps is not None:
            constants["num_warps"] = warps
        if stages is not None:
            constants["num_stages"] = stages
        with torch.cuda.device(tensor.device):
            kernel[grid](*arguments, enable_fp_fusion=fuse, **constants)
    for counter in _counters:
        counter[_name(kernel)] += 1


@contextlib.contextmanager
def count_launches() -> Iterator[Counter[str]]:
    """Count what :func:`launch` runs inside the block, in all threads (a backward pass has its own); for tests.

    An autotuner's trials, replays of CUDA graphs and kernels of torch are not counted.

    Yields:
        Launches by name of the kernel; ``.total()`` is their number.

    Example:
        >>> with count_launches() as launches:
        ...     pass
        >>> launches.total()
        0
    """
    counter: Counter[str] = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters[:] = [other for other in _counters if other is not counter]


def _name(kernel: Any) -> str:
    while hasattr(kernel, "fn"):  # autotuner -> kernel -> Python function
        kernel = kernel.fn
    return kernel.__name__
