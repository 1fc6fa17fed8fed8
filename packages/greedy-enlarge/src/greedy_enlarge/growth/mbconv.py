"""Growth of EfficientNet and of networks from timm arch strings."""

from __future__ import annotations

from typing import Any

from torch import nn

from greedy_enlarge.growth.copying import Copier, lead

__all__ = ["grow_mbconv"]

# Per block class of timm: what raises channels to the hidden ones, what works on those, what projects back; the norm
# after each.
_PARTS = {
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "DepthwiseSeparableConv": (None, ("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "EdgeResidual": (("conv_exp", "bn1"), None, ("conv_pwl", "bn2")),
    "ConvBnAct": (None, None, ("conv", "bn1")),
}


def grow_mbconv(old: Any, new: Any, copier: Copier) -> list[str]:
    """Copy; returns why the function is not preserved, if it is not."""
    reasons = []
    residual = lead(*copier.width("conv_stem"))
    copier.stem(residual)
    for s, (before, after) in enumerate(zip(old.blocks, new.blocks, strict=True)):
        for b, block in enumerate(after):
            name = f"blocks.{s}.{b}"
            if b >= len(before):
                copier.silence(f"{name}.{_PARTS[type(block).__name__][2][1]}")  # type: ignore[index]
                if not block.has_skip:
                    reasons.append(f"stage {s + 1} has no skip connection around its new block {b + 1}")
                continue
            if before[b].has_skip != block.has_skip:
                what = "appears" if block.has_skip else "vanishes"
                reasons.append(f"a skip connection {what} in block {b + 1} of stage {s + 1}")
            residual = _block(copier, name, block, residual)
    inputs = residual
    head = lead(*copier.width("conv_head"))
    copier.conv("conv_head", "conv_head", head, inputs)
    copier.norm("bn2", "bn2", head, zero=False)
    copier.conv("classifier", "classifier", lead(*copier.width("classifier")), head, zero=True)
    return reasons


def _block(copier: Copier, name: str, block: nn.Module, inputs: Any) -> Any:
    """Copy one block; returns where its output channels went."""
    raised, spatial, projected = _PARTS[type(block).__name__]
    hidden = inputs
    if raised:
        hidden = lead(*copier.width(f"{name}.{raised[0]}"))
        copier.conv(f"{name}.{raised[0]}", f"{name}.{raised[0]}", hidden, inputs)
        copier.norm(f"{name}.{raised[1]}", f"{name}.{raised[1]}", hidden, zero=False)
    if spatial:
        copier.conv(f"{name}.{spatial[0]}", f"{name}.{spatial[0]}", hidden, None)
        copier.norm(f"{name}.{spatial[1]}", f"{name}.{spatial[1]}", hidden, zero=False)
    if f"{name}.se.conv_reduce.weight" in copier.old:
        copier.squeeze(f"{name}.se", f"{name}.se", "conv_reduce", "conv_expand", hidden)
    assert projected is not None
    outputs = lead(*copier.width(f"{name}.{projected[0]}"))
    # A plain convolution reads residual channels, whose new ones are 0; a projection reads hidden ones, which are not.
    plain = raised is None and spatial is None
    copier.conv(f"{name}.{projected[0]}", f"{name}.{projected[0]}", outputs, hidden, zero=not plain)
    copier.norm(f"{name}.{projected[1]}", f"{name}.{projected[1]}", outputs, zero=True)
    return outputs
