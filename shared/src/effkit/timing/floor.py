"""What the machine can do at best, measured: the limit beside every timing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from effkit.device import resolve_device
from effkit.timing.rounds import compare

__all__ = ["MachineFloor", "machine_floor"]


@dataclass(frozen=True)
class MachineFloor:
    """What the machine can do at best, measured: the limit beside every timing.

    Args:
        flops_per_second: Fastest square matrix product seen; two operations per multiply-add.
        bytes_per_second: Fastest copy seen, bytes read plus bytes written.
        device: Where.
        dtype: Of the matrix product.
        threads: CPU threads.
    """

    flops_per_second: float
    bytes_per_second: float
    device: str
    dtype: str
    threads: int

    def seconds(self, macs: int = 0, moved_bytes: int = 0) -> float:
        """Least time for so many multiply-adds and so many bytes moved, if the two overlap perfectly."""
        return max(2 * macs / self.flops_per_second, moved_bytes / self.bytes_per_second)


def machine_floor(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    threads: int | None = None,
    min_seconds: float = 0.5,
    matrix_size: int | None = None,
    copy_bytes: int | None = None,
) -> MachineFloor:
    """Measure the rate of a large matrix product and of a large copy.

    Args:
        device: Where.
        dtype: Of the matrix product.
        threads: CPU threads; as they are if `None`.
        min_seconds: Time for the two together, at least.
        matrix_size: Side of the matrices; 1,024 on a CPU and 8,192 on a GPU if not given.
        copy_bytes: Size of the copied buffer, larger than the caches; 256 MiB on a CPU and 1 GiB on a GPU if not given.

    Returns:
        The best rates seen.
    """
    device = resolve_device(device)
    size = matrix_size or (1024 if device.type == "cpu" else 8192)
    length = copy_bytes or (2**28 if device.type == "cpu" else 2**30)
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    product = torch.empty_like(left)
    source, target = torch.ones(2, length // 4, device=device)
    comparison = compare(
        {"gemm": lambda: torch.mm(left, right, out=product), "copy": lambda: target.copy_(source)},
        device=device,
        min_rounds=5,
        min_seconds=min_seconds,
        threads=threads,
        memory=False,
    )
    fastest = {name: min(t.samples) for name, t in comparison.timings.items()}
    return MachineFloor(
        flops_per_second=2 * size**3 / fastest["gemm"],
        bytes_per_second=2 * source.numel() * 4 / fastest["copy"],
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        threads=comparison.threads,
    )
