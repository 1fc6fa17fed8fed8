"""Whether a policy moves pictures out of their frame: magnitudes in pixels were chosen for pictures of some size."""

from __future__ import annotations

import torch

from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.ops.operators import Op

__all__ = ["advice", "fitting_level", "share_moved_out"]

SAID_FROM = 0.05
"""Share of empty views from which they are no accident of a few strong draws."""
_DRAWN = 1024
_KEPT = 0.5  # a level fits if a translation leaves at least so much of a side
_SIDE = {Op.TRANSLATE_X: 1, Op.TRANSLATE_Y: 0}  # which of height and width


def share_moved_out(policy: Policy, size: tuple[int, int]) -> float:
    """Share of views of which nothing is left but the fill colour: a translation is no smaller than the side.

    Args:
        policy: The policy.
        size: Height and width of the pictures.
    """
    gone = torch.zeros(_DRAWN, dtype=torch.bool)
    for layer in policy.sample(0, torch.arange(_DRAWN), 0, size):
        for op, side in _SIDE.items():
            gone |= (layer.op == int(op)) & (layer.arg.abs() >= size[side])
    return float(gone.double().mean())


def fitting_level(policy: Policy, size: tuple[int, int]) -> int | None:
    """The largest whole level at which translations leave half of a picture in its frame.

    Returns:
        ``None`` if the entries of the policy have levels of their own, or none fits.
    """
    entries = [entry for row in policy.rows for entry in row]
    moves = [entry.op for entry in entries if entry.op in _SIDE]
    levels = {entry.level for entry in entries}
    if policy.random_bin or not moves or len(levels) != 1:
        return None
    for level in range(int(levels.pop()), 0, -1):
        moved = (abs(policy.space.argument(op, level, size)) / size[_SIDE[op]] for op in moves)
        if all(share <= 1 - _KEPT for share in moved):
            return level
    return None


def advice(policy: Policy, size: tuple[int, int]) -> str:
    """A line about a policy that moves many pictures out of their frame; empty for others."""
    share = share_moved_out(policy, size)
    if share < SAID_FROM:
        return ""
    level = fitting_level(policy, size)
    what = (
        f"m={level} leaves half of a picture at least" if level is not None else "take a policy for pictures so small"
    )
    return (
        f"{policy.name} moves {share:.0%} of the views of {size[1]}x{size[0]} pictures out of their frame, only the "
        f"fill colour is left: its translations are in pixels; {what}"
    )
