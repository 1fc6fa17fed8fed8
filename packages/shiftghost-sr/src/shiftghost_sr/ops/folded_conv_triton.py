"""A folded convolution by one Triton kernel, with the sum it goes into; CUDA, or ``TRITON_INTERPRET=1`` for tests.

Importing this module does not import triton.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.triton import check_runs, dot_constants, interpreted, kernels, launch, power_of_two, widened
from shiftghost_sr.ops.dispatch import too_large
from shiftghost_sr.ops.taps import Taps

__all__ = ["folded_conv"]


def _tile(outputs: int, maps: int, dtype: torch.dtype) -> dict[str, Any]:
    """Rectangles of pixels, and blocks of maps to and from."""
    if interpreted():
        return {"BH": 8, "BW": 16, "BN": power_of_two(outputs, 16), "BK": power_of_two(maps, 16)}
    widest, deepest = (64, 32) if dtype == torch.float32 else (128, 64)  # beyond, registers spill
    return {
        "BH": 8, "BW": 16, "BN": min(power_of_two(outputs, 16), widest), "BK": min(power_of_two(maps, 16), deepest),
    }  # fmt: skip


def folded_conv(
    out: Tensor, maps: Tensor, taps: Taps, bias: Tensor | None, targets: Tensor, act: tuple[int, float], *, add: bool
) -> Tensor:
    """Convolve maps, and write the result to where it goes.

    Args:
        out: ``(N, channels, H, W)``, any strides; changed.
        maps: ``(N, maps, H, W)``, any strides.
        taps: From :func:`~shiftghost_sr.ops.taps.tap_list`, on the same device and of the same type.
        bias: ``(outputs,)``.
        targets: From :func:`~shiftghost_sr.ops.taps.targets_table`, on the same device. Without ``add`` they must
            name every channel of ``out``.
        act: What maps are activated by: 0 nothing, 1 a rectifier, 2 a leaky one; and its slope.
        add: Add to ``out`` instead.

    Returns:
        ``out``.

    Raises:
        UserError: If the kernel cannot run here, or shapes do not fit.
    """
    check_runs(maps.device, {maps.dtype, out.dtype})
    _, inputs, outputs = taps.weights.shape
    if maps.dim() != 4 or maps.shape[1] != inputs or out.shape[0] != maps.shape[0] or out.shape[2:] != maps.shape[2:]:
        raise UserError(f"maps {tuple(maps.shape)} must be (N, {inputs}, H, W), and fit into {tuple(out.shape)}")
    if maps.numel() == 0:
        return out
    if too_large(maps, out):
        raise UserError(f"backend='triton' takes pictures of fewer than 2**31 numbers, got {tuple(maps.shape)}")
    height, width = maps.shape[2:]
    tile = _tile(outputs, inputs, maps.dtype)
    down, across = -(-height // tile["BH"]), -(-width // tile["BW"])
    grid = (maps.shape[0] * down * across, -(-outputs // tile["BN"]))
    x, target = widened(maps), widened(out)
    weights, shift = widened(taps.weights), None if bias is None else widened(bias)
    constants: dict[str, Any] = {
        "MAPS": inputs,
        "OUTPUTS": outputs,
        "TARGETS": targets.shape[0],
        "ACT": act[0],
        "ADD": add,
    }
    launch(
        kernels(__package__, "folded_conv_kernel").folded_conv_kernel, grid,
        x, target, weights, shift, taps.offsets, taps.sides, targets,
        height, width, down, across, taps.folded, len(taps.offsets), act[1], *x.stride(), *target.stride(),
        warps=8, stages=3, **constants, **dot_constants(maps.dtype), **tile,
    )  # fmt: skip
    return out if target is out else out.copy_(target)
