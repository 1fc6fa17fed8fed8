"""Each operator as a function of a batch: ``rotate(images, degrees, interpolation="bicubic")``.

Arguments are one number for all pictures, or one per picture. See ``operators.ARGUMENTS`` for what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effkit.errors import UserError, choose
from kd_autoaug.ops.checks import check_images
from kd_autoaug.ops.dispatch import apply
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import ARGUMENTS, INTERPOLATIONS, Op

__all__ = [
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "cutout",
    "equalize",
    "gaussian_blur",
    "identity",
    "invert",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "solarize_add",
    "translate_x",
    "translate_y",
]

Fill = int | Sequence[int]
Number = float | Tensor


def _per_picture(op: Op, arg: Number, images: Tensor) -> Tensor:
    values = torch.as_tensor(arg, dtype=torch.float64, device=images.device)
    if values.ndim == 0:
        values = values.expand(len(images))
    name = op.name.lower()
    if values.shape != (len(images),):
        raise UserError(f"{name} takes a number or one per picture ({len(images)}), got shape {tuple(values.shape)}")
    if images.device.type == "cpu" and not bool(torch.isfinite(values).all()):
        raise UserError(f"{name} takes finite numbers ({ARGUMENTS[op]}), got {values[~torch.isfinite(values)][0]}")
    return values.contiguous()


def _run(
    op: Op, images: Tensor, arg: Number = 0.0, *, fill: Fill = 0, interpolation: str = "nearest", backend: str = "auto"
) -> Tensor:
    check_images(images)
    how = INTERPOLATIONS[choose("interpolation", interpolation, INTERPOLATIONS)]
    ops = torch.full((len(images),), int(op), device=images.device)
    layer = Layer.of(ops, _per_picture(op, arg, images), how)
    return apply(images, [layer], fill=fill, backend=backend)


def identity(images: Tensor) -> Tensor:
    """The pictures themselves."""
    check_images(images)
    return images


def shear_x(
    images: Tensor, factor: Number, *, fill: Fill = 0, interpolation: str = "nearest", backend: str = "auto"
) -> Tensor:
    """Shear along x about the upper left corner: pixel (x, y) reads (x + factor * y, y).

    Args:
        images: uint8 ``(B, C, H, W)``.
        factor: Pixels per row.
        fill: Value where nothing is read, or one per channel.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        backend: See :func:`kd_autoaug.ops.apply`.
    """
    return _run(Op.SHEAR_X, images, factor, fill=fill, interpolation=interpolation, backend=backend)


def shear_y(
    images: Tensor, factor: Number, *, fill: Fill = 0, interpolation: str = "nearest", backend: str = "auto"
) -> Tensor:
    """Shear along y about the upper left corner: pixel (x, y) reads (x, y + factor * x). See :func:`shear_x`."""
    return _run(Op.SHEAR_Y, images, factor, fill=fill, interpolation=interpolation, backend=backend)


def translate_x(
    images: Tensor, pixels: Number, *, fill: Fill = 0, interpolation: str = "nearest", backend: str = "auto"
) -> Tensor:
    """Shift along x: pixel (x, y) reads (x + pixels, y), so that the content moves left. See :func:`shear_x`."""
    return _run(Op.TRANSLATE_X, images, pixels, fill=fill, interpolation=interpolation, backend=backend)


def translate_y(
    images: Tensor, pixels: Number, *, fill: Fill = 0, interpolation: str = "nearest", backend: str = "auto"
) -> Tensor:
    """Shift along y: pixel (x, y) reads (x, y + pixels), so that the content moves up. See :func:`shear_x`."""
    return _run(Op.TRANSLATE_Y, images, pixels, fill=fill, interpolation=interpolation, backend=backend)


def rotate(
    images: Tensor, degrees: Number, *, fill: Fill = 0, interpolation: str = "nearest", backend: str = "auto"
) -> Tensor:
    """Turn counter-clockwise about the centre (``Image.rotate``). See :func:`shear_x`."""
    return _run(Op.ROTATE, images, degrees, fill=fill, interpolation=interpolation, backend=backend)


def brightness(images: Tensor, factor: Number, *, backend: str = "auto") -> Tensor:
    """Blend with black (``ImageEnhance.Brightness``): factor 0 is black, 1 the picture."""
    return _run(Op.BRIGHTNESS, images, factor, backend=backend)


def color(images: Tensor, factor: Number, *, backend: str = "auto") -> Tensor:
    """Blend with the grey picture (``ImageEnhance.Color``): factor 0 is grey, 1 the picture."""
    return _run(Op.COLOR, images, factor, backend=backend)


def contrast(images: Tensor, factor: Number, *, backend: str = "auto") -> Tensor:
    """Blend with the mean grey (``ImageEnhance.Contrast``): factor 0 is one grey, 1 the picture."""
    return _run(Op.CONTRAST, images, factor, backend=backend)


def sharpness(images: Tensor, factor: Number, *, backend: str = "auto") -> Tensor:
    """Blend with the smoothed picture (``ImageEnhance.Sharpness``): factor 0 is smooth, 1 the picture, 2 sharp."""
    return _run(Op.SHARPNESS, images, factor, backend=backend)


def posterize(images: Tensor, bits: Number, *, backend: str = "auto") -> Tensor:
    """Keep the upper bits (``ImageOps.posterize``); 0 bits are black, 8 and more the picture, parts are dropped."""
    return _run(Op.POSTERIZE, images, bits, backend=backend)


def solarize(images: Tensor, threshold: Number, *, backend: str = "auto") -> Tensor:
    """Invert values from a threshold on (``ImageOps.solarize``); 256 changes nothing, 0 inverts all."""
    return _run(Op.SOLARIZE, images, threshold, backend=backend)


def solarize_add(images: Tensor, addend: Number, *, backend: str = "auto") -> Tensor:
    """Add to values below 128, cut to 0..255."""
    return _run(Op.SOLARIZE_ADD, images, addend, backend=backend)


def autocontrast(images: Tensor, *, backend: str = "auto") -> Tensor:
    """Stretch every channel to 0..255 (``ImageOps.autocontrast``)."""
    return _run(Op.AUTOCONTRAST, images, backend=backend)


def equalize(images: Tensor, *, backend: str = "auto") -> Tensor:
    """Equalise the histogram of every channel (``ImageOps.equalize``)."""
    return _run(Op.EQUALIZE, images, backend=backend)


def gaussian_blur(images: Tensor, sigma: Number, *, backend: str = "auto") -> Tensor:
    """Blur by a Gaussian, as Pillow approximates it: three box blurs along each axis.

    Args:
        images: uint8 ``(B, C, H, W)``.
        sigma: Standard deviation in pixels; 0 is the picture.
        backend: See :func:`kd_autoaug.ops.apply`.
    """
    return _run(Op.GAUSSIAN_BLUR, images, sigma, backend=backend)


def invert(images: Tensor, *, backend: str = "auto") -> Tensor:
    """255 minus every value (``ImageOps.invert``)."""
    return _run(Op.INVERT, images, backend=backend)


def cutout(images: Tensor, box: Tensor, *, fill: Fill = 0, backend: str = "auto") -> Tensor:
    """Fill a rectangle of every picture.

    Args:
        images: uint8 ``(B, C, H, W)``.
        box: Left, top, right, bottom in pixels, the last two not included: ``(4,)`` or ``(B, 4)`` integers; may reach
            over the edge.
        fill: Value, or one per channel.
        backend: See :func:`kd_autoaug.ops.apply`.
    """
    check_images(images)
    boxes = torch.as_tensor(box, device=images.device)
    if boxes.is_floating_point() or boxes.shape not in ((4,), (len(images), 4)):
        raise UserError(f"box must hold 4 integers, or 4 per picture, got {boxes.dtype} of shape {tuple(boxes.shape)}")
    ops = torch.full((len(images),), int(Op.CUTOUT), device=images.device)
    layer = Layer.of(ops, box=boxes.expand(len(images), 4))
    return apply(images, [layer], cutout_fill=fill, backend=backend)
