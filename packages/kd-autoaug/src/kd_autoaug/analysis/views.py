"""Views to look at: one picture under every operator and magnitude, and several under a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.ops.operators import Op

__all__ = ["PolicyView", "operator_views", "policy_views"]


def operator_views(
    picture: Tensor,
    operators: Sequence[str],
    magnitudes: Sequence[float],
    space: str,
    *,
    seed: int = 0,
    extrapolate: bool = False,
) -> Tensor:
    """One picture under every operator at every magnitude, with the same random numbers at each magnitude.

    Args:
        picture: uint8 ``(C, H, W)``.
        operators: Names such as ``"shear_x"``.
        magnitudes: In the units of the space.
        space: What a magnitude means.
        seed: Of the signs, places and interpolations drawn.
        extrapolate: Allow magnitudes outside the space.

    Returns:
        uint8 ``(operators, magnitudes, C, H, W)``.

    Raises:
        UserError: If an operator or magnitude is not in the space.
    """
    rows = []
    for row, name in enumerate(operators):
        views = []
        for m in magnitudes:
            policy = Policy.random(ops=[name], n=1, m=m, space=space, prob=1.0, extrapolate=extrapolate)
            # The row's number is the key: operators differ in what they draw, magnitudes do not.
            views.append(BatchAugment(policy, seed)(picture[None], torch.tensor([row]), 0)[0])
        rows.append(torch.stack(views))
    return torch.stack(rows)


class PolicyView(NamedTuple):
    """What a policy made of a picture.

    Attributes:
        picture: The picture's name.
        view: The view's number.
        operators: Names of the operators applied, joined by commas; ``"identity"`` for none.
        pixels: uint8 ``(C, H, W)``.
    """

    picture: str
    view: int
    operators: str
    pixels: Tensor


def policy_views(
    pictures: Mapping[str, Tensor], policy: Policy, *, views: int = 8, seed: int = 0
) -> list[list[PolicyView]]:
    """Random views of pictures under a policy.

    Args:
        pictures: uint8 ``(C, H, W)`` by name, all of one size.
        policy: The policy.
        views: Views of each picture.
        seed: Of the draws.

    Returns:
        The views of each picture, in the pictures' order.
    """
    batch = torch.stack(list(pictures.values()))
    index = torch.arange(len(batch))
    augment = BatchAugment(policy, seed)
    drawn: list[list[PolicyView]] = [[] for _ in pictures]
    for view in range(views):
        seen, layers = augment(batch, index, view, return_layers=True)
        for i, name in enumerate(pictures):
            ops = [Op(int(layer.op[i])).name.lower() for layer in layers]
            words = ", ".join(o for o in ops if o != "identity") or "identity"
            drawn[i].append(PolicyView(name, view, words, seen[i]))
    return drawn
