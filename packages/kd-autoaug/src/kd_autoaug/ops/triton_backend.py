"""The operators as two Triton kernels per layer, for CUDA devices, with Pillow's exact bits.

Nothing here reads a tensor on the host, so a call can be captured in a CUDA graph and replayed with other pictures and
other operators in the same tensors; Gaussian blurs among them only if the layer's ``blurs`` was not false. The first
call for a kind of input compiles: make it outside the capture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.triton import check_runs, kernels, launch, power_of_two
from kd_autoaug.ops.blur import gaussian_blur
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import Op

__all__ = ["Normalize", "apply_layers", "levels"]

Normalize = tuple[Sequence[float], Sequence[float], torch.dtype]

_READ = 4096  # pixels that a program reads at once for its statistics, with eight warps
_WRITE = 1024  # pixels that a program writes, with four warps
_PART = 128  # of which so many at once in float64
# Products and sums are never fused: a multiply-add rounds once where Pillow rounds twice, which changes bytes.
_EXACT: dict[str, Any] = {"fuse": False, "stages": None}
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@lru_cache(maxsize=32)
def _levels(mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    values = torch.arange(256, device=device).float()
    mean_, std_ = (torch.tensor(numbers, device=device)[:, None] for numbers in (mean, std))
    return ((values / 255 - mean_) / std_).to(dtype)


def levels(normalize: Normalize, channels: int, device: torch.device) -> Tensor:
    """What each value 0..255 of each channel becomes: ``((x / 255 - mean) / std).to(dtype)`` by torch itself.

    Kept for later calls: made once per device, outside any capture.

    Args:
        normalize: Mean and standard deviation, one or one per channel, and the floating-point type of the result.
        channels: Of the pictures.
        device: Where they are.

    Returns:
        ``(C, 256)``.

    Raises:
        UserError: If the numbers do not fit the channels, or the type is not 16 or 32 bits of floating point.
    """
    mean, std, dtype = normalize
    numbers = []
    for name, given in (("mean", mean), ("std", std)):
        values = tuple(float(v) for v in given)
        if len(values) not in (1, channels):
            raise UserError(f"normalize: {name}={values} has {len(values)} values, the pictures {channels} channels")
        numbers.append(values * (channels // len(values)))
    if any(not value > 0 for value in numbers[1]):
        raise UserError(f"normalize: std={numbers[1]} must be positive")
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise UserError(f"normalize: dtype must be float16, bfloat16 or float32, got {dtype}")
    return _levels(numbers[0], numbers[1], dtype, device)


def _packed(colour: Sequence[int]) -> int:
    return sum(value << (8 * channel) for channel, value in enumerate(colour))


class _Scratch:
    """What the first kernel of a layer tells the second one; every layer uses it anew."""

    def __init__(self, batch: int, channels: int, device: torch.device) -> None:
        self.tables = torch.empty(batch, channels, 256, dtype=torch.uint8, device=device)
        self.codes = torch.empty(batch, 8, dtype=torch.int32, device=device)
        self.numbers = torch.empty(batch, 8, dtype=torch.float64, device=device)


def _prepare(images: Tensor, layer: Layer, scratch: _Scratch) -> None:
    batch, channels, height, width = images.shape
    block = min(_READ, max(128, power_of_two(height * width)))
    launch(
        kernels(__package__, "prepare_kernel").prepare_kernel,
        (batch * channels,),
        images,
        scratch.tables,
        scratch.codes,
        scratch.numbers,
        layer.op,
        layer.arg,
        layer.interpolation,
        layer.box,
        layer.op.stride(0),
        layer.arg.stride(0),
        layer.interpolation.stride(0),
        *layer.box.stride(),
        height * width,
        height,
        width,
        CHANNELS=channels,
        BLOCK=block,
        warps=8 if block == _READ else 4,
        **_EXACT,
    )


def _write(images: Tensor, out: Tensor, scratch: _Scratch, table: Tensor | None, fill: int, patch: int) -> None:
    batch, channels, height, width = images.shape
    block = min(_WRITE, max(_PART, power_of_two(height * width)))
    tiles = -(-height * width // block)
    if table is not None:  # kernels move bits: not every version's interpreter knows bfloat16
        bits = _BITS[table.element_size()]
        table, out = table.view(bits), out.view(bits)
    launch(
        kernels(__package__, "apply_kernel").apply_kernel,
        (tiles * batch,),
        images,
        out,
        scratch.tables,
        scratch.codes,
        scratch.numbers,
        table,
        tiles,
        height * width,
        height,
        width,
        fill,
        patch,
        CHANNELS=channels,
        BLOCK=block,
        PART=min(_PART, block),
        LEVELS=table is not None,
        warps=4,
        **_EXACT,
    )


def _blurred(images: Tensor, layer: Layer) -> tuple[Tensor, Layer]:
    """Pictures blurred where a layer says so, and the layer without that.

    By torch, and all pictures are computed: which ones are to be blurred, nobody looks.
    """
    wanted = layer.op == int(Op.GAUSSIAN_BLUR)
    blurred = gaussian_blur(images, torch.where(wanted, layer.arg, 0.0)).contiguous()
    rest = torch.where(wanted, int(Op.IDENTITY), layer.op)
    return blurred, Layer(rest, layer.arg, layer.interpolation, layer.box, False)


def apply_layers(
    images: Tensor,
    layers: Sequence[Layer],
    *,
    fill: tuple[int, ...],
    cutout_fill: tuple[int, ...],
    normalize: Normalize | None = None,
) -> Tensor:
    """Apply layers of operators: two launches each.

    Args:
        images: uint8 ``(B, C, H, W)`` with 1 or 3 channels, on a CUDA device (on the CPU if kernels are interpreted).
        layers: Each for B pictures; those on another device are copied.
        fill: Value of each channel where an affine operator leaves the picture.
        cutout_fill: Value of each channel in the box of cutout.
        normalize: Mean, standard deviation and type, to get ``((x / 255 - mean) / std).to(dtype)`` from the last layer.

    Returns:
        uint8 ``(B, C, H, W)``, or the type of ``normalize``; always a new tensor unless there is nothing to do.

    Raises:
        UserError: If the kernels cannot run here, or ``normalize`` does not fit.
    """
    check_runs(images.device, got=f"pictures on {images.device}", interpreted_on=("cpu",), advice="use backend='auto'")
    batch, channels, _, _ = images.shape
    device = images.device
    table = None if normalize is None else levels(normalize, channels, device)
    if batch == 0 or (not layers and table is None):
        return images if table is None else images.to(table.dtype)
    ready = [layer.to(device) for layer in layers] or [Layer.of(torch.full((batch,), int(Op.IDENTITY), device=device))]
    images = images.contiguous()
    scratch = _Scratch(batch, channels, device)
    if table is not None and ready[-1].blurs is not False:  # the last kernel writes levels, and the blur wants bytes
        ready.append(Layer.of(torch.full((batch,), int(Op.IDENTITY), device=device)))
    for number, layer in enumerate(ready):
        if layer.blurs is not False:
            images, layer = _blurred(images, layer)
        last = table if number == len(ready) - 1 else None
        out = torch.empty_like(images, dtype=torch.uint8 if last is None else last.dtype)
        _prepare(images, layer, scratch)
        _write(images, out, scratch, last, _packed(fill), _packed(cutout_fill))
        images = out
    return images
