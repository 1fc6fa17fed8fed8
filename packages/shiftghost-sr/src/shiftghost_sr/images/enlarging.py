"""MATLAB's cubic enlargement of tensors, for networks that take pictures enlarged already."""

from __future__ import annotations

import torch
from torch import Tensor

from shiftghost_sr.images.resampling import taps

__all__ = ["enlarge"]


def enlarge(
    pictures: Tensor, scale: int, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
) -> Tensor:
    """Enlarge pictures as ``imresize(picture, scale)`` does with floating-point numbers.

    Args:
        pictures: ``(N, C, h, w)``, of any floating-point dtype.
        scale: Whole-numbered factor.
        rows: First and last row (exclusive) of ``pictures`` whose enlargement is wanted; all if not given.
        columns: Likewise.

    Returns:
        ``(N, C, rows * scale, columns * scale)``: that part of the whole, to the bit.
    """
    for axis, part in ((-2, rows), (-1, columns)):
        first, last = part or (0, pictures.shape[axis])
        index, weight = taps(pictures.shape[axis], scale, first * scale, last * scale)
        places = torch.from_numpy(index).to(pictures.device)
        factors = torch.from_numpy(weight).to(pictures)
        total: Tensor | None = None
        for tap in range(places.shape[1]):
            factor = factors[:, tap] if axis == -1 else factors[:, tap, None]
            term = pictures.index_select(axis, places[:, tap]) * factor
            total = term if total is None else total + term
        assert total is not None
        pictures = total
    return pictures
