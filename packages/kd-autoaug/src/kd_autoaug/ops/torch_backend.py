"""The operators in plain torch, on any device: six functions that the dispatcher chooses among."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_autoaug.ops.affine_torch import affine, column
from kd_autoaug.ops.blur import gaussian_blur
from kd_autoaug.ops.tables import PLANE, blend, grey

__all__ = ["affine", "color", "cutout", "gaussian_blur", "look_up", "sharpness"]


def look_up(images: Tensor, tables: Tensor, out: Tensor | None = None) -> Tensor:
    """Replace every value by its entry.

    Args:
        images: uint8 ``(B, C, H, W)``.
        tables: uint8 ``(B, C, 256)``.
        out: Where large pictures may be written, also ``images`` itself.

    Returns:
        uint8 ``(B, C, H, W)``.
    """
    height, width = images.shape[-2:]
    if images.device.type != "cpu" or height * width < PLANE:
        return tables.gather(2, images.flatten(2).long()).view_as(images)
    out = torch.empty_like(images, memory_format=torch.contiguous_format) if out is None else out
    # Plane by plane: indices are 64-bit numbers, and those of a whole picture leave the cache.
    for plane, table, result in zip(images.flatten(0, 1), tables.flatten(0, 1), out.flatten(0, 1), strict=True):
        torch.gather(table, 0, plane.flatten().long(), out=result.view(-1))
    return out


def color(images: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """Blend every picture with its grey version (``ImageEnhance.Color``); grey pictures stay as they are.

    Args:
        images: uint8 ``(B, C, H, W)``.
        factor: Float64 ``(B,)``.
        out: Not used: the result is a new tensor.

    Returns:
        uint8 ``(B, C, H, W)``.
    """
    if images.shape[1] == 1:
        return images
    return blend(grey(images).float()[:, None], images.float(), factor.float().view(-1, 1, 1, 1))


def sharpness(images: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """Blend every picture with its smoothed version (``ImageEnhance.Sharpness``).

    Smoothing is the 3 x 3 kernel (1 1 1; 1 5 1; 1 1 1) / 13, rounded; the outermost pixels keep their values, and so
    does a picture with a side below 3.

    Args:
        images: uint8 ``(B, C, H, W)``.
        factor: Float64 ``(B,)``.
        out: Not used: the result is a new tensor.

    Returns:
        uint8 ``(B, C, H, W)``.
    """
    if min(images.shape[-2:]) < 3:
        return images
    width = images.shape[-1]
    edge = width + 1
    # Rows end to end: a neighbour is then an offset. What runs over the ends of a row is in the outermost columns,
    # which are put back. Sums are whole numbers, at most 13 x 255.
    x = images.flatten(2).short()
    three = x[..., :-2] + x[..., 1:-1]
    three.add_(x[..., 2:])
    total = three[..., : -2 * width] + three[..., width:-width]
    centre = x[..., edge:-edge]
    total.add_(three[..., 2 * width :]).add_(centre, alpha=4)
    # Rounded half up. A thirteenth is never closer than 1/26 to a half, so a hundredth on top makes the product with
    # the inverse as good as a division.
    smooth = total.float().mul_(1 / 13).add_(0.51).floor_()
    out = images.clone(memory_format=torch.contiguous_format)
    out.flatten(2)[..., edge:-edge] = blend(smooth, centre.float(), factor.float().view(-1, 1, 1))
    for side in (0, -1):
        out[..., side] = images[..., side]
    return out


def cutout(images: Tensor, box: Tensor, fill: tuple[int, ...], out: Tensor | None = None) -> Tensor:
    """Fill a rectangle of every picture.

    Args:
        images: uint8 ``(B, C, H, W)``.
        box: Left, top, right, bottom in pixels, the last two not included, int64 ``(B, 4)``; may reach over the edge.
        fill: Value of each channel.
        out: Where it may be written on a CPU, also ``images`` itself.

    Returns:
        uint8 ``(B, C, H, W)``.
    """
    height, width = images.shape[-2:]
    colour = column(images, fill)
    if images.device.type == "cpu":
        out = images.clone() if out is None else out.copy_(images)
        for picture, (left, top, right, bottom) in zip(out, box.clamp(min=0).tolist(), strict=True):
            picture[:, top:bottom, left:right] = colour
        return out
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)
    left, top, right, bottom = box[:, :, None].unbind(1)
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return torch.where((down[:, :, None] & across[:, None])[:, None], colour, images)
