"""Self-ensemble (EDSR+): the mean of what a network says to the eight flips and transposes of a picture."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["flips", "self_ensemble"]

Flip = tuple[bool, bool, bool]
"""Whether rows are reversed, columns are, and both are exchanged after that."""

flips: tuple[Flip, ...] = tuple((v, h, t) for t in (False, True) for v in (False, True) for h in (False, True))


def self_ensemble(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Let a network answer eight times and take the mean.

    Args:
        run: From ``(..., h, w)`` to ``(..., h * scale, w * scale)``.
    """

    def mean(pictures: Tensor) -> Tensor:
        total: Tensor | None = None
        for flip in flips:
            output = _back(run(_turned(pictures, flip)), flip)
            total = output if total is None else total + output
        assert total is not None
        return total / len(flips)

    return mean


def _turned(pictures: Tensor, flip: Flip) -> Tensor:
    vertical, horizontal, transposed = flip
    turned = pictures.flip([axis for axis, on in ((-2, vertical), (-1, horizontal)) if on])
    return turned.transpose(-1, -2).contiguous() if transposed else turned


def _back(pictures: Tensor, flip: Flip) -> Tensor:
    vertical, horizontal, transposed = flip
    straight = pictures.transpose(-1, -2) if transposed else pictures
    return straight.flip([axis for axis, on in ((-2, vertical), (-1, horizontal)) if on])
