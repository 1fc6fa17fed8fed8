"""Which convolutions can take moved maps as they are, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from shiftghost_sr.compression.deployment.folded import Group, frozen, group_taps
from shiftghost_sr.compression.deployment.layout import Channel, by_base, is_plain

__all__ = ["Decision", "fold_groups", "plain_conv"]


@dataclass(frozen=True)
class Decision:
    """What became of a layer: ``folded``, ``not folded`` (ghosts are written out for it) or ``kept``, and why."""

    layer: str
    what: str
    why: str


def plain_conv(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution that computes what ``conv`` computes itself: its intrinsic maps."""
    made = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,  # type: ignore[arg-type]
        conv.groups, conv.bias is not None, conv.padding_mode, device="meta",
    )  # fmt: skip
    made.weight, made.bias = frozen(conv.weight), frozen(conv.bias)  # type: ignore[assignment]
    return made


def _unfit(conv: nn.Conv2d) -> str:
    """Why a convolution cannot be folded; empty if it can."""
    k = conv.kernel_size[0]
    if conv.groups != 1:
        return f"it has {conv.groups} groups"
    if conv.kernel_size[0] != conv.kernel_size[1] or k % 2 == 0:
        return f"its kernel is {conv.kernel_size[0]} x {conv.kernel_size[1]}"
    if conv.stride != (1, 1) or conv.dilation != (1, 1):
        return "it strides or dilates"
    if conv.padding_mode != "zeros":
        return f"it pads with {conv.padding_mode}"
    if conv.padding != "same" and conv.padding != (k // 2, k // 2):
        return f"it pads by {conv.padding}"
    return ""


def fold_groups(
    conv: nn.Conv2d, channels: Sequence[Channel], sizes: dict[int, int], diagonal: str
) -> tuple[list[Group] | None, str]:
    """How a convolution is folded.

    Args:
        conv: It.
        channels: Its input.
        sizes: Channels of each tensor.
        diagonal: See :class:`~shiftghost_sr.compression.deployment.folded.FoldedConv2d`.

    Returns:
        Groups of tensors, with places as the tensors come in ``channels``; ``None`` if it stays as it is, with the
        reason (empty if there is nothing to fold).
    """
    if is_plain(channels):
        return None, ""
    if reason := _unfit(conv):
        return None, reason
    k = conv.kernel_size[0]
    place: dict[int, int] = {}
    alike: dict[object, list[int]] = {}
    members = by_base(channels)
    for base, own in members.items():
        place[base] = len(place)
        moves = frozenset(channels[c].move for c in own)
        # Tensors read whole and unmoved stay alone: they need no halo.
        alike.setdefault(("alone", base) if moves == {(0, 0)} and k > 1 else moves, []).append(base)
    groups = []
    for bases in alike.values():
        offset, source, moves_of, listed = 0, [], [], []
        for base in bases:
            listed += members[base]
            source += [offset + channels[c].source for c in members[base]]
            moves_of += [channels[c].move for c in members[base]]
            offset += sizes[base]
        maps = tuple(sizes[b] for b in bases)
        groups.append(Group(tuple(place[b] for b in bases), maps, tuple(listed), tuple(source), tuple(moves_of)))
    cost = sum(group_taps(k, g, diagonal) for g in groups)
    if cost > k * k * len(channels):
        return None, f"folded it would cost {cost / (k * k * len(channels)):.2f} times as much"
    return groups, ""
