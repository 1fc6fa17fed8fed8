"""A compressed dimension for every layer, from its spectrum (ours; the paper uses 128 in all)."""

from __future__ import annotations

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["check_tail", "rank_for_tail"]


def check_tail(tail: float) -> None:
    """Refuse a share that is none.

    Raises:
        UserError: If ``tail`` is not in ``[0, 1)``.
    """
    if isinstance(tail, bool) or not isinstance(tail, (int, float)) or not 0 <= tail < 1:
        raise UserError(f"tail must be in [0, 1), got {tail!r}")


def rank_for_tail(spectrum: Tensor, tail: float, *, multiple_of: int = 1) -> int:
    r"""The smallest rank whose error is at most a given share of the scores' variance.

    With the closed form the squared error left over is :math:`\sum_{i > r} s_i^2`, out of :math:`\sum_i s_i^2`.

    Args:
        spectrum: Singular values, largest first, ``(d,)``.
        tail: Share of the sum of squares that may be lost, in ``[0, 1)``.
        multiple_of: Round up to a multiple of it, but not beyond ``d``.

    Returns:
        The rank, in ``1..d``.

    Raises:
        UserError: If an argument is out of range, or the spectrum is not one.

    Example:
        >>> rank_for_tail(torch.tensor([3.0, 2.0, 1.0]), tail=0.1)
        2
    """
    check_tail(tail)
    if multiple_of < 1:
        raise UserError(f"multiple_of must be at least 1, got {multiple_of}")
    if spectrum.ndim != 1 or spectrum.numel() == 0:
        raise UserError(f"spectrum must have one axis and at least one value, got shape {tuple(spectrum.shape)}")
    energy = spectrum.double().square()
    if not bool(torch.isfinite(energy).all()) or bool((energy.diff() > 0).any()):
        raise UserError("spectrum must be finite and falling, got one that is not")
    # lost[r] is what is lost at rank r; summed from the small end, where it matters.
    lost = torch.cat((energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)))
    rank = max(1, int((lost > tail * lost[0]).sum()))
    return min(-(-rank // multiple_of) * multiple_of, spectrum.numel())
