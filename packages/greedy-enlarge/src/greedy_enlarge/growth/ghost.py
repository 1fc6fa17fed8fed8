"""Growth of GhostNet, whose channels lie as [primary half | cheap half] everywhere."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from greedy_enlarge.growth.copying import Copier, ghost_map, lead

__all__ = ["grow_ghost"]


def grow_ghost(old: Any, new: Any, copier: Copier) -> list[str]:
    """Copy; returns why the function is not preserved, if it is not."""
    reasons = []
    # The stem is added to ghost modules' outputs where the first stage has a skip connection: the same order.
    residual = ghost_map(*copier.width("conv_stem"))
    copier.stem(residual)
    for s, (before, after) in enumerate(zip(old.blocks, new.blocks, strict=True)):
        for b, block in enumerate(after):
            name = f"blocks.{s}.{b}"
            if b >= len(before):
                copier.silence(f"{name}.ghost2.primary_conv.1")
                copier.silence(f"{name}.ghost2.cheap_operation.1")
                continue
            if bool(len(before[b].shortcut)) != bool(len(block.shortcut)):
                what = "vanishes" if len(block.shortcut) else "appears"
                reasons.append(f"a skip connection {what} in block {b + 1} of stage {s + 1}")
            residual = _block(copier, name, before[b].block, block.block, residual)
    tail = lead(*copier.width("conv_tail.0"))
    smaller, larger = copier.width("conv_tail.0")
    if larger < smaller:
        reasons.append(f"the tail shrinks from {smaller} to {larger} channels with the hidden width of the last block")
    copier.conv("conv_tail.0", "conv_tail.0", tail, residual)
    copier.norm("conv_tail.1", "conv_tail.1", tail, zero=False)
    head = lead(*copier.width("conv_head"))
    copier.conv("conv_head", "conv_head", head, tail, zero=True)
    copier.conv("classifier", "classifier", lead(*copier.width("classifier")), head, zero=True)
    return reasons


def _module(copier: Copier, name: str, channels: tuple[int, int], inputs: Tensor, *, zero: bool) -> Tensor:
    """Copy a ghost module; ``zero`` if its new outputs shall be 0, as residual channels must."""
    half = lead(*copier.width(f"{name}.primary_conv.0"))
    primary, cheap = f"{name}.primary_conv", f"{name}.cheap_operation"
    copier.conv(f"{primary}.0", f"{primary}.0", half, inputs, zero=zero)
    copier.norm(f"{primary}.1", f"{primary}.1", half, zero=zero)
    copier.conv(f"{cheap}.0", f"{cheap}.0", half, None)
    copier.norm(f"{cheap}.1", f"{cheap}.1", half, zero=zero)
    if zero and channels[0] % 2 and channels[1] > channels[0]:
        # The last cheap channel of an odd module was cut off; in the larger one it is an output, and a new one.
        for part in ("weight", "bias"):
            copier.new[f"{cheap}.1.{part}"][len(half) - 1] = 0.0
    return ghost_map(*channels)


def _block(copier: Copier, name: str, old: Any, new: Any, inputs: Tensor) -> Tensor:
    """Copy one block; returns where its output channels went."""
    hidden = _module(copier, f"{name}.ghost1", (old.hidden, new.hidden), inputs, zero=False)
    if old.stride > 1:
        copier.conv(f"{name}.conv_dw", f"{name}.conv_dw", hidden, None)
        copier.norm(f"{name}.bn_dw", f"{name}.bn_dw", hidden, zero=False)
    if old.squeeze:
        copier.squeeze(f"{name}.se", f"{name}.se", "conv_reduce", "conv_expand", hidden)
    outputs = _module(copier, f"{name}.ghost2", (old.outputs, new.outputs), hidden, zero=True)
    shortcut = f"{name}.shortcut"
    if f"{shortcut}.0.weight" in copier.old and f"{shortcut}.0.weight" in copier.new:
        copier.conv(f"{shortcut}.0", f"{shortcut}.0", inputs, None)
        copier.norm(f"{shortcut}.1", f"{shortcut}.1", inputs, zero=False)
        copier.conv(f"{shortcut}.2", f"{shortcut}.2", outputs, inputs)
        copier.norm(f"{shortcut}.3", f"{shortcut}.3", outputs, zero=True)
    return outputs
