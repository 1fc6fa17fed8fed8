"""Whether a policy leaves nothing of pictures: magnitudes in pixels were chosen for pictures of some size."""

from __future__ import annotations

import torch

from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.ops.operators import Op

__all__ = ["advice", "fitting_level", "share_emptied"]

SAID_FROM = 0.05
"""Share of empty views from which they are no accident of a few strong draws."""
_DRAWN = 1024
_KEPT = 0.5  # a level fits if a translation leaves at least so much of a side
_SIDE = {Op.TRANSLATE_X: 1, Op.TRANSLATE_Y: 0}  # which of height and width


def share_emptied(policy: Policy, size: tuple[int, int]) -> float:
    """Share of views of which nothing is left: a translation is no smaller than the side, a cutout covers all.

    Args:
        policy: The policy.
        size: Height and width of the pictures.
    """
    gone = torch.zeros(_DRAWN, dtype=torch.bool)
    for layer in policy.sample(0, torch.arange(_DRAWN), 0, size):
        for op, side in _SIDE.items():
            gone |= (layer.op == int(op)) & (layer.arg.abs() >= size[side])
        left, top, right, bottom = layer.box.unbind(1)
        covers = (left <= 0) & (top <= 0) & (right >= size[1]) & (bottom >= size[0])
        gone |= (layer.op == int(Op.CUTOUT)) & covers
    return float(gone.double().mean())


def fitting_level(policy: Policy, size: tuple[int, int]) -> int | None:
    """The largest whole level at which translations leave half of a picture in its frame, and cutouts half a side.

    Returns:
        ``None`` if the entries of the policy have levels of their own, or none fits.
    """
    entries = [entry for row in policy.rows for entry in row]
    moves = [entry.op for entry in entries if entry.op in _SIDE or entry.op == Op.CUTOUT]
    levels = {entry.level for entry in entries}
    if policy.random_bin or not moves or len(levels) != 1:
        return None
    for level in range(int(levels.pop()), 0, -1):
        moved = (abs(policy.space.argument(op, level, size)) / size[_SIDE.get(op, 0)] for op in moves)
        if all(share <= 1 - _KEPT for share in moved):
            return level
    return None


def advice(policy: Policy, size: tuple[int, int]) -> str:
    """A line about a policy that leaves nothing of many pictures; empty for others."""
    share = share_emptied(policy, size)
    if share < SAID_FROM:
        return ""
    level = fitting_level(policy, size)
    fits = "take a policy for pictures so small" if level is None else f"m={level} leaves half of a picture at least"
    return (
        f"{policy.name} leaves nothing of {share:.0%} of the views of {size[1]}x{size[0]} pictures: its translations "
        f"and cutouts are in pixels, chosen for larger ones; {fits}"
    )
