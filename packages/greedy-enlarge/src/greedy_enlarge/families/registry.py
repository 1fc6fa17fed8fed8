"""The families: how each lists its layers, what it refuses, and the networks known by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError, choose
from greedy_enlarge.families import ghost, mbconv, residual
from greedy_enlarge.families.bases import BASES
from greedy_enlarge.families.net import Net
from greedy_enlarge.families.sinks import Sink
from greedy_enlarge.spec import ArchSpec

__all__ = ["BASES", "FAMILIES", "Family", "base", "family_of", "net_of"]


@dataclass(frozen=True)
class Family:
    """What is particular to a family.

    Attributes:
        name: As in :data:`greedy_enlarge.spec.STAGES`.
        walk: Lists all layers.
        blocks: The template of a network, one entry a stage; refuses what is not of the family.
        strides: Per stage.
        stem_stride: Of all that comes before the stages.
        stem: Default channels of the stem; 0 where it follows from the widths.
        head: Default channels before the classifier; 0 where there are none of its own, or they follow.
        width_step: Default step of a width move.
        grows: Whether its depths and widths can be changed.
    """

    name: str
    walk: Callable[[Net, Sink], None]
    blocks: Callable[[ArchSpec], tuple[Any, ...]]
    strides: Callable[[ArchSpec], tuple[int, ...]]
    stem_stride: int = 2
    stem: int = 0
    head: int = 0
    width_step: int = 8
    grows: bool = True

    def total_stride(self, spec: ArchSpec) -> int:
        """Picture side over the side of the last feature map."""
        total = self.stem_stride
        for stride in self.strides(spec):
            total *= stride
        return total

    def width_grain(self, spec: ArchSpec) -> int:
        """What every width must be a multiple of."""
        if self.name == "regnet":
            return self.blocks(spec)[0].group
        return 4 if spec.template == ("bottleneck",) else 1

    def stage_strides(self, spec: ArchSpec) -> list[int]:
        """Picture side over feature side at the end of each stage."""
        total, found = self.stem_stride, []
        for stride in self.strides(spec):
            total *= stride
            found.append(total)
        return found


def _no_template(spec: ArchSpec) -> None:
    if spec.template:
        raise UserError(f"spec.template={list(spec.template)} is for the families custom, resnet and regnet only")


def _derived(spec: ArchSpec, *fields: str) -> None:
    for field in fields:
        if getattr(spec, field) is not None:
            raise UserError(
                f"spec.{field}={getattr(spec, field)} follows from the widths in {spec.family}: leave it out"
            )


def _check_squeezes(spec: ArchSpec, blocks: tuple[mbconv.Block, ...]) -> tuple[mbconv.Block, ...]:
    """A squeeze to no channel at all cannot be built."""
    inputs = spec.stem or 32
    for stage, (block, width) in enumerate(zip(blocks, spec.widths, strict=True)):
        for c in (inputs, width) if spec.depths[stage] > 1 else (inputs,):
            hidden = mbconv.scaled_divisible(c, block.expansion, 8) if block.kind in ("ir", "er") else c
            if block.squeeze and mbconv.nearest_even(hidden * (block.squeeze / block.expansion)) < 1:
                raise UserError(f"spec: stage {stage + 1} squeezes {c} channels to none, make what feeds it wider")
        inputs = width
    return blocks


def _efficientnet(spec: ArchSpec) -> tuple[mbconv.Block, ...]:
    _no_template(spec)
    return _check_squeezes(spec, mbconv.EFFICIENTNET)


def _custom(spec: ArchSpec) -> tuple[mbconv.Block, ...]:
    blocks = tuple(mbconv.parse(string)[0] for string in spec.template)
    total = 2
    for block in blocks:
        total *= block.stride
    if total > 32:
        raise UserError(f"spec.template has a total stride of {total}, timm builds at most 32")
    return _check_squeezes(spec, blocks)


def _ghost_large(spec: ArchSpec) -> tuple[()]:
    _no_template(spec)
    _derived(spec, "stem", "head")
    return ()


def _ghost_published(spec: ArchSpec) -> tuple[()]:
    _no_template(spec)
    _derived(spec, "stem", "head")
    fixed = BASES["ghostnet_100"]
    if (spec.depths, spec.widths) != (fixed["depths"], fixed["widths"]):
        raise UserError(
            f"spec.family=ghostnet is the published 1.0x network, which has depths {list(fixed['depths'])} and widths "
            f"{list(fixed['widths'])} only; family ghostnet_large scales"
        )
    return ()


def _resnet(spec: ArchSpec) -> tuple[str, ...]:
    if spec.template not in (("basic",), ("bottleneck",)):
        raise UserError(f"spec.template={list(spec.template)} of a resnet must be ['basic'] or ['bottleneck']")
    if spec.head is not None:
        raise UserError(f"spec.head={spec.head}: a resnet has no head of its own, leave it out")
    if spec.stem not in (None, 64):
        raise UserError(f"spec.stem={spec.stem} of a resnet must be 64: timm builds no other")
    for i, width in enumerate(spec.widths):
        if spec.template == ("bottleneck",) and width % 4:
            raise UserError(f"spec.widths[{i}]={width} must be a multiple of 4 in a bottleneck resnet")
    return spec.template


def _regnet(spec: ArchSpec) -> tuple[residual.RegNetKind, ...]:
    kind = residual.regnet_kind(spec.template)
    if spec.head is not None:
        raise UserError(f"spec.head={spec.head}: a regnet has no head of its own, leave it out")
    for i, width in enumerate(spec.widths):
        if width % kind.group:
            raise UserError(f"spec.widths[{i}]={width} must be a multiple of the group width {kind.group}")
    if kind.squeeze and min(spec.stem or 32, *spec.widths) < 3:
        raise UserError("spec: stem and widths of a regnet y must be at least 3, its squeeze would have no channel")
    return (kind,)


def _mb_strides(spec: ArchSpec) -> tuple[int, ...]:
    blocks = mbconv.EFFICIENTNET if spec.family == "efficientnet" else _custom(spec)
    return tuple(block.stride for block in blocks)


FAMILIES: dict[str, Family] = {
    "efficientnet": Family("efficientnet", mbconv.walk, _efficientnet, _mb_strides, stem=32, head=1280),
    "ghostnet": Family(
        "ghostnet", ghost.walk_published, _ghost_published, lambda _: ghost.STRIDES, width_step=4, grows=False
    ),
    "ghostnet_large": Family("ghostnet_large", ghost.walk_large, _ghost_large, lambda _: ghost.STRIDES, width_step=4),
    "resnet": Family("resnet", residual.walk_resnet, _resnet, lambda _: (1, 2, 2, 2), stem_stride=4, stem=64),
    "regnet": Family("regnet", residual.walk_regnet, _regnet, lambda _: (2, 2, 2, 2), stem=32),
    "custom": Family("custom", mbconv.walk, _custom, _mb_strides, stem=32, head=1280),
}


def family_of(spec: ArchSpec) -> Family:
    """The family of a network.

    Raises:
        UserError: If the network is not one the family can be.
    """
    family = FAMILIES[spec.family]
    family.blocks(spec)
    return family


def net_of(spec: ArchSpec) -> Net:
    """The numbers of one network.

    Raises:
        UserError: As :func:`family_of`.
    """
    family = FAMILIES[spec.family]
    stem, head = spec.stem or family.stem, spec.head or family.head
    blocks = family.blocks(spec)
    return Net(spec.depths, spec.widths, spec.resolution, stem, head, spec.classes, spec.in_chans, blocks)


def base(name: str, **changes: Any) -> ArchSpec:
    """A network known by name.

    Args:
        name: One of :data:`BASES`.
        **changes: Fields of :class:`ArchSpec` to change.

    Raises:
        UserError: If there is no such network, or a change does not fit.

    Example:
        >>> base("efficientnet_b0").depths
        (1, 2, 2, 3, 3, 4, 1)
    """
    return ArchSpec(**{**BASES[choose("base", name, list(BASES))], **changes})
