"""One entrance: layers of operators on a batch, by the backend that suits it. All backends give the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effkit.errors import UserError, choose
from effkit.triton import check_runs, why_not
from kd_autoaug.ops.allocator import keep_memory
from kd_autoaug.ops.checks import check_images, colour
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.schedule import Run

__all__ = ["BACKENDS", "apply", "resolve_backend"]

BACKENDS = ("auto", "torch", "pil", "triton")


def resolve_backend(backend: str, device: torch.device) -> str:
    """What ``auto`` means on a device; a backend asked for by name that cannot run there is refused.

    Args:
        backend: One of ``BACKENDS``.
        device: Where the pictures are.

    Returns:
        ``"torch"``, ``"pil"``, ``"triton"``, or on a CPU ``"auto"``: whichever of torch and Pillow is faster, operator
        by operator.

    Raises:
        UserError: If it is not known or cannot run.
    """
    choose("backend", backend, BACKENDS)
    if backend == "pil" and device.type != "cpu":
        raise UserError(f"backend='pil' runs on the CPU, got pictures on {device}; use backend='auto'")
    if backend == "triton" or (backend == "auto" and device.type == "cuda"):
        if backend == "auto":
            return "torch" if why_not(device, auto=True) else "triton"
        advice = "use backend='auto', or set TRITON_INTERPRET=1 (slow, for tests)"
        check_runs(device, got=f"pictures on {device}", advice=advice)
    return backend if backend != "auto" or device.type == "cpu" else "torch"


def apply(
    images: Tensor,
    layers: Sequence[Layer],
    *,
    fill: int | Sequence[int] = 0,
    cutout_fill: int | Sequence[int] | None = None,
    backend: str = "auto",
    normalize: tuple[Sequence[float], Sequence[float], torch.dtype] | None = None,
) -> Tensor:
    """Apply layers of operators, one operator per picture and layer, with Pillow's exact bits.

    Args:
        images: uint8 ``(B, C, H, W)`` with 1 or 3 channels.
        layers: In the order in which they are applied, each for B pictures.
        fill: Value, or one per channel, where an affine operator leaves the picture.
        cutout_fill: Of cutout; ``None`` takes ``fill``.
        backend: ``"torch"`` (any device), ``"pil"`` (Pillow itself, CPU), ``"triton"`` (CUDA), or ``"auto"``.
        normalize: Mean, standard deviation (one or one per channel, pixels being 0..1) and dtype of the result, which
            is then ``((x / 255 - mean) / std).to(dtype)``; the last kernel on a GPU writes it at once.

    Returns:
        uint8 ``(B, C, H, W)``: a new tensor, or ``images`` itself where there is nothing to do; with ``normalize`` a
        new tensor of that dtype.

    Raises:
        UserError: If pictures, layers, colours or backend do not fit.
    """
    check_images(images)
    for number, layer in enumerate(layers):
        if len(layer) != len(images):
            raise UserError(f"layers[{number}] is for {len(layer)} pictures, but images has {len(images)}")
    backend = resolve_backend(backend, images.device)
    channels = images.shape[1]
    outside = colour("fill", fill, channels)
    patch = outside if cutout_fill is None else colour("cutout_fill", cutout_fill, channels)
    if len(images) and layers and backend == "triton":
        from kd_autoaug.ops.triton_backend import apply_layers

        return apply_layers(images, list(layers), fill=outside, cutout_fill=patch, normalize=normalize)
    if len(images) and layers:
        if images.device.type == "cpu":
            keep_memory()
        images = Run(images, backend, outside, patch)(images, [layer.to(images.device) for layer in layers])
    return images if normalize is None else _normalized(images, *normalize)


def _normalized(images: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    from kd_autoaug.ops.triton_backend import levels  # loads no triton

    table = levels((mean, std, dtype), images.shape[1], images.device)
    return (
        table.gather(1, images.transpose(0, 1).flatten(1).long())
        .view(images.shape[1], len(images), *images.shape[2:])
        .transpose(0, 1)
        .contiguous()
    )
